"""Networks whose layers are PyTorch's own, for tools that know no others."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

from napari_unet3d.networks.layers import Convolution, Pool

M = TypeVar("M", bound=nn.Module)
_PLAIN = {Convolution: nn.Conv3d, Pool: nn.MaxPool3d}
"""What takes the place of our layers, which go round faults of PyTorch on CPUs."""


def with_plain_layers(module: M) -> M:
    """A copy of a module that computes the same with PyTorch's own layers."""
    plain = copy.deepcopy(module)
    for each in plain.modules():
        if (other := _PLAIN.get(type(each))) is not None:
            each.__class__ = other
    return plain
