"""The devices of this computer, as the training form offers them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from napari_unet3d.networks import device as devices


@dataclass(frozen=True)
class DeviceChoice:
    """A device that can be chosen.

    Parameters
    ----------
    value
        Its name in the configuration, such as "cuda:0".
    text
        Its name on the screen.
    """

    value: str
    text: str


def find_devices() -> tuple[list[DeviceChoice], str | None]:
    """Find the devices that can be chosen; takes seconds where a GPU is tried.

    Returns
    -------
    choices : list of DeviceChoice
        "auto" first.
    note : str or None
        Why a GPU is not used; None where nothing needs to be said.
    """
    automatic = devices.pick_device("auto")
    choices = [DeviceChoice("auto", f"Automatic: {_short(automatic)}")]
    for i in range(torch.cuda.device_count()):
        choices.append(DeviceChoice(f"cuda:{i}", devices.describe(torch.device("cuda", i))))
    if torch.backends.mps.is_available():
        choices.append(DeviceChoice("mps", devices.describe(torch.device("mps"))))
    choices.append(DeviceChoice("cpu", devices.describe(torch.device("cpu"))))
    return choices, devices.unused_gpu()


def _short(device: torch.device) -> str:
    return "CPU" if device.type == "cpu" else devices.describe(device)
