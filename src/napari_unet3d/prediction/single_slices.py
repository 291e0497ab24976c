"""Predicts single slices of a stack, without the rest of it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.config import PredictionConfig
from napari_unet3d.data.boxes import slice_box
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks import device as devices
from napari_unet3d.prediction.engine import Engine
from napari_unet3d.prediction.matching import check_volume
from napari_unet3d.prediction.output import output_table
from napari_unet3d.sampling.source import open_source


def predict_slices(
    bundle: ModelBundle,
    volume: Volume,
    refs: Iterable[SliceRef],
    config: PredictionConfig | None = None,
) -> dict[SliceRef, NDArray[np.uint8]]:
    """Segment some slices, each as large as it is; meant for a few of them.

    Parameters
    ----------
    bundle
        The model.
    volume
        The image, in memory or not.
    refs
        Slices of the image.
    config
        Device, tile, memory.

    Returns
    -------
    dict
        The labels of each slice (2D): 0 background, classes by `ClassInfo.output_value`.

    Raises
    ------
    BadInputError
        The image does not fit the model.
    """
    refs = tuple(refs)
    config = config or PredictionConfig()
    check_volume(bundle, volume, tuple(sorted({ref.time for ref in refs})))
    device = devices.pick_device(config.device)
    precision = devices.pick_precision(device, config.precision)
    table = output_table(bundle.classes)
    devices.prepare(device)
    try:
        mixture = bundle.build_mixture(folded=True)
        mixture = mixture.to(device, memory_format=devices.memory_format(device))  # type: ignore[call-overload]
        intensity = IntensityNormalization.estimate(volume, bundle.intensity.clip)
        engine = Engine(
            mixture,
            open_source(volume, intensity, device, config.memory),
            precision,
            tile_shape=config.tile_shape,
            overlap=config.overlap,
            memory=config.memory,
        )
        with devices.computing(device, precision):
            return {
                ref: table[
                    engine.predict(ref.time, slice_box(volume.shape, ref)).argmax(0)
                ].squeeze(ref.axis)
                for ref in refs
            }
    finally:
        devices.release(device)
