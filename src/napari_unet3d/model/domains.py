"""What a universal network knows of each kind of stacks that it works for."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from napari_unet3d.config import ClassInfo
from napari_unet3d.data.intensity import IntensityNormalization

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Classes = Annotated[tuple[ClassInfo, ...], Field(min_length=1, max_length=254)]


class DomainFacts(BaseModel):
    """A domain that is not the active one; attributes as those of `ModelBundle`.

    Attributes
    ----------
    name
        Its name among the domains of the network.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Annotated[str, Field(max_length=100)]
    classes: Classes
    intensity: IntensityNormalization
    voxel_size: tuple[Positive, Positive, Positive]
    unit: Annotated[str, Field(max_length=50)]
