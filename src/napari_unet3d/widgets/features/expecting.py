"""Says beside the start button how long a run would take, before it begins."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from napari_unet3d.config import TrainingConfig
from napari_unet3d.errors import BadInputError
from napari_unet3d.session.past_runs import (
    PastRun,
    basis_text,
    expectation_text,
    past_runs,
    remember_run,
)
from napari_unet3d.widgets.run.runner import Finished
from napari_unet3d.widgets.workbench import Feature, Workbench


class Expecting(Feature):
    """Tells the whole time of a run from its budget, the stack, and the last run of its kind."""

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self._past: dict[tuple[str, str], PastRun] = {}
        """The last run of each preset and device."""
        for signal, slot in (
            (bench.form.valueChanged, self._show),
            (bench.choice.valueChanged, self._show),
            (bench.choice.timesChanged, self._show),
            (bench.pairing.changed, self._show),
            (bench.run_bar.keepsLearningChanged, self._show),
            (bench.runner.finished, self._note),
        ):
            signal.connect(slot)
        bench.background.ask(past_runs, self._arrived)
        self._show()

    def _arrived(self, runs: list[PastRun]) -> None:
        self._past = {(run.preset, run.device): run for run in runs} | self._past
        self._show()

    def _note(self, finished: Finished | None) -> None:
        """Remember how long a training with a budget took, and its segmentation."""
        spent = self.bench.report.durations()
        work = self._work()
        known = "finishing" in spent and "segmenting" in spent
        if finished is None or not known or work is None or self.bench.report.round() is not None:
            return
        config, voxels = work
        run = PastRun(
            preset=config.preset,
            device=config.device,
            preparing=spent.get("checking", 0.0) + spent.get("preparing", 0.0),
            measuring=spent["finishing"],
            segmenting=spent["segmenting"],
            voxels=voxels,
        )
        self._past[run.preset, run.device] = run
        self.bench.background.ask(partial(remember_run, run), lambda _: None)
        self._show()

    def _work(self) -> tuple[TrainingConfig, int] | None:
        """The settings, and the number of voxels to segment; None without a pair of layers."""
        choice = self.bench.choice
        if None in choice.value():
            return None
        try:
            volume = choice.volume()[0]
            settings = self.bench.actions.settings()
        except BadInputError:
            return None
        times = volume.n_times if settings.times is None else len(settings.times)
        return settings.training, math.prod(volume.shape) * times

    def _show(self, _: Any = None) -> None:
        run_bar, work = self.bench.run_bar, self._work()
        if work is None:
            run_bar.set_expectation("")
            return
        config, voxels = work
        past = self._past.get((config.preset, config.device))
        keeps_learning = run_bar.keep_learning.isChecked()
        text = expectation_text(config, voxels, past, keeps_learning=keeps_learning)
        run_bar.set_expectation(text, basis_text(past))
