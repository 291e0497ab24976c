"""Seams and accuracy of tiles that overlap by a half, a quarter or an eighth.

    python benchmarks/overlap.py --data ../shared/data --models MODELS

Trains a model of each stack for a fixed number of iterations and keeps it in the folder MODELS,
so a second call only measures. Each stack is predicted by the network alone, once as one tile and
then in tiles of a fixed shape. Two tiles share `overlap` of their voxels along an axis, and are
joined in three ways:

- gauss: all of a tile counts, with Gaussian weights whose deviation is an eighth of the tile
- fade: weights of 1, which fall linearly within the overlap
- cut: each voxel is that of the tile whose border is farther away

`mean` and `99.9 %` are differences of probabilities to those of the one tile. `step` is the mean
jump of probability across a border of two tiles, over the mean jump between two neighbors
elsewhere in that direction: 1 where the border cannot be told from other places. IoU is that of
the network alone on all slices that are not annotated.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from protocol import annotate, class_scores, load_stack, mean_iou

from napari_unet3d.config import TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import drain
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks.geometry import next_fitting, total_stride
from napari_unet3d.prediction.output import output_table
from napari_unet3d.sampling.source import Source
from napari_unet3d.training.trainer import Trainer

STACKS = (
    "em_sstem_drosophila_vnc",
    "tubes_2p_vessels_large",
    "fluo_cells_arabidopsis_ovule",
)
TILES = {"fluo_cells_arabidopsis_ovule": (32, 64, 64)}
"""Voxels (z, y, x) of a tile; the others have `TILE`, since their stacks are larger."""
TILE = (10**6, 128, 128)
MOST = 320
"""Voxels. Of larger planes, a corner of so many voxels a side is measured."""
OVERLAPS = (0.5, 0.25, 0.125, 0.0)
SLICES = 3
Probabilities = NDArray[np.float32]
Starts = tuple[list[int], list[int], list[int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--stacks", nargs="+", default=STACKS)
    parser.add_argument("--iterations", type=int, default=60)
    options = parser.parse_args()
    options.models.mkdir(exist_ok=True, parents=True)
    print(
        "| stack | overlap | joined | IoU | mean | 99.9 % | largest | step |\n" + "|---" * 8 + "|"
    )
    for name in options.stacks:
        volume, truth = load_stack(options.data, name)
        labels = annotate(truth, SLICES)
        path = options.models / f"{name}.unet3d"
        if not path.exists():
            train(volume, labels, options.iterations).save(path)
        bundle = ModelBundle.load(path)
        corner = (slice(None), slice(MOST), slice(MOST))
        volume = Volume(np.asarray(volume.data)[corner], voxel_size=volume.voxel_size)
        tile = TILES.get(name, TILE)
        for row in measure(bundle, volume, truth[corner], labels[corner], tile):
            print("| " + " | ".join([name, *row]) + " |", flush=True)


def train(volume: Volume, labels: NDArray[np.uint8], iterations: int) -> ModelBundle:
    config = TrainingConfig(iterations=iterations, device="cpu", precision="fp32")
    bundle = drain(Trainer(volume, SparseAnnotation.from_labels(labels), config).run())
    assert bundle is not None
    return bundle


def measure(
    bundle: ModelBundle,
    volume: Volume,
    truth: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    tile: tuple[int, int, int],
) -> Iterator[list[str]]:
    layout = torch.channels_last_3d
    network = bundle.build_mixture(folded=True).network.to(memory_format=layout)
    intensity = IntensityNormalization.estimate(volume, bundle.intensity.clip)
    source = Source(volume, intensity, torch.device("cpu"))
    stride = total_stride(bundle.network)
    numbers = output_table(bundle.classes)

    def iou(p: Probabilities) -> str:
        return f"{mean_iou(class_scores(numbers[p.argmax(0)], truth, labels == 0)):.3f}"

    def of(start: tuple[int, ...], shape: tuple[int, ...]) -> Probabilities:
        image = source.read(0, start, [a + n for a, n in zip(start, shape, strict=True)])
        with torch.inference_mode():
            logits = network(image[None].contiguous(memory_format=layout))[0]
            probabilities: Probabilities = logits.softmax(0).numpy()
        return probabilities

    n = volume.shape
    whole_tile = next_fitting(bundle.network, n)
    whole = of((0, 0, 0), whole_tile)[:, : n[0], : n[1], : n[2]]
    yield ["one tile", "", iou(whole), "", "", "", ""]
    z, y, x = (min(a, b) for a, b in zip(tile, whole_tile, strict=True))
    shape = next_fitting(bundle.network, (z, y, x))
    for overlap in OVERLAPS:
        starts = place(n, shape, overlap, stride)
        tiles = {
            (a, b, c): of((a, b, c), shape) for a in starts[0] for b in starts[1] for c in starts[2]
        }
        for joined in ("gauss", "fade", "cut") if overlap else ("cut",):
            profiles = [weigh(s, m, joined) for s, m in zip(starts, shape, strict=True)]
            total, weights = np.zeros_like(whole), np.zeros(n)
            for place_, p in tiles.items():
                w = np.ones((1, 1, 1))
                for axis in range(3):
                    view = [1, 1, 1]
                    view[axis] = -1
                    w = w * profiles[axis][starts[axis].index(place_[axis])].reshape(view)
                where = tuple(
                    slice(a, min(a + m, k)) for a, m, k in zip(place_, shape, n, strict=True)
                )
                here = tuple(slice(0, s.stop - s.start) for s in where)
                total[(slice(None), *where)] += (w * p)[(slice(None), *here)]
                weights[where] += w[here]
            total /= weights
            difference = np.abs(total - whole)
            yield [
                f"{overlap:g}",
                joined,
                iou(total),
                f"{difference.mean():.5f}",
                f"{np.quantile(difference, 0.999):.4f}",
                f"{difference.max():.3f}",
                f"{step(total, starts, shape):.2f}",
            ]


def place(
    n: tuple[int, ...], shape: tuple[int, ...], overlap: float, stride: tuple[int, ...]
) -> Starts:
    """Starts of the tiles along each axis, multiples of the stride; the last two may be closer."""
    axes = []
    for length, size, unit in zip(n, shape, stride, strict=True):
        advance = int(size * (1 - overlap)) // unit * unit
        last = -(-max(0, length - size) // unit) * unit
        axes.append([*range(0, last, advance), last])
    z, y, x = axes
    return z, y, x


def weigh(starts: list[int], size: int, joined: str) -> list[NDArray[np.float64]]:
    """Weights of the voxels of each tile along an axis."""
    place = np.arange(size) + 0.5
    if joined == "gauss":
        return [np.maximum(np.exp(-0.5 * ((place - size / 2) / (size / 8)) ** 2), 1e-6)] * len(
            starts
        )
    profiles = [np.ones(size) for _ in starts]
    for i, (a, b) in enumerate(pairwise(starts)):
        common = a + size - b
        if joined == "cut":
            rising = (place > common // 2).astype(float)
        else:
            rising = np.clip(place / common, 0, 1) if common else np.ones(size)
        profiles[i + 1] *= rising
        profiles[i][size - common :] *= 1 - rising[:common]
    return profiles


def step(p: Probabilities, starts: Starts, shape: tuple[int, ...]) -> float:
    """Mean jump across borders of tiles, over the mean jump elsewhere."""
    ratios = []
    for axis in range(3):
        jumps = np.abs(np.diff(p, axis=axis + 1)).mean(
            axis=tuple(a for a in range(4) if a != axis + 1)
        )
        borders = [(a + shape[axis] + b) // 2 - 1 for a, b in pairwise(starts[axis])]
        if borders:
            ratios.append(jumps[borders].mean() / np.delete(jumps, borders).mean())
    return float(np.mean(ratios)) if ratios else 1.0


if __name__ == "__main__":
    main()
