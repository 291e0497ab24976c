"""How a network's levels follow the voxel size and the shape of a stack."""

from __future__ import annotations

from dataclasses import dataclass

from napari_unet3d.config import Triple

_SHORTEST_POOLED_AXIS = 8
"""Voxels. A shorter axis is not pooled: fewer than 4 would be left."""
ONES: Triple = (1, 1, 1)
"""A stride or kernel that does nothing."""


@dataclass
class Grid:
    """The voxels of a level of a network that is planned, by the rules of nnU-Net.

    Isensee et al. 2021: an axis is pooled, and gets a kernel of 3, once its voxels are at most
    twice as long as the shortest ones. Here an axis that is too short is not pooled.

    Attributes
    ----------
    spacing
        Voxel size (z, y, x), any unit.
    sizes
        Voxels of the stack along z, y and x.
    """

    spacing: list[float]
    sizes: list[int]

    def coarsen(self) -> Triple | None:
        """Halve the axes that are long and fine enough; None where none is long enough."""
        long = [n >= _SHORTEST_POOLED_AXIS for n in self.sizes]
        if not any(long):
            return None
        finest = min(s for s, fits in zip(self.spacing, long, strict=True) if fits)
        z, y, x = (
            2 if s < 2 * finest and fits else 1 for s, fits in zip(self.spacing, long, strict=True)
        )
        self.spacing = [s * k for s, k in zip(self.spacing, (z, y, x), strict=True)]
        self.sizes = [-(-n // k) for n, k in zip(self.sizes, (z, y, x), strict=True)]
        return z, y, x

    def kernel(self, above: Triple = ONES) -> Triple:
        """3 along axes as fine as the finest within a factor of 2, else 1.

        Parameters
        ----------
        above
            Kernel of the level above.
        """
        finest = min((s for s, n in zip(self.spacing, self.sizes, strict=True) if n > 1), default=1)
        z, y, x = (
            # An axis keeps its kernel of 3 once it has one: pooling makes it coarser than an axis
            # that is too short to be pooled.
            3 if (s <= 2 * finest or k == 3) and n > 1 else 1
            for s, n, k in zip(self.spacing, self.sizes, above, strict=True)
        )
        return z, y, x
