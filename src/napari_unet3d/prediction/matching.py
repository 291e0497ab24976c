"""Whether a model and the stack it is applied to go together."""

from __future__ import annotations

from collections.abc import Sequence

from napari_unet3d.data.volume import Volume
from napari_unet3d.data.wording import counted
from napari_unet3d.errors import BadInputError
from napari_unet3d.model.bundle import ModelBundle

_OTHER_VOXEL_SIZE = 1.5
"""Ratio of two voxel sizes along an axis from which a warning is given. Training stretches images
by up to 1.15, so a network has seen smaller differences."""


def check_volume(bundle: ModelBundle, volume: Volume, times: Sequence[int]) -> None:
    """Check that a model can be applied to some time points of a volume.

    Raises
    ------
    BadInputError
        The volume cannot be used, has other channels than the model, or lacks a time point.
    """
    volume.check()
    channels = bundle.network.in_channels
    if volume.n_channels != channels:
        raise BadInputError(
            f"the image has {counted(volume.n_channels, 'channel')}, the model was trained on "
            f"{channels}: choose an image with the same channels"
        )
    for time in times:
        if not 0 <= time < volume.n_times:
            raise BadInputError(
                f"time point {time} does not exist: the image has time points "
                f"0…{volume.n_times - 1}"
            )


def voxel_size_note(bundle: ModelBundle, volume: Volume) -> str | None:
    """A warning where a stack has other voxels than the model was trained on, else None."""
    if "pixel" in (bundle.unit, volume.unit):
        return None
    micrometers = {"nm": 1e-3, "µm": 1.0, "mm": 1e3}
    unit, trained = (micrometers.get(u, 1.0) for u in (volume.unit, bundle.unit))
    ratios = [
        v * unit / (t * trained) for v, t in zip(volume.voxel_size, bundle.voxel_size, strict=True)
    ]
    if all(1 / _OTHER_VOXEL_SIZE < r < _OTHER_VOXEL_SIZE for r in ratios):
        return None
    now, then = (" × ".join(f"{s:g}" for s in b.voxel_size) for b in (volume, bundle))
    return (
        f"The voxels are {now} {volume.unit}, the model was trained on {then} {bundle.unit}: "
        "resample the stack if the result is poor."
    )
