"""Files that napari opens through the plugin keep what is known about their voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from napari.layers import Layer

from napari_unet3d.data.io.outputs import create_output
from napari_unet3d.errors import BadInputError
from napari_unet3d.widgets.viewer.reader import get_reader

SHAPE = (6, 20, 24)
DATA = np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.uint16)


def opened(path: Path) -> list[Layer]:
    from napari.components import ViewerModel

    read = get_reader(str(path))
    assert read is not None
    ((data, options, kind),) = read(str(path))
    assert kind == "image"
    found = ViewerModel().add_image(data, **options)
    return found if isinstance(found, list) else [found]


def test_an_imagej_tiff_keeps_its_voxel_size(tmp_path: Path) -> None:
    path = tmp_path / "cells.tif"
    metadata = {"axes": "ZYX", "spacing": 2.0, "unit": "um"}
    tifffile.imwrite(path, DATA, imagej=True, resolution=(2, 4), metadata=metadata)
    (layer,) = opened(path)
    np.testing.assert_allclose(layer.scale, (2, 0.25, 0.5))
    assert [str(u) for u in layer.units] == ["micrometer"] * 3
    assert layer.axis_labels == ("z", "y", "x")
    np.testing.assert_array_equal(layer.data, DATA)


def test_channels_become_layers_and_stay_lazy(tmp_path: Path) -> None:
    path = tmp_path / "cells.ome.zarr"
    with create_output(path, (2, *SHAPE), np.uint16, "CZYX", (2, 0.5, 0.25), "µm") as output:
        output[0], output[1] = DATA, DATA + 1
    first, second = opened(path)
    for layer in (first, second):
        np.testing.assert_allclose(layer.scale, (2, 0.5, 0.25))
        assert not isinstance(layer.data, np.ndarray)
    np.testing.assert_array_equal(np.asarray(second.data), DATA + 1)


@pytest.mark.parametrize("kind", ["ome", "imagej", "zarr"])
def test_layers_have_the_names_of_the_channels(tmp_path: Path, kind: str) -> None:
    both, names = np.stack([DATA, DATA + 1]), ["DNA", "actin"]
    if kind == "zarr":
        path = tmp_path / "cells.zarr"
        with create_output(path, (2, *SHAPE), np.uint16, "CZYX") as output:
            output[0], output[1] = both
        channels = [{"label": name} for name in names]
        group = zarr.open_group(path)
        group.attrs["omero"] = {"channels": channels}
    elif kind == "ome":
        path = tmp_path / "cells.ome.tif"
        tifffile.imwrite(path, both, metadata={"axes": "CZYX", "Channel": {"Name": names}})
    else:
        path = tmp_path / "cells.tif"
        labels = [f"c:{c + 1}/2 z:{z + 1}/6 - {names[c]}" for z in range(6) for c in range(2)]
        metadata = {"axes": "ZCYX", "Labels": labels}
        tifffile.imwrite(path, both.swapaxes(0, 1), imagej=True, metadata=metadata)
    assert [layer.name for layer in opened(path)] == [f"{path.name} {name}" for name in names]


def test_labels_that_name_no_channels_are_no_names(tmp_path: Path) -> None:
    path, both = tmp_path / "cells.tif", np.stack([DATA, DATA + 1], axis=1)
    for labels in (["cells"] * 12, [f"plane {i}" for i in range(12)]):
        metadata = {"axes": "ZCYX", "Labels": labels}
        tifffile.imwrite(path, both, imagej=True, metadata=metadata)
        assert [layer.name for layer in opened(path)] == ["cells.tif", "cells.tif [1]"]


def test_a_large_zarr_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "big.zarr"
    shape = (2000, 4000, 4000)
    zarr.create_array(path, shape=shape, dtype="u2", chunks=(1, 1000, 1000))
    (layer,) = opened(path)
    assert layer.data.shape == shape
    assert not isinstance(layer.data, np.ndarray)


def test_what_is_not_ours_is_left_to_others(tmp_path: Path) -> None:
    assert get_reader([str(tmp_path / "a.tif"), str(tmp_path / "b.tif")]) is None
    assert get_reader(str(tmp_path)) is None
    assert get_reader("https://example.org/a.zarr") is None
    flat = tmp_path / "flat.tif"
    tifffile.imwrite(flat, DATA[0])
    read = get_reader(str(flat))
    assert read is not None
    with pytest.raises(BadInputError, match="2D"):
        read(str(flat))
