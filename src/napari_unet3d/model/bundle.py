"""A trained model as one file that cannot run code when it is opened.

The file is a safetensors file: tensors, and a JSON text in its header. Nothing is pickled.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from napari_unet3d.data.io.atomic import Replacement
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.model.domains import DomainFacts
from napari_unet3d.model.header import Header
from napari_unet3d.model.migrations import FORMAT_VERSION
from napari_unet3d.model.mixture import Calibration, Mixture
from napari_unet3d.model.model_file import (
    FORMAT,
    PIXELS,
    STATE,
    SUFFIX,
    make_pixels,
    read_model_file,
)
from napari_unet3d.networks import with_settings
from napari_unet3d.networks.architecture import Network
from napari_unet3d.networks.layers import fold_batch_norm
from napari_unet3d.networks.universal import UniversalUNetConfig
from napari_unet3d.pixels.classifier import PixelClassifier

__all__ = ["FORMAT", "SUFFIX", "ModelBundle"]


class ModelBundle(Header):
    """A trained network, and all that is needed to apply it or to train it further.

    Attributes
    ----------
    network
        Configuration of the network.
    classes
        The foreground classes. Output index = position + 1; output 0 is background.
    intensity
        Gray-value statistics of the training stack. Other stacks are normalized by their own.
    voxel_size, unit
        Of the training stack, (z, y, x).
    record
        Training settings, duration, held-out scores.
    calibration
        How the network and the pixel classifier decide together.
    other_domains
        The domains of a universal network that are not active; empty for any other network.
    weights
        The network's tensors by name, float32.
    pixels
        The pixel classifier's tensors by name; empty without one.
    state
        What resuming needs besides: the optimizer's moments, the weights that are not averaged,
        and in fp16 the scale of the gradients. May be empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    weights: Mapping[str, Tensor]
    pixels: Mapping[str, Tensor] = Field(default_factory=dict)
    state: Mapping[str, Tensor] = Field(default_factory=dict)

    def build(self) -> Network:
        """The network with its weights, on the CPU, in eval mode."""
        network = self.network.build()
        network.load_state_dict(dict(self.weights))
        return network.eval()

    def build_pixels(self) -> PixelClassifier | None:
        """The pixel classifier on the CPU, in eval mode; None for a network that stands alone."""
        if not self.pixels:
            return None
        classifier = make_pixels(self.network, self.pixels)
        classifier.load_state_dict(dict(self.pixels))
        return classifier.eval().requires_grad_(False)

    def build_mixture(self, *, folded: bool) -> Mixture:
        """Network and pixel classifier with their calibration, on the CPU, in eval mode.

        Parameters
        ----------
        folded
            Whether batch norms are taken into the convolutions before them, which is faster
            and changes the outputs by rounding errors only.
        """
        network = fold_batch_norm(self.build()) if folded else self.build()
        return Mixture(network, self.build_pixels(), self.calibration, self.voxel_size).eval()

    def with_network(self, settings: Mapping[str, Any]) -> ModelBundle:
        """The same model with other settings of its network, such as a pruned one.

        Parameters
        ----------
        settings
            Values by name. The network may have no weights that this one lacks.

        Raises
        ------
        BadInputError
            A setting cannot be used, or the network would need other weights.
        """
        network = with_settings(self.network, settings)
        with torch.device("meta"):
            needed = {n: t.shape for n, t in network.build().state_dict().items()}
        for name, shape in needed.items():
            if name not in self.weights or self.weights[name].shape != shape:
                listed = ", ".join(settings)
                raise BadInputError(
                    f"The model was trained with other settings of its network than {listed}: it "
                    f"has no weights for '{name}'. Train one with these settings."
                )
        kept = {n: self.weights[n] for n in needed}
        changes: dict[str, Any] = {"network": network, "weights": kept, "state": {}}
        if network.shows_maps:
            changes |= {"calibration": Calibration(), "pixels": {}}
        return self.model_copy(update=changes)

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the kinds of stacks that it works for; empty unless its network is universal."""
        return tuple(domain.name for domain in self.domain_list)

    def of_domain(self, name: str) -> ModelBundle:
        """The same model, ready for the stacks of another domain; it cannot be resumed there.

        Scores on held-out slices are left out: they are of the stack of this domain.

        Raises
        ------
        BadInputError
            There is no such domain.
        """
        if name not in self.domains:
            listed = ", ".join(repr(n) for n in self.domains) or "none"
            raise BadInputError(f"The model has no domain {name!r}. Its domains: {listed}.")
        number = self.domains.index(name)
        if number == self.active_number:
            return self
        assert isinstance(self.network, UniversalUNetConfig)
        facts = next(d for d in self.other_domains if d.name == name)
        others = [d for d in (self.active_domain(), *self.other_domains) if d.name != name]
        return self.model_copy(
            update=facts.model_dump(exclude={"name"})
            | {
                "classes": facts.classes,
                "intensity": facts.intensity,
                "network": self.network.for_domains(self.domain_list, number),
                "other_domains": tuple(others),
                "record": self.record.without_scores(),
                "state": {},
            }
        )

    def active_domain(self) -> DomainFacts:
        """What is known of the active domain, or of the only kind of stacks."""
        return DomainFacts(
            name=self.domain_list[self.active_number].name if self.domain_list else "",
            classes=self.classes,
            intensity=self.intensity,
            voxel_size=self.voxel_size,
            unit=self.unit,
        )

    def without_state(self) -> ModelBundle:
        """The same model without `state`: it can be applied and fine-tuned, but not resumed."""
        return self.model_copy(update={"state": {}})

    def save(self, path: str | os.PathLike[str] | Replacement) -> Path:
        """Write the bundle to one file; an older file survives a failure.

        Parameters
        ----------
        path
            The file, which may replace an older one; a symbolic link is followed. Or a
            `Replacement` that was made before a long run, so that nothing newer is replaced.

        Raises
        ------
        BadInputError
            The folder is missing or cannot be written to, or the file cannot be replaced.
        RunFailedError
            Writing failed, for example because the disk is full.
        """
        place = path if isinstance(path, Replacement) else Replacement(path)
        header = Header.model_validate(self.model_dump(exclude={"weights", "pixels", "state"}))
        groups = {"": self.weights, PIXELS: self.pixels, STATE: self.state}
        tensors = {
            prefix + name: tensor.detach().cpu().contiguous()
            for prefix, group in groups.items()
            for name, tensor in group.items()
        }
        metadata = {
            "format": FORMAT,
            "format_version": str(FORMAT_VERSION),
            "bundle": header.model_dump_json(),
        }
        try:
            # Not safetensors' own writer: its files are readable by their owner only.
            data = save(tensors, metadata)
        except SafetensorError as error:
            raise RunFailedError(f"{place.path} could not be written: {error}") from error
        place.write(data)
        return place.path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ModelBundle:
        """Open a bundle of this format version or an older one.

        Raises
        ------
        BadInputError
            The file is missing, no bundle, truncated, of a newer version, or its parts do
            not go together.
        """
        header, groups = read_model_file(Path(path).expanduser())
        weights, pixels, state = groups.values()
        return cls(**dict(header), weights=weights, pixels=pixels, state=state)
