"""The axes of a layer are those that its file names. No window is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from napari.layers import Image

from napari_unet3d.data.io.reading import read_geometry
from napari_unet3d.errors import BadInputError
from napari_unet3d.widgets.viewer import axes
from napari_unet3d.widgets.viewer.image_volume import image_volume

Z, C, Y, X = 6, 2, 20, 24


def opened(path: Path, data: np.ndarray) -> Image:
    """The layer that napari's own reader makes of a file: the array as it is."""
    tifffile.imwrite(path, data)
    return Image(tifffile.imread(path), name=path.stem)


@pytest.mark.parametrize(
    ("names", "meaning"), [("CZYX", "channels"), ("TZYX", "time"), ("ZCYX", None), ("ZTYX", None)]
)
def test_the_file_names_the_axes_of_a_layer(
    tmp_path: Path, names: str, meaning: axes.FirstAxis | None
) -> None:
    sizes = {"Z": Z, "C": C, "T": 3, "Y": Y, "X": X}
    data = np.zeros([sizes[a] for a in names], np.uint8)
    path = tmp_path / "cells.ome.tif"
    tifffile.imwrite(path, data, metadata={"axes": names})
    image = Image(tifffile.imread(path), name="cells")
    assert image.data.shape == data.shape
    note = axes.take_axes(image, read_geometry(path))
    assert axes.named_axes(image) == names
    assert axes.assumed_text(image) == ""
    if meaning is None:
        assert "z, c, y, x" in axes.order_problem(image) or "z, t" in axes.order_problem(image)
        with pytest.raises(BadInputError, match="axes z, "):
            image_volume(image)
    else:
        assert meaning in note
        assert axes.first_axis_of(image) == meaning
        assert not axes.order_problem(image)
        assert image_volume(image, meaning)[0].axes == names
    assert axes.take_axes(image, read_geometry(path)) == ""  # the user may have named them since


def test_a_file_without_names_says_nothing_and_time_is_assumed(tmp_path: Path) -> None:
    path = tmp_path / "cells.tif"
    image = opened(path, np.zeros((9, Z, Y, X), np.uint8))
    assert axes.take_axes(image, read_geometry(path)) == ""
    assert axes.first_axis_of(image) == "time"
    assert "time (9 time points)" in axes.assumed_text(image)
    axes.name_first_axis(image, "channels")
    assert axes.first_axis_of(image) == "channels"
    assert axes.assumed_text(image) == ""


def test_a_layer_that_shows_something_else_than_its_file_keeps_its_labels(tmp_path: Path) -> None:
    path = tmp_path / "cells.ome.tif"
    tifffile.imwrite(path, np.zeros((C, Z, Y, X), np.uint8), metadata={"axes": "CZYX"})
    for shape in ((C, Z, Y, X - 1), (Z, C, Y, X), (1, C, Z, Y)):
        image = Image(np.zeros(shape, np.uint8))
        assert axes.take_axes(image, read_geometry(path)) == ""
        assert axes.named_axes(image) == ""
    single = Image(np.zeros((1, C, Z, Y, X), np.uint8))
    assert axes.take_axes(single, read_geometry(path))
    assert axes.named_axes(single) == "CZYX"


def test_a_layer_from_no_file_can_name_its_axes_too() -> None:
    image = Image(np.zeros((Z, C, Y, X)), axis_labels=("z", "channel", "y", "x"))
    assert "layer of its own" in axes.order_problem(image)
    assert axes.order_problem(Image(np.zeros((C, Z, Y, X)))) == ""
    assert axes.order_problem(Image(np.zeros((Z, Y, X)), axis_labels=("x", "y", "z"))) == ""
