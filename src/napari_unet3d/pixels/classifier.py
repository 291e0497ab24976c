"""A classifier of single voxels: the second learner, which learns in seconds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_unet3d.config import Triple, VoxelSize
from napari_unet3d.pixels.features import Read, feature_count, filter_bank

_HIDDEN = 64
_GROUP = 32
"""Voxels that share a dropout mask."""
_LEAST = -14.0
_ROWS = 1 << 15
"""Voxels that go through the perceptron at once."""


class _Dropout(nn.Module):
    """Dropout with one mask for a group of voxels: drawing one for each takes half the time."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """(N, units) → the same shape."""
        if not self.training or not self.share:
            return x
        groups = -(-len(x) // _GROUP)
        kept = torch.rand((groups, x.shape[1]), device=x.device) >= self.share
        return x * (kept / (1 - self.share)).repeat_interleave(_GROUP, 0)[: len(x)]


class PixelClassifier(nn.Module):
    """Class of a voxel from the features of `filter_bank`.

    Parameters
    ----------
    channels
        Of the image.
    n_classes
        Outputs, background included.
    dropout
        Share of the hidden units that are left out in each step of the training.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, n_classes: int, dropout: float = 0.0) -> None:
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

    def forward(self, features: Tensor) -> Tensor:
        """(N, features) → logits (N, n_classes)."""
        logits: Tensor = self.layers((features - self.mean) / self.std)
        return logits

    def voxel_log_probabilities(self, features: Tensor) -> Tensor:
        """(N, features) → log-probabilities (N, K), bounded about as the network's are."""
        return self(features).log_softmax(1).clamp(min=_LEAST)  # type: ignore[no-any-return]

    @torch.no_grad()
    def log_probabilities(
        self, read: Read, start: Triple, stop: Triple, voxel_size: VoxelSize
    ) -> Tensor:
        """(K, z, y, x) of a box."""
        features = filter_bank(read, start, stop, voxel_size)
        # Few voxels at a time: the hidden units stay in the cache, and take no memory.
        parts = [
            self.voxel_log_probabilities(part.T).T for part in features.flatten(1).split(_ROWS, 1)
        ]
        return torch.cat(parts, 1).reshape(-1, *features.shape[1:])
