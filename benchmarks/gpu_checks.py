"""What the checks of `gpu.py` share: the machine, the clock, outcomes, and short trainings.

A check is a function of a `Bench`. It returns the figures that it measured, raises whatever it
likes when it fails, and raises `LeftOutError` where a machine cannot be asked.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import torch

from napari_unet3d.config import PredictionConfig, TrainingConfig, Triple
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.samples import Sample, tubules
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import drain
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks import device as devices
from napari_unet3d.networks.device import Precision
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.training.trainer import Trainer

Status = Literal["passed", "failed", "left out", "not reached", "not finished"]
Figures = dict[str, Any]


class LeftOutError(Exception):
    """A check does not apply to this machine; the text says why. It is no failure."""


class Clock:
    """Time of the whole run, and of the part that runs now.

    Parameters
    ----------
    seconds
        Time of the whole run.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._end_of_part = self._end

    def left(self) -> float:
        """Seconds left to the part that runs now."""
        return min(self._end, self._end_of_part) - time.monotonic()

    def begin_part(self, share: float, shares_left: float) -> None:
        """Give a part its share of the time that the parts still to run have together."""
        left = self._end - time.monotonic()
        self._end_of_part = time.monotonic() + left * share / shares_left


@dataclass
class Bench:
    """The machine that is measured.

    Attributes
    ----------
    device, precision
        As training and prediction use them.
    small
        Whether this is a dry run on a CPU: everything is tiny, and no figure means anything.
    stacks
        Folder of stacks with their truth; None for the built-in one.
    clock
        Tells how much time is left.
    """

    device: torch.device
    precision: Precision
    small: bool
    stacks: Path | None
    clock: Clock

    @cached_property
    def simulated(self) -> Sample:
        """The built-in stack with its truth; a tiny one in a dry run."""
        return tubules((24, 32, 32)) if self.small else tubules()

    @cached_property
    def sample(self) -> tuple[Volume, SparseAnnotation]:
        """The built-in stack with its painted slices."""
        sample = self.simulated
        labels = sample.annotate(sample.training_slices)
        return sample.image, SparseAnnotation(labels, sample.classes)

    @cached_property
    def bundle(self) -> ModelBundle:
        """A model of the default network, which has hardly learned; no pixel classifier."""
        return self.train(iterations=2, pixel_classifier=False)

    @cached_property
    def trained(self) -> ModelBundle:
        """The same after a short training: its labels do not hang on the last bit."""
        return self.train(iterations=2 if self.small else 150, pixel_classifier=False)

    def train(self, each: Callable[[Any], object] | None = None, **changes: Any) -> ModelBundle:
        """Train on the sample; see `trainer`."""
        bundle = drain(self.trainer(**changes).run(), each)
        assert bundle is not None
        return bundle

    def trainer(
        self, *, start_from: ModelBundle | None = None, resume: bool = False, **changes: Any
    ) -> Trainer:
        """A trainer on the sample with the default settings, changed by `changes`."""
        if self.small:
            changes = {"patch_shape": (8, 16, 16), "pixel_classifier": False, **changes}
        config = TrainingConfig(**{"device": str(self.device), **changes})
        return Trainer(*self.sample, config, start_from=start_from, resume=resume)

    def segment(
        self,
        bundle: ModelBundle,
        volume: Volume,
        each: Callable[[Any], object] | None = None,
        **changes: Any,
    ) -> np.ndarray:
        """The labels (Z, Y, X) of a stack."""
        labels = np.zeros(volume.shape, np.uint8)
        config = PredictionConfig(**{"device": str(self.device), **changes})
        drain(predict(bundle, volume, labels, config=config), each)
        return labels

    def wait(self) -> None:
        """Wait until the device has done all its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def need(self, kind: str) -> None:
        """Raise LeftOutError unless the device is of a kind."""
        if self.device.type != kind:
            raise LeftOutError(f"needs a device of the kind '{kind}'")


class PeakMemory:
    """The most bytes that tensors held on a device since `PeakMemory` was made.

    On a CPU and an Apple GPU, which keep no such record, the most of what `sample` saw.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        devices.release(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self._begin = self._now()
        self._most = self._begin

    def sample(self, _event: object = None) -> int:
        """Bytes above those at the beginning."""
        if self._device.type == "cuda":
            self._most = torch.cuda.max_memory_allocated(self._device)
        else:
            self._most = max(self._most, self._now())
        return self._most - self._begin

    def _now(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.memory_allocated(self._device)
        if self._device.type == "mps":
            return int(torch.mps.driver_allocated_memory())
        return int(psutil.Process().memory_info().rss)


@dataclass
class Outcome:
    """What came of a check.

    Attributes
    ----------
    part, name
        Letter of the part, and name of the check.
    status
        See `Status`.
    seconds
        Time that it took.
    figures
        What it measured.
    text
        Why it failed or was left out.
    """

    part: str
    name: str
    status: Status = "not reached"
    seconds: float = 0.0
    figures: Figures = field(default_factory=dict)
    text: str = ""

    def as_json(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return asdict(self)


Check = Callable[[Bench], Figures]


def carry_out(outcome: Outcome, check: Check, bench: Bench) -> None:
    """Run a check, and keep what came of it; nothing it raises goes on."""
    begin = time.monotonic()
    outcome.status = "not finished"
    try:
        outcome.figures = check(bench)
        bench.wait()
        outcome.status = "passed"
    except LeftOutError as error:
        outcome.status, outcome.text = "left out", str(error)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        outcome.text = f"{type(error).__name__}: {error} ({place})".replace("\n", " ")[:600]
        outcome.figures = getattr(error, "figures", {})
        outcome.status = "failed"
        traceback.clear_frames(error.__traceback__)  # they hold the device's memory
    devices.release(bench.device)
    outcome.seconds = time.monotonic() - begin


class CheckFailedError(Exception):
    """A figure is out of bounds; the figures are kept all the same."""

    def __init__(self, text: str, figures: Figures) -> None:
        super().__init__(text)
        self.figures = figures


def require(condition: bool, text: str, figures: Figures) -> None:
    """Raise CheckFailedError unless a condition holds."""
    if not condition:
        raise CheckFailedError(text, figures)


def on_gpu(bench: Bench) -> bool:
    """Whether memory is planned as for a GPU."""
    return bench.device.type != "cpu"


def relative_error(values: torch.Tensor, truth: torch.Tensor) -> float:
    """Norm of the difference over the norm of the truth, in fp64 on the CPU."""
    values, truth = values.detach().double().cpu(), truth.detach().double().cpu()
    return float((values - truth).norm() / truth.norm().clamp(min=1e-300))


def random_stack(shape: Triple) -> tuple[Volume, SparseAnnotation]:
    """Noise with two classes painted on its middle xy slice: its content costs no time."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, shape, np.uint8)
    labels = np.zeros(shape, np.uint8)
    labels[shape[0] // 2] = rng.integers(1, 3, shape[1:])
    return Volume(image), SparseAnnotation.from_labels(labels, convention="sparse")
