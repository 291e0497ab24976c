"""Which voxels boxes cover."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from napari_unet3d.data.boxes import Box


def covered(boxes: Iterable[Box], box: Box) -> np.ndarray:
    """How many of the boxes cover each voxel of a box (z, y, x)."""
    count = np.zeros(box.shape, int)
    for each in boxes:
        where = tuple(
            slice(max(a, c) - c, max(min(b, d) - c, 0))
            for a, b, c, d in zip(each.start, each.stop, box.start, box.stop, strict=True)
        )
        count[where] += 1
    return count
