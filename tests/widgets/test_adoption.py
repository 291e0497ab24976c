"""What may hold the annotation: a user's own layers are never taken without a question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import zarr
from napari.layers import Image, Labels
from napari.utils import DirectLabelColormap

from napari_unet3d.errors import BadInputError
from napari_unet3d.widgets.viewer.adoption import (
    can_be_painted,
    can_be_taken_unasked,
    classes_of,
    may_annotate,
)
from napari_unet3d.widgets.viewer.layers import new_annotation_layer

SHAPE = (4, 8, 9)


def labels(*values: int, **options: Any) -> Labels:
    data = np.zeros(SHAPE, np.uint16)
    data.ravel()[: len(values)] = values
    return Labels(data, name="mine", **options)


def test_only_our_layers_and_unlabelled_ones_are_taken_unasked() -> None:
    ours = new_annotation_layer(Image(np.zeros(SHAPE)), "time")
    ours.data[1, 2, 3] = 2
    assert can_be_taken_unasked(ours)
    assert can_be_taken_unasked(labels())
    assert not can_be_taken_unasked(labels(1))
    assert not can_be_taken_unasked(Labels(np.zeros((8, 9), np.uint8)))


def test_classes_are_the_labels_in_the_users_colors() -> None:
    colormap = DirectLabelColormap(color_dict={0: "transparent", 4: "#102030", None: "red"})
    found = classes_of(labels(0, 1, 4, 2, colormap=colormap))
    assert [c.value for c in found] == [2, 4]
    assert found[1].color == "#102030"
    assert [c.value for c in classes_of(labels(1, 255))] == [255]


def test_numbered_objects_are_refused_with_the_cure() -> None:
    with pytest.raises(BadInputError, match=r"300 .*such as 300: .*numbered objects.* Press New"):
        classes_of(Labels(np.arange(301, dtype=np.int32).reshape(7, 43, 1), name="mine"))
    with pytest.raises(BadInputError, match="such as -1"):
        classes_of(Labels(np.full(SHAPE, -1, np.int16)))


def test_what_cannot_be_painted_is_not_offered(tmp_path: Path) -> None:
    image = Image(np.zeros(SHAPE))
    lazy = dask.array.zeros(SHAPE, dtype=np.uint8)
    assert not may_annotate(Labels(lazy), image)
    frozen = np.zeros(SHAPE, np.uint8)
    frozen.flags.writeable = False
    assert not can_be_painted(frozen)
    stored = zarr.create_array(tmp_path / "a.zarr", shape=SHAPE, dtype="u1")
    assert can_be_painted(stored)
    assert not can_be_painted(zarr.open_array(tmp_path / "a.zarr", mode="r"))
    assert may_annotate(labels(1), image)
    assert not may_annotate(labels(1), None)
