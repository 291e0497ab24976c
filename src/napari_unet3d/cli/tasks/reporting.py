"""Open the files that a report is about, and write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from napari_unet3d.cli.tasks.inputs import open_annotation, open_image, refuse_model
from napari_unet3d.config import ClassInfo
from napari_unet3d.data.conventions import Labels
from napari_unet3d.data.io.outputs import check_paths
from napari_unet3d.data.io.reading import read_labels
from napari_unet3d.data.io.targets import check_target
from napari_unet3d.errors import BadInputError
from napari_unet3d.prediction.comparison import check_shapes
from napari_unet3d.session.report.assembly import (
    check_report_path,
    held_out_of,
    make_report,
    write_report,
)
from napari_unet3d.session.session import NamedModel, Session

_USAGE = "report takes MODEL IMAGE ANNOTATION"


def write_report_of(
    model: Path,
    image: Path | None,
    annotation: Path | None,
    output: Path,
    *,
    segmentation: Path | None = None,
    labels: Labels = "auto",
    reading: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a report on a model; its held-out slices are those of its record.

    Parameters
    ----------
    model, image, annotation, segmentation
        What it is about; all but the model may be None.
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
    given = [path for path in (model, image, annotation, segmentation) if path is not None]
    check_paths([output], given)
    session = Session(model=NamedModel.load(model))
    held_out = held_out_of(session)
    if image is not None:
        volume = open_image(image, _USAGE, reading)
        session = replace(session, volume=volume, image_path=image)
    if annotation is not None:
        if session.volume is None:
            raise BadInputError(f"An annotation needs its image: {_USAGE}.")
        refuse_model(annotation, _USAGE)
        painted = open_annotation(annotation, session.volume, labels, held_out).annotation
        assert session.model is not None
        known = {c.output_value: c for c in session.model.bundle.classes}
        classes = tuple(_known(c, known) for c in painted.classes)
        session = replace(
            session, annotation=replace(painted, classes=classes), annotation_path=annotation
        )
        assert session.annotation is not None and session.volume is not None
        session.annotation.check(session.volume)
    if segmentation is not None:
        if session.volume is None:
            raise BadInputError(f"A segmentation needs its image: {_USAGE}.")
        array = read_labels(segmentation).data
        if session.annotation is not None:
            check_shapes(array, session.annotation.labels)
        session = replace(session, segmentation=array)
    made = datetime.now(UTC)
    return write_report(make_report(session, made), output, made, overwrite=overwrite)


def _known(info: ClassInfo, known: Mapping[int, ClassInfo]) -> ClassInfo:
    """The class with the name and color that it has in the model."""
    if (other := known.get(info.output_value)) is None:
        return info
    return info.model_copy(update={"name": other.name, "color": other.color})
