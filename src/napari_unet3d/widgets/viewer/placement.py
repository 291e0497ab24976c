"""Compares and sets the places of layers in the world."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from napari.layers import Layer

from napari_unet3d.errors import BadInputError

_TOLERANCE = 0.05
"""Voxels. A smaller difference moves no stroke to another voxel, and covers rounded sizes."""

MOVE = "Move it onto the image"
"""Text of the button that moves a layer onto its image; messages name it."""


@dataclass(frozen=True)
class Placement:
    """The data-to-world transform of a layer.

    Parameters
    ----------
    matrix
        From voxels to the world, homogeneous, (ndim + 1, ndim + 1).
    units
        The pint unit of each axis.
    """

    matrix: np.ndarray
    units: tuple[Any, ...]

    def last(self, ndim: int) -> np.ndarray:
        """The transform of the last `ndim` axes, (ndim + 1, ndim + 1)."""
        return self.matrix[-ndim - 1 :, -ndim - 1 :]


def placement_of(layer: Layer) -> Placement:
    """Read the complete transform: scale, translation, rotation, shear, affine and units."""
    matrix = np.eye(layer.ndim + 1)
    origin = np.asarray(layer.data_to_world((0.0,) * layer.ndim))
    for axis, unit_vector in enumerate(np.eye(layer.ndim)):
        matrix[:-1, axis] = np.asarray(layer.data_to_world(tuple(unit_vector))) - origin
    matrix[:-1, -1] = origin
    return Placement(matrix, tuple(layer.units))


def same_place(one: Placement, other: Placement, shape: tuple[int, ...]) -> bool:
    """Return whether both transforms put the voxels of an array at the same places.

    Parameters
    ----------
    one, other
        The transforms. Their last ``len(shape)`` axes are compared; lengths in different units
        are converted.
    shape
        Shape of the array, in voxels.
    """
    ndim = len(shape)
    if ndim > min(len(one.units), len(other.units)):
        return False
    first, second = one.last(ndim), other.last(ndim).copy()
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return False
    for axis, (unit, target) in enumerate(zip(other.units[-ndim:], one.units[-ndim:], strict=True)):
        second[axis] *= _factor(unit, target)
    try:
        change = np.linalg.solve(first, second) - np.eye(ndim + 1)
    except np.linalg.LinAlgError:
        return False
    corners = np.array([(*c, 1.0) for c in product(*((0, n - 1) for n in shape))])
    return bool((np.abs(corners @ change.T)[:, :-1] < _TOLERANCE).all())


def _factor(unit: Any, target: Any) -> float:
    """One `unit` in `target` units; 1 where they cannot be converted, as in napari."""
    if unit == target:
        return 1.0
    try:
        return float((1 * unit).to(target).magnitude)
    except Exception:  # pixels and a length
        return 1.0


def lies_on(layer: Layer, image: Layer) -> bool:
    """Return whether each voxel of `layer` lies on the voxel of `image` with the same index."""
    shape = tuple(int(n) for n in layer.data.shape)
    return same_place(placement_of(image), placement_of(layer), shape)


def check_lies_on(layer: Layer, image: Layer) -> None:
    """Raise BadInputError unless `layer` lies on `image`."""
    if not lies_on(layer, image):
        raise BadInputError(
            f"'{layer.name}' does not lie on '{image.name}' (scale, position or rotation differ): "
            f"strokes land on other voxels than those you see. Press '{MOVE}'."
        )


def move_onto(layer: Layer, image: Layer) -> None:
    """Give a layer the transform, units and axis labels of the last axes of an image."""
    for name, value in spatial_transform(image, layer.ndim).items():
        setattr(layer, name, value)


def spatial_transform(layer: Layer, ndim: int) -> dict[str, Any]:
    """Transform, units and axis labels of the last `ndim` axes, as options of a layer."""
    first = layer.ndim - ndim
    if first == 0:
        return {
            "scale": layer.scale,
            "translate": layer.translate,
            "rotate": layer.rotate,
            "shear": layer.shear,
            "affine": layer.affine,
            "units": layer.units,
            "axis_labels": layer.axis_labels,
        }
    shear = np.asarray(layer.shear)
    if shear.ndim == 1:  # the upper triangle, row by row
        full = np.eye(layer.ndim)
        full[np.triu_indices(layer.ndim, 1)] = shear
        shear = full
    return {
        "scale": layer.scale[first:],
        "translate": layer.translate[first:],
        "rotate": np.asarray(layer.rotate)[first:, first:],
        "shear": shear[first:, first:],
        "affine": layer.affine.affine_matrix[first:, first:],
        "units": layer.units[first:],
        "axis_labels": layer.axis_labels[first:],
    }
