"""What a model remembers of its training."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from napari_unet3d.config import TrainingConfig, Triple
from napari_unet3d.model.evidence import Evidence, SliceCheck, SliceScore, TrainingHistory
from napari_unet3d.model.settings import read_settings

FEWEST_ITERATIONS = 100
"""Iterations. The model is a running average over about 100 of them (`weight_averaging`). With
fewer, the network has hardly left its random start, and the pixel classifier decides most."""


class HeldOutRecord(BaseModel):
    """Scores of one class on the held-out slices; None for a class that is absent there."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    value: int
    iou: float | None
    dice: float | None
    voxels: int = Field(ge=0)


def _as_json(config: Any) -> Any:
    return config.model_dump(mode="json") if isinstance(config, TrainingConfig) else config


_MEASURED = (
    "held_out_slices",
    "held_out_distance",
    "held_out",
    "held_out_by_slice",
    "cross_fitted",
    "evidence",
)
"""Fields of a record that were measured on the stack of the training."""


class TrainingRecord(BaseModel):
    """How a model came to be.

    Attributes
    ----------
    config
        Settings of the training as plain JSON, kept as the program that trained the model wrote
        them; a `TrainingConfig` is taken, too. They are checked only when `training_config` is
        read, so that a setting which has changed since then keeps no model from opening.
    seconds
        Duration of the training.
    held_out_distance
        Slices from a held-out slice to the nearest trained slice of the same orientation.
        Neighboring slices look alike, so a small distance flatters the scores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: str = Field("", description="Version of napari-unet3d.")
    config: Annotated[dict[str, JsonValue], BeforeValidator(_as_json)]
    iterations: int = Field(ge=0)
    seconds: float = Field(ge=0)
    device: str
    precision: str
    patch_shape: Triple
    voxels_seen: int = Field(0, ge=0, description="Labelled voxels that entered the loss.")
    trained_slices: tuple[str, ...] = ()
    held_out_slices: tuple[str, ...] = ()
    held_out_distance: int | None = None
    held_out_scored: float = Field(1.0, ge=0, le=1, description="Share that was scored.")
    held_out: tuple[HeldOutRecord, ...] = ()
    held_out_by_slice: tuple[SliceScore, ...] = Field(
        (), description="The same scores slice by slice; models before format 6 have none."
    )
    cross_fitted: tuple[SliceCheck, ...] = Field(
        (), description="How the pixel classifier judges annotated slices that it did not see."
    )
    unseen_weight: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Weight of the network, judged on annotated slices that it had not seen.",
    )
    history: TrainingHistory = Field(
        TrainingHistory(), description="Loss and held-out IoU over time."
    )
    evidence: Evidence = Field(
        Evidence(), description="Cross-validation and learning curve of the same annotation."
    )
    held_out_seen: tuple[str, ...] = Field(
        (), description="Held-out slices that were trained on before, so that their scores flatter."
    )
    completed: bool = Field(True, description="False when stopped before the budget was used.")
    iterations_before: int = Field(
        0, ge=0, description="Iterations of the models that this one went on from."
    )

    def without_scores(self) -> Self:
        """The same record without what was measured on the stack of the training."""
        known = type(self).model_fields
        return self.model_copy(update={name: known[name].default for name in _MEASURED})

    @property
    def training_config(self) -> TrainingConfig:
        """The settings of the training, as far as this version of the program allows them."""
        return read_settings(TrainingConfig, self.config)[0]

    @property
    def config_notes(self) -> tuple[str, ...]:
        """A sentence for each stored setting that `training_config` does not give as it was."""
        return read_settings(TrainingConfig, self.config)[1]

    @property
    def starved(self) -> bool:
        """Whether the network had hardly begun to learn when the training ended.

        A number of iterations that was asked for and reached is what the user wanted.
        """
        if self.training_config.iterations is not None and self.completed:
            return False
        return self.iterations_before + self.iterations < FEWEST_ITERATIONS
