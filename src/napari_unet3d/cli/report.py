"""`napari-unet3d report`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from napari_unet3d.cli import settings
from napari_unet3d.cli.options import (
    AsJson,
    Axes,
    Overwrite,
    Quiet,
    VoxelSize,
    file_argument,
    file_option,
)
from napari_unet3d.cli.terminal import errors, tell, tell_json

Labels = Literal["auto", "sparse", "dense"]


def report(
    source: Annotated[
        Path, file_argument("SOURCE", "A model, or the folder of a session, which has all.")
    ],
    image: Annotated[
        Path | None,
        file_argument(
            "IMAGE", "The stack, for its facts and pictures; for a session only if it was moved."
        ),
    ] = None,
    annotation: Annotated[
        Path | None, file_argument("ANNOTATION", "What was painted, for slices and mistakes.")
    ] = None,
    output: Annotated[
        Path,
        file_option("--output", "-o", metavar="REPORT", text="The report, *.html or *.pdf."),
    ] = Path("report.html"),
    segmentation: Annotated[
        Path | None,
        file_option(metavar="FILE", text="The segmentation; without it, slices are predicted."),
    ] = None,
    labels: Annotated[
        Labels, typer.Option(help="What ANNOTATION's numbers are, as in train.")
    ] = "auto",
    axes: Axes = None,
    voxel_size: VoxelSize = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write all that is known about a model, for a methods section: HTML or PDF.

    Data, slices, settings, curves, scores with intervals, versions, pictures. What was not
    measured is said.
    """
    errors.set_quiet(quiet)
    from napari_unet3d.cli.tasks.reporting import write_report_of

    path = write_report_of(
        source,
        image,
        annotation,
        output,
        segmentation=segmentation,
        labels=labels,
        reading=settings.reading(axes, voxel_size),
        overwrite=overwrite,
    )
    if as_json:
        tell_json({"report": path, "notes": errors.notes})
    else:
        tell(f"Report: {path}")
