"""Tell what was trained and measured, when a training is over."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from napari_unet3d.cli.tasks.evidence import print_evidence
from napari_unet3d.cli.terminal import errors, tell, tell_json, visible
from napari_unet3d.events import mean
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.prediction.scores import show
from napari_unet3d.session.quality import class_qualities, interval_note, show_estimate
from napari_unet3d.session.texts import show_iterations, starved_text


def say_how_to_go_on(bundle: ModelBundle, model: Path, *, in_session: bool = False) -> None:
    """Tell how to continue a training that was stopped, or too short for the network to learn."""
    record = bundle.record
    how = f"--from {model}"
    if bundle.state:
        how = "--resume" if in_session else f"--resume {model}"
        if record.completed:
            how += f" --seconds N, with N above {record.seconds:.0f} (it counts from the beginning)"
    if record.starved:
        errors.print(f"{starved_text(bundle)} Go on with {how}.")
    elif not record.completed:
        errors.print(f"The budget was not used up. Go on with {how}.")


def tell_training(path: Path, bundle: ModelBundle, *, as_json: bool) -> None:
    """Tell where the model of a training is, and all that was measured of it.

    Parameters
    ----------
    path, bundle
        The file, and the model.
    as_json
        Whether one JSON object is printed, for programs.
    """
    if as_json:
        tell_json({"model": path, **training_as_dict(bundle), "notes": errors.notes})
        return
    tell(f"Model: {path} ({show_iterations(bundle.record.iterations)})")
    print_scores(bundle)
    print_evidence(bundle)


def print_scores(bundle: ModelBundle) -> None:
    """Print the scores on the held-out slices, and how far to trust them."""
    record = bundle.record
    if not record.held_out:
        tell("Not measured: hold out a slice (--hold-out z=12) to learn how good the model is.")
        return
    tell(
        f"Held-out slices {', '.join(record.held_out_slices)} (never trained on), measured with "
        "the final model (looks on the way were quicker and rougher):"
    )
    classes = {c.value: c for c in bundle.classes}
    rows = {row.value: row for row in class_qualities(record.held_out_by_slice, bundle.classes)}
    for s in record.held_out:
        info = classes[s.value]
        text = f"  {visible(info.name)} ({info.output_value}): "
        if (row := rows.get(info.value)) is None:
            text += f"IoU {show(s.iou)}, Dice {show(s.dice)}"
        else:
            text += f"IoU {show_estimate(row.iou, 3)}, Dice {show_estimate(row.dice, 3)}"
            if row.distance.value is not None:
                text += f", distance {show_estimate(row.distance)} {bundle.unit}"
        tell(text)
    iou = mean([s.iou for s in record.held_out])
    dice = mean([s.dice for s in record.held_out])
    tell(f"  mean: IoU {show(iou)}, Dice {show(dice)}")
    if rows:
        tell(f"  {interval_note(len(record.held_out_by_slice))}")
    if record.held_out_scored < 1:
        tell(f"  Time was short: scored on {record.held_out_scored:.0%} of their labelled voxels.")
    near = record.held_out_distance
    tell(
        "  Slices of one stack look alike"
        + ("" if near is None else f" (the nearest trained slice is {near} away)")
        + ": another stack may do worse."
    )


def training_as_dict(bundle: ModelBundle) -> dict[str, Any]:
    """Describe a training for programs; scores are None where nothing was measured."""
    record = bundle.record
    measured = {s.value: s for s in record.held_out}
    classes = {
        c.output_value: {"name": c.name}
        | {key: getattr(measured.get(c.value), key, None) for key in ("iou", "dice", "voxels")}
        for c in bundle.classes
    }
    evidence = record.evidence
    return {
        "held_out_by_slice": [asdict(s) for s in record.held_out_by_slice],
        "cross_validation": evidence.cross_validation and asdict(evidence.cross_validation),
        "learning_curve": evidence.learning_curve and asdict(evidence.learning_curve),
        "iterations": record.iterations,
        "seconds": round(record.seconds, 3),
        "completed": record.completed,
        "classes": classes,
        "mean_iou": mean([s.iou for s in record.held_out]),
        "mean_dice": mean([s.dice for s in record.held_out]),
        "held_out_slices": record.held_out_slices,
        "held_out_scored": record.held_out_scored if record.held_out else None,
        "held_out_distance": record.held_out_distance,
    }
