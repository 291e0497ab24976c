"""Run the whole path on the built-in stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from skimage.io import imsave

from napari_unet3d.cli.settings import DEMO_FOLDER
from napari_unet3d.cli.tasks.checkpoints import CheckpointFile
from napari_unet3d.cli.tasks.follow import TrainingRun
from napari_unet3d.cli.tasks.models import check_model_path, save_model
from napari_unet3d.cli.tasks.results import print_scores, say_how_to_go_on
from napari_unet3d.cli.terminal import tell
from napari_unet3d.config import PredictionConfig, TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.io.outputs import check_output, create_output
from napari_unet3d.data.samples import Sample, tubules
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import mean
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.prediction.comparison import compare
from napari_unet3d.prediction.scores import show
from napari_unet3d.session.job import make_outputs
from napari_unet3d.session.session import RunSettings, Session

_MODEL, _RESULT, _OVERLAY = "model.unet3d", "segmentation.ome.tif", "overlay.png"


def run_demo(folder: Path, config: TrainingConfig) -> dict[str, Any]:
    """Annotate slices of the built-in stack, train on them, segment it, write three files.

    Parameters
    ----------
    folder
        Where the files go; it is made when it is missing.
    config
        How the model is trained.

    Returns
    -------
    dict
        The layers that a window would show, as keywords of `open_window`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(
            f"the folder {folder} cannot be made ({error.strerror}): give another one with -o"
        ) from error
    _check_own(folder)
    model = check_model_path(folder / _MODEL, overwrite=True)
    result = folder / _RESULT
    check_output(result)
    sample = tubules()
    volume = sample.image
    slices = (*sample.training_slices, *sample.held_out_slices)
    labels = sample.annotate(slices)
    tell(
        f"Sample: {volume.name}, {volume.shape} voxels. Painted: {_names(sample.training_slices)}"
        f"; held out: {_names(sample.held_out_slices)}"
    )
    session = Session(
        volume=volume,
        annotation=SparseAnnotation(labels, sample.classes, frozenset(sample.held_out_slices)),
        settings=RunSettings(training=config, prediction=PredictionConfig(device=config.device)),
    )
    outputs = make_outputs(volume, sample.classes)
    out = outputs["labels"]

    def save(bundle: ModelBundle) -> ModelBundle:
        save_model(bundle, model)
        return bundle

    with TrainingRun(CheckpointFile.beside(model), time_points=session.time_points) as run:
        bundle = run.follow(session, save, outputs)
    say_how_to_go_on(bundle, model)
    print_scores(bundle)
    with create_output(
        result,
        out.shape,
        out.dtype,
        "ZYX",
        volume.voxel_size,
        volume.unit,
        classes=bundle.classes,
    ) as file:
        file[:] = out
    overlay = folder / _OVERLAY
    _save_overlay(sample, out, sample.held_out_slices[0].index, overlay)
    scores = compare(out, sample.truth, skip=slices).scores
    classes = ", ".join(
        f"{c.name} {show(s.iou)}" for c, s in zip(sample.classes, scores, strict=True)
    )
    tell("On all slices that were not painted, since the truth of this sample is known:")
    tell(f"  IoU {classes}; mean {show(mean([s.iou for s in scores]))}")
    for path in (result, model, overlay):
        tell(f"Written: {path}")
    return {
        "volume": volume,
        "annotation": labels,
        "prediction": out,
        "classes": sample.classes,
    }


def _check_own(folder: Path) -> None:
    """Refuse to replace files of other origin: a finished demo leaves three, not one or two."""
    existing = [folder / name for name in (_MODEL, _RESULT, _OVERLAY) if (folder / name).exists()]
    if len(existing) in (1, 2) and folder.name != DEMO_FOLDER:
        raise BadInputError(
            f"'{existing[0]}' exists and was not written by a demo, so it is not replaced. Give "
            "another folder with -o."
        )


def _names(slices: tuple[Any, ...]) -> str:
    return ", ".join(str(ref) for ref in slices)


def _save_overlay(sample: Sample, out: np.ndarray, index: int, path: Path) -> None:
    """Write a picture of one xy slice: image, segmentation and truth side by side."""
    plane = np.asarray(sample.image.data[index]).astype(float)
    low, high = np.percentile(plane, (0.5, 99.5))
    gray = np.clip((plane - low) / max(high - low, 1e-9), 0, 1)[..., None].repeat(3, -1)
    panels = [gray]
    for labels in (out[index], sample.truth[index]):
        panel = gray.copy()
        for c in sample.classes:
            color = np.array([int(c.color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
            panel[labels == c.value] = 0.5 * panel[labels == c.value] + 0.5 * color
        panels.append(panel)
    picture = np.concatenate(panels, 1).repeat(3, 0).repeat(3, 1)
    imsave(path, (picture * 255).astype(np.uint8), check_contrast=False)
