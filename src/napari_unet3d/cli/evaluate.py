"""`napari-unet3d evaluate`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from napari_unet3d.cli.options import AsJson, Quiet, file_argument
from napari_unet3d.cli.terminal import check_told, errors, tell, tell_json

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
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare a segmentation with its truth: IoU and Dice of each class."""
    errors.set_quiet(quiet)
    from napari_unet3d.cli.tasks.evaluating import compare_files, scores_as_dict, scores_as_table

    comparison = compare_files(
        prediction, truth, " ".join(skip or []), None if labels == "auto" else labels
    )
    if as_json:
        tell_json(scores_as_dict(comparison))
    else:
        tell(scores_as_table(comparison))
    check_told()
