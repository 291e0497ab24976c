"""A network for several kinds of stacks, after 3D U²-Net (Huang et al., MICCAI 2019).

What differs between the *domains*, as kinds of stacks are called there, is small: the convolutions
that look at space, the norms, the first and the last layer. What mixes channels is shared.

Differences from the authors' program: five levels instead of six, the convolutions after an
up-sampling are usual ones that all domains share, and coarser levels are compared with the labels
each by itself instead of being added to the output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from napari_unet3d.config import Normalization, Preset, SmallTriple, Triple
from napari_unet3d.networks.architecture import Architecture, Network, PresetFacts, Supervised
from napari_unet3d.networks.grids import ONES
from napari_unet3d.networks.layers import Convolution, Join, normalization
from napari_unet3d.networks.levels import (
    LevelsConfig,
    convolution,
    head,
    initialize,
    supervise_levels,
)

_SLOPE = 0.01
"""Slope of the leaky ReLU for negative values."""
_WIDTHS = (16, 32, 64, 128, 256)


class Domain(BaseModel):
    """A kind of stacks."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field("", max_length=100, description="Name, by which a user chooses it.")
    in_channels: int = Field(1, ge=1, le=64, description="Image channels.")
    n_classes: int = Field(2, ge=2, le=255, description="Outputs, background included.")


class UniversalUNetConfig(LevelsConfig):
    """A 3D U²-Net: one network for several kinds of stacks (Huang et al. 2019)."""

    presets: ClassVar[Mapping[Preset, PresetFacts]] = MappingProxyType(
        {
            preset: PresetFacts(learning_rate=3e-3, pixel_classifier=False)
            for preset in ("fast", "balanced", "paper")
        }
    )
    poolings: ClassVar[Mapping[Preset, int]] = MappingProxyType({"fast": 3, "balanced": 4})
    usual_normalization: ClassVar[Normalization] = "instance"

    not_chosen: ClassVar[frozenset[str]] = frozenset({"domains", "active", "frozen"})

    kind: Literal["universal_unet"] = Field("universal_unet", description="Kind of network.")
    widths: tuple[Annotated[int, Field(ge=2, le=2048)], ...] = Field(
        _WIDTHS, min_length=1, max_length=7, description="Channels of each level, finest first."
    )
    strides: tuple[SmallTriple, ...] = Field(
        ((2, 2, 2),) * 4, description="Steps (z, y, x) between one level and the next."
    )
    kernels: tuple[SmallTriple, ...] = Field(
        ((3, 3, 3),) * 5, description="Convolution kernel (z, y, x) of each level, odd."
    )
    normalization: Normalization = Field(
        "instance", description=LevelsConfig.model_fields["normalization"].description
    )
    domains: tuple[Domain, ...] = Field(
        (Domain(),), min_length=1, max_length=1000, description="The kinds of stacks."
    )
    active: int = Field(0, ge=0, description="Number of the domain that is trained or predicted.")
    frozen: bool = Field(
        False, description="Only what belongs to the active domain learns: the others stay as good."
    )

    @model_validator(mode="after")
    def _active_domain_is_there(self) -> Self:
        if self.active >= len(self.domains):
            raise ValueError(
                f"there are {len(self.domains)} domains, none with number {self.active}"
            )
        domain = self.domains[self.active]
        if (domain.in_channels, domain.n_classes) != (self.in_channels, self.n_classes):
            raise ValueError("channels and outputs must be those of the active domain")
        if self.normalization == "batch":
            raise ValueError(
                "'batch' has statistics of a single stack: choose 'instance', 'channel' or 'none'"
            )
        if len({d.name for d in self.domains}) != len(self.domains):
            raise ValueError("two domains have the same name")
        return self

    @classmethod
    def ends(cls, in_channels: int, n_classes: int) -> dict[str, Any]:
        """Settings that follow from the channels of an image and the outputs."""
        domain = Domain(in_channels=in_channels, n_classes=n_classes)
        return super().ends(in_channels, n_classes) | {"domains": (domain,)}

    def for_domains(self, domains: tuple[Domain, ...], active: int) -> Self:
        """The same network for other domains, one of which is active."""
        domain = domains[active]
        ends = {"in_channels": domain.in_channels, "n_classes": domain.n_classes}
        return self.model_copy(update={"domains": domains, "active": active} | ends)

    @property
    def domain(self) -> Domain:
        """The active domain."""
        return self.domains[self.active]

    def for_classes(self, n_classes: int) -> Self:
        """The same network with another number of outputs for the active domain."""
        domains = list(self.domains)
        domains[self.active] = domains[self.active].model_copy(update={"n_classes": n_classes})
        return self.for_domains(tuple(domains), self.active)

    def with_domain(self, domain: Domain) -> Self:
        """The same network with one more domain, which alone learns."""
        more = self.for_domains((*self.domains, domain), len(self.domains))
        return more.model_copy(update={"frozen": True})

    @property
    def head_prefixes(self) -> tuple[str, ...]:
        """Prefixes of the active domain's heads."""
        return tuple(f"heads.{level}.{_key(self.active)}." for level in self.supervised_levels)

    @property
    def supervised_levels(self) -> tuple[int, ...]:
        """Levels that are compared with the labels in training: all but the two coarsest."""
        return (0, *range(1, len(self.strides) - 1))

    def build(self) -> UniversalUNet:
        """Make the network with random weights, ready for the active domain."""
        return UniversalUNet(self)


