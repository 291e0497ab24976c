"""`napari-unet3d evaluate`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from napari_unet3d.cli.options import AsJson, Quiet, file_argument
from napari_unet3d.cli.terminal import check_told, errors, tell, tell_json
from napari_unet3d.errors import BadInputError

Truth = Literal["auto", "dense", "slices", "sparse"]


def evaluate(
    prediction: Annotated[Path, file_argument("PREDICTION", "Integers, 0 background.")],
    truth: Annotated[
        Path,
        file_argument("TRUTH", "Integers, same classes, 0 background; or an annotation."),
    ],
    skip: Annotated[
        list[str] | None,
        typer.Option(help="Slices to leave out, as those trained on: z=3,10,20."),
    ] = None,
    labels: Annotated[
        Truth,
        typer.Option(
            help="What 0 is in the truth. dense: background. slices: background on slices with "
            "paint; the others do not count. sparse: unlabelled, does not count; 1 is "
            "background. auto: guessed from the numbers; the guess is printed."
        ),
    ] = "auto",
    instances: Annotated[
        bool,
        typer.Option(
            "--instances",
            help="Both files hold numbered objects: average precision and F1 at IoU 0.5 and 0.75, "
            "and variation of information.",
        ),
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare a segmentation with its truth: IoU and Dice of each class, or scores of objects."""
    if instances and labels != "auto":
        raise BadInputError(
            f"--labels {labels} is about classes, --instances about objects: give one of them."
        )
    errors.set_quiet(quiet)
    from napari_unet3d.cli.tasks import evaluating

    skipped = " ".join(skip or [])
    as_dict: dict[str, Any]
    if instances:
        objects = evaluating.compare_object_files(prediction, truth, skipped)
        as_dict, table = evaluating.objects_as_dict(objects), evaluating.objects_as_table(objects)
    else:
        kind = None if labels == "auto" else labels
        classes = evaluating.compare_files(prediction, truth, skipped, kind)
        as_dict, table = evaluating.scores_as_dict(classes), evaluating.scores_as_table(classes)
    if as_json:
        tell_json(as_dict)
    else:
        tell(table)
    check_told()
