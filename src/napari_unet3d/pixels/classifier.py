"""A classifier of single voxels: the second learner, which is fitted in seconds.

It carries a result until the network is better, and supports the network where it is not. It is the
mean of a perceptron and of boosted trees, which err on different voxels.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, nn

from napari_unet3d.config import Triple, VoxelSize
from napari_unet3d.pixels.features import (
    MORE_SCALES,
    SCALES,
    Read,
    Scales,
    feature_count,
    filter_bank,
)
from napari_unet3d.pixels.trees import ObliviousTrees

_HIDDEN = 64
"""Units of each of the two hidden layers, three for each feature of an image of one channel."""
_DROPOUT_GROUP = 32
"""Voxels that share a dropout mask: drawing one for each voxel takes half the time of a fit."""
_SMALLEST_LOG_PROBABILITY = -14.0
"""Log-probability below which none is passed on. It is close to the bound of the network's, -13.8,
so that neither learner can be much surer than the other."""
_CHUNK = 1 << 15
"""Voxels that go through the layers at once: their hidden units, 8 MiB, stay in the cache."""

_CHUNK_ON_GPU = 1 << 20
"""The same on a GPU, which would take longer to launch the layers than to compute them."""


class _Dropout(nn.Module):
    """Dropout with one mask for a group of voxels."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """(N, units) → the same shape."""
        if not self.training or not self.share:
            return x
        groups = -(-len(x) // _DROPOUT_GROUP)
        kept = torch.rand((groups, x.shape[1]), device=x.device) >= self.share
        return x * (kept / (1 - self.share)).repeat_interleave(_DROPOUT_GROUP, 0)[: len(x)]


class PixelClassifier(nn.Module):
    """Tells the class of a voxel from the features of `filter_bank`.

    Parameters
    ----------
    channels
        Channels of the image.
    n_classes
        Classes, background included.
    dropout
        Share of the hidden units that are left out in each step of the fit.
    trees
        Boosted trees; None for a perceptron that stands alone, as in models of older programs and
        in answers that must come within a blink.

    Attributes
    ----------
    mean, std
        (features,) statistics of the voxels that the perceptron was fitted to.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        channels: int,
        n_classes: int,
        dropout: float = 0.0,
        *,
        trees: ObliviousTrees | None = None,
    ) -> None:
        super().__init__()
        n = feature_count(channels)
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("std", torch.ones(n))
        self.layers = nn.Sequential(
            nn.Linear(n, _HIDDEN),
            nn.ReLU(),
            _Dropout(dropout),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.ReLU(),
            _Dropout(dropout),
            nn.Linear(_HIDDEN, n_classes),
        )
        self.trees = trees

    @cached_property
    def scales(self) -> Scales:
        """Scales of the features that are needed: more than `SCALES` where trees ask about them."""
        asked = 0 if self.trees is None else int(self.trees.feature.max())
        return SCALES if asked < len(self.mean) else MORE_SCALES

    def forward(self, features: Tensor) -> Tensor:
        """(N, features) → logits (N, n_classes) of the perceptron, which sees only `SCALES`."""
        logits: Tensor = self.layers((features[:, : len(self.mean)] - self.mean) / self.std)
        return logits

    def voxel_log_probabilities(self, features: Tensor) -> Tensor:
        """(N, features) → bounded log-probabilities (N, n_classes).

        Parameters
        ----------
        features
            Of all `scales` at least.
        """
        if self.trees is None:
            log_probabilities: Tensor = self(features).log_softmax(1)
        else:
            of_perceptron, of_trees = self(features).softmax(1), self.trees(features).softmax(1)
            log_probabilities = torch.lerp(of_perceptron, of_trees, self.trees.share).log_()
        return log_probabilities.clamp(min=_SMALLEST_LOG_PROBABILITY)

    @torch.no_grad()
    def log_probabilities(
        self, read: Read, start: Triple, stop: Triple, voxel_size: VoxelSize
    ) -> Tensor:
        """Log-probabilities (n_classes, z, y, x) of a box; see `filter_bank` for the parameters."""
        features = filter_bank(read, start, stop, voxel_size, self.scales)
        at_once = _CHUNK if features.device.type == "cpu" else _CHUNK_ON_GPU
        chunks = features.flatten(1).split(at_once, 1)
        parts = [self.voxel_log_probabilities(chunk.T).T for chunk in chunks]
        return torch.cat(parts, 1).reshape(-1, *features.shape[1:])
