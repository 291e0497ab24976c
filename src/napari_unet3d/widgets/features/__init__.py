"""The features of the dock, in the order in which they stand in it."""

from __future__ import annotations

from napari_unet3d.widgets.features.annotation_keys import AnnotationKeys
from napari_unet3d.widgets.features.learning import Learning
from napari_unet3d.widgets.features.quality import Quality
from napari_unet3d.widgets.features.run_keys import RunKeys
from napari_unet3d.widgets.features.slider_marks import SliceMarksOnSlider
from napari_unet3d.widgets.workbench import Feature

FEATURES: tuple[type[Feature], ...] = (
    AnnotationKeys,
    SliceMarksOnSlider,
    Learning,
    Quality,
    RunKeys,
)
"""Each is a module of this folder; adding one is a file and a line."""
