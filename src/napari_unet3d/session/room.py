"""Whether an annotation fits into the memory as a plain array."""

from __future__ import annotations

import math
from collections.abc import Sequence

from napari_unet3d.networks.main_memory import free_main_memory

SHARE_FOR_ANNOTATION = 0.5
"""Share of the free memory. The result takes as much again."""


def annotation_fits(shape: Sequence[int]) -> bool:
    """Whether labels (uint8) of this shape are kept as a plain array, not as `SparseLabels`."""
    return math.prod(shape) <= SHARE_FOR_ANNOTATION * free_main_memory()
