"""Compare a segmentation with its truth, and write the scores as a table or a dictionary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_unet3d.cli.terminal import errors
from napari_unet3d.data.conventions import MOST_CLASSES, Convention, read_convention
from napari_unet3d.data.io.reading import read_labels
from napari_unet3d.data.slices import check_in_stack, check_layout, parse_slices
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import mean
from napari_unet3d.objects.instances import InstanceScores, compare_instances
from napari_unet3d.prediction.comparison import (
    Comparison,
    TruthKind,
    check_shapes,
    compare,
    guess_kind,
)
from napari_unet3d.prediction.scores import show

_FEW_CLASSES = 8
"""Different numbers that nobody asks about: annotations with more classes are rare."""


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
        ours, theirs = read_convention(predicted), read_convention(true)
        _refuse_objects({prediction: ours, truth: theirs})
        kind, text = guess_kind(ours, theirs, true)
        if text:
            errors.note(text)
    comparison = compare(predicted, true, kind, slices)
    for note in comparison.notes:
        errors.note(note)
    return comparison


def compare_object_files(prediction: Path, truth: Path, skip: str) -> InstanceScores:
    """Compare two files of numbered objects; parameters as `compare_files`."""
    slices = parse_slices(skip)
    predicted, true = read_labels(prediction).data, read_labels(truth).data
    for labels in (predicted, true):
        check_layout(labels)
    check_shapes(predicted, true)
    for ref in slices:
        check_in_stack(true, ref, f"--skip {ref}")
    scores = compare_instances(predicted, true, slices)
    if not scores.true:
        raise BadInputError(
            f"'{truth}' holds no object: all of its voxels are 0. Give a file of numbered objects."
        )
    if scores.predicted < 2 <= scores.true:
        errors.note(
            f"The prediction holds {scores.predicted} object, the truth {scores.true}. Number the "
            "objects of a segmentation first: napari-unet3d objects."
        )
    return scores


def _refuse_objects(conventions: dict[Path, Convention]) -> None:
    """Refuse files that hold more numbers than classes; note it where they may be either."""
    n, path = max((len(c.counts), str(path)) for path, c in conventions.items())
    text = f"'{path}' holds {n} different numbers: these look like numbered objects."
    if n > MOST_CLASSES:
        raise BadInputError(
            f"{text} Say --instances to compare object by object, or --labels dense to compare "
            "number by number."
        )
    if n > _FEW_CLASSES:
        errors.note(f"{text} If so, say --instances to compare object by object.")


def objects_as_table(scores: InstanceScores) -> str:
    """Write the scores of objects as lines for people."""
    lines = [
        f"{scores.true} true objects, {scores.predicted} predicted",
        f"{'IoU':>6} {'AP':>6} {'F1':>6} {'TP':>6} {'FP':>6} {'FN':>6}",
    ]
    lines += [
        f"{f.iou:>6} {show(f.average_precision):>6} {show(f.f1):>6} {f.tp:>6} {f.fp:>6} {f.fn:>6}"
        for f in scores.found
    ]
    split, merge = show(scores.split), show(scores.merge)
    return "\n".join([*lines, f"Variation of information: split {split}, merge {merge} bits"])


def objects_as_dict(scores: InstanceScores) -> dict[str, Any]:
    """Write the scores of objects for programs."""
    return {
        "predicted": scores.predicted,
        "true": scores.true,
        "by_iou": {
            str(f.iou): {
                "average_precision": f.average_precision,
                "f1": f.f1,
                "tp": f.tp,
                "fp": f.fp,
                "fn": f.fn,
            }
            for f in scores.found
        },
        "variation_of_information": {"split": scores.split, "merge": scores.merge},
        "notes": errors.notes,
    }


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
