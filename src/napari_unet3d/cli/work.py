"""What the commands do: files in, the core's generators, files out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet3d.cli.tasks.follow import follow
from napari_unet3d.cli.tasks.inputs import SWAPPED, open_image
from napari_unet3d.config import PredictionConfig
from napari_unet3d.data.io.outputs import OutputArray, check_output, check_paths, create_output
from napari_unet3d.errors import RunFailedError
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.prediction.predictor import predict as segment


def predict(
    model: Path,
    image: Path,
    config: PredictionConfig,
    times: Sequence[int] | None,
    output: Path,
    probabilities: Path | None = None,
    uncertainty: Path | None = None,
    *,
    overwrite: bool = False,
    reading: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Segment a file with a model; the paths of what was written."""
    wanted = [path for path in (output, probabilities, uncertainty) if path is not None]
    check_paths(wanted, [model, image])
    for path in wanted:
        check_output(path, overwrite=overwrite)
    bundle = ModelBundle.load(model)
    volume = open_image(image, SWAPPED, reading)
    volume.check()
    series = (volume.n_times,) if "T" in volume.axes else ()
    axes = "TZYX" if series else "ZYX"
    whole = (*series, *volume.shape)
    channels = (*series, bundle.network.n_classes, *volume.shape)
    about: dict[str, Any] = {
        "voxel_size": volume.voxel_size,
        "unit": volume.unit,
        "translation": volume.translation,
        "time_step": volume.time_step,
        "overwrite": overwrite,
    }
    classes = {"classes": bundle.classes}
    with ExitStack() as files:

        def create(
            path: Path | None, shape: tuple[int, ...], dtype: Any, axes: str, **more: Any
        ) -> OutputArray | None:
            if path is None:
                return None
            return files.enter_context(create_output(path, shape, dtype, axes, **about, **more))

        labels = create(output, whole, np.uint8, axes, **classes)
        likely = create(probabilities, channels, np.float32, axes.replace("Z", "CZ"), **classes)
        unsure = create(uncertainty, whole, np.float32, axes, channel_names=("uncertainty",))
        steps = segment(
            bundle,
            volume,
            labels,
            probabilities=likely,
            uncertainty=unsure,
            times=times,
            config=config,
        )
        follow(steps, "predicting")
        _finish([array for array in (labels, likely, unsure) if array is not None])
    return wanted


def _finish(arrays: Sequence[OutputArray]) -> None:
    """Give every output its name, also where one of them fails."""
    failed: list[RunFailedError] = []
    for array in arrays:
        try:
            array.finish()
        except RunFailedError as error:
            failed.append(error)
    if failed:
        raise RunFailedError(" ".join(map(str, failed))) from failed[0]
