"""Makes a report of a session, and writes it as a file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.config import AXIS_NAMES
from napari_unet3d.data.io.atomic import Replacement
from napari_unet3d.data.slices import SliceRef, parse_slices, read_slice
from napari_unet3d.errors import BadInputError
from napari_unet3d.prediction.mistakes import MISTAKES, find_mistakes
from napari_unet3d.prediction.single_slices import predict_slices
from napari_unet3d.session.report import pictures, scores, sections
from napari_unet3d.session.report.content import (
    Block,
    Legend,
    Paragraph,
    Picture,
    PictureRow,
    Report,
    Section,
)
from napari_unet3d.session.report.methods import methods_section
from napari_unet3d.session.session import Session

SUFFIXES = (".html", ".pdf")
_MOST_SLICES = 3
"""Held-out slices that are shown: a page of pictures."""


def make_report(session: Session, made: datetime) -> Report:
    """Put together what is known about a session; what is not known is said.

    Parameters
    ----------
    session
        Model, image, annotation, scores, evidence and segmentation; any of them may be missing,
        but not both the model and the annotation. Slices are predicted where a model and an image
        but no segmentation are given, which may take seconds.
    made
        The time that the report tells, with a time zone.

    Raises
    ------
    BadInputError
        There is neither a model nor an annotation, or the image does not fit the model.
    """
    if session.model is None and session.annotation is None:
        raise BadInputError(
            "There is nothing to report: no model is trained and nothing is annotated. Train a "
            "model, or open one."
        )
    name = session.volume.name if session.volume is not None else None
    name = name or (session.model.name if session.model is not None else "annotation")
    return Report(
        title=f"Segmentation report: {name}",
        made=f"Made by napari-unet3d on {made:%Y-%m-%d %H:%M %Z}".rstrip() + ".",
        sections=(
            methods_section(session),
            scores.held_out_section(session),
            scores.cross_validation_section(session),
            scores.learning_curve_section(session),
            _pictures_section(session),
            sections.data_section(session),
            sections.slices_section(session),
            sections.model_section(session),
            sections.curves_section(session),
            scores.limits_section(session),
            sections.versions_section(),
        ),
    )


def check_report_path(path: Path) -> None:
    """Raise BadInputError unless a report can have this name."""
    if path.suffix.lower() not in SUFFIXES:
        raise BadInputError(f"{path}: the name of a report ends in .html or .pdf")


def write_report(report: Report, path: Path, made: datetime, *, overwrite: bool = True) -> Path:
    """Write a report as HTML or PDF, by the end of the name.

    Raises
    ------
    BadInputError
        The name ends in something else, or a file is there and `overwrite` is False.
    """
    check_report_path(path)
    place = Replacement(path, overwrite=overwrite)
    if path.suffix.lower() == ".pdf":
        from napari_unet3d.session.report.pdf import to_pdf  # fpdf2 takes a quarter of a second

        content = to_pdf(report, made)
    else:
        from napari_unet3d.session.report.html import to_html

        content = to_html(report).encode()
    place.write(content)
    return place.path


# --- pictures -------------------------------------------------------------------------------


def _pictures_section(session: Session) -> Section:
    title, volume = "Pictures", session.volume
    if volume is None:
        return Section(title, (Paragraph("None: the image was not given to this report."),))
    held_out: list[SliceRef] = []
    if session.annotation is not None:
        held_out = sorted(session.annotation.held_out)[:_MOST_SLICES]
    middle = SliceRef(0, volume.shape[0] // 2)
    predicted = _predicted(session, (*held_out, middle))
    blocks: list[Block] = []
    for ref in held_out:
        blocks.append(PictureRow(tuple(_held_out_pictures(session, ref, predicted))))
    if held_out:
        blocks.append(Legend(tuple((m.color, f"{m.name}: {m.meaning}") for m in MISTAKES)))
        blocks.append(Paragraph("Darkened: not labelled, so it does not count."))
    else:
        blocks.append(Paragraph("No slice is held out, so mistakes are not known."))
    shown = pictures.gray(volume, middle)
    where = f"{AXIS_NAMES[middle.axis]}={middle.index}, the middle of the stack"
    row = [_picture(session, middle, shown, f"Image, {where}")]
    if middle in predicted:
        classes = scores.classes_of(session)
        colored = pictures.with_classes(shown, predicted[middle], classes)
        row.append(_picture(session, middle, colored, f"Segmentation, {where}"))
    blocks += [
        PictureRow(tuple(row)),
        Legend(tuple((c.color, c.name) for c in scores.classes_of(session))),
    ]
    return Section(title, tuple(blocks))


def _predicted(
    session: Session, refs: tuple[SliceRef, ...]
) -> Mapping[SliceRef, NDArray[np.integer[Any]]]:
    if session.segmentation is not None:
        return {ref: read_slice(session.segmentation, ref) for ref in refs}
    if session.model is None or session.volume is None:
        return {}
    return predict_slices(session.model.bundle, session.volume, refs, session.settings.prediction)


def _held_out_pictures(
    session: Session,
    ref: SliceRef,
    predicted: Mapping[SliceRef, NDArray[np.integer[Any]]],
) -> list[Picture]:
    annotation, volume = session.annotation, session.volume
    assert annotation is not None and volume is not None
    shown, codes = pictures.gray(volume, ref), annotation.held_out_target(ref)
    truth = pictures.with_truth(shown, codes, annotation.classes)
    row = [
        _picture(session, ref, shown, f"Image, {ref} (held out)"),
        _picture(session, ref, truth, f"Annotation, {ref}"),
    ]
    if ref in predicted:
        labels, classes = predicted[ref], annotation.classes
        colored = pictures.with_classes(shown, labels, classes)
        wrong = pictures.with_mistakes(shown, find_mistakes(labels, codes, classes), codes)
        row += [
            _picture(session, ref, colored, f"Segmentation, {ref}"),
            _picture(session, ref, wrong, f"Mistakes, {ref}"),
        ]
    return row


def _picture(session: Session, ref: SliceRef, pixels: NDArray[np.uint8], caption: str) -> Picture:
    assert session.volume is not None
    ratio = pictures.pixel_ratio(session.volume.voxel_size, ref)
    return Picture(pictures.reduced(pixels), caption, ratio)


def held_out_of(session: Session) -> frozenset[SliceRef]:
    """The slices that the model of a session was measured on, by its record."""
    if session.model is None:
        return frozenset()
    return frozenset(parse_slices(" ".join(session.model.bundle.record.held_out_slices)))
