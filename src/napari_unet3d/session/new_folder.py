"""Makes the folder of a session."""

from __future__ import annotations

import uuid
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from napari_unet3d.data.io.atomic import Replacement, failure
from napari_unet3d.data.io.fingerprint import Fingerprint
from napari_unet3d.data.io.paint_chunks import PaintChunks
from napari_unet3d.data.shapes import describe_shape
from napari_unet3d.errors import BadInputError
from napari_unet3d.session.layout import ARRAY, group_files, labels_shape
from napari_unet3d.session.names import STATE_FILE
from napari_unet3d.session.session import Session
from napari_unet3d.session.session_image import relative_path
from napari_unet3d.session.state import FolderState


def program() -> str:
    """Name and version of this program."""
    try:
        return f"napari-unet3d {version('napari-unet3d')}"
    except PackageNotFoundError:
        return "napari-unet3d"


def now() -> datetime:
    """The time, with the zone of this computer, to the second."""
    return datetime.now().astimezone().replace(microsecond=0)


def write_new_folder(path: Path, session: Session) -> None:
    """Write the record and the paint of a session into a new folder, which appears complete.

    Raises
    ------
    BadInputError
        It cannot be made, the session has no image, or its annotation does not fit the image.
    RunFailedError
        The disk is full.
    """
    if session.volume is None:
        raise BadInputError("A session needs an image. Open one, then save the session.")
    shape = labels_shape(session.volume)
    labels = None if session.annotation is None else session.annotation.labels
    if labels is not None and tuple(labels.shape) != shape:
        raise BadInputError(
            f"The annotation ({describe_shape(labels.shape)}) does not fit the image "
            f"({describe_shape(shape)}). Open the image that was annotated."
        )
    record = session.record().model_copy(
        update={
            "image_path": None if session.image_path is None else session.image_path.absolute(),
            "model_name": None,
            "scores": None,
        }
    )
    state = FolderState(
        id=uuid.uuid4().hex,
        program=program(),
        created=now(),
        saved=now(),
        labels_shape=shape,
        record=record,
        relative_path=relative_path(record.image_path, path),
        fingerprint=Fingerprint.of(session.volume, record.image_path),
    )
    place = Replacement(path, folder=True, overwrite=False)
    try:
        chunks = PaintChunks(shape)
        if labels is not None:
            chunks.replace_by(labels)
        files = group_files(record, len(shape))
        files[f"{ARRAY}/.zarray"] = chunks.metadata()
        files[STATE_FILE] = state.as_bytes()
        for chunk in chunks.painted:
            content = chunks.content(chunk)
            assert content is not None
            files[f"{ARRAY}/{chunks.name(chunk)}"] = content
        for name, content in files.items():
            file = place.temporary / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        place.commit()
    except OSError as error:
        raise failure(error, path) from error
    finally:
        place.discard()
