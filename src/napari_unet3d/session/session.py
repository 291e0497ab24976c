"""The state of one piece of work: an image, its annotation, settings, a model, results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from napari_unet3d.config import ClassInfo, PredictionConfig, TrainingConfig, VoxelSize
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.slice_summary import ExpectedIoU
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import HeldOutScores
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.model.evidence import Evidence


@dataclass(frozen=True, eq=False)
class NamedModel:
    """A model, and what messages call it.

    Parameters
    ----------
    bundle
        The model.
    name
        Words that follow "the model" and "Current model:", such as "trained on 'cells'" or
        "cells.unet3d".
    path
        File that holds the model; None for a model that was not saved.
    """

    bundle: ModelBundle
    name: str
    path: Path | None = None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Open a model file; its name is the file's.

        Raises
        ------
        BadInputError
            The file is missing or holds no model that can be used.
        """
        return cls(ModelBundle.load(path), path.name, path)

    @classmethod
    def trained_on(cls, image: str, bundle: ModelBundle) -> Self:
        """Name a model after the image that it was trained on."""
        return cls(bundle, trained_on(image))


def trained_on(image: str) -> str:
    """The name of a model that was trained on an image."""
    return f"trained on '{image}'"


class RunSettings(BaseModel):
    """The settings of a run: everything that the form of the window and the options hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    training: TrainingConfig = Field(
        default_factory=TrainingConfig, description="How a model is trained."
    )
    prediction: PredictionConfig = Field(
        default_factory=PredictionConfig, description="How a model is applied."
    )
    outputs: tuple[str, ...] = Field(
        (), description="Names of the outputs that are wanted beside the labels."
    )
    times: tuple[int, ...] | None = Field(
        None, description="Time points to segment; None for all of them."
    )


class ChannelSource(BaseModel):
    """A further channel of an image: a layer of its own in napari, maybe a file of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(description="Name of its layer.")
    path: Path | None = Field(None, description="File; None for a layer that is in no file.")
    index: int | None = Field(
        None, description="Which channel of the file it is; None for a file with one."
    )


class SessionRecord(BaseModel):
    """The part of a session that fits into a JSON text; arrays and the model are left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    image_path: Path | None = None
    image_name: str | None = Field(None, description="What messages call the image.")
    axes: str | None = Field(None, description='Axes of the image as they were chosen: "TZYX".')
    shape: tuple[int, ...] | None = Field(
        None, description="Shape of the image, in the order of the axes."
    )
    dtype: str | None = Field(None, description='Number format of the image, such as "uint16".')
    channels: tuple[ChannelSource, ...] = Field(
        (), description="Further channels that are used together with the image."
    )
    voxel_size: VoxelSize = Field((1.0, 1.0, 1.0), description="Size of a voxel along z, y, x.")
    unit: str = Field("pixel", description="Unit of the voxel size.")
    translation: VoxelSize = Field((0.0, 0.0, 0.0), description="Position of the first voxel.")
    time_step: float | None = Field(None, description="Seconds between two time points.")
    annotation_path: Path | None = None
    classes: tuple[ClassInfo, ...] = ()
    held_out: tuple[str, ...] = Field((), description='Slices to measure on: "z=5", "t=1 z=5".')
    accepted: dict[str, str] = Field(
        default_factory=dict,
        description="Slices that were taken over from a prediction, and where each came from.",
    )
    settings: RunSettings = Field(default_factory=RunSettings)
    model_name: str | None = None
    model_path: Path | None = None
    scores: HeldOutScores | None = None
    evidence: Evidence = Evidence()
    more: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="What other parts of the program keep, by their name; JSON values.",
    )


@dataclass(frozen=True, eq=False)
class Session:
    """The typed state of one piece of work, which the window and the command line both fill.

    A session is frozen: a change is a new session, made with `dataclasses.replace`. Two reasons
    speak against a class that changes and emits signals. A run works in its own thread on the
    session that it was started with, and whatever the user edits meanwhile must not reach it.
    And a session that is about to be stored must not change half-way. Who shows the state, such
    as the window, holds the newest session and tells its own listeners about it.

    The arrays are references: `annotation.labels` may be painted on while a session holds it.
    Callers that need the labels of a moment pass a copy.

    Parameters
    ----------
    volume
        The image, with its axes as they were chosen; None while none is open.
    image_path
        File or folder of the image; None for an image that is in no file.
    annotation
        The painted labels (ZYX or TZYX), the classes, and the held-out slices.
    annotation_path
        File or folder of the annotation.
    settings
        How a model is trained and applied, and which outputs are wanted.
    start_from
        The model that the next training starts with; None for a new network.
    resume
        Whether the next training continues `start_from` exactly where it stopped, instead of
        fine-tuning it.
    model
        The current model, which is applied, saved and continued.
    scores
        Scores of the current model on the held-out slices; None while nothing was measured.
    evidence
        What further trainings on the same annotation have shown: cross-validation, learning curve.
    expected
        The IoU that is expected of each class in the last segmentation; empty where not known.
    segmentation
        Labels (ZYX or TZYX) of the last segmentation; None while there is none.
    accepted
        Slices that were taken over from a prediction, and where each came from, in words.
    more
        What other parts of the program keep in the session, by their name; JSON values.
    """

    volume: Volume | None = None
    image_path: Path | None = None
    annotation: SparseAnnotation | None = None
    annotation_path: Path | None = None
    settings: RunSettings = field(default_factory=RunSettings)
    start_from: NamedModel | None = None
    resume: bool = False
    model: NamedModel | None = None
    scores: HeldOutScores | None = None
    evidence: Evidence = field(default_factory=Evidence)
    expected: tuple[ExpectedIoU | None, ...] = ()
    segmentation: Any = None
    accepted: Mapping[SliceRef, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def time_points(self) -> int:
        """Time points that a run segments; 0 without an image."""
        if self.volume is None:
            return 0
        times = self.settings.times
        return self.volume.n_times if times is None else len(times)

    def record(self) -> SessionRecord:
        """Describe the session as far as a JSON text can."""
        annotation, model = self.annotation, self.model
        return SessionRecord(
            **_facts(self.volume),
            image_path=self.image_path,
            annotation_path=self.annotation_path,
            classes=() if annotation is None else annotation.classes,
            held_out=() if annotation is None else tuple(map(str, sorted(annotation.held_out))),
            accepted={str(ref): self.accepted[ref] for ref in sorted(self.accepted)},
            settings=self.settings,
            model_name=None if model is None else model.name,
            model_path=None if model is None else model.path,
            scores=self.scores,
            evidence=self.evidence,
            more=dict(self.more),
        )


def _facts(volume: Volume | None) -> dict[str, Any]:
    """What a record says about an image."""
    if volume is None:
        return {}
    return {
        "image_name": volume.name,
        "axes": volume.axes,
        "shape": tuple(int(n) for n in volume.data.shape),
        "dtype": volume.dtype.newbyteorder("=").name,
        "voxel_size": volume.voxel_size,
        "unit": volume.unit,
        "translation": volume.translation,
        "time_step": volume.time_step,
    }
