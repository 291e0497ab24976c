"""Train on one stack, apply to its sibling: ours beside the forest.

    python benchmarks/siblings.py --data FOLDER
    ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/siblings.py --data FOLDER --precision fp32 --seeds 3

Three slices of the first stack are annotated, and both methods are trained on them; the second
stack, of which nothing is annotated, is segmented by both, and all its voxels score. The forest has
no budget. The pairs are recordings of the same kind by the same instrument.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peers
from protocol import Labels, annotate, class_scores, load_stack, mean_iou

from napari_unet3d.config import PredictionConfig, TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import drain
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.training.trainer import Trainer

PAIRS = (
    ("fluo_nuclei_bbbc050_emb04", "fluo_nuclei_bbbc050_emb07_late"),
    ("mri_hippocampus_msd056", "mri_hippocampus_msd101"),
    ("tubes_2p_vessels_large", "tubes_2p_vessels_disrupted"),
)
"""The stack that is trained on, and the one that is segmented."""


def ours(
    volume: Volume, labels: Labels, target: Volume, config: TrainingConfig
) -> tuple[Labels, float]:
    """Labels of the target, and the weight of the network."""
    bundle = drain(Trainer(volume, SparseAnnotation.from_labels(labels), config).run())
    assert bundle is not None
    out = np.zeros(target.shape, np.uint8)
    drain(predict(bundle, target, out, config=PredictionConfig(precision=config.precision)))
    weights = bundle.calibration
    return out, weights.network / (weights.network + weights.pixels)


def run(data: Path, pair: tuple[str, str], slices: int, config: TrainingConfig) -> dict[str, Any]:
    """Both methods on one pair; figures by name."""
    (volume, truth), (target, wanted) = (load_stack(data, name) for name in pair)
    labels = annotate(truth, slices)
    found, weight = ours(volume, labels, target, config)
    of_forest = peers.forest(volume, labels, 0.0, config.seed, target=target).labels
    mine, others = (mean_iou(class_scores(labels, wanted)) for labels in (found, of_forest))
    return {
        "trained on": pair[0],
        "applied to": pair[1],
        "seed": config.seed,
        "ours": mine,
        "forest": others,
        "weight": weight,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the stacks")
    parser.add_argument("--slices", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args(arguments)
    for pair in PAIRS:
        for seed in range(options.seeds):
            config = TrainingConfig(seconds=options.seconds, seed=seed, precision=options.precision)
            print(json.dumps(run(options.data, pair, options.slices, config)), flush=True)


if __name__ == "__main__":
    main()
