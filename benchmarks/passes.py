"""How many times a voxel of a stack goes through the network: arithmetic, no network runs.

    python benchmarks/passes.py
    python benchmarks/passes.py --overlap 0.125 --chunk 64 128 128

The plan of a prediction is made as for a true stack, and the voxels of all tiles of all blocks are
counted. `memory` is what `--memory` allows, in GiB. Chunks are those of the outputs: none, as in
the memory and in TIFF, or whole planes, or those that are given.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch

from napari_unet3d.config import ClassInfo, PredictionConfig
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.volume import Volume
from napari_unet3d.model.mixture import Mixture
from napari_unet3d.networks.unet import UNetConfig
from napari_unet3d.prediction.engine import Engine
from napari_unet3d.prediction.outputs import OUTPUTS
from napari_unet3d.prediction.stack import ResultArrays, StackPrediction
from napari_unet3d.sampling.source import Source

Triple = tuple[int, int, int]
SHAPES: tuple[Triple, ...] = (
    (256, 256, 256),
    (384, 384, 384),
    (512, 512, 512),
    (1024, 1024, 1024),
    (512, 1024, 1024),
    (64, 16384, 16384),
)
MEMORIES = (2, 1024)
"""GiB."""
CHUNKS: tuple[Triple, ...] = ((1, 1, 1), (64, 128, 128))
CLASSES = (ClassInfo(value=2, name="cells", color="#e69f00"),)


class _Chunked:
    """Stands for an output in a file."""

    def __init__(self, shape: Triple, chunks: Triple) -> None:
        self.shape, self.chunks = shape, chunks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--overlap", type=float, default=PredictionConfig().overlap)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--chunk", type=int, nargs=3, help="voxels of a chunk, z y x")
    options = parser.parse_args()
    chunks = [tuple(options.chunk)] if options.chunk else CHUNKS
    print(
        "| stack | memory | chunks | tile | blocks | tiles | passes a voxel |\n" + "|---" * 7 + "|"
    )
    for shape in SHAPES:
        for memory in MEMORIES:
            for chunk in chunks:
                plan = plan_of(shape, memory << 30, chunk, options.overlap, options.precision)
                cells = (
                    _text(shape), memory, "none" if chunk == (1, 1, 1) else _text(chunk),
                    _text(plan.tile), plan.blocks, plan.tiles, f"{plan.passes:.2f}",
                )  # fmt: skip
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)


@dataclass(frozen=True)
class Plan:
    """What a prediction computes.

    Attributes
    ----------
    tile
        Voxels (z, y, x) that the network sees at once.
    blocks, tiles
        Their numbers.
    largest
        Voxels of the largest part of a block that is predicted at once.
    passes
        How often a voxel goes through the network, on average.
    """

    tile: Triple
    blocks: int
    tiles: int
    largest: int
    passes: float


def plan_of(
    shape: Triple,
    memory: int,
    chunk: Triple = (1, 1, 1),
    overlap: float = PredictionConfig().overlap,
    precision: Any = "fp32",
) -> Plan:
    """The plan of a prediction on a CPU, with `memory` bytes."""
    image = np.broadcast_to(np.float32(1), shape)
    volume = Volume(image)
    network = UNetConfig.plan(
        "balanced", (1.0, 1.0, 1.0), shape, in_channels=1, n_classes=2, accelerator=False
    )
    intensity = IntensityNormalization(mean=(0.0,), std=(1.0,), low=(0.0,), high=(1.0,))
    mixture = Mixture(network.build())
    source = Source(volume, intensity, torch.device("cpu"))
    engine = Engine(mixture, source, precision, overlap=overlap, memory=memory, adjoining=True)
    array = _Chunked(shape, chunk)
    stack = StackPrediction(engine, ResultArrays({OUTPUTS[0]: array}, CLASSES, False), [0])
    blocks = stack.blocks()
    parts = [part for block in blocks for part in stack.parts(block.box)]
    tiles = sum(len(engine.tiles(part)) for part in parts)
    return Plan(
        engine.plan(),
        len(blocks),
        tiles,
        max(prod(part.shape) for part in parts),
        tiles * prod(engine.plan()) / prod(shape),
    )


def _text(shape: Triple) -> str:
    return " × ".join(map(str, shape))


if __name__ == "__main__":
    main()
