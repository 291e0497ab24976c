"""The features of the dock, in the order in which they stand in it."""

from __future__ import annotations

from napari_unet3d.widgets.features.annotation_keys import AnnotationKeys
from napari_unet3d.widgets.features.class_visibility import ClassVisibility
from napari_unet3d.widgets.features.driver import DriverGuard
from napari_unet3d.widgets.features.earlier_result import EarlierResult
from napari_unet3d.widgets.features.expecting import Expecting
from napari_unet3d.widgets.features.folder import FolderFeature
from napari_unet3d.widgets.features.gates import Gates
from napari_unet3d.widgets.features.keeping import Keeping
from napari_unet3d.widgets.features.kind_of_stack import KindOfStack
from napari_unet3d.widgets.features.learning import Learning
from napari_unet3d.widgets.features.models import Models
from napari_unet3d.widgets.features.objects import ObjectsFeature
from napari_unet3d.widgets.features.quality import Quality
from napari_unet3d.widgets.features.quick_answer import QuickAnswering
from napari_unet3d.widgets.features.run_keys import RunKeys
from napari_unet3d.widgets.features.slider_marks import SliceMarksOnSlider
from napari_unet3d.widgets.features.suggest import NextSlice
from napari_unet3d.widgets.features.tools import Tools
from napari_unet3d.widgets.features.uncertainty import WhereUnsure
from napari_unet3d.widgets.workbench import Feature

FEATURES: tuple[type[Feature], ...] = (
    DriverGuard,
    Keeping,
    AnnotationKeys,
    ClassVisibility,
    SliceMarksOnSlider,
    Tools,
    QuickAnswering,
    KindOfStack,
    WhereUnsure,
    Gates,
    EarlierResult,
    NextSlice,
    RunKeys,
    Learning,
    Expecting,
    Quality,
    ObjectsFeature,
    FolderFeature,
    Models,
)
"""Each is a module of this folder; adding one is a file and a line."""
