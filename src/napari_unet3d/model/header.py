"""What a model file describes in JSON."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.model.domains import Classes, DomainFacts, Positive
from napari_unet3d.model.mixture import Calibration
from napari_unet3d.model.record import TrainingRecord
from napari_unet3d.networks import AnyNetwork
from napari_unet3d.networks.universal import Domain, UniversalUNetConfig


class Header(BaseModel):
    """What a model file describes in JSON; everything else in it is tensors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    network: AnyNetwork
    classes: Classes
    intensity: IntensityNormalization
    voxel_size: tuple[Positive, Positive, Positive]
    unit: Annotated[str, Field(max_length=50)]
    record: TrainingRecord
    calibration: Calibration = Calibration()
    other_domains: Annotated[tuple[DomainFacts, ...], Field(max_length=1000)] = ()

    @model_validator(mode="after")
    def _classes_match(self) -> Self:
        if self.network.n_classes != len(self.classes) + 1:
            raise ValueError(
                f"{len(self.classes)} classes do not go with {self.network.n_classes} outputs"
            )
        if len(self.calibration.shift) not in (0, self.network.n_classes):
            raise ValueError("the calibration does not go with the classes")
        if any(len(check.classes) != len(self.classes) for check in self.record.cross_fitted):
            raise ValueError("the checks of annotated slices do not go with the classes")
        if len({c.value for c in self.classes}) != len(self.classes):
            raise ValueError("two classes have the same label value")
        return self

    @model_validator(mode="after")
    def _domains_match(self) -> Self:
        domains = {d.name: d for i, d in enumerate(self.domain_list) if i != self.active_number}
        known = {d.name: len(d.classes) + 1 for d in self.other_domains}
        if known != {name: domain.n_classes for name, domain in domains.items()}:
            raise ValueError("the domains of the model are not those of its network")
        return self

    @property
    def domain_list(self) -> tuple[Domain, ...]:
        """The domains of a universal network; empty for any other."""
        return self.network.domains if isinstance(self.network, UniversalUNetConfig) else ()

    @property
    def active_number(self) -> int:
        """Number of the active domain."""
        return self.network.active if isinstance(self.network, UniversalUNetConfig) else 0
