"""What Çiçek et al. 2016 report, and how sure it is.

Row averages of the tables were verified in the paper; the single values within the rows are quoted
from memory and marked so. The kidney data are not public, so nobody else can measure these numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

COUNTS = ((1, 1, 1), (2, 2, 1), (3, 3, 2), (5, 5, 3))
"""Annotated slices of the orientations yz, xz and xy (Table 2)."""

SEMI_AUTOMATED: Mapping[str, float] = MappingProxyType(
    {"3d": 0.842, "3d_norm": 0.863, "2d_norm": 0.796}
)
"""Mean IoU of the three folds over slices (Table 1), verified: 3D without and with batch norm, and
2D with batch norm."""
BY_SLICES: Mapping[tuple[int, int, int], tuple[float, float, float]] = MappingProxyType(
    {
        (1, 1, 1): (0.331, 0.483, 0.475),
        (2, 2, 1): (0.676, 0.579, 0.738),
        (3, 3, 2): (0.761, 0.808, 0.835),
        (5, 5, 3): (0.856, 0.849, 0.872),
    }
)
"""IoU of the three stacks by the number of annotated slices (Table 2), from memory."""
FULLY_AUTOMATED: Mapping[str, float] = MappingProxyType(
    {"3d": 0.723, "3d_norm": 0.704, "2d_norm": 0.547}
)
"""Mean IoU on the stack that was left out (Table 3), verified."""
