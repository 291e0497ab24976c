"""Precisions of a prediction: time, peak memory, and what they cost in IoU.

    python benchmarks/precision.py
    python benchmarks/precision.py --data FOLDER --stacks fluo_cells_arabidopsis_ovule --seconds 60
    python benchmarks/precision.py --paper --shape 28 44 44 --memory 4

A model is trained once; then each precision predicts the stack in a process of its own, whose peak
memory is read; where int8 does not apply, a note says so. The network stands alone unless
`--pixels` is given. With `--paper`, the network of the paper's size and random weights predicts a
part of the built-in tubules; nothing is scored.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from protocol import annotate, class_scores, load_stack, mean_iou, stack_names

from napari_unet3d.config import PredictionConfig, TrainingConfig, default_class
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.samples import tubules
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import Notice, drain
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.model.record import TrainingRecord
from napari_unet3d.networks.unet import PAPER_NETWORK
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.training.trainer import Trainer

PRECISIONS = ("fp32", "bf16", "int8")
PAPER_STACK = (56, 132, 132)
"""Voxels (z, y, x) of the built-in tubules, from their corner; at most 64×160×160."""


def paper_model() -> ModelBundle:
    """A model with the network of the paper's size for one channel, and random weights."""
    network = PAPER_NETWORK.model_copy(update={"in_channels": 1, "n_classes": 2})
    return ModelBundle(
        network=network,
        classes=(default_class(2),),
        intensity=IntensityNormalization(low=(0.0,), high=(1.0,), mean=(0.0,), std=(1.0,)),
        voxel_size=(1.0, 1.0, 1.0),
        unit="pixel",
        record=TrainingRecord(
            config=TrainingConfig(), iterations=0, seconds=0, device="cpu", precision="fp32",
            patch_shape=(116, 132, 132),
        ),
        weights=network.build().state_dict(),
    )  # fmt: skip


def volume_of(options: argparse.Namespace, name: str) -> tuple[Volume, Any]:
    """The stack, and its truth where it has one."""
    if options.paper:
        part = tuple(slice(n) for n in options.shape)
        return Volume(np.asarray(tubules().image.data)[part]), None
    return load_stack(options.data, name)


def child(options: argparse.Namespace, name: str, precision: str, model: Path, out: Path) -> None:
    """Predict in this process, and tell time and peak memory."""
    bundle = ModelBundle.load(model)
    volume, _ = volume_of(options, name)
    labels = np.zeros(volume.shape, np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    config = PredictionConfig(
        device="cpu", precision=precision, memory=options.memory and int(options.memory * 2**30)
    )
    notes: list[str] = []
    drain(
        predict(bundle, volume, labels, config=config),
        lambda event: notes.append(event.text) if isinstance(event, Notice) else None,
    )
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    np.save(out, labels)
    print(json.dumps({"seconds": round(seconds, 2), "GiB": round(peak / 2**20, 2),
                      "GiB before": round(before / 2**20, 2), "notes": notes}))  # fmt: skip


def run(options: argparse.Namespace, name: str) -> None:
    """Train once, predict in each precision, and print a line for each."""
    volume, truth = volume_of(options, name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.unet3d"
        labels = None
        if options.paper:
            paper_model().save(path)
        else:
            labels = annotate(truth, options.slices)
            config = TrainingConfig(
                seconds=options.seconds, device="cpu", pixel_classifier=options.pixels,
                network=options.network,
            )  # fmt: skip
            bundle = drain(Trainer(volume, SparseAnnotation.from_labels(labels), config).run())
            assert bundle is not None
            bundle.save(path)
        for precision in options.precisions:
            out = Path(folder) / f"{precision}.npy"
            more = ["--child", precision, str(path), str(out), name]
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], *more],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                print(json.dumps({"stack": name, "precision": precision,
                                  "error": done.stderr.splitlines()[-1:]}))  # fmt: skip
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            if labels is not None:
                scores = class_scores(np.load(out), truth, labels == 0)
                found["IoU"] = round(mean_iou(scores) or 0.0, 4)
            print(json.dumps({"stack": name, "precision": precision} | found), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, help="folder with a folder for each stack")
    add("--stacks", nargs="+", default=[], help="names; all stacks when left out")
    add("--slices", type=int, default=3)
    add("--seconds", type=float, default=60.0)
    add("--network", default="unet")
    add("--pixels", action="store_true", help="with the pixel classifier")
    add("--paper", action="store_true", help="the network of the paper's size, random weights")
    add("--shape", type=int, nargs=3, default=PAPER_STACK, help="voxels of --paper")
    add("--memory", type=float, help="GiB that a prediction may use")
    add("--precisions", nargs="+", default=list(PRECISIONS))
    add("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        precision, model, out, name = options.child
        child(options, name, precision, Path(model), Path(out))
        return
    for name in ["tubules"] if options.paper else stack_names(options.data, options.stacks):
        run(options, name)


if __name__ == "__main__":
    main()
