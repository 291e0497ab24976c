"""Which file is written to, and that nothing is replaced without a question."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers import Image, Labels
from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget

from napari_unet3d.config import default_class
from napari_unet3d.data.io.outputs import create_output
from napari_unet3d.errors import BadInputError
from napari_unet3d.widgets.parts.file_dialogs import (
    ask_model,
    ask_segmentation,
    complete_model_path,
    complete_path,
)
from napari_unet3d.widgets.viewer.layers import prediction_layer
from napari_unet3d.widgets.viewer.saving import check_not_open, save_layer


@pytest.mark.parametrize(
    ("typed", "kind", "expected"),
    [
        ("a", "OME-TIFF (*.ome.tif *.tif)", "a.ome.tif"),
        ("a", "OME-Zarr (*.ome.zarr)", "a.ome.zarr"),
        ("a.v2", "OME-TIFF (*.ome.tif *.tif)", "a.v2.ome.tif"),
        ("a.TIF", "OME-Zarr (*.ome.zarr)", "a.TIF"),
    ],
)
def test_the_suffix_is_completed(typed: str, kind: str, expected: str) -> None:
    assert complete_path(typed, kind) == Path(expected)


def test_models_have_one_suffix() -> None:
    assert complete_model_path("m") == Path("m.unet3d")
    assert complete_model_path("m.v2") == Path("m.v2.unet3d")
    assert complete_model_path("m.unet3d") == Path("m.unet3d")


@pytest.mark.parametrize(
    ("ask", "file"), [(lambda w: ask_segmentation(w, "s"), "r.ome.tif"), (ask_model, "r.unet3d")]
)
def test_what_is_there_is_replaced_only_after_a_question(
    qtbot: Any, tmp_path: Path, monkeypatch: Any, ask: Any, file: str
) -> None:
    window = QWidget()
    qtbot.addWidget(window)
    (tmp_path / file).write_text("precious")
    chosen: list[str] = []
    typed = [str(tmp_path / "r"), str(tmp_path / "r"), ""]
    answers = [QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes]
    asked: list[str] = []

    def choose(_parent: Any, _title: str, suggestion: str, *_: Any) -> tuple[str, str]:
        chosen.append(suggestion)
        return typed.pop(0), "OME-TIFF (*.ome.tif *.tif)"

    def question(_parent: Any, _title: str, text: str) -> Any:
        asked.append(text)
        return answers.pop(0)

    monkeypatch.setattr(QFileDialog, "getSaveFileName", choose)
    monkeypatch.setattr(QMessageBox, "question", question)
    assert ask(window) == tmp_path / file  # No, then the same name and Yes
    assert len(asked) == 2
    assert file in asked[0]
    assert chosen[1] == str(tmp_path / file)
    assert ask(window) is None


def transforms(path: Path) -> list[dict[str, Any]]:
    attributes = json.loads((path / ".zattrs").read_text())
    found: list[dict[str, Any]] = attributes["multiscales"][0]["datasets"][0][
        "coordinateTransformations"
    ]
    return found


def test_a_saved_prediction_lies_where_the_layer_lies(tmp_path: Path) -> None:
    layer = prediction_layer(
        np.zeros((2, 3, 4, 5), np.uint8),
        "p",
        [default_class(2, "nucleus")],
        {
            "scale": (2, 3, 0.5, 0.5),
            "translate": (0, 10, 20, 30),
            "units": ("minute", "mm", "mm", "mm"),
        },
    )
    path = tmp_path / "p.ome.zarr"
    assert list(save_layer(layer, path))[-1] == 1
    scale, translation = transforms(path)
    assert scale["scale"] == pytest.approx([120, 3, 0.5, 0.5])
    assert translation["translation"] == pytest.approx([0, 10, 20, 30])
    label = json.loads((path / ".zattrs").read_text())["image-label"]
    assert label["properties"][1] == {"label-value": 2, "class": "nucleus"}


def test_a_position_is_in_the_unit_of_the_voxel_size(tmp_path: Path) -> None:
    """A length that files do not know is written in micrometers, and so is the position."""
    layer = Labels(np.zeros((3, 4, 5), np.uint8), scale=(2, 1, 1), units=("cm",) * 3)
    layer.affine = np.array([[1, 0, 0, 4], [0, 1, 0, 5], [0, 0, 1, 6], [0, 0, 0, 1]])
    path = tmp_path / "p.ome.zarr"
    list(save_layer(layer, path))
    scale, translation = transforms(path)
    assert scale["scale"] == pytest.approx([2e4, 1e4, 1e4])
    assert translation["translation"] == pytest.approx([4e4, 5e4, 6e4])
    assert "image-label" not in json.loads((path / ".zattrs").read_text())


def test_a_layer_without_units_has_no_time_step(tmp_path: Path) -> None:
    layer = Labels(np.zeros((2, 3, 4, 5), np.uint8), scale=(7, 1, 1, 1))
    path = tmp_path / "p.ome.zarr"
    list(save_layer(layer, path))
    (scale,) = transforms(path)
    assert scale["scale"] == [1, 1, 1, 1]


def test_the_file_of_an_open_image_is_not_replaced(tmp_path: Path) -> None:
    from napari.layers._source import layer_source

    place = tmp_path / "raw.ome.zarr"
    with create_output(place, (3, 4, 5), "uint8") as out:
        out[:] = 1
    (place / "labels").mkdir()
    with layer_source(path=str(place)):
        image = Image(np.zeros((3, 4, 5)))
    with layer_source(path=str(tmp_path / "older.tif")):
        older = Labels(np.zeros((3, 4, 5), np.uint8))  # a result that was opened: may be replaced
    (tmp_path / "older.tif").write_bytes(b"")
    layers = [image, older, Labels(np.zeros((3, 4, 5), np.uint8))]
    for target in (place, place / "0", place / "a.zarr"):
        with pytest.raises(BadInputError):
            check_not_open(target, layers)
    for target in (place / "labels" / "a.zarr", tmp_path / "older.tif", tmp_path / "new.tif"):
        check_not_open(target, layers)
