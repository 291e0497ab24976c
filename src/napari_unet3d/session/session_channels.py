"""The further channels of the image of a session, which may lie in files of their own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from napari_unet3d.data.channels import one_channel, stack_channels
from napari_unet3d.data.io.reading import read_volume
from napari_unet3d.data.shapes import describe_shape
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.session.session import ChannelSource


def moved(channel: ChannelSource, then: Path | None, now: Path | None) -> ChannelSource:
    """A channel whose file was moved together with that of the image.

    Parameters
    ----------
    channel
        As it was.
    then, now
        File of the image when the channel was noted, and its file now; None for no file.
    """
    if channel.path is None or then is None or now is None or then == now:
        return channel
    if channel.path == then:
        return channel.model_copy(update={"path": now})
    try:
        beside = Path(os.path.normpath(now.parent / os.path.relpath(channel.path, then.parent)))
    except ValueError:  # on another drive
        return channel
    return channel.model_copy(update={"path": beside}) if beside.exists() else channel


def with_channels(volume: Volume, channels: Sequence[ChannelSource]) -> Volume:
    """Open the further channels of an image, and put them behind it.

    Parameters
    ----------
    volume
        The image, without a channel axis; one that has it is returned as it is.
    channels
        Where the further channels are.

    Raises
    ------
    BadInputError
        A channel is in no file, its file is missing or cannot be read, or it has another shape.
    """
    if "C" in volume.axes:
        return volume
    return stack_channels(volume, [_read(channel, volume) for channel in channels])


def _read(channel: ChannelSource, image: Volume) -> Volume:
    path = channel.path
    if path is None:
        raise BadInputError(
            f"The channel '{channel.name}' of '{image.name}' is in no file. Save its layer, and "
            "open the session in napari with this file as the channel."
        )
    if not path.exists():
        raise BadInputError(
            f"The channel '{channel.name}' of '{image.name}' is not at '{path}'. Put the file "
            "back, or open the session in napari and choose the channels again."
        )
    volume = read_volume(path)
    if "C" in volume.axes:
        if channel.index is None or channel.index >= volume.n_channels:
            raise BadInputError(
                f"'{path}' has {volume.n_channels} channels; which of them is '{channel.name}' is "
                "not known. Open the session in napari and choose the channels again."
            )
        volume = one_channel(volume, channel.index)
    if (volume.axes, volume.data.shape) != (image.axes, tuple(image.data.shape)):
        raise BadInputError(
            f"The channel '{channel.name}' ({describe_shape(volume.data.shape)}, '{path}') does "
            f"not fit '{image.name}' ({describe_shape(image.data.shape)}). Put back the file that "
            "was used."
        )
    return volume