def _key(domain: int) -> str:
    """Name of a domain's part in a module."""
    return f"d{domain}"


class OfDomains(nn.Module):
    """A layer of which each domain has its own.

    Parameters
    ----------
    config
        The domains.
    make
        Makes the layer of a domain.
    """

    def __init__(self, config: UniversalUNetConfig, make: Callable[[Domain], nn.Module]) -> None:
        super().__init__()
        for number, domain in enumerate(config.domains):
            self.add_module(_key(number), make(domain))
        self.active = config.active

    def forward(self, x: Tensor) -> Tensor:
        """The layer of the active domain, applied to a map."""
        y: Tensor = self.get_submodule(_key(self.active))(x)
        return y


class _Unit(nn.Module):
    """A separable convolution: each channel alone, by the domain; then all together, shared.

    Parameters
    ----------
    config
        The domains and the normalization.
    channels
        Channels of its input and its output.
    kernel
        Extent (z, y, x) of the convolution of single channels.
    """

    def __init__(
        self, config: UniversalUNetConfig, channels: tuple[int, int], kernel: Triple
    ) -> None:
        super().__init__()
        n_in, n_out = channels
        z, y, x = (k // 2 for k in kernel)
        self.depthwise = OfDomains(
            config,
            lambda _: Convolution(n_in, n_in, kernel, 1, (z, y, x), groups=n_in, bias=False),
        )
        self.inner_norm = _norm(config, n_in)
        self.pointwise = Convolution(n_in, n_out, 1, bias=False)
        self.norm = _norm(config, n_out)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, Z, Y, X) → (N, C', Z, Y, X)."""
        x = _activate(self.inner_norm(self.depthwise(x)))
        y: Tensor = self.norm(self.pointwise(x))
        return y


class _Block(nn.Module):
    """Two units; the second one's result is added to the input, where it has as many channels."""

    def __init__(
        self, config: UniversalUNetConfig, channels: tuple[int, int], kernel: Triple
    ) -> None:
        super().__init__()
        n_in, n_out = channels
        self.first = _Unit(config, (n_in, n_out), kernel)
        self.second = _Unit(config, (n_out, n_out), kernel)
        self._adds = n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, Z, Y, X) → (N, C', Z, Y, X)."""
        y: Tensor = self.second(_activate(self.first(x)))
        return _activate(x + y if self._adds else y)


class UniversalUNet(Network):
    """3D U²-Net.

    Parameters
    ----------
    config
        Levels, domains, and which of them is active.
    """

    config: UniversalUNetConfig

    def __init__(self, config: UniversalUNetConfig) -> None:
        super().__init__(config)
        widths, levels = config.widths, len(config.widths)
        self.first = OfDomains(
            config,
            lambda domain: convolution(
                domain.in_channels, widths[0], config.kernels[0], config.stem
            ),
        )
        self.first_norm = _norm(config, widths[0])
        self.encoder, self.downs, self.down_norms = _lists(3)
        self.ups, self.up_norms, self.decoder = _lists(3)
        for i, (width, kernel) in enumerate(zip(widths, config.kernels, strict=True)):
            self.encoder.append(_Block(config, (width, width), kernel))
            if i == levels - 1:
                break
            stride, below = config.strides[i], widths[i + 1]
            size = _around(stride, config.kernels[i])
            self.downs.append(Convolution(width, below, size, stride, _padding(size, stride)))
            self.down_norms.append(_norm(config, below))
            z, y, x = (k // 2 for k in config.kernels[i])
            self.ups.append(Convolution(below, width, config.kernels[i], 1, (z, y, x)))
            self.up_norms.append(_norm(config, width))
            self.decoder.append(_Block(config, (2 * width, width), kernel))
        self.heads = nn.ModuleDict(
            {
                str(level): OfDomains(
                    config,
                    lambda domain, level=level: head(  # type: ignore[misc]
                        widths[level], domain.n_classes, ONES if level else config.stem
                    ),
                )
                for level in config.supervised_levels
            }
        )
        self.join = Join()
        initialize(self)
        if config.frozen:
            own = f".{_key(config.active)}."
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(own in name)

    def enter(self, config: Architecture) -> None:
        """Work for the domain that a configuration has active."""
        assert isinstance(config, UniversalUNetConfig)
        for module in self.modules():
            if isinstance(module, OfDomains):
                module.active = config.active

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, Z, Y, X) → logits (N, n_classes, Z, Y, X) of the active domain."""
        finest = x
        for _, finest in self._decode(x):  # noqa: B007
            pass  # the finest map is the last one
        logits: Tensor = self.heads["0"](finest)
        return logits

    def supervised(self, x: Tensor) -> Supervised:
        """The output, and those of coarser levels; see `supervise_levels`."""
        return supervise_levels(self._decode(x), dict(self.heads.items()), x.shape[2:])

    def _decode(self, x: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Levels and maps of the decoder, coarsest first, the deepest of the encoder included."""
        x = _activate(self.first_norm(self.first(x)))
        skips = []
        for i, units in enumerate(self.encoder):
            if i:
                skips.append(x)
                x = _activate(self.down_norms[i - 1](self.downs[i - 1](x)))
            x = self.run(units, x)
        yield len(self.ups), x
        for i in reversed(range(len(self.ups))):
            x = functional.interpolate(x, scale_factor=self.config.strides[i], mode="nearest")
            x = _activate(self.up_norms[i](self.ups[i](x)))
            x = self.join(x, skips.pop())
            x = self.run(self.decoder[i], x)
            yield i, x


def _lists(n: int) -> list[nn.ModuleList]:
    return [nn.ModuleList() for _ in range(n)]


def _norm(config: UniversalUNetConfig, channels: int) -> OfDomains:
    return OfDomains(config, lambda _: normalization(config.normalization, channels))


def _activate(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, _SLOPE)


def _around(stride: Triple, kernel: Triple) -> Triple:
    """Extent of a convolution that makes steps: the kernel, where it is not shorter than a step."""
    z, y, x = (max(s, k) for s, k in zip(stride, kernel, strict=True))
    return z, y, x


def _padding(size: Triple, stride: Triple) -> Triple:
    """Padding with which every step gives a voxel."""
    z, y, x = ((k - 1) // 2 if k > s else 0 for k, s in zip(size, stride, strict=True))
    return z, y, x
