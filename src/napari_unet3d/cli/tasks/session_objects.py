"""Find the objects of a session's segmentation, and write them into the session."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet3d.cli import settings
from napari_unet3d.cli.tasks.finding import Place, find_into
from napari_unet3d.cli.tasks.session_work import HOLDER, load
from napari_unet3d.cli.terminal import errors
from napari_unet3d.config import ObjectsConfig
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.model.settings import read_settings
from napari_unet3d.objects.finding import check_objects
from napari_unet3d.objects.scratch import Scratch
from napari_unet3d.objects.table import ObjectTable
from napari_unet3d.session import stored_results
from napari_unet3d.session.folder import SessionFolder


def find_in_session(path: Path, given: Mapping[str, Any], image: Path | None = None) -> ObjectTable:
    """Number and measure the objects of a session's segmentation.

    Parameters
    ----------
    path
        The session folder.
    given
        Settings of `ObjectsConfig` by name. The others are those by which the objects of the
        session were found last.
    image
        Where the image is now; None where the session knows it. Without the image, no gray values
        are measured, which is told.

    Returns
    -------
    ObjectTable
        The properties of the objects.

    Raises
    ------
    BadInputError
        The session cannot be opened or has no segmentation, or there is no object. Nothing was
        written, and the objects of the last search are still there.
    """
    with SessionFolder.open(path, holder=HOLDER) as folder:
        record, stored = folder.record(), folder.state.objects
        labels = folder.results().get("labels")
        if labels is None:
            raise BadInputError(
                f"'{path}' has no segmentation yet. Make one: napari-unet3d predict {path}"
            )
        before = ObjectsConfig()
        if stored is not None:
            before = read_settings(ObjectsConfig, stored.settings)[0]
        config = settings.changed(before, given)
        labels = replace(
            labels,
            voxel_size=record.voxel_size,
            unit=record.unit,
            translation=record.translation,
            time_step=record.time_step,
        )
        volume = _image(folder, image)
        model = folder.model()
        classes = record.classes if model is None else model.bundle.classes
        names = {c.output_value: c.name for c in classes}
        check_objects(labels, config, volume)

        def make(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Place:
            return stored_results.new_objects(folder.path, record, shape, dtype)

        with closing(Scratch(folder.path)) as scratch:
            table = find_into(make, labels, config, volume, scratch, names)
        folder.note_objects(table, config)
        return table


def _image(folder: SessionFolder, image: Path | None) -> Volume | None:
    """The image with all its channels; None where it is not found, which is told."""
    try:
        return load(folder, image).volume
    except BadInputError as error:
        if image is not None:
            raise
        errors.note(f"Gray values are not measured. {error}")
        return None
