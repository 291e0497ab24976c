"""Remembers how a training went, in few points."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace

from napari_unet3d.events import (
    Checkpoint,
    HeldOutScores,
    RoundFinished,
    TrainingEvent,
    TrainingProgress,
)
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.model.evidence import TrainingHistory

_MOST_POINTS = 200
"""Points of each curve: as many as a figure of a page shows, and 10 kB in the model's file."""


class History:
    """Takes the events of a training, and writes the curves into the models that it makes.

    Parameters
    ----------
    before
        The curves of the training that is resumed.
    """

    def __init__(self, before: TrainingHistory | None = None) -> None:
        before = before or TrainingHistory()
        self._loss, self._iou = list(before.loss), list(before.iou)
        self._stride, self._losses = 1, list[float]()

    def value(self) -> TrainingHistory:
        """The curves until now."""
        return TrainingHistory(tuple(self._loss), tuple(self._iou))

    def follow(
        self, training: Generator[TrainingEvent, None, ModelBundle | None]
    ) -> Generator[TrainingEvent, None, ModelBundle | None]:
        """Yield the events of a training; its checkpoints and its model get the curves."""
        with closing(training):
            while True:
                try:
                    event = next(training)
                except StopIteration as end:
                    return None if end.value is None else self.write(end.value)
                yield self._take(event)

    def _take(self, event: TrainingEvent) -> TrainingEvent:
        if isinstance(event, TrainingProgress):
            self._add_loss(event.elapsed, event.loss)
        elif isinstance(event, HeldOutScores) and event.mean_iou is not None:
            self._iou = _thinned([*self._iou, (event.elapsed, event.mean_iou)])
        elif isinstance(event, Checkpoint | RoundFinished):
            return replace(event, bundle=self.write(event.bundle))
        return event

    def write(self, bundle: ModelBundle) -> ModelBundle:
        """The model with the curves in its record."""
        record = bundle.record.model_copy(update={"history": self.value()})
        return bundle.model_copy(update={"record": record})

    def _add_loss(self, elapsed: float, loss: float) -> None:
        if math.isfinite(loss):
            self._losses.append(loss)
        if len(self._losses) < self._stride:
            return
        self._loss.append((elapsed, sum(self._losses) / len(self._losses)))
        self._losses.clear()
        if len(self._loss) > _MOST_POINTS:
            pairs = zip(self._loss[::2], self._loss[1::2], strict=False)
            self._loss = [(time, (a + b) / 2) for (_, a), (time, b) in pairs]
            self._stride *= 2


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Every other point when there are too many, the last one always."""
    return points if len(points) <= _MOST_POINTS else [*points[:-1:2], points[-1]]
