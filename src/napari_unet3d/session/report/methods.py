"""A paragraph for the methods section of a paper."""

from __future__ import annotations

from napari_unet3d.data.shapes import describe_shape
from napari_unet3d.data.wording import either
from napari_unet3d.networks.geometry import parameter_count
from napari_unet3d.session.quality import class_qualities, percent, show_estimate
from napari_unet3d.session.report.content import Paragraph, Section
from napari_unet3d.session.report.scores import classes_of, evidence, measured, unit_of
from napari_unet3d.session.session import Session
from napari_unet3d.session.texts import show_duration

_OPTIMIZERS = {"adamw": "AdamW", "sgd": "stochastic gradient descent"}
"""Names of optimizers in a text."""


def methods_section(session: Session) -> Section:
    """The paragraph, ready to be copied; what was not measured is said."""
    note = Paragraph("To be copied and adapted. Add the microscope, the stain and the annotator.")
    sentences = [_data(session), _annotation(session), *_training(session), *_scores(session)]
    text = " ".join(sentence for sentence in sentences if sentence)
    return Section("Methods", (Paragraph(text, quoted=True), note))


def _data(session: Session) -> str:
    volume = session.volume
    tool = "napari-unet3d"
    if session.model is not None and session.model.bundle.record.version:
        tool += f" {session.model.bundle.record.version}"
    if volume is None:
        return f"The stack was segmented with {tool}."
    size = " × ".join(f"{s:.4g}" for s in volume.voxel_size)
    size = "unknown size" if volume.unit == "pixel" else f"{size} {volume.unit}"
    return (
        f"The stack '{volume.name}' ({describe_shape(volume.shape)} voxels of {size}; z × y × x) "
        f"was segmented with {tool}."
    )


def _annotation(session: Session) -> str:
    classes = classes_of(session)
    names = either(len(classes), "class ", "classes ") + ", ".join(c.name for c in classes)
    if session.annotation is not None:
        slices = session.annotation.slices()
        held_out = sum(s.ref in session.annotation.held_out for s in slices)
        number, voxels = len(slices), sum(sum(s.counts.values()) for s in slices)
        counted = f" ({voxels:,} labelled voxels)"
    elif session.model is not None:
        record = session.model.bundle.record
        held_out = len(record.held_out_slices)
        number, counted = len(record.trained_slices) + held_out, ""
    else:
        return ""
    noun = either(number, "slice was", "slices were")
    text = f"{number} {noun} annotated by hand{counted} with background and the {names}"
    return f"{text}; {held_out} of them were held out for validation." if held_out else f"{text}."


def _training(session: Session) -> list[str]:
    if session.model is None:
        return []
    bundle = session.model.bundle
    record, config = bundle.record, bundle.record.training_config
    start = "trained further" if record.iterations_before else "trained from scratch"
    if config.loss == "ce_dice":
        loss = f"soft Dice ({config.dice_share:g}) and cross-entropy ({1 - config.dice_share:g})"
    else:
        loss = f"'{config.loss}'"
    network = (
        f"A 3D U-Net after Çiçek et al. (2016) with {parameter_count(bundle.network):,} parameters"
        if bundle.network.kind == "unet"
        else f"A network of kind '{bundle.network.kind}'"
    )
    patch = describe_shape(record.patch_shape)
    return [
        f"{network} was {start} on the labelled voxels only (preset '{config.preset}', "
        f"{_OPTIMIZERS.get(config.optimizer, config.optimizer)}, loss: {loss}, patches of {patch} "
        "voxels with random flips, rotations, scaling and gray-value changes, seed "
        f"{config.seed}) for "
        f"{record.iterations:,} iterations in {show_duration(record.seconds)} on "
        f"{record.device}, {record.precision}.",
        "Its log-probabilities were combined with those of a pixel classifier, with weights of "
        f"{bundle.calibration.network:.2f} and {bundle.calibration.pixels:.2f}."
        if bundle.pixels
        else "",
    ]


def _scores(session: Session) -> list[str]:
    scores, sentences = measured(session), []
    if scores is None:
        sentences.append("Accuracy on held-out slices was not measured.")
    else:
        classes, unit = classes_of(session), unit_of(session)
        rows = [r for r in class_qualities(scores.by_slice, classes) if r.color is not None]
        if rows:
            listed = "; ".join(
                f"{row.name} IoU {show_estimate(row.iou)}, Dice {show_estimate(row.dice)}, mean "
                f"surface distance {show_estimate(row.distance)} {unit}"
                for row in rows
            )
        else:
            names = {c.value: c.name for c in classes}
            listed = "; ".join(
                f"{names.get(s.value, s.value)} IoU "
                + ("not measured" if s.iou is None else f"{s.iou:.2f}")
                for s in scores.classes
            )
        brackets = " (brackets: 95 % interval over slices)" if len(scores.by_slice) > 1 else ""
        noun = either(len(scores.slices), "slice")
        sentences.append(
            f"On {len(scores.slices)} held-out {noun} ({percent(scores.scored)} of their labelled "
            f"voxels measured), the scores were: {listed}{brackets}."
        )
    result = evidence(session).cross_validation
    if result is not None:
        rows = [
            r for r in class_qualities(result.by_slice, classes_of(session)) if r.color is not None
        ]
        listed = ", ".join(f"{row.name} IoU {show_estimate(row.iou)}" for row in rows)
        sentences.append(
            f"In a {len(result.folds)}-fold cross-validation over the {result.slices} annotated "
            f"slices with shorter trainings: {listed}."
        )
    return sentences
