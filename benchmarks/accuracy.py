"""Accuracy on slices without annotation after a short training, stack by stack.

    python benchmarks/accuracy.py --data FOLDER [--stacks NAME …] [--seconds 60] [--seeds 3]

FOLDER holds one folder a stack, with `image.tif` and `labels.tif` (dense truth, 0 is
background). Without a folder, or where it is missing, the built-in tubules are used. `k` xy
slices are annotated completely, at `linspace(0, Z-1, 2k+1).round()[1::2]`; the others score.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from napari_unet3d.config import PredictionConfig, TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.files import read_labels, read_volume
from napari_unet3d.data.samples import tubules
from napari_unet3d.data.volume import Volume
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.prediction.scores import Overlap, mean
from napari_unet3d.training.events import TrainingProgress
from napari_unet3d.training.trainer import Trainer

TARGETS = {
    "tubes_2p_vessels_large": 0.80,
    "fluo_cells_arabidopsis_ovule": 0.85,
    "fluo_nuclei_gonuclear_1135": 0.76,
}


def stacks(folder: Path | None, names: list[str]) -> dict[str, tuple[Volume, np.ndarray]]:
    """Name → image and truth, 0 background, 2… classes."""
    if folder is None or not folder.is_dir():
        sample = tubules()
        return {"tubules (synthetic)": (sample.image, sample.truth)}
    found = {}
    for name in names or sorted(TARGETS):
        labels = np.asarray(read_labels(folder / name / "labels.tif").data)
        truth = np.where(labels > 0, labels + 1, 0).astype(np.uint8)
        found[name] = read_volume(folder / name / "image.tif"), truth
    return found


def annotate(truth: np.ndarray, k: int) -> tuple[np.ndarray, list[int]]:
    """The truth on k evenly spaced xy slices, as a biologist paints it."""
    planes = np.linspace(0, len(truth) - 1, 2 * k + 1).round()[1::2].astype(int)
    labels = np.zeros_like(truth)
    labels[planes] = np.maximum(truth[planes], 1)
    return labels, [int(z) for z in planes]


def segment(
    volume: Volume, annotation: SparseAnnotation, config: TrainingConfig
) -> tuple[np.ndarray, dict[str, float]]:
    """Train and predict; the labels, and how long each took."""
    begin = time.perf_counter()
    run = Trainer(volume, annotation, config).run()
    iterations = 0
    while True:
        try:
            event = next(run)
        except StopIteration as end:
            bundle: ModelBundle = end.value
            break
        if isinstance(event, TrainingProgress):
            iterations = event.iteration
    trained = time.perf_counter()
    out = np.zeros(volume.shape, np.uint8)
    for _ in predict(bundle, volume, out, config=PredictionConfig(device=config.device)):
        pass
    return out, {
        "iterations": iterations,
        "training_s": trained - begin,
        "prediction_s": time.perf_counter() - trained,
    }


def foreground_iou(out: np.ndarray, truth: np.ndarray, planes: list[int]) -> dict[int, float]:
    """IoU of each class on the slices that are not in `planes`."""
    rest = np.setdiff1d(np.arange(len(truth)), planes)
    overlap = Overlap([int(v) for v in np.unique(truth) if v])
    overlap.add(out[rest], truth[rest])
    return {s.value: s.iou for s in overlap.scores() if s.iou is not None}


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with the stacks")
    parser.add_argument("--stacks", nargs="*", default=[], help="names of stacks in it")
    parser.add_argument("--slices", type=int, default=3, help="annotated slices")
    parser.add_argument("--seeds", type=int, default=3, help="repetitions")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=JSON", help="other settings of the training"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="training time")
    arguments = parser.parse_args()
    changes = {k: json.loads(v) for k, v in (item.split("=", 1) for item in arguments.set)}
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, ", end=""
    )
    print(f"torch {torch.__version__}; {arguments.seconds:g} s, k = {arguments.slices}, {changes}")
    print(
        f"{'stack':34} {'IoU of the seeds':28} {'mean':>6} {'spread':>7} {'target':>7} iterations"
    )
    figures = {}
    for name, (volume, truth) in stacks(arguments.data, arguments.stacks).items():
        labels, planes = annotate(truth, arguments.slices)
        ious, runs = [], []
        for seed in range(arguments.seeds):
            config = TrainingConfig(seconds=arguments.seconds, seed=seed, **changes)
            annotation = SparseAnnotation.from_labels(labels)
            out, figure = segment(volume, annotation, config)
            classes = foreground_iou(out, truth, planes)
            ious.append(mean(list(classes.values())))
            runs.append(figure | {"seed": seed, "iou": ious[-1], "classes": classes})
        figures[name] = runs
        spread = max(ious) - min(ious)
        print(
            f"{name:34} {' '.join(f'{i:.3f}' for i in ious):28} {statistics.mean(ious):6.3f} "
            f"{spread:7.3f} {TARGETS.get(name, float('nan')):7.2f} "
            f"{[r['iterations'] for r in runs]} {max(r['training_s'] for r in runs):.0f} s "
            f"+ {max(r['prediction_s'] for r in runs):.1f} s",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
