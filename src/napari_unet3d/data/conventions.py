"""Dense labels in everybody's convention (0 background, 1, 2 … classes), told from sparse ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_unet3d.config import FIRST_CLASS, ClassInfo, default_class
from napari_unet3d.data.slices import count_values, painted_planes


@dataclass(frozen=True)
class DenseReport:
    """Why labels look dense; `text` says it to the user."""

    text: str


def looks_dense(labels: Any) -> DenseReport | None:
    """Tell labels of a whole stack, with 0 for background, from painted slices."""
    painted = [plane for _, plane in painted_planes(labels, 0)] if labels.ndim == 3 else []
    beside = [plane for plane in painted if (plane == 0).any()]
    if len(beside) < 3 or 2 * len(beside) <= labels.shape[0]:
        return None
    values = ", ".join(map(str, sorted(count_values(labels))))
    return DenseReport(
        f"It holds {values} on most slices, beside 0: is 0 background, and is each number a class?"
    )


def from_dense(labels: Any) -> np.ndarray:
    """Labels with 1 for background, and 2 … for the classes 1 and above."""
    return (np.asarray(labels[...]) + 1).astype(np.uint8)


def dense_classes(labels: Any) -> tuple[ClassInfo, ...]:
    """The classes of `from_dense`."""
    return tuple(default_class(v + 1) for v in sorted(count_values(labels)) if v + 1 >= FIRST_CLASS)
