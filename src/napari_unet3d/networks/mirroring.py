"""Predictions that are averaged over mirror images of a tile."""

from __future__ import annotations

from itertools import combinations

from torch import Tensor

from napari_unet3d.networks.architecture import Network

_AXES = (2, 3, 4)
"""Axes z, y, x of (N, C, Z, Y, X)."""


class Mirrored(Network):
    """A network that sees each tile eight times, mirrored along every set of axes.

    Parameters
    ----------
    network
        Any network in eval mode; it is not copied.
    """

    def __init__(self, network: Network) -> None:
        super().__init__(network.config)
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, Z, Y, X) → logarithm of the mean probability (N, n_classes, …)."""
        sets = [axes for n in range(len(_AXES) + 1) for axes in combinations(_AXES, n)]
        total: Tensor | None = None
        for axes in sets:
            probability = self.network(x.flip(axes)).float().softmax(1).flip(axes)
            total = probability if total is None else total.add_(probability)
        assert total is not None
        return (total / len(sets)).log()
