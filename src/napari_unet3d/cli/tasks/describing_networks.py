"""Describe the networks that can be trained, for the stack of an image or a usual one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from napari_unet3d.config import Preset, Triple, VoxelSize
from napari_unet3d.data.io.reading import read_volume
from napari_unet3d.networks import NetworkConfig, available_networks, own_settings
from napari_unet3d.networks import device as devices
from napari_unet3d.networks.facts import NetworkFacts
from napari_unet3d.networks.unet import UNetConfig

_USUAL_SHAPE: Triple = (128, 256, 256)
_USUAL_VOXEL_SIZE: VoxelSize = (1.0, 1.0, 1.0)
"""Stack for which networks are planned where no image is given."""


def describe_networks(path: Path | None, *, as_json: bool) -> str | dict[str, Any]:
    """Parameters, reach, memory, cost and settings of each network.

    Parameters
    ----------
    path
        An image, whose channels, shape and voxel size the networks are planned for; None for an
        isotropic stack of one channel.
    as_json
        Whether a dictionary is wanted instead of a text.
    """
    shape, voxel_size, channels = _USUAL_SHAPE, _USUAL_VOXEL_SIZE, 1
    if path is not None:
        volume = read_volume(path)
        shape, voxel_size, channels = volume.shape, volume.voxel_size, volume.n_channels
    accelerator = devices.pick_device().type != "cpu"

    def facts_of(network: type[NetworkConfig], preset: Preset) -> NetworkFacts:
        planned = network.plan(
            preset, voxel_size, shape, in_channels=channels, n_classes=2, accelerator=accelerator
        )
        return NetworkFacts.of(planned, shape, accelerator=accelerator)

    planned: list[tuple[type[NetworkConfig], Preset]] = [
        *((network, "balanced") for network in available_networks()),
        (UNetConfig, "paper"),
    ]
    facts = [facts_of(network, preset) for network, preset in planned]
    settings = [
        {
            name: {"description": field.description, "default": field.default}
            for name, field in own_settings(network).items()
        }
        for network, _ in planned
    ]
    if as_json:
        each = [
            asdict(f) | {"preset": preset, "settings": s}
            for f, s, (_, preset) in zip(facts, settings, planned, strict=True)
        ]
        return {"shape": shape, "voxel_size": voxel_size, "channels": channels, "networks": each}
    lines = [_heading(shape, voxel_size, channels, path)]
    for f, s, (_, preset) in zip(facts, settings, planned, strict=True):
        lines += ["", *_as_lines(f, preset)]
        if preset == "balanced":  # those of the paper's network are the same
            lines += [f"    {n}: {v['description']}" for n, v in s.items()]
    return "\n".join(lines)


def _heading(shape: Triple, voxel_size: VoxelSize, channels: int, path: Path | None) -> str:
    stack = " × ".join(map(str, shape))
    voxel = " × ".join(f"{size:g}" for size in voxel_size)
    about = "an isotropic stack" if path is None else str(path)
    return (
        f"Networks for {about}, by the preset 'balanced' unless said: {stack} voxels of {voxel}, "
        f"{channels} channel{'s' * (channels > 1)}; memory in fp32"
    )


def _as_lines(facts: NetworkFacts, preset: Preset) -> list[str]:
    kind = facts.kind if preset == "balanced" else f"{facts.kind}, preset '{preset}'"
    reach, patch = (" × ".join(map(str, n)) for n in (facts.receptive_field, facts.patch))
    return [
        f"{kind}: {facts.description}",
        f"    parameters {facts.parameters:,}; sees {reach} voxels; "
        f"{facts.multiply_adds / 1e3:,.0f} thousand multiply-adds a voxel",
        f"    a patch of {patch} voxels takes {facts.training_bytes / 2**30:.2f} GiB to train on, "
        f"{facts.prediction_bytes / 2**30:.2f} GiB to predict",
    ]
