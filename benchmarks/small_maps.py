"""Small fp32 maps on a CPU: torch's own path, ours, and what a training gains.

    python benchmarks/small_maps.py
    ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/small_maps.py    # imitates a laptop

torch takes its own convolution instead of oneDNN's for small maps in a batch of one (see
`model/unet.py`). The first table has GFLOP/s of single convolutions, the second labelled patches
a minute of a training of the built-in stack. Each figure is the best of `--repeats` rounds, which
alternate.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial

import torch
from protocol import cpu_name
from torch import Tensor, nn

from napari_unet3d import SparseAnnotation, Trainer, TrainingConfig, tubules
from napari_unet3d.events import TrainingProgress
from napari_unet3d.networks.layers import Convolution

MAPS = ((16, (16, 80, 80)), (32, (16, 40, 40)), (64, (8, 34, 36)), (128, (4, 17, 18)))


def best(work: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Smallest seconds of each piece of work, in alternating rounds."""
    for run in work.values():
        run()
    seconds = dict.fromkeys(work, float("inf"))
    for _ in range(repeats):
        for name, run in work.items():
            begin = time.perf_counter()
            run()
            seconds[name] = min(seconds[name], time.perf_counter() - begin)
    return seconds


def both_ways(convolution: nn.Conv3d, x: Tensor) -> None:
    """Forward and backward."""
    convolution(x.detach().requires_grad_()).sum().backward()


def forward(convolution: nn.Conv3d, x: Tensor) -> None:
    """Forward, as in a prediction."""
    with torch.inference_mode():
        convolution(x)


def convolutions(repeats: int) -> None:
    """Print the table of single convolutions."""
    print("| channels, map | torch, batch 1 | ours, batch 1 | batch 2 |\n|---|---|---|---|")
    for channels, shape in MAPS:
        form = torch.channels_last_3d
        ours = Convolution(channels, channels, 3, padding=1).to(memory_format=form)
        plain = nn.Conv3d(channels, channels, 3, padding=1).to(memory_format=form)
        one = torch.randn(1, channels, *shape).contiguous(memory_format=form)
        two = torch.cat([one, one])
        flop = 2 * 27 * channels**2 * one[0, 0].numel() / 1e9
        cells = []
        for run, cost in ((forward, flop), (both_ways, 3 * flop)):
            seconds = best(
                {
                    "torch": partial(run, plain, one),
                    "ours": partial(run, ours, one),
                    "two": partial(run, plain, two),
                },
                repeats,
            )
            rates = {name: cost / taken for name, taken in seconds.items()}
            cells.append((rates["torch"], rates["ours"], 2 * rates["two"]))
        pairs = [f"{a:.0f} / {b:.0f}" for a, b in zip(*cells, strict=True)]
        print(f"| {channels}→{channels}, {'×'.join(map(str, shape))} | {' | '.join(pairs)} |")
    print("GFLOP/s, forward / forward and backward")


def patches_a_minute(seconds: float, batch: int, avoid: bool) -> float:
    """Patches a minute of a training, with or without our way around the slow path."""
    sample = tubules()
    labels = sample.annotate(sample.training_slices)
    config = TrainingConfig(
        seconds=seconds, batch_size=batch, precision="fp32", device="cpu", pixel_classifier=False
    )
    trainer = Trainer(sample.image, SparseAnnotation(labels, sample.classes), config)
    slow = Convolution._takes_slow_path
    if not avoid:
        Convolution._takes_slow_path = lambda self, x: False  # type: ignore[method-assign]
    try:
        progress = [e for e in trainer.run() if isinstance(e, TrainingProgress)]
    finally:
        Convolution._takes_slow_path = slow  # type: ignore[method-assign]
    return 60 * batch * len(progress) / progress[-1].elapsed


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each training")
    arguments = parser.parse_args()
    isa = os.environ.get("ONEDNN_MAX_CPU_ISA", "as it is")
    print(
        f"{cpu_name()}, {torch.get_num_threads()} threads, oneDNN {isa}, torch {torch.__version__}"
    )
    convolutions(arguments.repeats)
    print("\n| training, fp32 | patches a minute |\n|---|---|")
    for batch, avoid in ((1, False), (1, True), (2, True)):
        rate = patches_a_minute(arguments.seconds, batch, avoid)
        way = "slow path avoided" if avoid else "torch's path"
        print(f"| batches of {batch}, {way} | {rate:.0f} |", flush=True)


if __name__ == "__main__":
    main()
