"""The features of the dock, in the order in which they stand in it."""

from __future__ import annotations

from napari_unet3d.widgets.features.folder import FolderFeature
from napari_unet3d.widgets.features.objects import ObjectsFeature
from napari_unet3d.widgets.workbench import Feature

FEATURES: tuple[type[Feature], ...] = (FolderFeature, ObjectsFeature)
"""Each is a module of this folder; adding one is a file and a line."""
