"""The stack that the tests of the training share: a bright bar in noise, which leans.

In slice z it covers y 8…25 and x 6+z…21+z of 36 × 40 voxels, in 12 slices::

        z = 0              z = 6              z = 11
    ┌──────────────┐   ┌──────────────┐   ┌──────────────┐
    │              │   │              │   │              │
    │  ██████      │   │    ██████    │   │     ██████   │
    │  ██████      │   │    ██████    │   │     ██████   │
    │              │   │              │   │              │
    └──────────────┘   └──────────────┘   └──────────────┘

The bar is class 2. Its gray values are 140 ± 12, those around it 100 ± 12. Painted are the slices
z=2 and z=9, whole; a test that holds a slice out takes z=6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bundles import random_bundle
from napari_unet3d.config import TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import TrainingEvent, TrainingProgress, drain
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks.unet import UNetConfig
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.learner import Learner
from napari_unet3d.training.listening import Listener
from napari_unet3d.training.plan import TrainingPlan
from napari_unet3d.training.throttle import Throttle
from napari_unet3d.training.trainer import Trainer

SHAPE = (12, 36, 40)
TRAINED = (SliceRef(0, 2), SliceRef(0, 9))
HELD_OUT = SliceRef(0, 6)
SMALL = UNetConfig(
    widths=(4, 8, 8),
    strides=((1, 2, 2), (2, 2, 2)),
    kernels=((3, 3, 3),) * 3,
    padding="same",
    normalization="batch",
    n_classes=2,
)
SETTINGS = {"device": "cpu", "patch_shape": (8, 24, 24), "iterations": 6, "learning_rate": 5e-3}


def bar(seed: int = 0, shift: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """An image of the bar, which begins at x = `shift` in the first slice, and its truth."""
    truth = np.zeros(SHAPE, np.uint8)
    for z in range(SHAPE[0]):
        truth[z, 8:26, shift + z : shift + z + 16] = 2
    noise = np.random.default_rng(seed).normal(100, 12, SHAPE)
    return (20 * truth + noise).astype(np.float32), truth


IMAGE, TRUTH = bar()


def annotate(*refs: SliceRef, truth: np.ndarray = TRUTH) -> np.ndarray:
    """Labels with these slices painted: 1 background, 2 bar."""
    labels = np.zeros(SHAPE, np.uint8)
    for ref in refs:
        where = (slice(None),) * ref.axis + (ref.index,)
        labels[where] = np.maximum(truth[where], 1)
    return labels


def make_trainer(
    labels: np.ndarray | None = None,
    image: np.ndarray | None = None,
    *,
    start: UNetConfig | ModelBundle | None = SMALL,
    axes: str = "ZYX",
    held_out: tuple[SliceRef, ...] | list[SliceRef] = (),
    resume: bool = False,
    **settings: Any,
) -> Trainer:
    """A trainer for the toy stack; its network is tiny, and starts from fixed random weights.

    Parameters
    ----------
    labels, image, axes
        Take the place of the toy's.
    start
        A network that starts from random weights, a model, or None for a planned network.
    held_out
        Slices that are painted, too, but held out.
    resume, settings
        See `Trainer` and `TrainingConfig`.
    """
    volume = Volume(IMAGE if image is None else image, axes)
    labels = annotate(*TRAINED, *held_out) if labels is None else labels
    if isinstance(start, UNetConfig):
        start = random_bundle(start.model_copy(update={"in_channels": volume.n_channels}))
    return Trainer(
        volume,
        SparseAnnotation.from_labels(labels, held_out=held_out),
        TrainingConfig(**(SETTINGS | settings)),
        start_from=start,
        resume=resume,
    )


def make_plan(*arguments: Any, **named: Any) -> TrainingPlan:
    """The plan of `make_trainer`."""
    return make_trainer(*arguments, **named).plan


def make_learner(*arguments: Any, **named: Any) -> Learner:
    """A learner for the plan of `make_trainer`, to which no orders come."""
    return Learner(make_plan(*arguments, **named), Listener(TrainingControl()))


def run(
    training: Trainer | Any,
    control: TrainingControl | None = None,
    each: Callable[[TrainingEvent], object] | None = None,
) -> tuple[list[TrainingEvent], ModelBundle | None]:
    """Events and model of a whole training, given as a trainer or as a generator."""
    events: list[TrainingEvent] = []
    steps = training.run(control) if isinstance(training, Trainer) else training

    def keep(event: TrainingEvent) -> None:
        events.append(event)
        if each is not None:
            each(event)

    bundle = drain(steps, keep)
    return events, bundle


def progress(events: list[TrainingEvent]) -> list[TrainingProgress]:
    """The iterations among the events."""
    return [e for e in events if isinstance(e, TrainingProgress)]


def stop_after(n: int, how: str) -> tuple[TrainingControl, Callable[[TrainingEvent], None]]:
    """Arguments of `run`: give the order `how` ('stop', 'cancel') after the n-th iteration."""
    control = TrainingControl()

    def each(event: TrainingEvent) -> None:
        if isinstance(event, TrainingProgress) and event.iteration == n:
            getattr(control, how)()

    return control, each


def stopped() -> TrainingControl:
    """Orders of a user who stops at once."""
    control = TrainingControl()
    control.stop()
    return control


def with_checkpoints(seconds: float | None = 0.0) -> TrainingControl:
    """Orders to make a checkpoint whenever so many seconds have passed."""
    control = TrainingControl()
    control.checkpoint_every(seconds)
    return control


def same_tensors(a: Any, b: Any) -> bool:
    """Whether two dictionaries hold the same tensors, to the bit."""
    return set(a) == set(b) and all(t.equal(b[name]) for name, t in a.items())


def looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take looks after every iteration, however short the training."""
    monkeypatch.setattr(Throttle, "due", lambda self, elapsed: True)
    monkeypatch.setattr(Throttle, "affordable", lambda self, elapsed, cost: True)


def failing(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: Exception, times: float = 1
) -> list[Exception]:
    """Let a function fail, `times` times from its first call on; returns a list of the failures."""
    function, failures = getattr(owner, name), []

    def fail(*args: Any, **kwargs: Any) -> Any:
        if len(failures) < times:
            failures.append(error)
            raise error
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, fail)
    return failures
