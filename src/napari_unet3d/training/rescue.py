"""What a training does when something fails: go on, or keep what was learned."""

from __future__ import annotations

from collections.abc import Callable, Generator

import torch

from napari_unet3d.errors import RunFailedError
from napari_unet3d.events import Notice, TrainingEvent
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks import device as devices
from napari_unet3d.prediction.engine import NotFiniteError
from napari_unet3d.training.learner import Learner
from napari_unet3d.training.looks import Looks
from napari_unet3d.training.record import make_bundle


class Attempts:
    """Looks at the model that may fail: a training must not end because of one.

    Parameters
    ----------
    device
        Where the looks are taken.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._told: set[Notice] = set()

    def __call__(
        self, failure: str, look: Callable[[], TrainingEvent | None]
    ) -> Generator[TrainingEvent, None, None]:
        """Yield the event of a look; or a notice, once, where it fails.

        A look fails where memory does not suffice or the image cannot be read.

        Parameters
        ----------
        failure
            What to say then, the beginning of a sentence.
        look
            Returns an event, or None.
        """
        try:
            event = look()
        except NotFiniteError:
            raise
        except Exception as error:
            if not isinstance(error, RunFailedError) and not devices.is_out_of_memory(error):
                raise
            notice = Notice(f"{failure}: {devices.reason(error).rstrip('.')}.")
        else:
            if event is not None:
                yield event
            return
        # Outside of the except block: the traceback would keep the tensors alive.
        devices.make_room(self._device)
        if notice not in self._told:
            self._told.add(notice)
            yield notice


def rescue(learner: Learner, looks: Looks, elapsed: float) -> ModelBundle | None:
    """The model as it is when the training has failed.

    Parameters
    ----------
    learner, looks
        The training.
    elapsed
        Seconds of the training until now.

    Returns
    -------
    ModelBundle or None
        None when nothing was learned, or when the weights cannot be had from the device.
    """
    try:
        if not learner.finite_steps:
            return None
        devices.make_room(learner.plan.device)
        _finish_what_can_be(looks, learner)
        try:
            bundle = make_bundle(learner, looks, elapsed)
        except Exception:  # without the optimizer's state it is a quarter as large
            bundle = make_bundle(learner, looks, elapsed, state=False)
    except Exception:  # the reason why the training failed must not be hidden by another
        return None
    finite = all(t.isfinite().all() for t in bundle.weights.values() if t.is_floating_point())
    return bundle if finite else None


def _finish_what_can_be(looks: Looks, learner: Learner) -> None:
    """Statistics and calibration of the model, where memory still suffices for them."""
    before = {name: t.clone() for name, t in looks.network.named_buffers()}
    try:
        looks.prepare(final=True)
    except Exception:
        looks.network.load_state_dict(before, strict=False)
        looks.support.leave_it_to_pixels()
        return
    try:
        looks.calibrate()
    except NotFiniteError:
        looks.support.leave_it_to_pixels()
    except Exception:  # the weights stay as they were
        devices.make_room(learner.plan.device)
