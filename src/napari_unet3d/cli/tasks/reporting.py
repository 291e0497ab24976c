"""Open the files that a report is about, and write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from napari_unet3d.cli.tasks.inputs import open_annotation, open_image, refuse_model
from napari_unet3d.cli.tasks.session_work import check_trained, load
from napari_unet3d.config import ClassInfo
from napari_unet3d.data.conventions import Labels
from napari_unet3d.data.io.outputs import check_paths
from napari_unet3d.data.io.reading import read_labels
from napari_unet3d.data.io.targets import check_target
from napari_unet3d.data.shapes import describe_shape
from napari_unet3d.errors import BadInputError
from napari_unet3d.session.folder import SessionFolder
from napari_unet3d.session.layout import labels_shape
from napari_unet3d.session.names import is_session
from napari_unet3d.session.report.assembly import (
    check_report_path,
    held_out_of,
    make_report,
    write_report,
)
from napari_unet3d.session.session import NamedModel, Session
from napari_unet3d.session.summary_file import read_summary

_USAGE = "report takes MODEL IMAGE ANNOTATION"


def write_report_of(
    source: Path,
    image: Path | None,
    annotation: Path | None,
    output: Path,
    *,
    segmentation: Path | None = None,
    labels: Labels = "auto",
    reading: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a report on a model or on a session.

    Parameters
    ----------
    source
        A model, whose held-out slices are those of its record; or the folder of a session.
    image, annotation, segmentation
        What the model is about; None where unknown. A session has all of it: `image` says where
        its image is now, if that was moved.
    output
        The report, .html or .pdf.
    labels, reading
        As in `train_files`.
    overwrite
        Whether a file of that name is replaced.

    Raises
    ------
    BadInputError
        A file cannot be used. Nothing is written then.
    """
    check_report_path(output)
    check_target(output, overwrite=overwrite)
    made = datetime.now(UTC)
    given = [path for path in (image, annotation, segmentation) if path is not None]
    if is_session(source):
        if own := [path for path in (annotation, segmentation) if path is not None]:
            raise BadInputError(
                f"'{source}' is a session, which has its own annotation and segmentation: leave "
                f"out '{own[0]}'."
            )
        check_paths([output], [source, *given])
        with SessionFolder.open(source, holder="napari-unet3d report") as folder:
            check_trained(session := load(folder, image, how="report SESSION IMAGE"), source)
            if (summary := read_summary(folder.path)) is not None:
                session = replace(session, expected=summary.expected)
            report = make_report(session, made)
    else:
        check_paths([output], [source, *given])
        report = make_report(_open(source, image, annotation, segmentation, labels, reading), made)
    return write_report(report, output, made, overwrite=overwrite)


def _open(
    model: Path,
    image: Path | None,
    annotation: Path | None,
    segmentation: Path | None,
    labels: Labels,
    reading: Mapping[str, Any] | None,
) -> Session:
    named = NamedModel.load(model)
    session = Session(model=named)
    held_out = held_out_of(session)
    if image is None:
        if annotation is not None or segmentation is not None:
            raise BadInputError(f"An annotation or a segmentation needs its image: {_USAGE}.")
        return session
    volume = open_image(image, _USAGE, reading)
    session = replace(session, volume=volume, image_path=image)
    if annotation is not None:
        refuse_model(annotation, _USAGE)
        painted = open_annotation(annotation, volume, labels, held_out).annotation
        known = {c.output_value: c for c in named.bundle.classes}
        painted = replace(painted, classes=tuple(_known(c, known) for c in painted.classes))
        painted.check(volume)
        session = replace(session, annotation=painted, annotation_path=annotation)
    if segmentation is not None:
        array = read_labels(segmentation).data
        if labels_shape(volume) != tuple(array.shape):
            raise BadInputError(
                f"The segmentation ({describe_shape(array.shape)}) and the image "
                f"({describe_shape(labels_shape(volume))}) differ in shape: give the one of this "
                "image."
            )
        session = replace(session, segmentation=array)
    return session


def _known(info: ClassInfo, known: Mapping[int, ClassInfo]) -> ClassInfo:
    """The class with the name and color that it has in the model."""
    if (other := known.get(info.output_value)) is None:
        return info
    return info.model_copy(update={"name": other.name, "color": other.color})
