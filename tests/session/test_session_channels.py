"""A session knows the further channels of its image, in this file or in others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from session_files import CLASSES, HELD_OUT, SHAPE, labels

from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.channels import one_channel, stack_channels
from napari_unet3d.data.io.reading import read_volume
from napari_unet3d.data.lazy import Rearranged
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.session.folder import SessionFolder
from napari_unet3d.session.opening import open_session
from napari_unet3d.session.session import ChannelSource, Session

NAME = "cells.tif.unet3d-session"


def values(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 999, SHAPE).astype(np.uint16)


def write(path: Path, array: np.ndarray, axes: str = "ZYX") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, metadata={"axes": axes})
    return path


def make(folder: Path, volume: Volume, image: Path, *channels: ChannelSource) -> None:
    painted = SparseAnnotation(labels(), CLASSES, HELD_OUT)
    session = Session(volume=volume, image_path=image, annotation=painted)
    with SessionFolder.create(folder, session) as made:
        made.set_record(made.record().model_copy(update={"channels": channels}))


def loaded(folder: Path) -> Volume:
    with SessionFolder.open(folder) as session:
        volume = session.load().volume
    assert volume is not None
    return volume


def test_channels_in_files_of_their_own_come_back_and_move_along(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    image = write(there / "cells.tif", values(0))
    actin = write(there / "actin" / "cells.tif", values(1))
    make(there / NAME, read_volume(image), image, ChannelSource(name="actin", path=actin))
    volume = loaded(there / NAME)
    assert (volume.axes, volume.n_channels) == ("CZYX", 2)
    np.testing.assert_array_equal(np.asarray(volume.data), [values(0), values(1)])
    there.rename(here)
    for _ in range(2):  # the session takes note of the new place
        np.testing.assert_array_equal(np.asarray(loaded(here / NAME).data)[1], values(1))
    with SessionFolder.open(here / NAME) as session:
        assert session.record().channels[0].path == here / "actin" / "cells.tif"


def test_channels_of_one_file_are_told_apart(tmp_path: Path) -> None:
    image = write(tmp_path / "cells.ome.tif", np.stack([values(n) for n in range(3)]), "CZYX")
    second = one_channel(read_volume(image), 1)
    make(tmp_path / NAME, second, image, ChannelSource(name="a", path=image, index=0))
    np.testing.assert_array_equal(np.asarray(loaded(tmp_path / NAME).data), [values(1), values(0)])
    opened = open_session(tmp_path / NAME, [], look=True)
    opened.folder.close()
    assert opened.found is not None
    assert (opened.found.state, opened.found.path) == ("found", image)


def test_a_channel_that_is_not_there_is_asked_for(tmp_path: Path) -> None:
    image = write(tmp_path / "cells.tif", values(0))
    actin = write(tmp_path / "actin.tif", values(1))
    make(tmp_path / NAME, read_volume(image), image, ChannelSource(name="actin", path=actin))
    write(actin, values(1)[:, :9])
    with pytest.raises(BadInputError, match=r"'actin' .*9 .* does not fit"):
        loaded(tmp_path / NAME)
    actin.unlink()
    with pytest.raises(BadInputError, match=r"'actin' of 'cells\.tif' is not at .*Put the file"):
        loaded(tmp_path / NAME)
    with SessionFolder.open(tmp_path / NAME) as session:
        update = {"channels": (ChannelSource(name="sum"),)}
        session.set_record(session.record().model_copy(update=update))
    with pytest.raises(BadInputError, match=r"'sum' .* is in no file"):
        loaded(tmp_path / NAME)


def test_an_image_taken_anyway_is_the_one_of_the_session_from_then_on(tmp_path: Path) -> None:
    image = write(tmp_path / "cells.tif", values(0))
    make(tmp_path / NAME, read_volume(image), image)
    candidate = read_volume(write(tmp_path / "other.tif", values(1))), tmp_path / "other.tif"
    short = replace(candidate[0], data=values(1)[:3])
    for volume, matches in ((short, None), (candidate[0], 0)):
        opened = open_session(tmp_path / NAME, [(volume, candidate[1])], look=False, anyway=True)
        opened.folder.close()
        assert opened.match == matches
    opened = open_session(tmp_path / NAME, [candidate], look=False)
    opened.folder.close()
    assert opened.match == 0


@pytest.mark.parametrize("axes", ["CZYX", "TCZYX"])
@pytest.mark.parametrize("lazy", [False, True])
def test_a_channel_is_taken_out_and_put_back(axes: str, lazy: bool) -> None:
    shape = (2,) * (len(axes) - 4) + (3, 4, 5, 6)
    data = np.random.default_rng(0).random(shape)
    order = range(len(axes))
    volume = Volume(Rearranged(data, order) if lazy else data, axes)
    parts = [one_channel(volume, i) for i in range(3)]
    assert {part.axes for part in parts} == {axes.replace("C", "")}
    again = stack_channels(parts[0], parts[1:])
    assert again.axes == axes
    np.testing.assert_array_equal(np.asarray(again.data), data)
    crop = parts[2].crop(0, (1, 1, 1), (2, 3, 4))[0]
    np.testing.assert_array_equal(crop, data.reshape(-1, 3, 4, 5, 6)[0, 2, 1:2, 1:3, 1:4])
    with pytest.raises(IndexError):
        one_channel(volume, 3)
