"""Rounds of a continuous training: how long each is, and when more time does not help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from napari_unet3d.data.boxes import Box
from napari_unet3d.events import HeldOutScores, RoundEnd
from napari_unet3d.model.record import FEWEST_ITERATIONS
from napari_unet3d.prediction.engine import NotFiniteError
from napari_unet3d.training.looks import Looks
from napari_unet3d.training.plan import TrainingPlan

FIRST_ROUND = 20.0
"""Seconds of the first round: a first result comes soon. Each further round takes twice as long,
since a network that has learned for long needs long to gain anything."""
_GROWTH = 2.0
"""Length of a round over that of the round before."""
_LONGEST_WITH_PAINT = 80.0
"""Seconds of a round while slices join: the learning rate is too low for them at its end."""
_MOST_SECONDS = 3600.0
"""Seconds of a training to which no paint comes: after an hour, nobody waits for a gain."""
_LEAST_GAIN = 0.01
"""Mean IoU on the held-out slices. Where twice the time gains less than this, more time is not
worth its wait; a few held-out slices do not show less either."""
_SAME_RESULT = 0.95
"""Mean IoU of two successive results that count as the same. On two stacks (plant cells, vessels),
results that agreed so differed by 0.01 in their IoU with the truth, others by up to 0.03."""
_SAMPLED_PARTS, _SAMPLED_SIDE = 6, 192
"""Parts of the stack on which two results are compared, and the voxels of their sides: they are
predicted in a few seconds."""


def next_length(length: float, joined: bool) -> float:
    """Seconds of the next round after one of `length` seconds, in which slices may have joined."""
    return min(length, _LONGEST_WITH_PAINT) if joined else length * _GROWTH


@dataclass(frozen=True)
class Verdict:
    """What a round has gained.

    Attributes
    ----------
    end, gain, agreement
        See `RoundFinished`.
    """

    end: RoundEnd
    gain: float | None
    agreement: float | None


class Plateau:
    """Decides after each round whether more time helps.

    Two rounds are compared with each other, so the second one is the first that can rest. A round
    in which slices joined is only a new beginning.
    """

    def __init__(self) -> None:
        self._best: float | None = None
        self._began = 0.0

    def judge(
        self,
        seconds: float,
        iterations: int,
        scores: HeldOutScores | None,
        agreement: float | None,
        joined: bool = False,
    ) -> Verdict:
        """Judge a round that has ended.

        Parameters
        ----------
        seconds, iterations
            Of the whole training until now.
        scores
            Final scores of the round on the held-out slices; None where there are none.
        agreement
            Mean IoU of the result with that of the round before; None where there is none.
        joined
            Whether slices have joined in this round.
        """
        if joined:
            self._best, self._began = None, seconds
        iou = None if scores is None else scores.mean_iou
        gain = None if iou is None or self._best is None else iou - self._best
        if iou is not None:
            self._best = iou if self._best is None else max(iou, self._best)
        end: RoundEnd = ""
        if seconds - self._began >= _MOST_SECONDS:
            end = "time"
        elif joined or iterations < FEWEST_ITERATIONS:
            pass  # with few iterations the pixel classifier decides; the network has yet to learn
        elif gain is not None and gain < _LEAST_GAIN:
            end = "scores"
        elif gain is None and agreement is not None and agreement >= _SAME_RESULT:
            end = "result"
        return Verdict(end, gain, agreement)


class Sample:
    """A sample of the stack, on which the results of two rounds are compared.

    Parameters
    ----------
    plan, looks
        The training.
    interrupted
        Asked between parts: when True, the comparison ends with the parts so far.
    """

    def __init__(self, plan: TrainingPlan, looks: Looks, interrupted: Callable[[], bool]) -> None:
        self._looks, self._interrupted = looks, interrupted
        self._classes = range(1, len(plan.annotation.classes) + 1)
        rng = np.random.default_rng(plan.config.seed)
        times = sorted({s.ref.time for s in plan.slices})
        z, y, x = plan.volume.shape
        height, width = min(y, _SAMPLED_SIDE), min(x, _SAMPLED_SIDE)
        self._parts: list[tuple[int, Box]] = []
        for i in range(min(_SAMPLED_PARTS, z)):
            plane = int((i + 0.5) * z / min(_SAMPLED_PARTS, z))
            top, left = int(rng.integers(y - height + 1)), int(rng.integers(x - width + 1))
            box = Box((plane, top, left), (plane + 1, top + height, left + width))
            self._parts.append((times[i % len(times)], box))
        self._before: dict[int, np.ndarray] = {}

    def compare(self) -> float | None:
        """Predict the sample; mean IoU with the labels of the last call, None where none is known.

        A class that is in neither result does not count; where none is in either, they agree.
        """
        engine = self._looks.engine(self._looks.tiles.dense)
        both = np.zeros(len(self._classes))
        either = np.zeros(len(self._classes))
        compared = False
        for number, (time, box) in enumerate(self._parts):
            if self._interrupted():
                break
            try:
                now = engine.predict(time, box).argmax(0).astype(np.uint8)
            except NotFiniteError:
                return None
            before = self._before.get(number)
            self._before[number] = now
            if before is not None:
                compared = True
                for i, c in enumerate(self._classes):
                    both[i] += np.count_nonzero((before == c) & (now == c))
                    either[i] += np.count_nonzero((before == c) | (now == c))
        if not compared:
            return None
        present = either > 0
        return float((both[present] / either[present]).mean()) if present.any() else 1.0
