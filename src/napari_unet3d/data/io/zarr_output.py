"""OME-Zarr images that are written, and looked at before they are called written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numcodecs  # type: ignore[import-untyped]
import numpy as np
import zarr

from napari_unet3d.data.io.description import Description, rgb

_CHUNK = (64, 256, 256)
"""Voxels along z, y, x: 4 MB of labels, so few files, and little to unpack for one slice."""
_AXIS_TYPES = {"T": "time", "C": "channel"}
_UNIT_NAMES = {"nm": "nanometer", "µm": "micrometer", "mm": "millimeter"}


def create_zarr(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], description: Description, name: str
) -> Any:
    """Make an OME-Zarr image of one resolution and return its array.

    NGFF 0.4, that is zarr 2, which every reader opens. Chunks that are written are stored even
    when they are 0, so that a lost one can be told from one that holds nothing.
    """
    group = zarr.open_group(store=str(path), mode="w", zarr_format=2)
    group.attrs.update(ngff_metadata(description, name))
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
    """Open the result of `create_zarr` and compare it with the expected one.

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
        The fault; "" when the result is complete.
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
    there = sum(not name.startswith(".") for _, _, names in os.walk(path / "0") for name in names)
    if chunks is None or there == chunks:
        return ""
    return f"{there} of its {chunks} chunks are there"


def is_image_group(path: Path) -> bool:
    """Whether a folder is the group of an OME-Zarr image, by its description."""
    for mark, keys in ((".zattrs", ()), ("zarr.json", ("attributes",))):
        try:
            attributes = json.loads((path / mark).read_text(encoding="utf-8"))
            for key in keys:
                attributes = attributes.get(key, {})
            if "multiscales" in attributes or "multiscales" in attributes.get("ome", {}):
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


def ngff_metadata(description: Description, name: str) -> dict[str, Any]:
    """Attributes of the group, NGFF 0.4."""
    spatial = dict(zip("ZYX", description.voxel_size, strict=True))
    position = dict(zip("ZYX", description.translation, strict=True))
    axes = []
    for axis in description.axes:
        axes.append({"name": axis.lower(), "type": _AXIS_TYPES.get(axis, "space")})
        if axis in spatial and description.unit in _UNIT_NAMES:
            axes[-1]["unit"] = _UNIT_NAMES[description.unit]
        elif axis == "T" and description.seconds is not None:
            axes[-1]["unit"] = "second"
    steps = spatial | {"T": description.seconds or 1.0}
    transforms: list[dict[str, Any]] = [
        {"type": "scale", "scale": [float(steps.get(axis, 1.0)) for axis in description.axes]}
    ]
    if description.is_moved:
        moved = [float(position.get(axis, 0.0)) for axis in description.axes]
        transforms.append({"type": "translation", "translation": moved})
    dataset = {"path": "0", "coordinateTransformations": transforms}
    metadata: dict[str, Any] = {
        "multiscales": [{"version": "0.4", "name": name, "axes": axes, "datasets": [dataset]}]
    }
    if description.is_labels:
        metadata["image-label"] = _image_label(description)
    elif "C" in description.axes and (names := description.names_of_channels()):
        colors = description.colors_of_channels()
        metadata["omero"] = {
            "version": "0.4",
            "name": name,
            "channels": [
                {"label": label, "active": True, **(_probability(colors[i]) if colors else {})}
                for i, label in enumerate(names)
            ],
        }
    return metadata


def _image_label(description: Description) -> dict[str, Any]:
    """What makes readers open the image as labels: colors and names by value."""
    colors = {0: (0, 0, 0, 0)} | {c.output_value: (*rgb(c.color), 255) for c in description.classes}
    return {
        "version": "0.4",
        "colors": [{"label-value": v, "rgba": list(rgba)} for v, rgba in colors.items()],
        "properties": [
            {"label-value": v, "class": n} for v, n in description.label_names().items()
        ],
    }


def _probability(color: tuple[int, int, int]) -> dict[str, Any]:
    return {
        "color": bytes(color).hex().upper(),
        "window": {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0},
    }
