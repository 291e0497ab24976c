"""The devices this computer offers, in words."""

from __future__ import annotations

import torch

from napari_unet3d.networks import device as devices
from napari_unet3d.widgets.parts.training_form import DeviceChoice


def find_devices() -> tuple[list[DeviceChoice], str | None]:
    """What can be chosen, and why a GPU is not used (None when there is nothing to say)."""
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
