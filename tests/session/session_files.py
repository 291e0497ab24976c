"""Sessions and their files, for the tests of session folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from bundles import random_bundle
from napari_unet3d.config import PredictionConfig, TrainingConfig, default_class
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.io.reading import read_volume
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import ClassScore, HeldOutScores
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks.unet import UNetConfig
from napari_unet3d.session.session import NamedModel, RunSettings, Session

SHAPE = (6, 40, 50)
NETWORK = UNetConfig(widths=(4, 8), strides=((2, 2, 2),), kernels=((3, 3, 3),) * 2, padding="same")
SETTINGS = RunSettings(
    training=TrainingConfig(seconds=30, device="cpu"),
    prediction=PredictionConfig(overlap=0.25, device="cpu"),
    outputs=("uncertainty",),
)
CLASSES = (default_class(2, "nucleus"), default_class(3, "membrane"))
HELD_OUT = frozenset({SliceRef(0, 4), SliceRef(2, 7)})
VOXEL = (2.0, 0.5, 0.25)


def model(number: int = 1) -> NamedModel:
    """A small model that knows its number."""
    bundle = random_bundle(NETWORK, [2, 3])
    record = bundle.record.model_copy(update={"iterations": number})
    changed: ModelBundle = bundle.model_copy(update={"record": record})
    return NamedModel(changed, f"number {number}")


def scores(number: int = 1) -> HeldOutScores:
    """Scores that know the number of their model."""
    return HeldOutScores(number, 1.5, (ClassScore(2, 0.5, None, 7),), ("z=4",), 3, 0.5, final=True)


def labels(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Some paint on z=1 and z=4, and on x=7."""
    rng = np.random.default_rng(0)
    painted = np.zeros(shape, np.uint8)
    painted[..., 1, 5:20, 5:20] = rng.integers(1, 4, (15, 15))
    painted[..., 4, :, :] = 1
    painted[..., 7] = 2
    return painted


def image_file(folder: Path, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Path:
    """Write an image; the gray values depend on the seed."""
    path = folder / "cells.tif"
    tifffile.imwrite(path, np.random.default_rng(seed).integers(0, 999, shape, np.uint16))
    return path


def file_session(folder: Path) -> Session:
    """A session of an image in a file."""
    path = image_file(folder)
    volume = read_volume(path, voxel_size=VOXEL)
    return Session(
        volume=volume,
        image_path=path,
        annotation=SparseAnnotation(labels(), CLASSES, HELD_OUT),
        settings=SETTINGS,
        accepted={SliceRef(0, 4): "model trained on 'cells', 2026-11-26 14:30"},
        more={"window": {"slice": "z=4"}},
    )


def memory_session(shape: tuple[int, ...] = SHAPE, axes: str = "ZYX") -> Session:
    """A session of an image that is in no file."""
    image = np.random.default_rng(0).integers(0, 999, shape, np.uint16)
    volume = Volume(image, axes, VOXEL, "µm", "cells in memory", (1.0, 2.0, 3.0))
    return Session(
        volume=volume,
        annotation=SparseAnnotation(labels(shape), CLASSES, HELD_OUT),
        settings=SETTINGS,
    )


def content(folder: Path) -> dict[str, bytes]:
    """Every file in a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
