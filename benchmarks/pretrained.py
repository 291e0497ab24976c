"""What pretrained features are worth: few labelled slices, with and without them.

    python benchmarks/pretrained.py --weights features.pt --data FOLDER
    python benchmarks/pretrained.py --weights features.pt --data FOLDER --confirm

A random forest and the product's perceptron are fitted to voxels of k labelled slices, given the
21 filters of the product, the features of the network of `pretrain.py`, or both. The figure is the
mean IoU of the classes on the other slices, from a sample of their voxels. The network's weights
are not changed. Without `--confirm`, only the stacks for development are looked at. Stacks above
`--voxels` are cropped in their middle.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from annotator import DEVELOPMENT, cropped
from protocol import Labels, annotate, class_scores, load_stack, mean_iou, stack_names
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor

from napari_unet3d.data.boxes import Box, plan_blocks
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.volume import Volume
from napari_unet3d.networks import UNetConfig
from napari_unet3d.networks.architecture import Network
from napari_unet3d.pixels.features import feature_count, filter_bank
from napari_unet3d.pixels.fit import Schedule, fit_classifier
from napari_unet3d.sampling.source import Source

SHORT = Schedule(iterations=300, dropout=0.3)
"""How long a classifier is fitted here."""

LABELLED, SCORED = 30_000, 120_000  # voxels
THICK = 2.5
"""Ratio of the voxel sizes from which on the network for thick slices is taken."""
BLOCK = {"cubic": (64, 96, 96), "thick": (16, 192, 192)}
HALO = {"cubic": (16, 16, 16), "thick": (4, 24, 24)}  # voxels, multiples of the poolings
WAYS = ("bank", "net", "both")


def load_network(weights: dict[str, Any], name: str, untrained: bool = False) -> Network:
    """The network of a file of `pretrain.py`, or the same with random weights."""
    network = UNetConfig.model_validate(weights[name]["config"]).build()
    if not untrained:
        network.load_state_dict({k: v.float() for k, v in weights[name]["weights"].items()})
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last_3d)


def kind_of(volume: Volume) -> str:
    """Which of the networks fits a stack."""
    z, y, x = volume.voxel_size
    return "thick" if z / min(y, x) >= THICK else "cubic"


@torch.inference_mode()
def network_features(network: Network, gray: Tensor, kind: str) -> Tensor:
    """Features (16 a channel, Z, Y, X) float16 of normalized gray values (C, Z, Y, X)."""
    shape = tuple(gray.shape[1:])
    stride = network.config.stride()
    found = []
    for channel in gray:
        features: Tensor | None = None
        for z in range(0, shape[0], BLOCK[kind][0]):
            for y in range(0, shape[1], BLOCK[kind][1]):
                for x in range(0, shape[2], BLOCK[kind][2]):
                    start = (z, y, x)
                    stop = [
                        min(a + b, n) for a, b, n in zip(start, BLOCK[kind], shape, strict=True)
                    ]
                    low = [max(0, a - h) for a, h in zip(start, HALO[kind], strict=True)]
                    high = [min(n, b + h) for b, h, n in zip(stop, HALO[kind], shape, strict=True)]
                    tile = channel[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
                    # Up to a multiple of the poolings, with border voxels.
                    missing = [-n % s for n, s in zip(tile.shape, stride, strict=True)]
                    padding = [p for m in reversed(missing) for p in (0, m)]
                    padded = torch.nn.functional.pad(tile[None, None], padding, mode="replicate")
                    out = network(padded.contiguous(memory_format=torch.channels_last_3d))[0]
                    if features is None:
                        features = out.new_empty((len(out), *shape), dtype=torch.float16)
                    inner = tuple(
                        slice(a - c, b - c) for a, b, c in zip(start, stop, low, strict=True)
                    )
                    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
                    features[(slice(None), *box)] = out[(slice(None), *inner)].half()
        assert features is not None
        found.append(features)
    return torch.cat(found)


def bank_features(read: Any, volume: Volume) -> Tensor:
    """Features (21 a channel, Z, Y, X) float16 of the product's filters."""
    features = torch.empty((feature_count(volume.n_channels), *volume.shape), dtype=torch.float16)
    for box in plan_blocks(volume.shape, (32, 32, 32), 500_000):
        part = filter_bank(read, box.start, box.stop, volume.voxel_size)
        features[(slice(None), *box.slices)] = part.half()
    return features


