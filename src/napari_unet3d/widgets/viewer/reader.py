"""Reads TIFF and OME-Zarr for File ▸ Open, with voxel size, position and axis names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from qtpy.QtCore import QTimer

from napari_unet3d.data.io.reading import read_volume
from napari_unet3d.data.io.zarr_files import is_zarr
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.session.names import is_session
from napari_unet3d.widgets.viewer.channels import CHANNEL_KEY
from napari_unet3d.widgets.viewer.layers import METADATA_KEY
from napari_unet3d.widgets.viewer.samples import LayerData, placement, volume_layer
from napari_unet3d.widgets.viewer.window_session import session_of


def get_reader(path: str | list[str]) -> Callable[[str], list[LayerData]] | None:
    """Return the function that opens a path, or None to leave it to other readers.

    napari calls this. Several files that are to be stacked are left to its own reader.
    """
    if not isinstance(path, str) or "://" in path:
        return None
    folder = Path(path)
    if folder.is_dir() and is_session(folder):
        return read_session
    if folder.is_dir() and not is_zarr(folder):
        return None
    return read


def read(path: str) -> list[LayerData]:
    """Open an image; lazy data stay lazy, and each channel becomes a layer.

    Raises
    ------
    BadInputError
        As `read_volume`, for instance for 2D images; napari then offers its other readers.
    """
    volume = read_volume(path)
    return [_channel_layers(volume) if "C" in volume.axes else volume_layer(volume)]


def read_session(path: str) -> list[LayerData]:
    """Open a session folder in the dock of the current viewer, which is opened for it.

    The dock adds the layers when it has opened the folder, so none are returned.
    """
    import napari

    viewer = napari.current_viewer()
    if viewer is None:
        raise BadInputError(f"'{path}' is a session. Open it in napari's window.")
    session_of(viewer).request(Path(path))
    # napari closes a dialog of its own after the reader: the dock comes after that.
    QTimer.singleShot(
        0, lambda: viewer.window.add_plugin_dock_widget("napari-unet3d", "Annotate & train")
    )
    nothing: Any = [(None,)]  # how a reader of napari says that there is nothing to add
    return cast(list[LayerData], nothing)


def _channel_layers(volume: Volume) -> LayerData:
    axis = volume.axes.index("C")
    middle = volume.shape[0] // 2
    plane = volume.crop(0, (middle, 0, 0), (middle + 1, *volume.shape[1:]))
    limits = [np.percentile(channel, (0.5, 99.8)) for channel in plane]
    options = {
        **placement(volume, volume.axes.replace("C", "")),
        "name": [f"{volume.name} {name}" for name in volume.channel_names] or volume.name,
        "channel_axis": axis,
        "contrast_limits": [(float(low), float(max(high, low + 1e-6))) for low, high in limits],
        "metadata": [{METADATA_KEY: {CHANNEL_KEY: i}} for i in range(volume.n_channels)],
    }
    return _takeable(volume.data), options, "image"


def _takeable(data: Any) -> Any:
    """Wrap lazy data so that napari can take one channel without reading the others."""
    if isinstance(data, np.ndarray):
        return data
    import dask.array  # comes with napari

    chunks = getattr(data, "chunks", "auto")
    return dask.array.from_array(data, chunks=chunks)  # type: ignore[no-untyped-call]
