"""Where a segmentation is wrong: missed, false or confused, voxel by voxel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.config import ClassInfo


@dataclass(frozen=True)
class Mistake:
    """A kind of mistake.

    Attributes
    ----------
    value
        Number in a map of mistakes.
    name, meaning
        For legends and tooltips.
    color
        As #rrggbb. The three differ in lightness and in blue against red, which color-blind users
        see (Okabe and Ito's palette).
    """

    value: int
    name: str
    meaning: str
    color: str


MISSED = Mistake(1, "missed", "painted as a class, predicted as background", "#0072b2")
FALSE = Mistake(2, "false", "painted as background, predicted as a class", "#d55e00")
CONFUSED = Mistake(3, "confused", "painted as one class, predicted as another", "#f0e442")
MISTAKES = (MISSED, FALSE, CONFUSED)


def find_mistakes(
    predicted: NDArray[np.integer], codes: NDArray[np.uint8], classes: Sequence[ClassInfo]
) -> NDArray[np.uint8]:
    """Compare a segmentation with what is painted.

    Parameters
    ----------
    predicted
        A segmentation: 0 background, classes by `ClassInfo.output_value`.
    codes
        Of the same shape, as `SparseAnnotation.held_out_target` gives them: 0 unlabelled,
        1 background, 2… the classes in their order.
    classes
        The class table. Other numbers in the segmentation are a class that is not painted.

    Returns
    -------
    np.ndarray
        uint8: 0 where the two agree and where nothing is painted, else the value of a `Mistake`.
    """
    as_code = np.full(256, 255, np.uint8)
    as_code[0] = 1
    for i, info in enumerate(classes):
        as_code[info.output_value] = i + 2
    ours = as_code[np.asarray(predicted)]
    mistakes = np.zeros(codes.shape, np.uint8)
    wrong = (codes > 0) & (ours != codes)
    mistakes[wrong] = CONFUSED.value
    mistakes[wrong & (ours == 1)] = MISSED.value
    mistakes[wrong & (codes == 1)] = FALSE.value
    return mistakes
