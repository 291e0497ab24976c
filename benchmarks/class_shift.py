"""What a shift of the classes gains or costs: one training a stack, two predictions.

    python benchmarks/class_shift.py --data FOLDER [--stacks NAME …] [--slices 3] [--seconds 60]

FOLDER holds one folder a stack, with `image.tif` and `labels.tif` (dense truth, 0 is background).
Each stack is trained once with `class_shift`, and segmented with the shifts that were fitted and
without them. The temperature has no effect on the labels, so both are of the same model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from protocol import annotate, class_scores, cpu_name, load_stack, mean_iou, stack_names

from napari_unet3d.config import TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import drain
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.training.trainer import Trainer


def train(volume: Volume, labels: np.ndarray, config: TrainingConfig) -> ModelBundle:
    """Train to the end."""
    bundle = drain(Trainer(volume, SparseAnnotation.from_labels(labels), config).run())
    assert bundle is not None  # only a cancel gives None
    return bundle


def iou(bundle: ModelBundle, volume: Volume, truth: np.ndarray, labels: np.ndarray) -> float:
    """Mean IoU of the classes on all voxels without annotation."""
    out = np.zeros(volume.shape, np.uint8)
    for _ in predict(bundle, volume, out):
        pass
    return mean_iou(class_scores(out, truth, labels == 0)) or 0.0


def main() -> None:
    """Print the table, a row a stack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="without it, the built-in tubules")
    parser.add_argument("--stacks", nargs="*", default=())
    parser.add_argument("--slices", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(
        f"{cpu_name()}, {torch.get_num_threads()} threads, {given.seconds:g} s, k = {given.slices}"
    )
    print(
        "| stack | without | with | difference | shifts | iterations |\n|---|---|---|---|---|---|"
    )
    for name in stack_names(given.data, given.stacks):
        volume, truth = load_stack(given.data, name)
        labels = annotate(truth, given.slices)
        config = TrainingConfig(seconds=given.seconds, seed=given.seed, class_shift=True)
        bundle = train(volume, labels, config)
        calibration = bundle.calibration.model_copy(update={"shift": ()})
        plain = bundle.model_copy(update={"calibration": calibration})
        without, shifted = (iou(b, volume, truth, labels) for b in (plain, bundle))
        weights = bundle.calibration
        scale = weights.network + weights.pixels  # the inverse of the temperature
        shifts = ", ".join(f"{s / scale:+.2f}" for s in weights.shift[1:])
        print(
            f"| {name} | {without:.3f} | {shifted:.3f} | {shifted - without:+.3f} | {shifts} | "
            f"{bundle.record.iterations} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
