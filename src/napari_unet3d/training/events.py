"""The events of a training, under the import path that the documentation has always given."""

from napari_unet3d.events import (
    Checkpoint,
    FinishingStarted,
    Forecast,
    HeldOutScores,
    Notice,
    PixelsStarted,
    SlicePreview,
    TrainingEvent,
    TrainingProgress,
    TrainingStarted,
)
from napari_unet3d.training.control import TrainingControl

__all__ = [
    "Checkpoint",
    "FinishingStarted",
    "Forecast",
    "HeldOutScores",
    "Notice",
    "PixelsStarted",
    "SlicePreview",
    "TrainingControl",
    "TrainingEvent",
    "TrainingProgress",
    "TrainingStarted",
]
