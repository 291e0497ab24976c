"""Tell what was trained and measured, when a training is over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_unet3d.cli.terminal import errors, tell, visible
from napari_unet3d.events import mean
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.prediction.scores import show
from napari_unet3d.session.texts import starved_text


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
    for s in record.held_out:
        info = classes[s.value]
        tell(
            f"  {visible(info.name)} ({info.output_value}): IoU {show(s.iou)}, Dice {show(s.dice)}"
        )
    iou = mean([s.iou for s in record.held_out])
    dice = mean([s.dice for s in record.held_out])
    tell(f"  mean: IoU {show(iou)}, Dice {show(dice)}")
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
    return {
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
