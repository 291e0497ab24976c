"""Describe a model, an image, or this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from napari_unet3d.cli.terminal import errors
from napari_unet3d.data.io.reading import read_volume
from napari_unet3d.data.volume import Volume
from napari_unet3d.model.bundle import SUFFIX, ModelBundle
from napari_unet3d.networks import device as devices


def describe_file(path: Path, *, as_json: bool) -> str | dict[str, Any]:
    """Describe a model as a JSON text, or an image as a text or, with `as_json`, a dictionary."""
    if path.suffix == SUFFIX:
        bundle = ModelBundle.load(path)
        return bundle.model_dump_json(
            indent=None if as_json else 2, exclude={"weights", "pixels", "state", "intensity"}
        )
    volume = read_volume(path)
    for note in volume.notes:
        errors.note(note)
    return _as_dict(path, volume) if as_json else _as_text(path, volume)


def _as_text(path: Path, volume: Volume) -> str:
    size = " × ".join(f"{v:g}" for v in volume.voxel_size)
    return (
        f"{path}: {volume.axes} {tuple(volume.data.shape)} {volume.dtype}\n"
        f"voxel (z × y × x): {size} {volume.unit}"
    )


def _as_dict(path: Path, volume: Volume) -> dict[str, Any]:
    return {
        "path": str(path),
        "axes": volume.axes,
        "shape": [int(n) for n in volume.data.shape],
        "dtype": str(volume.dtype),
        "voxel_size": volume.voxel_size,
        "unit": volume.unit,
        "translation": volume.translation,
        "time_step": volume.time_step,
        "notes": errors.notes,
    }


def describe_machine(*, as_json: bool) -> str | dict[str, Any]:
    """Describe device, precision and free memory, and why a GPU is not used."""
    device = devices.pick_device()
    name, precision = devices.describe(device), devices.pick_precision(device)
    free, unused = devices.free_memory(device), devices.unused_gpu()
    if as_json:
        return {
            "torch": torch.__version__,
            "device": name,
            "precision": precision,
            "free_memory": free,
            "unused_gpu": unused,
        }
    lines = [
        f"torch {torch.__version__}; device: {name}",
        f"precision: {precision}",
        f"free memory: {free / 2**30:.1f} GiB",
        unused,
    ]
    return "\n".join(line for line in lines if line)
