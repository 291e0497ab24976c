"""Compare a segmentation with its truth."""

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
    """Compare two files; what the truth was taken for is noted when `kind` is None."""
    slices = parse_slices(skip)
    predicted, true = read_labels(prediction).data, read_labels(truth).data
    check_shapes(predicted, true)
    if kind is None:
        kind, text = guess_kind(read_convention(predicted), read_convention(true))
        if text:
            errors.note(text)
    found = compare(predicted, true, kind, slices)
    for note in found.notes:
        errors.note(note)
    return found


def scores_as_table(found: Comparison) -> str:
    """Scores as lines for people."""
    iou, dice = _means(found)
    lines = [f"{'class':>6} {'IoU':>6} {'Dice':>6} {'voxels':>12}"]
    lines += [
        f"{s.value:>6} {show(s.iou):>6} {show(s.dice):>6} {s.voxels:>12}" for s in found.scores
    ]
    return "\n".join([*lines, f"{'mean':>6} {show(iou):>6} {show(dice):>6}"])


def scores_as_dict(found: Comparison) -> dict[str, Any]:
    """Scores for programs; None for a class that does not occur."""
    iou, dice = _means(found)
    classes = {s.value: {"iou": s.iou, "dice": s.dice, "voxels": s.voxels} for s in found.scores}
    return {
        "classes": classes,
        "mean_iou": iou,
        "mean_dice": dice,
        "labels": found.kind,
        "notes": errors.notes,
    }


def _means(found: Comparison) -> tuple[float | None, float | None]:
    return mean([s.iou for s in found.scores]), mean([s.dice for s in found.scores])
