"""Trains a network on a sparse annotation: the face of this package."""

from __future__ import annotations

import traceback
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Self

from napari_unet3d.config import TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.events import TrainingEvent
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks import device as devices
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.domains import DomainStack, plan_domains, plan_new_domain
from napari_unet3d.training.history import History
from napari_unet3d.training.listening import CancelledError
from napari_unet3d.training.loop import TrainingLoop
from napari_unet3d.training.plan import TrainingPlan, plan_training
from napari_unet3d.training.rounds import FIRST_ROUND


class Trainer:
    """Trains a network on a sparse annotation, once.

    Everything is checked and planned on construction; `run` does the work.

    Parameters
    ----------
    volume, annotation
        The stack and what is painted on it. The labels, and an image that is too large for the
        memory, are read while training goes on.
    config
        Budget, device, recipe; the defaults when None.
    start_from
        A model to go on from: its network is kept. With other classes than the annotation's, its
        last layer is made anew.
    resume
        Go on exactly where `start_from` was stopped, with its optimizer and iteration; the budget
        of `config` counts from the model's own beginning.

    Attributes
    ----------
    plan
        What `run` will do.

    Raises
    ------
    BadInputError
        The stack, the annotation and the settings do not go together; the text has the cure.
    """

    def __init__(
        self,
        volume: Volume,
        annotation: SparseAnnotation,
        config: TrainingConfig | None = None,
        *,
        start_from: ModelBundle | None = None,
        resume: bool = False,
    ) -> None:
        self.plan: TrainingPlan = plan_training(volume, annotation, config, start_from, resume)
        self._has_run = False

    @classmethod
    def of_domains(
        cls,
        stacks: Sequence[DomainStack],
        config: TrainingConfig | None = None,
        *,
        start_from: ModelBundle | None = None,
    ) -> Self:
        """A trainer of a universal network for stacks of several domains, which take turns.

        Parameters
        ----------
        stacks
            One of each domain. With `start_from` a single one, of a new domain.
        config
            Budget, device, recipe; the defaults when None.
        start_from
            A model of other domains, whose part of the network stays as it is.

        Raises
        ------
        BadInputError
            As on construction; or the domains do not go together.
        """
        config = config or TrainingConfig()
        if start_from is not None and len(stacks) != 1:
            raise BadInputError(
                f"{len(stacks)} stacks were given for a model that gets a new domain: give one."
            )
        trainer = cls.__new__(cls)
        trainer.plan = (
            plan_domains(stacks, config)
            if start_from is None
            else plan_new_domain(stacks[0], config, start_from)
        )
        trainer._has_run = False
        return trainer

    def run(
        self, control: TrainingControl | None = None
    ) -> Generator[TrainingEvent, None, ModelBundle | None]:
        """Train; yields what happens, returns the model, or None when cancelled.

        Parameters
        ----------
        control
            Takes the user's orders, from any thread.

        Raises
        ------
        TrainingFailedError
            The memory does not suffice for the smallest patch, the loss is not finite, or torch
            failed. It holds the model that was trained until then, if there is one.
        BadInputError
            On a second call.
        """
        self._begin_once()
        return run_plan(self.plan, control or TrainingControl())

    def run_rounds(
        self, control: TrainingControl | None = None, first_round: float = FIRST_ROUND
    ) -> Generator[TrainingEvent, None, ModelBundle | None]:
        """Train in rounds of 20 s, 40 s, 80 s … instead of the budget, without a fixed end.

        Yields `RoundStarted` and `RoundFinished` beside the events of `run`. After a round whose
        event has an `end`, close the generator to leave it at that, or ask for the next event to
        go on, such as when slices have been handed over with `TrainingControl.join`.

        Parameters
        ----------
        control
            As for `run`.
        first_round
            Seconds of the first round.
        """
        self._begin_once()
        return run_plan(self.plan, control or TrainingControl(), first_round)

    def _begin_once(self) -> None:
        if self._has_run:
            raise BadInputError(
                "This trainer has run already: a second run would begin with another state. Make "
                "a new Trainer; with start_from=model it goes on from a model."
            )
        self._has_run = True


class TrainingFailedError(RunFailedError):
    """A training failed while it ran.

    Attributes
    ----------
    bundle
        The model as it was then, which can be saved, applied and trained further; None when it
        had not learned anything.
    """

    def __init__(self, text: str, bundle: ModelBundle | None) -> None:
        super().__init__(text)
        self.bundle = bundle


def run_plan(
    plan: TrainingPlan, control: TrainingControl, first_round: float | None = None
) -> Generator[TrainingEvent, None, ModelBundle | None]:
    """Run a plan with the device set up; every failure becomes a `TrainingFailedError`.

    Parameters
    ----------
    plan, control
        What is done, and the orders of the user.
    first_round
        Seconds of the first round of a training that has rounds; None for one with a budget.
    """
    loop: TrainingLoop | None = None
    before = plan.start_from.record.history if plan.start_from and plan.resume else None
    history = History(before)
    devices.prepare(plan.device)
    try:
        repeatable = plan.budget.repeats_exactly
        with devices.computing(plan.device, plan.precision, repeatable) as note:
            plan = plan if note is None else replace(plan, notes=(*plan.notes, note))
            loop = TrainingLoop(plan, control)
            steps = loop.run() if first_round is None else loop.run_rounds(first_round)
            return (yield from history.follow(steps))
    except CancelledError:
        return None
    except Exception as error:
        # superqt's workers swallow RuntimeErrors: the user would wait for ever.
        traceback.clear_frames(error.__traceback__)  # they hold the device's memory
        is_told = isinstance(error, RunFailedError | BadInputError)
        text = str(error) if is_told else f"training failed: {devices.reason(error)}"
        rescued = loop.rescue() if loop else None
        raise TrainingFailedError(text, rescued and history.write(rescued)) from error
    finally:
        del loop
        devices.release(plan.device)
