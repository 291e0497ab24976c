"""Checks of `gpu.py` on memory: bytes a value beside the plan, and a lack of memory survived."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from gpu_checks import Bench, Figures, PeakMemory, on_gpu, random_stack, require
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from napari_unet3d.config import TrainingConfig, Triple
from napari_unet3d.events import (
    Notice,
    PredictionProgress,
    TrainingProgress,
    TrainingStarted,
    drain,
)
from napari_unet3d.networks import device as devices
from napari_unet3d.networks.geometry import feature_map_values
from napari_unet3d.networks.planning import halve, prediction_bytes, training_bytes
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.trainer import Trainer

_OPTIMIZED = 5
"""Copies of the weights in training: themselves, gradients, two moments, the average."""
_SAME_TILE = 0.9999
"""Share of voxels with the label that the tile of the end gives when it is chosen from the start.
All of them have it on a CPU; on a GPU with little memory, cuDNN may take another algorithm, which
rounds otherwise."""
_TILES = 3
"""Tiles that are expected, from the first one to a quarter of it."""
_OTHER_TILE = 0.95
"""Share of voxels with the label that the first tile gives: the borders of tiles lie elsewhere, and
what is seen beyond them."""


def bytes_a_value_of_training(bench: Bench) -> Figures:
    """Peak memory of a training step over the values of its feature maps, beside the plan."""
    patch: Triple = (8, 16, 16) if bench.small else (32, 128, 128)
    stack = random_stack(tuple(2 * n for n in patch))  # type: ignore[arg-type]
    network, precision = bench.bundle.network, bench.precision
    weights = 4 * _OPTIMIZED * sum(t.numel() for t in bench.bundle.weights.values())
    config = TrainingConfig(
        device=str(bench.device), iterations=100, patch_shape=patch, batch_size=1,
        pixel_classifier=False,
    )  # fmt: skip
    control, peak = TrainingControl(), PeakMemory(bench.device)

    def follow(event: object) -> None:
        if isinstance(event, TrainingProgress):
            peak.sample()
            if event.iteration >= 3:
                control.cancel()

    drain(Trainer(*stack, config, start_from=bench.bundle).run(control), follow)
    taken = peak.sample() - weights
    values = feature_map_values(network, patch)
    planned = training_bytes(network, patch, precision, on_gpu(bench))
    figures = {"bytes a value": taken / values, "planned": planned / values, "values": values}
    if bench.device.type == "cuda":
        require(taken <= 1.2 * planned, "training takes more than planned", figures)
    return figures


def bytes_a_value_of_prediction(bench: Bench) -> Figures:
    """Peak memory of the prediction of one tile over the values of its maps, beside the plan."""
    tile: Triple = (8, 16, 16) if bench.small else (64, 128, 128)
    volume, _ = random_stack(tile)
    network, precision = bench.bundle.network, bench.precision
    peak = PeakMemory(bench.device)
    bench.segment(bench.bundle, volume, peak.sample, tile_shape=tile)
    weights = 4 * sum(t.numel() for t in bench.bundle.weights.values())
    taken = peak.sample() - weights
    values = feature_map_values(network, tile)
    planned = prediction_bytes(network, tile, precision, on_gpu(bench))
    figures = {"bytes a value": taken / values, "planned": planned / values, "values": values}
    if bench.device.type == "cuda":
        require(taken <= 1.2 * planned, "prediction takes more than planned", figures)
    return figures


class _Shortage:
    """Raises torch's out-of-memory error in the next convolution after it was armed.

    Parameters
    ----------
    failures
        How often it raises.
    """

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self._armed = False
        self.raised = 0

    def arm(self) -> None:
        """Let the next convolution fail, unless enough of them have failed already."""
        self._armed = self.raised < self.failures

    def __call__(self, module: nn.Module, _inputs: Any) -> None:
        """Stand in for the memory of one convolution; the hook of torch's modules."""
        if self._armed and isinstance(module, nn.Conv3d):
            self._armed = False
            self.raised += 1
            raise torch.OutOfMemoryError("CUDA out of memory. (injected)")


@contextmanager
def _injected(bench: Bench) -> Iterator[_Shortage]:
    # On a GPU the first failure frees the image that is kept there, and only the second one halves.
    shortage = _Shortage(1 if bench.device.type == "cpu" else 2)
    handle = register_module_forward_pre_hook(shortage)
    try:
        yield shortage
    finally:
        handle.remove()


class _Story:
    """The notices of a run, and how far it came."""

    def __init__(self, act: Callable[[object], None]) -> None:
        self._act = act
        self.notices: list[str] = []
        self.steps = 0

    def __call__(self, event: object) -> None:
        """Take an event."""
        if isinstance(event, Notice):
            self.notices.append(event.text)
        self.steps += isinstance(event, TrainingProgress)
        self._act(event)

    @property
    def last_tile(self) -> Triple | None:
        """The tile that the last notice names; None where it was not halved."""
        found = re.findall(r"to (\d+) × (\d+) × (\d+) voxels", " ".join(self.notices))
        return tuple(map(int, found[-1])) if found else None  # type: ignore[return-value]

    @property
    def figures(self) -> Figures:
        """For the report."""
        return {"notices": self.notices, "steps": self.steps}

    def check(self) -> None:
        """Raise unless the user was told."""
        told = any("memory" in text.lower() for text in self.notices)
        require(told, "no notice says that memory was short", self.figures)


