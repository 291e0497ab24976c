"""Describe a session folder without opening it for changes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from napari_unet3d.cli.tasks.evidence import evidence_lines
from napari_unet3d.cli.terminal import errors, visible
from napari_unet3d.data.io.folder_lock import holder_of
from napari_unet3d.data.ledger import find_painted_slices
from napari_unet3d.prediction.scores import show
from napari_unet3d.session import layout
from napari_unet3d.session.session_image import find_image
from napari_unet3d.session.state import FolderState, read_state, settled_state


def describe_session(path: Path, *, as_json: bool) -> str | dict[str, Any]:
    """Describe a session as a text or, with `as_json`, a dictionary.

    Raises
    ------
    BadInputError
        It is no session, or damaged.
    """
    state = read_state(path)
    chunks = layout.open_chunks(path, state.labels_shape, settled_state(path).commit)
    slices = [str(s.ref) for s in find_painted_slices(chunks)]
    holder = holder_of(path)
    facts = _facts(path, state, slices, holder)
    return facts if as_json else _text(path, state, facts)


def _facts(path: Path, state: FolderState, slices: list[str], holder: str) -> dict[str, Any]:
    record, found = state.record, find_image(path, state)
    if found.text:
        errors.note(found.text)
    scores = record.scores
    return {
        "path": str(path),
        "image": {
            "name": record.image_name,
            "path": None if record.image_path is None else str(record.image_path),
            "state": found.state,
            "axes": record.axes,
            "shape": record.shape,
            "dtype": record.dtype,
            "voxel_size": record.voxel_size,
            "unit": record.unit,
        },
        "classes": {c.value: c.name for c in record.classes},
        "slices": slices,
        "held_out": record.held_out,
        "accepted": record.accepted,
        "model": None if state.model is None else state.model.name,
        "scores": None if scores is None else {c.value: c.iou for c in scores.classes},
        "cross_validation": record.evidence.cross_validation
        and asdict(record.evidence.cross_validation),
        "learning_curve": record.evidence.learning_curve and asdict(record.evidence.learning_curve),
        "cut_off_training": (path / layout.CHECKPOINT).is_file(),
        "results": sorted(state.results),
        "objects": None if state.objects is None else state.objects.saved.isoformat(),
        "saved": state.saved.isoformat(),
        "open_in": holder or None,
        "crashed": state.open and not holder,
        "notes": errors.notes,
    }


def _text(path: Path, state: FolderState, facts: dict[str, Any]) -> str:
    record = state.record
    shape = " × ".join(map(str, record.shape or ()))
    size = " × ".join(f"{v:g}" for v in record.voxel_size)
    classes = ", ".join(f"{c.name} ({c.value})" for c in record.classes)
    names = {c.value: c.name for c in record.classes}
    lines = [
        f"{path}: session, saved on {state.saved.astimezone():%Y-%m-%d at %H:%M:%S}",
        f"image: {record.image_name} ({record.axes} {shape}, {record.dtype}), "
        f"{facts['image']['state']}",
        f"voxel (z × y × x): {size} {record.unit}",
        f"classes: {classes or 'none'}",
        f"slices with paint: {', '.join(facts['slices']) or 'none'}",
        f"held out: {', '.join(record.held_out) or 'none'}",
    ]
    if record.accepted:
        lines.append(f"accepted: {', '.join(record.accepted)}")
    lines.append(f"model: {'none' if state.model is None else state.model.name}")
    if record.scores is not None:
        ious = (f"{names.get(c.value, c.value)} {show(c.iou)}" for c in record.scores.classes)
        lines.append(f"IoU on held-out slices: {', '.join(ious)}")
    lines += evidence_lines(record.evidence, record.classes, record.unit)
    if facts["cut_off_training"]:
        lines.append(f"a training was cut off; to continue: napari-unet3d train {path}")
    lines.append(f"results: {', '.join(facts['results']) or 'none'}")
    if state.objects is not None:
        old = " (of an earlier segmentation)" if state.objects_are_old else ""
        lines.append(f"objects: {layout.table_path(path)}{old}")
    if facts["open_in"]:
        lines.append(f"open in {facts['open_in']}")
    elif facts["crashed"]:
        lines.append("the program that had it last did not close it; all that it saved is here")
    return visible("\n".join(lines), "\n")
