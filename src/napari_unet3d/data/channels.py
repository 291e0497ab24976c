"""Takes channels out of a volume, and puts volumes together as the channels of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from napari_unet3d.data.lazy import AtIndex, Stacked
from napari_unet3d.data.volume import Volume


def one_channel(volume: Volume, index: int) -> Volume:
    """A volume with only one of its channels, and without a channel axis; nothing is read.

    Raises
    ------
    IndexError
        There is no such channel.
    """
    if not 0 <= index < volume.n_channels:
        raise IndexError(f"channel {index} is not among the {volume.n_channels} of the volume")
    if "C" not in volume.axes:
        return volume
    axis = volume.axes.index("C")
    if isinstance(volume.data, np.ndarray):
        data: Any = np.moveaxis(volume.data, axis, 0)[index]
    else:
        data = AtIndex(volume.data, axis, index)
    return replace(volume, data=data, axes=volume.axes.replace("C", ""), channel_names=())


def stack_channels(volume: Volume, others: Sequence[Volume]) -> Volume:
    """A volume with others as its further channels; nothing is read.

    Parameters
    ----------
    volume
        ZYX or TZYX. Name, voxel size and place are taken from it.
    others
        Of the same axes and shape.
    """
    if not others:
        return volume
    data = Stacked([volume.data, *(other.data for other in others)], axis=len(volume.axes) - 3)
    return replace(volume, data=data, axes=volume.axes.replace("ZYX", "CZYX"))
