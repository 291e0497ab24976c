"""What the network and the pixel classifier add to a result: their IoU alone and together.

    python benchmarks/parts.py --seconds 60
    python benchmarks/parts.py --data FOLDER --stacks fluo_cells_arabidopsis_ovule --seconds 60 300
    python benchmarks/parts.py --data FOLDER --full-grid

A model is trained as usual. Then the stack is predicted by each learner alone, and their
log-probabilities are mixed with fixed weights of the network, beside the weight that the product
fitted; "unseen" is the weight judged on slices that the network had not seen. `--full-grid` takes
the layout whose finest level has a voxel for each of the image, as on a GPU, with the widths of a
CPU. With ``ONEDNN_MAX_CPU_ISA=AVX2`` and ``--precision fp32`` a computer is as slow as a laptop.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from protocol import annotate, class_scores, load_stack, mean_iou, stack_names

from napari_unet3d.config import PredictionConfig, TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import drain
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.model.mixture import Calibration
from napari_unet3d.networks.planning import plan_patches
from napari_unet3d.networks.unet import UNetConfig
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.training.plan import TrainingPlan
from napari_unet3d.training.trainer import Trainer

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
"""Weights of the network; the pixel classifier has the rest."""
MEMORY = 1 << 34
"""Bytes for a patch of the other layout, which is never short of memory here."""


def on_full_grid(plan: TrainingPlan) -> TrainingPlan:
    """The same training with a network whose finest level is as fine as the image."""
    network = UNetConfig.plan(
        plan.config.preset,
        plan.volume.voxel_size,
        plan.volume.shape,
        in_channels=plan.network.in_channels,
        n_classes=plan.network.n_classes,
        accelerator=True,
    )
    network = network.model_copy(update={"widths": tuple(w // 2 for w in network.widths)})
    patches = [
        plan_patches(network, plan.volume.shape, False, MEMORY, plan.precision, small)
        for small in (False, True)
    ]
    return replace(plan, network=network, patches=patches[0], small_patches=patches[1])


def log_probabilities(
    bundle: ModelBundle, volume: Volume, calibration: Calibration, config: PredictionConfig
) -> tuple[np.ndarray, float]:
    """(K, Z, Y, X) of a model whose learners have other weights, and the seconds it took."""
    bundle = bundle.model_copy(update={"calibration": calibration})
    labels = np.empty(volume.shape, np.uint8)
    found = np.empty((len(bundle.classes) + 1, *volume.shape), np.float32)
    begin = time.perf_counter()
    drain(predict(bundle, volume, labels, probabilities=found, config=config))
    seconds = time.perf_counter() - begin
    return np.log(found + 1e-6), seconds


def run(options: argparse.Namespace, name: str, slices: int, seconds: float, seed: int) -> Any:
    """Train once; figures by name."""
    volume, truth = load_stack(options.data, name)
    labels = annotate(truth, slices)
    config = TrainingConfig(seconds=seconds, seed=seed, device="cpu", precision=options.precision)
    trainer = Trainer(volume, SparseAnnotation.from_labels(labels), config)
    if options.full_grid:
        trainer.plan = on_full_grid(trainer.plan)
    begin = time.perf_counter()
    bundle = drain(trainer.run())
    assert bundle is not None
    trained = time.perf_counter() - begin
    values = np.array([0, *(c.value for c in bundle.classes)], np.uint8)

    def iou(mixture: np.ndarray) -> float | None:
        found = mean_iou(class_scores(values[mixture.argmax(0)], truth, labels == 0))
        return None if found is None else round(found, 4)

    settings = PredictionConfig(device="cpu", precision=options.precision)
    network, network_s = log_probabilities(bundle, volume, Calibration(), settings)
    alone = Calibration(network=0, pixels=1)
    pixels, pixels_s = log_probabilities(bundle, volume, alone, settings)
    fitted = bundle.calibration
    weight = fitted.network / (fitted.network + fitted.pixels)
    unseen = bundle.record.unseen_weight
    return {
        "stack": name,
        "slices": slices,
        "seconds": seconds,
        "seed": seed,
        "iterations": bundle.record.iterations,
        "trained_s": round(trained, 1),
        "network_s": round(network_s, 1),
        "both_s": round(pixels_s, 1),
        "weight": round(weight, 3),
        "unseen": unseen,
        "IoU": iou(weight * network + (1 - weight) * pixels),
    } | {f"IoU {w:g}": iou(w * network + (1 - w) * pixels) for w in WEIGHTS}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with a folder for each stack")
    parser.add_argument("--stacks", nargs="+", default=[], help="names; all stacks when left out")
    parser.add_argument("--slices", type=int, nargs="+", default=[3])
    parser.add_argument("--seconds", type=float, nargs="+", default=[60.0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--full-grid", action="store_true")
    options = parser.parse_args(arguments)
    for name in stack_names(options.data, options.stacks):
        for slices in options.slices:
            for seconds in options.seconds:
                for seed in range(options.seeds):
                    found = run(options, name, slices, seconds, seed)
                    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
