"""Which file is written to, and that nothing is replaced without a question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget

from napari_unet3d.widgets.saving import (
    ask_model,
    ask_segmentation,
    complete_model_path,
    complete_path,
)


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