def training_survives_an_injected_shortage(bench: Bench) -> Figures:
    """Steps of a training fail for lack of memory: a notice, and all the iterations."""
    patch: Triple = (8, 16, 16) if bench.small else (32, 96, 96)
    iterations = 3 if bench.small else 8
    with _injected(bench) as shortage:
        story = _Story(lambda e: shortage.arm() if isinstance(e, TrainingProgress) else None)
        bundle = bench.train(
            story, iterations=iterations, patch_shape=patch, pixel_classifier=False
        )
    require(shortage.raised == shortage.failures, "too little was injected", story.figures)
    story.check()
    figures = story.figures | {"iterations": bundle.record.iterations}
    require(bundle.record.iterations == iterations, "iterations are missing", figures)
    return figures


def _equal_share(bench: Bench, act: Callable[[], Callable[[object], None]]) -> Figures:
    """Predict a stack as it is, and while `act` makes memory short; compare the labels.

    A box is begun again after a shortage, so the tile of the end has predicted all of it: the
    labels must be those that it gives where memory is ample.
    """
    volume, _ = bench.sample
    tile: Triple | None = (8, 16, 16) if bench.small else (32, 96, 96)
    expected: dict[Triple, np.ndarray] = {}
    while tile is not None and len(expected) < _TILES:
        expected[tile] = bench.segment(bench.trained, volume, tile_shape=tile)
        tile = halve(bench.trained.network, tile)
    first = next(iter(expected))
    story = _Story(act())
    labels = bench.segment(bench.trained, volume, story, tile_shape=first)
    last = story.last_tile or first
    figures: Figures = {**story.figures, "tile": last}
    story.check()
    require(last in expected, "halved too often", figures)
    for name, shape in (("first", first), ("last", last)):
        figures[f"labels of the {name} tile"] = float(np.mean(labels == expected[shape]))
    figures["share of foreground"] = float(np.mean(labels > 0))
    require(figures["labels of the last tile"] >= _SAME_TILE, "other labels", figures)
    if not bench.small:  # there, a network that has learned nothing decides by the last bit
        require(figures["labels of the first tile"] >= _OTHER_TILE, "unlike before", figures)
        require(0 < figures["share of foreground"] < 1, "all labels are the same", figures)
    return figures


def prediction_survives_an_injected_shortage(bench: Bench) -> Figures:
    """Tiles of a prediction fail for lack of memory: a notice, and the same labels."""
    with _injected(bench) as shortage:

        def act() -> Callable[[object], None]:
            return lambda e: shortage.arm() if isinstance(e, PredictionProgress) else None

        figures = _equal_share(bench, act)
    return figures | {"injected": shortage.raised}


class _Filler:
    """A tensor that leaves only so many bytes of a GPU free."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._held: list[Tensor] = []

    def leave(self, free: int) -> None:
        """Take all but `free` bytes; once."""
        if self._held:
            return
        torch.cuda.empty_cache()
        size = max(0, torch.cuda.mem_get_info(self._device)[0] - free)
        self._held.append(torch.empty(size, dtype=torch.uint8, device=self._device))

    def release(self) -> None:
        """Give all of it back."""
        self._held.clear()
        devices.release(self._device)


@contextmanager
def _filler(bench: Bench) -> Iterator[_Filler]:
    bench.need("cuda")
    filler = _Filler(bench.device)
    try:
        yield filler
    finally:
        filler.release()


def training_survives_a_real_shortage(bench: Bench) -> Figures:
    """Memory is filled after the patch was planned: a notice, and training goes on.

    The image that is kept on the GPU makes way; the patch is halved where that does not suffice.
    """
    with _filler(bench) as filler:
        network, precision = bench.bundle.network, bench.precision

        def act(event: object) -> None:
            if isinstance(event, TrainingStarted):
                planned = training_bytes(network, event.patch_shape, precision, True)
                filler.leave(planned // 2 + (64 << 20))

        story = _Story(act)
        bundle = bench.train(story, iterations=6, pixel_classifier=False)
    story.check()
    return story.figures | {"iterations": bundle.record.iterations}


def prediction_survives_a_real_shortage(bench: Bench) -> Figures:
    """Memory is filled after the tile was planned: a notice, and the same labels."""
    with _filler(bench) as filler:
        tile = (32, 96, 96)
        planned = prediction_bytes(bench.trained.network, tile, bench.precision, True)

        def act() -> Callable[[object], None]:
            # Half of the tile fits, with what little is planned too much.
            return lambda event: filler.leave(3 * planned // 4)

        return _equal_share(bench, act)
