"""How long the last runs took on this computer: what a forecast before the next run rests on.

The last run of each kind has a small file of its own in the user's data folder. So two windows that
remember runs of different kinds do not overwrite each other's.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_unet3d.config import TrainingConfig
from napari_unet3d.data.io.journal import write_synced
from napari_unet3d.session.recent import data_folder
from napari_unet3d.session.texts import show_duration

_FOLDER = "runs"
_LARGEST = 10_000
"""Bytes. A file of a run has 200; another one is none of ours."""


class PastRun(BaseModel):
    """What a run took beside its training, which takes its budget.

    Attributes
    ----------
    computer
        Name of the computer: a home folder may be shared by several.
    preset, device
        As they were chosen; runs of another preset or device tell nothing.
    preparing, measuring, segmenting
        Seconds before the training, of its end, and of the segmentation.
    voxels
        Number of voxels that were segmented, all time points together.
    """

    model_config = ConfigDict(frozen=True)

    computer: str = Field(default_factory=platform.node)
    preset: str
    device: str
    preparing: float = Field(ge=0)
    measuring: float = Field(ge=0)
    segmenting: float = Field(ge=0)
    voxels: int = Field(gt=0)

    def seconds_beside(self, voxels: int) -> float:
        """Seconds that a run takes beside its training, for a stack of so many voxels.

        The time for the segmentation grows with the voxels; the rest is expected to stay.
        """
        return self.preparing + self.measuring + self.segmenting * voxels / self.voxels


def past_runs() -> list[PastRun]:
    """The last runs on this computer, one of each preset and device."""
    runs = []
    with contextlib.suppress(OSError):
        for file in sorted((data_folder() / _FOLDER).glob("*.json")):
            with contextlib.suppress(OSError, ValidationError):
                if file.stat().st_size <= _LARGEST:
                    runs.append(PastRun.model_validate_json(file.read_bytes()))
    return [run for run in runs if run.computer == platform.node()]


def remember_run(run: PastRun) -> None:
    """Store a run in place of the last one of its kind. Never raises: it is a convenience."""
    kind = "\n".join((run.computer, run.preset, run.device))
    folder = data_folder() / _FOLDER
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(kind.encode()).hexdigest()[:24]
        write_synced(folder / f"{name}.json", run.model_dump_json().encode())


def expectation_text(
    config: TrainingConfig, voxels: int, past: PastRun | None, *, keeps_learning: bool = False
) -> str:
    """Say how long a run would take, as far as that is known before it begins.

    Parameters
    ----------
    config
        The settings of the training.
    voxels
        Number of voxels to segment after it, all time points together.
    past
        The last run with this preset on this device; None without one. Nothing is guessed then.
    keeps_learning
        Whether the training goes on until more time does not help.

    Returns
    -------
    str
        As "About 1:40 min in all: 1 min training, then the whole stack."
    """
    if keeps_learning:
        return "Trains until more time no longer helps; then the whole stack."
    if config.iterations is not None or config.seconds is None:
        return f"{config.iterations:,} iterations, then the whole stack."
    training = show_duration(config.seconds)
    if past is None:
        return f"{training} training, then the whole stack."
    in_all = show_duration(_rounded(config.seconds + past.seconds_beside(voxels)))
    return f"About {in_all} in all: {training} training, then the whole stack."


def basis_text(past: PastRun | None) -> str:
    """Say what the expectation rests on."""
    if past is None:
        return (
            "How long the segmentation takes is not known yet: the run tells it when it begins, "
            "and the next one from the start."
        )
    return (
        f"From the last run on this computer: {show_duration(past.preparing)} to prepare, "
        f"{show_duration(past.measuring)} to measure, and {show_duration(past.segmenting)} to "
        f"segment {past.voxels / 1e6:,.3g} million voxels."
    )


def _rounded(seconds: float) -> float:
    """Two digits at most: more would claim too much."""
    step = 1.0 if seconds < 20 else 5.0 if seconds < 120 else 30.0 if seconds < 1800 else 300.0
    return max(step * round(seconds / step), 1.0)
