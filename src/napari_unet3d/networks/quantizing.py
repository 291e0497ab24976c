"""A network in 8-bit integers, for predictions on a CPU."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from napari_unet3d.errors import BadInputError
from napari_unet3d.networks.architecture import Network
from napari_unet3d.networks.device import is_out_of_memory
from napari_unet3d.networks.layers import ChannelNorm, Join, Resize, SliceNorm, TileNorm
from napari_unet3d.networks.stock import with_plain_layers

_LEAST_AGREEMENT = 0.9
"""Mean IoU of the classes in integers with those in fp32. After 45 s of training on three stacks it
was 0.988 to 0.994, and the IoU with the truth changed by 0.0015 at most. With less than this limit,
the result would be another one."""
_FEWEST_VOXELS = 100
"""Voxels of a class in either result, on half a million voxels of tiles."""
_IN_FLOATS = (Join, Resize, ChannelNorm, SliceNorm, TileNorm, nn.InstanceNorm3d)
"""Layers that stay in fp32: PyTorch cannot compute them in integers for 3D maps, or maps that are
joined would have to share a range."""


class Quantized(Network):
    """A network whose convolutions compute in 8-bit integers.

    Parameters
    ----------
    network
        The network that was quantized.
    graph
        Computes the same in integers.
    """

    def __init__(self, network: Network, graph: nn.Module) -> None:
        super().__init__(network.config)
        self.graph = graph

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, Z, Y, X) → logits (N, n_classes, Z', Y', X')."""
        logits: Tensor = self.graph(x.contiguous())
        return logits


def quantize(network: Network, tiles: Sequence[Tensor]) -> tuple[Quantized, float]:
    """Quantize a network after its training (Jacob et al. 2018, sec. 2).

    The last layer stays in fp32: its outputs are few, and rounding them would change
    probabilities.

    Parameters
    ----------
    network
        In eval mode, on the CPU, best with its batch norms folded.
    tiles
        (1, C, Z, Y, X) inputs, one or more. Every other one shows the range of each map; on the
        rest, the network in integers is compared with that in fp32.

    Returns
    -------
    quantized, agreement
        The network in integers, and the mean IoU of its classes with those in fp32.

    Raises
    ------
    BadInputError
        PyTorch cannot convert the network, as one that decides from what it sees; or in integers
        it is another one.
    """
    from torch.ao.quantization import QConfigMapping, get_default_qconfig
    from torch.ao.quantization.fx.custom_config import PrepareCustomConfig
    from torch.ao.quantization.observer import default_weight_observer
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    engine = "x86" if "x86" in torch.backends.quantized.supported_engines else "qnnpack"
    torch.backends.quantized.engine = engine
    usual = get_default_qconfig(engine)
    # The weights of an up-convolution have one scale in all: PyTorch knows no other.
    single = usual._replace(weight=default_weight_observer)
    mapping = QConfigMapping().set_global(usual)
    mapping = mapping.set_object_type(nn.ConvTranspose3d, single)
    for prefix in network.config.head_prefixes:
        mapping = mapping.set_module_name(prefix.rstrip("."), None)
    for kind in _IN_FLOATS:
        mapping = mapping.set_object_type(kind, None)
    leaves = PrepareCustomConfig().set_non_traceable_module_classes(list(_IN_FLOATS))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of a newer way, which knows no 3D convolutions
        try:
            plain = with_plain_layers(network)
            example = (tiles[0].contiguous(),)
            graph = prepare_fx(plain, mapping, example, prepare_custom_config=leaves)
            for tile in tiles[::2]:
                graph(tile.contiguous())
            quantized = Quantized(network, convert_fx(graph))
            others = tiles[1::2] or tiles
            agreement = _agreement([(network(t).argmax(1), quantized(t).argmax(1)) for t in others])
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise BadInputError(
                f"int8 does not apply to the network '{network.config.kind}' here: PyTorch cannot "
                "convert it"
            ) from error
    if agreement < _LEAST_AGREEMENT:
        raise BadInputError(
            f"int8 does not apply: its classes would have a mean IoU of only {agreement:.3f} with "
            "those in fp32, measured on tiles of this stack"
        )
    return quantized, agreement


def _agreement(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Mean IoU of the classes of pairs of results (1, Z, Y, X); 1 where no class is found.

    A class of few voxels in both does not count: a single one would decide.
    """
    first, second = (
        torch.cat([each.flatten() for each in side]) for side in zip(*pairs, strict=True)
    )
    ious = []
    for c in torch.cat([first, second]).unique().tolist():
        if c != 0:
            both, either = (first == c) & (second == c), (first == c) | (second == c)
            if either.sum() >= _FEWEST_VOXELS:
                ious.append(float(both.sum() / either.sum()))
    return sum(ious) / len(ious) if ious else 1.0
