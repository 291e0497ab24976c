"""A model in words that a reviewer would accept: data, slices, settings, scores, limits."""

from __future__ import annotations

import re

from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks.geometry import parameter_count, receptive_field

_LONGEST = 500
"""Characters of a text of a model file that a card shows."""


def _plain(text: str) -> str:
    """A text of a model file, which may be a stranger's, without meaning in Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~$&])", r"\\\1", " ".join(text.split()))[:_LONGEST]


def model_card(bundle: ModelBundle, name: str) -> str:
    """The card of a model in Markdown.

    Parameters
    ----------
    bundle
        The model.
    name
        What it is called.
    """
    record, config = bundle.record, bundle.record.training_config
    size = " × ".join(f"{s:g}" for s in bundle.voxel_size)
    reach = " × ".join(map(str, receptive_field(bundle.network)))
    learners = "the network alone"
    if bundle.calibration.pixels:
        network, pixels = bundle.calibration.network, bundle.calibration.pixels
        learners = (
            f"the network ({100 * network / (network + pixels):.0f} % of the weight) and a "
            "classifier of single voxels"
        )
    stacks, trained_on = "one stack", "a single stack"
    slices = _plain(", ".join(record.trained_slices)) or "not recorded"
    if len(bundle.domains) > 1:
        slices = "not recorded for each kind"
        kinds = ", ".join(map(_plain, bundle.domains))
        stacks = f"one stack of each of these kinds: {kinds}"
        active = _plain(bundle.active_domain().name)
        trained_on = f"a single stack of each kind, and this card is about '{active}'"
    lines = [
        f"# {_plain(name)}",
        "",
        "A model for the segmentation of 3D microscopy stacks, trained with napari-unet3d "
        f"{_plain(record.version)} on some annotated slices of {stacks}.",
        "",
        "## Data",
        "",
        f"- Channels: {bundle.network.in_channels}. Voxels of {size} {_plain(bundle.unit)} "
        "(z × y × x).",
        "- Classes: 0 background, "
        + ", ".join(f"{c.output_value} {_plain(c.name)}" for c in bundle.classes)
        + ".",
        f"- Annotated slices: {slices}.",
        "",
        "## Method",
        "",
        f"- {learners[0].upper()}{learners[1:]}.",
        f"- Network: '{bundle.network.kind}', {parameter_count(bundle.network):,} parameters, "
        f"sees {reach} voxels.",
        f"- Training: {record.iterations} iterations in {record.seconds:.0f} s on "
        f"{_plain(record.device)}, {_plain(record.precision)}, loss '{config.loss}', optimizer "
        f"'{config.optimizer}', seed {config.seed}.",
        "",
        "## Validation",
        "",
        *_scores(bundle),
        "",
        "## Limits",
        "",
        f"- It was trained on {trained_on}. On stacks of other specimens, microscopes, voxel "
        "sizes or contrasts, nothing is known about it: annotate some slices there and measure.",
        "- Gray values are normalized by the statistics of each stack. A stack that holds hardly "
        "any of the structures is normalized differently.",
        "- Voxels should have the size above: the network knows no other.",
    ]
    return "\n".join(lines) + "\n"


def _scores(bundle: ModelBundle) -> list[str]:
    record = bundle.record
    if not record.held_out:
        return ["No slice was held out, so this model was not measured on labelled voxels."]
    names = {c.value: c.name for c in bundle.classes}
    lines = [
        f"Measured on {_plain(', '.join(record.held_out_slices))} of the same stack, which the "
        "training did not see:",
        "",
        "| class | IoU | Dice | voxels |",
        "|---|---:|---:|---:|",
    ]
    for score in record.held_out:
        iou, dice = ("—" if v is None else f"{v:.3f}" for v in (score.iou, score.dice))
        name = names.get(score.value, str(score.value))
        lines.append(f"| {_plain(name)} | {iou} | {dice} | {score.voxels} |")
    if record.held_out_distance is not None and record.held_out_distance < 3:
        lines += ["", "The nearest annotated slice is close, which flatters the scores."]
    if record.held_out_seen:
        seen = _plain(", ".join(record.held_out_seen))
        lines += ["", f"The model had learned from {seen} before, which flatters the scores."]
    return lines
