"""Networks of MONAI by their names, where MONAI is installed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Literal, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from napari_unet3d.config import Normalization, Preset, Triple, VoxelSize
from napari_unet3d.errors import BadInputError
from napari_unet3d.networks.architecture import Architecture, Network

_LARGEST_NUMBER, _LONGEST_LIST = 2048, 12
"""Largest number among the arguments, and longest list: a file of a stranger must not ask for more
layers than any network has."""
_ARGUMENTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "AttentionUnet": ("channels", "strides", "kernel_size", "up_kernel_size", "dropout"),
        "BasicUNet": ("features", "act", "norm", "bias", "dropout", "upsample"),
        "BasicUNetPlusPlus": ("features", "deep_supervision", "act", "norm", "dropout", "upsample"),
        "DynUNet": ("kernel_size", "strides", "upsample_kernel_size", "filters", "norm_name",
                    "res_block", "trans_bias"),
        "SegResNet": ("init_filters", "dropout_prob", "act", "norm", "use_conv_final",
                      "blocks_down", "blocks_up", "upsample_mode"),
        "UNet": ("channels", "strides", "kernel_size", "up_kernel_size", "num_res_units", "act",
                 "norm", "dropout", "bias"),
        "VNet": ("act", "dropout_prob_down", "bias"),
    }
)  # fmt: skip
"""Networks that may be used, and their arguments. None of them downloads or reads anything."""


_USUAL: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "AttentionUnet": {"channels": [16, 32, 64, 128], "strides": [2, 2, 2]},
        "BasicUNet": {"features": [16, 16, 32, 64, 128, 16]},
        "BasicUNetPlusPlus": {"features": [16, 16, 32, 64, 128, 16]},
        "DynUNet": {
            "kernel_size": [3, 3, 3, 3],
            "strides": [1, 2, 2, 2],
            "upsample_kernel_size": [2, 2, 2],
            "filters": [16, 32, 64, 128],
        },
        "SegResNet": {"init_filters": 16},
        "UNet": {"channels": [16, 32, 64, 128], "strides": [2, 2, 2], "num_res_units": 2},
        "VNet": {},
    }
)
"""Arguments where none are given: 16 features on the finest level, as our default network has."""


class MonaiConfig(Architecture):
    """A network of monai.networks.nets (Cardoso et al. 2022), by the name of its class."""

    kind: Literal["monai"] = Field("monai", description="Kind of network.")
    name: Literal[
        "AttentionUnet", "BasicUNet", "BasicUNetPlusPlus", "DynUNet", "SegResNet", "UNet", "VNet"
    ] = Field("BasicUNet", description="Name of the class.")
    arguments: str = Field(
        "",
        max_length=2000,
        description="Its further arguments as a JSON object; spatial_dims, in_channels and "
        "out_channels are given. Usual ones when empty.",
    )

    @field_validator("arguments", mode="before")
    @classmethod
    def _arguments_as_text(cls, arguments: Any) -> Any:
        return json.dumps(arguments) if isinstance(arguments, dict) else arguments

    @model_validator(mode="after")
    def _arguments_are_harmless(self) -> Self:
        try:
            arguments = self.all_arguments()
        except (ValueError, RecursionError) as error:
            raise ValueError("the arguments must be a JSON object") from error
        if not isinstance(arguments, dict):
            raise ValueError("the arguments must be a JSON object")
        known = _ARGUMENTS[self.name]
        for name, value in arguments.items():
            if name not in known:
                raise ValueError(f"{self.name} has no argument '{name}' here, but {known}")
            _check_size(name, value)
        return self

    def all_arguments(self) -> Any:
        """The arguments that are given, or the usual ones of the class."""
        return json.loads(self.arguments) if self.arguments else dict(_USUAL[self.name])

    @classmethod
    def plan(
        cls,
        preset: Preset,
        voxel_size: VoxelSize,
        stack_shape: Triple,
        *,
        in_channels: int,
        n_classes: int,
        accelerator: bool,
        normalization: Normalization | None = None,
    ) -> Self:
        """Configure the network for an image; it does not follow the stack."""
        return cls(in_channels=in_channels, n_classes=n_classes)

    @classmethod
    def is_available(cls) -> bool:
        """Whether MONAI is installed."""
        return find_spec("monai") is not None

    @property
    def head_prefixes(self) -> tuple[str, ...]:
        """Names of the parameters whose shapes follow the number of classes."""
        return _of_classes(self)

    def build(self) -> Monai:
        """Make the network with random weights.

        Raises
        ------
        BadInputError
            MONAI is not installed, or has no such network, or the arguments do not suit it.
        """
        return Monai(self)


class Monai(Network):
    """A network of MONAI.

    Parameters
    ----------
    config
        Its name and arguments.
    """

    def __init__(self, config: MonaiConfig) -> None:
        super().__init__(config)
        try:
            from monai.networks import nets
        except ImportError as error:
            raise BadInputError("MONAI is not installed: pip install monai") from error
        ends = {"in_channels": config.in_channels, "out_channels": config.n_classes}
        try:
            self.network: nn.Module = getattr(nets, config.name)(
                spatial_dims=3, **ends, **config.all_arguments()
            )
        except Exception as error:  # each class of MONAI has errors of its own
            raise BadInputError(
                f"MONAI's {config.name} cannot be made with {config.arguments}: {error}"
            ) from error

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, Z, Y, X) → logits (N, n_classes, Z, Y, X)."""
        found: Any = self.network(x)
        logits: Tensor = found[0] if isinstance(found, list | tuple) else found
        return logits


def _check_size(name: str, value: Any) -> None:
    """Raise ValueError where a value, or one of a list, is larger than any network needs."""
    values = value if isinstance(value, list) else [value]
    if len(values) > _LONGEST_LIST:
        raise ValueError(f"'{name}' has {len(values)} values, {_LONGEST_LIST} are the most")
    for each in values:
        if isinstance(each, list) and value is not each:
            _check_size(name, each)
        elif isinstance(each, int | float) and not 0 <= each <= _LARGEST_NUMBER:
            raise ValueError(f"'{name}' is {each}, it must be 0 to {_LARGEST_NUMBER}")
        elif isinstance(each, dict):
            raise ValueError(f"'{name}' must be a number, a text or a list")


@lru_cache(maxsize=32)
def _of_classes(config: MonaiConfig) -> tuple[str, ...]:
    """Names of tensors that are others with one more class."""
    with torch.device("meta"):
        these, those = (
            config.for_classes(n).build().state_dict()
            for n in (config.n_classes, config.n_classes + 1)
        )
    return tuple(n for n, t in these.items() if n not in those or those[n].shape != t.shape)
