"""The checkpoint: a file beside the model that a long training writes until the model is saved."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Self

from napari_unet3d.cli.terminal import errors
from napari_unet3d.data.io.leftovers import most_name_bytes
from napari_unet3d.data.io.outputs import is_same_file
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.model.bundle import SUFFIX, ModelBundle


class CheckpointFile:
    """Writes a checkpoint while a model is trained, and removes it when the model is saved.

    Parameters
    ----------
    path
        The file.
    how
        How the user continues from it, as in "--resume PATH" or a whole command.
    """

    def __init__(self, path: Path, how: str) -> None:
        self.path, self._how = path, how
        self.written = False
        self._complained = False

    @classmethod
    def beside(cls, model: Path) -> Self:
        """The checkpoint of a model file.

        Parameters
        ----------
        model
            Path of the model, NAME.unet3d. The checkpoint is NAME.checkpoint.unet3d in the same
            folder; a NAME that is too long for that is cut.
        """
        ending = f".checkpoint{SUFFIX}"
        room = most_name_bytes(model.parent) - len(ending)
        stem = os.fsencode(model.name.removesuffix(SUFFIX))[:room].decode(errors="ignore")
        path = model.with_name(stem + ending)
        return cls(path, f"--resume {path}")

    def announce(self, start_from: Path | None) -> None:
        """Tell of a checkpoint of an earlier training, unless this training continues it."""
        if self.path.is_file() and (start_from is None or not is_same_file(self.path, start_from)):
            errors.print(
                f"{self.path} is the checkpoint of a training that was cut off. To continue it, "
                f"use {self._how}; this training will replace it."
            )

    def write(self, bundle: ModelBundle) -> None:
        """Write the checkpoint; when that fails, tell it once and let the training go on."""
        try:
            self._check_space(bundle)
            bundle.save(self.path)
        except (BadInputError, RunFailedError, OSError) as error:
            if not self._complained:
                self._complained = True
                errors.print(f"No checkpoint could be written; the training goes on. {error}")
            return
        if not self.written:
            errors.print(
                f"Checkpoint: {self.path}. If this training is cut off, continue it with "
                f"{self._how}"
            )
        self.written = True

    def remove(self) -> None:
        """Remove the checkpoint, since the model is saved."""
        if not self.written:
            return
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        if self.path.exists():
            errors.print(f"The checkpoint {self.path} could not be removed.")
        else:
            errors.print(f"The model is saved; its checkpoint {self.path} was removed.")

    def remember(self) -> None:
        """Tell where the last checkpoint is, since the training was cut off."""
        if self.written:
            errors.print(f"The last checkpoint is kept. To continue from it, use {self._how}")

    def _check_space(self, bundle: ModelBundle) -> None:
        """Raise `RunFailedError` when the disk has no room for both checkpoint and model."""
        groups = (bundle.weights, bundle.pixels, bundle.state)
        size = sum(t.numel() * t.element_size() for group in groups for t in group.values())
        if shutil.disk_usage(self.path.parent).free < 2 * size:
            raise RunFailedError("The disk is nearly full: free some space.")
