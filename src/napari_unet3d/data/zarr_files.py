"""OME-Zarr (NGFF 0.4 and 0.5), with axes and voxel size; plain zarr arrays can be read too."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from napari_unet3d.data.file_metadata import arrange_axes, common_unit
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError

_log = logging.getLogger(__name__)
_MARKS = ("zarr.json", ".zgroup", ".zarray")


def is_zarr(path: Path) -> bool:
    """Whether a folder holds a zarr group or array."""
    return any((path / mark).is_file() for mark in _MARKS)


def read_zarr(path: Path) -> Volume:
    """Open an OME-Zarr image, or a plain zarr array; its voxels are read when they are needed.

    Raises
    ------
    BadInputError
        When it is damaged, empty, no image or no 3D stack.
    """
    try:
        node = zarr.open(store=str(path), mode="r")
    except Exception as error:  # whatever damaged metadata leads to
        raise BadInputError(_damaged(path, error)) from error
    if isinstance(node, zarr.Array):
        return _plain(node, path)
    multiscale, group = _multiscale(node, path)
    try:
        return _finest_level(multiscale, group, path)
    except BadInputError:
        raise
    except Exception as error:  # metadata that breaks the specification, in whatever way
        raise BadInputError(_damaged(path, error)) from error


class Rearranged:
    """A zarr array with some of its axes in another order, and those of length 1 dropped.

    Parameters
    ----------
    array
        What is read from.
    order
        Its axes that are kept, in the new order; the others have length 1.
    """

    def __init__(self, array: Any, order: tuple[int, ...]) -> None:
        self._array = array
        self._order = order
        self.shape = tuple(int(array.shape[i]) for i in order)
        self.chunks = tuple(int(array.chunks[i]) for i in order)
        self.dtype = np.dtype(array.dtype)
        self.ndim = len(order)

    def __getitem__(self, key: Any) -> np.ndarray:
        keys = key if isinstance(key, tuple) else (key,)
        if Ellipsis in keys:
            i = keys.index(Ellipsis)
            full = (slice(None),) * (self.ndim - len(keys) + 1)
            keys = (*keys[:i], *full, *keys[i + 1 :])
        keys = (*keys, *(slice(None),) * (self.ndim - len(keys)))
        source: list[Any] = [0] * len(self._array.shape)
        for axis, k in zip(self._order, keys, strict=True):
            source[axis] = k
        block = np.asarray(self._array[tuple(source)])
        # Integers have taken their axes away; what is left goes into the new order.
        left = [axis for axis, k in zip(self._order, keys, strict=True) if isinstance(k, slice)]
        return block.transpose([sorted(left).index(axis) for axis in left])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype=dtype)


def _plain(array: Any, path: Path) -> Volume:
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if names and all(isinstance(n, str) and len(n) == 1 for n in names):
        order, axes = arrange_axes("".join(names).upper(), array.shape, f"'{path.name}'")
        return Volume(_arranged(array, order), axes, name=path.name)
    return Volume.from_array(array, name=path.name)


def _multiscale(group: Any, path: Path) -> tuple[dict[str, Any], Any]:
    """The description of an image, and the group that its paths start from."""
    attributes: dict[str, Any] = dict(group.attrs)
    found = attributes.get("ome", attributes).get("multiscales")
    if found:
        if len(found) > 1:
            _log.info("%s holds %d images: the first one is used", path, len(found))
        return found[0], group
    members = sorted(name for name, _ in group.members())
    if not members:
        raise BadInputError(f"'{path}' is an empty zarr group. Export the stack again.")
    if "0" in members and isinstance(group["0"], zarr.Group):  # as bioformats2raw writes it
        inner: dict[str, Any] = dict(group["0"].attrs)
        if inner.get("ome", inner).get("multiscales"):
            _log.info("%s holds several images: the first one is used", path)
            return _multiscale(group["0"], path / "0")
    raise BadInputError(
        f"'{path}' is a zarr group without multiscales, so it is no OME-Zarr image. Give the "
        f"path of an array or image in it ({', '.join(members[:8])}), as in {path / members[0]}"
    )


def _finest_level(multiscale: dict[str, Any], group: Any, path: Path) -> Volume:
    levels = [(group[level["path"]], level) for level in multiscale["datasets"]]
    array, level = max(levels, key=lambda pair: math.prod(pair[0].shape))
    if len(levels) > 1:
        _log.info("%s has %d resolutions: the finest is used", path, len(levels))
    axes = multiscale.get("axes", list("tczyx"))
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in axes]
    names = "".join(a["name"].upper() if a["name"].lower() in tuple("tczyx") else "?" for a in axes)
    if len(names) != len(array.shape):
        raise BadInputError(
            f"'{path}' names {len(names)} axes, but its array has {len(array.shape)}. Export it "
            "again."
        )
    scale = np.ones(len(names))
    for holder in (level, multiscale):
        for transformation in holder.get("coordinateTransformations", []):
            if transformation["type"] == "scale":
                scale *= np.asarray(transformation["scale"], float)
    order, kept = arrange_axes(names, array.shape, f"'{path.name}'")
    spatial = order[-3:]
    voxel_size, unit = common_unit(
        [float(scale[i]) for i in spatial], [axes[i].get("unit") for i in spatial]
    )
    return Volume(_arranged(array, order), kept, voxel_size, unit, path.name)


def _arranged(array: Any, order: tuple[int, ...]) -> Any:
    return array if order == tuple(range(len(array.shape))) else Rearranged(array, order)


def _damaged(path: Path, error: Exception) -> str:
    return f"'{path}' cannot be read as OME-Zarr ({error}). Copy or export it again."