def perceptron(fitted: Tensor, target: Tensor, asked: Tensor, n_classes: int, seed: int) -> Tensor:
    """Classes of voxels, by the product's perceptron; columns of 0 fill up its inputs."""
    per_channel = feature_count(1)
    channels = -(-fitted.shape[1] // per_channel)
    missing = channels * per_channel - fitted.shape[1]
    fitted, asked = (torch.nn.functional.pad(f, (0, missing)) for f in (fitted, asked))
    classifier = fit_classifier(channels, n_classes, seed, SHORT, lambda: False, fitted, target)
    with torch.inference_mode():
        return torch.cat([classifier(part).argmax(1) for part in asked.split(1 << 15)])


def forest(fitted: Tensor, target: Tensor, asked: Tensor, seed: int) -> Tensor:
    """Classes of voxels, by a random forest."""
    trees = RandomForestClassifier(100, min_samples_leaf=2, n_jobs=1, random_state=seed)
    trees.fit(fitted.numpy(), target.numpy())
    return torch.from_numpy(trees.predict(asked.numpy()))


def sample(voxels: np.ndarray, n: int, seed: int) -> np.ndarray:
    """At most n of the voxels, ascending."""
    chosen = np.random.default_rng(seed).choice(voxels, min(n, len(voxels)), replace=False)
    return np.sort(chosen)


def run_stack(
    options: argparse.Namespace, weights: dict[str, Any], name: str
) -> list[dict[str, Any]]:
    """All figures of a stack."""
    volume, truth = cropped(*load_stack(options.data, name), options.voxels)
    values = [0, *(int(v) for v in np.unique(truth) if v)]
    number = np.zeros(256, np.int64)
    number[values] = range(len(values))
    intensity = IntensityNormalization.estimate(volume)
    source = Source(volume, intensity, torch.device("cpu"))
    read = partial(source.read, 0, beyond="nearest")
    kind = options.variant or kind_of(volume)
    maps, seconds = {}, {}
    begin = time.perf_counter()
    maps["bank"] = bank_features(read, volume)
    seconds["bank"] = time.perf_counter() - begin
    whole = Box((0, 0, 0), volume.shape)
    begin = time.perf_counter()
    maps["net"] = network_features(
        load_network(weights, kind, options.untrained), read(whole.start, whole.stop), kind
    )
    seconds["net"] = time.perf_counter() - begin
    found = []
    for k in options.k:
        labels = annotate(truth, k)
        scored = sample(np.flatnonzero(labels.ravel() == 0), SCORED, 0)
        answer = truth.ravel()[scored]
        for seed in range(options.seeds):
            painted = sample(np.flatnonzero(labels), LABELLED, seed)
            target = torch.from_numpy(number[truth.ravel()[painted]])
            for way in WAYS:
                chosen = [way] if way != "both" else ["bank", "net"]
                fitted, asked = (
                    torch.cat([maps[c].flatten(1)[:, i].float() for c in chosen]).T.contiguous()
                    for i in (torch.from_numpy(painted), torch.from_numpy(scored))
                )
                answers = {"perceptron": perceptron(fitted, target, asked, len(values), seed)}
                if options.forest:
                    answers["forest"] = forest(fitted, target, asked, seed)
                for learner, classes in answers.items():
                    out: Labels = np.array(values, np.uint8)[classes.numpy()]
                    iou = mean_iou(class_scores(out[None, None], answer[None, None]))
                    found.append(
                        {
                            "stack": name, "network": kind, "shape": volume.shape, "k": k,
                            "seed": seed, "learner": learner, "features": way, "iou": iou,
                            "seconds": seconds,
                        }
                    )  # fmt: skip
    return found


def report(records: Sequence[dict[str, Any]]) -> str:
    """A table: a row for each stack and k, and the mean."""
    learners = [n for n in ("forest", "perceptron") if any(r["learner"] == n for r in records)]
    columns = [(learner, way) for learner in learners for way in WAYS]
    lines = [
        "| stack | k | " + " | ".join(f"{a}: {b}" for a, b in columns) + " | s, bank / net |",
        "|---" * (3 + len(columns)) + "|",
    ]
    means: dict[tuple[int, str, str], list[float]] = {}
    for stack, k in dict.fromkeys((r["stack"], r["k"]) for r in records):
        rows = [r for r in records if (r["stack"], r["k"]) == (stack, k)]
        cells = []
        for learner, way in columns:
            iou = [r["iou"] for r in rows if (r["learner"], r["features"]) == (learner, way)]
            cells.append(fmean(iou))
            means.setdefault((k, learner, way), []).append(cells[-1])
        text = " | ".join(f"{c:.3f}" for c in cells)
        s = rows[0]["seconds"]
        lines.append(
            f"| {stack} ({rows[0]['network']}) | {k} | {text} | {s['bank']:.1f} / {s['net']:.1f} |"
        )
    for k in dict.fromkeys(r["k"] for r in records):
        text = " | ".join(f"{fmean(means[k, *c]):.3f}" for c in columns)
        lines.append(f"| **mean** | {k} | {text} | |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="file of pretrain.py")
    parser.add_argument("--data", type=Path, required=True, help="folder of the stacks")
    parser.add_argument("--stacks", nargs="*", default=(), help="names; else those of --confirm")
    parser.add_argument("--confirm", action="store_true", help="the stacks not developed on")
    parser.add_argument("--k", type=int, nargs="+", default=(1, 3), help="labelled slices")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--voxels", type=int, default=1_500_000, help="of a stack at most")
    parser.add_argument("--variant", choices=("cubic", "thick"), help="instead of the fitting one")
    parser.add_argument("--untrained", action="store_true", help="random weights, to compare")
    parser.add_argument("--no-forest", dest="forest", action="store_false")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    options = parser.parse_args()
    weights = torch.load(options.weights, weights_only=True)
    names = options.stacks or [
        n for n in stack_names(options.data) if (n in DEVELOPMENT) != options.confirm
    ]
    records: list[dict[str, Any]] = []
    for name in names:
        records += run_stack(options, weights, name)
        print(report(records), flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps(records, indent=1))


if __name__ == "__main__":
    main()
