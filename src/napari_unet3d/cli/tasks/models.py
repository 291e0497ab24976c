"""Models as files: check their paths before a training, save them after it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from napari_unet3d.cli.signals import held_back
from napari_unet3d.data.io.atomic import KeptElsewhereError, Replacement
from napari_unet3d.data.io.leftovers import remove
from napari_unet3d.data.io.paths import user_path
from napari_unet3d.data.io.targets import check_target
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.model.bundle import SUFFIX, ModelBundle

_LOST = "It could not be saved in the folder for temporary files either: it is lost."


def check_model_path(path: Path, *, overwrite: bool = False) -> Path:
    """Check the path of a model that will be written, and return it resolved.

    Raises
    ------
    BadInputError
        A model cannot be written there, or something is there and `overwrite` is False.
    """
    path = user_path(path)
    if path.suffix != SUFFIX:
        raise BadInputError(f"{path}: the name of a model ends in {SUFFIX}")
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise BadInputError(
            f"{str(path)!a} is not valid Unicode: a model of that name could be written, but "
            "not opened. Choose another name."
        ) from error
    check_target(path, overwrite=overwrite)
    return path


def save_model(bundle: ModelBundle, place: Path | Replacement) -> None:
    """Save a model; where that fails, save it under another name, so that it is not lost.

    Ctrl-C is held back until the model is saved; a second one interrupts.

    Raises
    ------
    RunFailedError
        The model could not be saved at `place`. The text says where it was saved instead.
    """
    with held_back():
        try:
            bundle.save(place)
        except KeptElsewhereError:
            raise
        except Exception as error:
            path = place.path if isinstance(place, Replacement) else place
            if isinstance(error, BadInputError | RunFailedError):
                reason = str(error)
            else:
                reason = f"{path} could not be saved ({type(error).__name__})."
            kept = _rescue(bundle, path.name)
            where = f"The model was saved as '{kept}' instead." if kept else _LOST
            raise RunFailedError(f"{reason} {where}") from error


def _rescue(bundle: ModelBundle, name: str) -> Path | None:
    """Save a model in the folder for temporary files, under a new name; None when that fails."""
    stem = os.fsencode(Path(name).stem)[:100].decode(errors="ignore")
    try:
        file, kept = tempfile.mkstemp(SUFFIX, f"{stem}-")
    except OSError:
        return None
    os.close(file)
    try:
        return bundle.save(kept)
    except Exception:
        remove(Path(kept))
        return None
