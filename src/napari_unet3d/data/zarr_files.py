"""OME-Zarr (NGFF 0.4 and 0.5), with axes and voxel size; plain zarr arrays can be read too."""

from __future__ import annotations

import json
import logging
import math
import os
from pathlib import Path
from typing import Any

import numcodecs  # type: ignore[import-untyped]
import numpy as np
import zarr

from napari_unet3d.data.description import Description, rgb
from napari_unet3d.data.file_metadata import arrange_axes, common_unit
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError

_log = logging.getLogger(__name__)
_MARKS = ("zarr.json", ".zgroup", ".zarray")
_CHUNK = (64, 256, 256)
_AXIS_TYPES = {"T": "time", "C": "channel"}
_UNIT_NAMES = {"nm": "nanometer", "µm": "micrometer", "mm": "millimeter"}


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


def create_zarr(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], about: Description, name: str
) -> Any:
    """Make an OME-Zarr image of one resolution and return its array.

    NGFF 0.4, that is zarr 2, which every reader opens. Chunks that are written are stored even
    when they are 0, so that a lost one can be told from one that holds nothing.
    """
    group = zarr.open_group(store=str(path), mode="w", zarr_format=2)
    group.attrs.update(_ngff_metadata(about, name))
    chunk = [1] * (len(shape) - 3) + [min(a, b) for a, b in zip(_CHUNK, shape[-3:], strict=True)]
    return group.create_array(
        "0",
        shape=shape,
        dtype=dtype,
        chunks=tuple(chunk),
        compressors=numcodecs.Blosc(cname="lz4", clevel=5),
        fill_value=0,
        chunk_key_encoding={"name": "v2", "separator": "/"},
        config={"write_empty_chunks": True},
    )


def check_zarr(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], chunks: int | None) -> str:
    """Open what `create_zarr` made and compare it with what it must be.

    Parameters
    ----------
    path
        The folder.
    shape, dtype
        Of its array.
    chunks
        Chunks that were written; None where they were not counted.

    Returns
    -------
    str
        What is wrong; "" when it is complete.
    """
    try:
        group = zarr.open_group(store=str(path), mode="r")
        array = group["0"]
        described = "multiscales" in group.attrs
    except Exception:  # whatever a store without its metadata leads to
        return "its description is missing"
    if not described or not isinstance(array, zarr.Array):
        return "its description is missing"
    if array.shape != shape or array.dtype != dtype:
        return f"it holds {array.shape} {array.dtype} in place of {shape} {dtype}"
    found = sum(not name.startswith(".") for _, _, names in os.walk(path / "0") for name in names)
    if chunks is None or found == chunks:
        return ""
    return f"{found} of its {chunks} chunks are there"


def is_image_group(path: Path) -> bool:
    """Whether a folder is the group of an OME-Zarr image, by its description."""
    for mark, keys in ((".zattrs", ()), ("zarr.json", ("attributes",))):
        try:
            found = json.loads((path / mark).read_text(encoding="utf-8"))
            for key in keys:
                found = found.get(key, {})
            if "multiscales" in found or "multiscales" in found.get("ome", {}):
                return True
        except (OSError, ValueError, AttributeError, TypeError):
            continue
    return False


def is_zarr_array(path: Path) -> bool:
    """Whether a folder is a zarr array, not a group."""
    try:
        node = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
        return isinstance(node, dict) and node.get("node_type") == "array"
    except (OSError, ValueError):
        return (path / ".zarray").is_file()


def _ngff_metadata(about: Description, name: str) -> dict[str, Any]:
    """Attributes of the group, NGFF 0.4."""
    spatial = dict(zip("ZYX", about.voxel_size, strict=True))
    position = dict(zip("ZYX", about.translation, strict=True))
    axes = []
    for axis in about.axes:
        axes.append({"name": axis.lower(), "type": _AXIS_TYPES.get(axis, "space")})
        if axis in spatial and about.unit in _UNIT_NAMES:
            axes[-1]["unit"] = _UNIT_NAMES[about.unit]
        elif axis == "T" and about.seconds is not None:
            axes[-1]["unit"] = "second"
    steps = spatial | {"T": about.seconds or 1.0}
    transforms: list[dict[str, Any]] = [
        {"type": "scale", "scale": [float(steps.get(axis, 1.0)) for axis in about.axes]}
    ]
    if about.is_moved:
        moved = [float(position.get(axis, 0.0)) for axis in about.axes]
        transforms.append({"type": "translation", "translation": moved})
    dataset = {"path": "0", "coordinateTransformations": transforms}
    metadata: dict[str, Any] = {
        "multiscales": [{"version": "0.4", "name": name, "axes": axes, "datasets": [dataset]}]
    }
    if about.is_labels:
        metadata["image-label"] = _image_label(about)
    elif "C" in about.axes and (names := about.names_of_channels()):
        colors = about.colors_of_channels()
        metadata["omero"] = {
            "version": "0.4",
            "name": name,
            "channels": [
                {"label": label, "active": True, **(_probability(colors[i]) if colors else {})}
                for i, label in enumerate(names)
            ],
        }
    return metadata


def _image_label(about: Description) -> dict[str, Any]:
    """What makes readers open the image as labels: colors and names by value."""
    colors = {0: (0, 0, 0, 0)} | {c.output_value: (*rgb(c.color), 255) for c in about.classes}
    return {
        "version": "0.4",
        "colors": [{"label-value": v, "rgba": list(rgba)} for v, rgba in colors.items()],
        "properties": [{"label-value": v, "class": n} for v, n in about.label_names().items()],
    }


def _probability(color: tuple[int, int, int]) -> dict[str, Any]:
    return {
        "color": bytes(color).hex().upper(),
        "window": {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0},
    }


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
