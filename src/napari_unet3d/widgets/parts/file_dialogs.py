"""Dialogs that ask for the file of a segmentation, a model or a report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget

from napari_unet3d.model.bundle import SUFFIX

_MODEL_FILTER = f"Trained model (*{SUFFIX});;All files (*)"
_REPORT_FILTER = "Web page (*.html);;PDF (*.pdf)"
_STACK_FILTER = "Stacks (*.tif *.tiff);;All files (*)"
_TABLE_FILTER = "Table (*.csv)"
_SEGMENTATION_FILTER = "OME-TIFF (*.ome.tif *.tif);;OME-Zarr (*.ome.zarr)"


def complete_path(path: str, chosen_filter: str) -> Path:
    """Add the suffix of the chosen kind of file, unless the user typed one."""
    if path.lower().endswith((".tif", ".tiff", ".zarr")):
        return Path(path)
    return Path(path + (".ome.zarr" if "Zarr" in chosen_filter else ".ome.tif"))


def complete_model_path(path: str, _chosen_filter: str = "") -> Path:
    """Add the suffix of models, unless the user typed it."""
    return Path(path if path.lower().endswith(SUFFIX) else path + SUFFIX)


def complete_report_path(path: str, chosen_filter: str) -> Path:
    """Add the suffix of the chosen kind of report, unless the user typed one."""
    if path.lower().endswith((".html", ".pdf")):
        return Path(path)
    return Path(path + (".pdf" if "PDF" in chosen_filter else ".html"))


def complete_table_path(path: str, _chosen_filter: str = "") -> Path:
    """Add the suffix of tables, unless the user typed it."""
    return Path(path if path.lower().endswith(".csv") else path + ".csv")


def ask_segmentation(parent: QWidget, name: str, title: str = "Save segmentation") -> Path | None:
    """Ask for a file to write a segmentation to; None when the user cancels."""
    return _ask(parent, title, f"{name}.ome.tif", _SEGMENTATION_FILTER, complete_path)


def ask_table(parent: QWidget, name: str) -> Path | None:
    """Ask for a file to write a table to; None when the user cancels."""
    return _ask(parent, "Save table", f"{name}.csv", _TABLE_FILTER, complete_table_path)


def ask_model(parent: QWidget) -> Path | None:
    """Ask for a file to write a model to; None when the user cancels."""
    return _ask(parent, "Save model", f"model{SUFFIX}", _MODEL_FILTER, complete_model_path)


def ask_report(parent: QWidget, name: str) -> Path | None:
    """Ask for a file to write a report to; None when the user cancels."""
    return _ask(parent, "Write report", f"{name}.html", _REPORT_FILTER, complete_report_path)


def ask_model_to_open(parent: QWidget, title: str, suggestion: Path | None = None) -> Path | None:
    """Ask for a model file to read; None when the user cancels."""
    path, _ = QFileDialog.getOpenFileName(parent, title, str(suggestion or ""), _MODEL_FILTER)
    return Path(path) if path else None


def ask_folder(parent: QWidget, title: str) -> Path | None:
    """Ask for a folder that is there; None when the user cancels."""
    path = QFileDialog.getExistingDirectory(parent, title)
    return Path(path) if path else None


def ask_stacks(parent: QWidget) -> list[Path]:
    """Ask for stacks to read; none when the user cancels."""
    paths, _ = QFileDialog.getOpenFileNames(parent, "Stacks", "", _STACK_FILTER)
    return [Path(path) for path in paths]


def _ask(
    parent: QWidget,
    title: str,
    suggestion: str,
    filters: str,
    complete: Callable[[str, str], Path],
) -> Path | None:
    """Ask for a file to write, and ask again before an existing file is replaced.

    Qt's own question comes before the suffix is complete: when "result" is typed, Qt does not
    see that "result.ome.tif" exists. Therefore it is switched off, and asked here.
    """
    while True:
        path, kind = QFileDialog.getSaveFileName(
            parent, title, suggestion, filters, "", QFileDialog.Option.DontConfirmOverwrite
        )
        if not path:
            return None
        target = complete(path, kind)
        if not target.exists():
            return target
        answer = QMessageBox.question(
            parent, title, f"{target.name} exists already.\nReplace it?\n\n{target}"
        )
        if answer == QMessageBox.StandardButton.Yes:
            return target
        suggestion = str(target)
