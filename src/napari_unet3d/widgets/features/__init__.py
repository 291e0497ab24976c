"""The features of the dock, in the order in which they stand in it."""

from __future__ import annotations

from napari_unet3d.widgets.features.quick_answer import QuickAnswering
from napari_unet3d.widgets.features.suggest import NextSlice
from napari_unet3d.widgets.features.uncertainty import WhereUnsure
from napari_unet3d.widgets.workbench import Feature

FEATURES: tuple[type[Feature], ...] = (QuickAnswering, NextSlice, WhereUnsure)
"""Each is a module of this folder; adding one is a file and a line."""
