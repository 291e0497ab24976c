"""Compare a segmentation with its truth, and write the scores as a table or a dictionary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_unet3d.cli.terminal import errors
from napari_unet3d.data.conventions import read_convention
from napari_unet3d.data.io.reading import read_labels
from napari_unet3d.data.slices import parse_slices
from napari_unet3d.events import mean
from napari_unet3d.prediction.comparison import (
    Comparison,
    TruthKind,
    check_shapes,
    compare,
    guess_kind,
)
from napari_unet3d.prediction.scores import show


def compare_files(prediction: Path, truth: Path, skip: str, kind: TruthKind | None) -> Comparison:
    """Compare two files of labels.

    Parameters
    ----------
    prediction, truth
        Files with integers of the same shape.
    skip
        Slices to leave out, as `parse_slices` reads them.
    kind
        What 0 means in the truth; when None, it is guessed, and the guess is noted.
    """
    slices = parse_slices(skip)
    predicted, true = read_labels(prediction).data, read_labels(truth).data
    check_shapes(predicted, true)
    if kind is None:
        kind, text = guess_kind(read_convention(predicted), read_convention(true))
        if text:
            errors.note(text)
    comparison = compare(predicted, true, kind, slices)
    for note in comparison.notes:
        errors.note(note)
    return comparison


def scores_as_table(comparison: Comparison) -> str:
    """Write scores as a table of lines for people."""
    iou, dice = _means(comparison)
    lines = [f"{'class':>6} {'IoU':>6} {'Dice':>6} {'voxels':>12}"]
    lines += [
        f"{s.value:>6} {show(s.iou):>6} {show(s.dice):>6} {s.voxels:>12}" for s in comparison.scores
    ]
    return "\n".join([*lines, f"{'mean':>6} {show(iou):>6} {show(dice):>6}"])


def scores_as_dict(comparison: Comparison) -> dict[str, Any]:
    """Write scores for programs; None for a class that does not occur."""
    iou, dice = _means(comparison)
    classes = {
        s.value: {"iou": s.iou, "dice": s.dice, "voxels": s.voxels} for s in comparison.scores
    }
    return {
        "classes": classes,
        "mean_iou": iou,
        "mean_dice": dice,
        "labels": comparison.kind,
        "notes": errors.notes,
    }


def _means(comparison: Comparison) -> tuple[float | None, float | None]:
    return mean([s.iou for s in comparison.scores]), mean([s.dice for s in comparison.scores])
