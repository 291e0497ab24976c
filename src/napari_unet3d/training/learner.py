"""The network in training: one step at a time."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from napari_unet3d.config import Triple
from napari_unet3d.data.shapes import describe_shape
from napari_unet3d.errors import RunFailedError
from napari_unet3d.events import Notice
from napari_unet3d.networks import device as devices
from napari_unet3d.networks.architecture import Network
from napari_unet3d.networks.planning import training_bytes
from napari_unet3d.sampling.patches import PatchSampler
from napari_unet3d.sampling.source import GIVEN_UP
from napari_unet3d.training.averaging import average_weights
from napari_unet3d.training.checkpoint import (
    load_training_state,
    load_weights,
    stored_scale,
    training_state,
)
from napari_unet3d.training.listening import Listener
from napari_unet3d.training.loss_meter import LossMeter
from napari_unet3d.training.losses import masked_loss
from napari_unet3d.training.optimizers import OPTIMIZERS
from napari_unet3d.training.plan import TrainingPlan
from napari_unet3d.training.replaying import CudaRecorder, ReplayedPass
from napari_unet3d.training.turns import Batch, Turn

_WARM_UP = 10
"""Iterations in which the learning rate rises: the moments are poor estimates in the first."""
_LARGEST_GRADIENT = 1.0
"""Norm that gradients are clipped to."""
_MOST_BAD_STEPS = 20
"""Steps in a row without a finite loss that end a training. The search for the scale of fp16
gradients takes fewer."""
_FIRST_SCALE = 2.0**16
"""Scale of fp16 gradients to begin with; torch's default."""


class Learner:
    """A network in training with all that a step needs.

    Parameters
    ----------
    plan
        What is trained, and on what.
    listener
        Hears the orders of the user within a step; attached to the network and its average.
    replays
        Whether passes are recorded and replayed on an NVIDIA GPU, which the CPU then takes less
        time to keep busy.

    Attributes
    ----------
    plan
        What is trained, and on what; another one after slices have joined.
    iteration
        Iterations so far, those before a training was resumed included.
    network
        The network whose weights are trained.
    average
        The running average of the network, in eval mode: the model of the training. It has no
        batch-norm statistics until these are estimated.
    """

    def __init__(self, plan: TrainingPlan, listener: Listener, *, replays: bool = True) -> None:
        self.plan = plan
        self.iteration = plan.first_iteration
        self._turns = [Turn(each) for each in (plan, *plan.turns)]
        self._turn = self._turns[0]
        self.network = _make_network(plan).train()
        listener.attach(self.network)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self._optimizer = OPTIMIZERS[plan.config.optimizer].make(
            self.network.parameters(), plan.config, self.skips_on_device
        )
        self._scaler = self._make_scaler(_FIRST_SCALE)
        self._passes = ReplayedPass(self._pass, self._make_recorder() if replays else None)
        self._losses = LossMeter(plan.device)
        self._voxels_seen: int | Tensor = 0
        if plan.start_from is not None and plan.resume:
            state = plan.start_from.state
            load_training_state(self.network, self._optimizer, state)
            self._scaler = self._make_scaler(stored_scale(state) or _FIRST_SCALE)
            self._voxels_seen = plan.start_from.record.voxels_seen

    def adopt(self, plan: TrainingPlan) -> None:
        """Train on the annotation of another plan from now on, which is the same otherwise."""
        self.plan = plan
        self._turns[0].adopt(plan)

    @property
    def sampler(self) -> PatchSampler:
        """Draws the batches of the plan."""
        return self._turns[0].sampler

    # --- a step -------------------------------------------------------------------------------

    def advance(self, fraction: float) -> float | Notice:
        """Carry out one iteration, or take a smaller patch where memory does not suffice for it.

        Parameters
        ----------
        fraction
            Share of the budget that is used.

        Returns
        -------
        float or Notice
            The loss, see `LossMeter`; or what the user should know, when the patch was halved.

        Raises
        ------
        RunFailedError
            Memory does not suffice for the smallest patch, or the loss was not finite for many
            iterations.
        """
        try:
            return self.step(self.draw(fraction), fraction)
        except Exception as error:
            if not devices.is_out_of_memory(error):
                raise
            reason = devices.reason(error)
        # Outside of the except block: the traceback would keep the tensors alive.
        return self.shrink(reason)

    def draw(self, fraction: float) -> Batch:
        """The batch of the next iteration, when `fraction` of the budget is used."""
        if len(self._turns) > 1:
            self._turn = self._turns[self.iteration % len(self._turns)]
            self.network.enter(self._turn.plan.network)
        return self._turn.draw(self.iteration, fraction)

    def step(self, batch: Batch, fraction: float) -> float:
        """Learn from a batch; returns the loss, on an NVIDIA GPU that of the step before.

        The weights stay as they are where the gradients are not finite.
        """
        plan, (image, target) = self.plan, batch
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate(fraction)
        image = image.contiguous(memory_format=devices.memory_format(plan.device))
        loss = self._update_weights(self._passes(image, target))
        self.iteration += 1
        self._voxels_seen = self._voxels_seen + _count(target)
        average_weights(self.average, self.network, self.iteration, plan.config.weight_averaging)
        self._losses.add(loss)
        if self._losses.bad_in_a_row >= _MOST_BAD_STEPS:
            raise RunFailedError(
                f"The loss was not finite {_MOST_BAD_STEPS} times in a row: lower the learning "
                "rate, or choose precision fp32."
            )
        return self._losses.latest

    def _pass(self, image: Tensor, target: Tensor) -> Tensor:
        """Forward and backward through the network; returns the loss."""
        with devices.autocast(self.plan.device, self.plan.precision):
            outputs = self.network.supervised(image)
        config, weights = self.plan.config, self._turn.class_weights
        losses = [share * masked_loss(logits, target, config, weights) for share, logits in outputs]
        loss = torch.stack(losses).sum() if len(losses) > 1 else losses[0]
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        return loss.detach()

    def learning_rate(self, fraction: float) -> float:
        """The learning rate of the next iteration, when `fraction` of the budget is used."""
        decay = (
            0.5 * (1 + math.cos(math.pi * fraction))
            if self.plan.config.schedule == "cosine"
            else max(0.0, 1 - fraction) ** 0.9
        )
        return self.plan.learning_rate * decay * min(1.0, (self.iteration + 1) / _WARM_UP)

    def _update_weights(self, loss: Tensor) -> Tensor:
        """Clip the gradients and take a step; returns the loss, NaN where the step was skipped.

        In fp16 a skipped step is no bad sign: so the scaler finds its scale.
        """
        fp16 = self.plan.precision == "fp16"
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), _LARGEST_GRADIENT)
        if self.skips_on_device:
            self._scaler.step(self._optimizer)
            if not fp16:
                loss = torch.where(norm.isfinite(), loss, torch.nan)
        elif fp16 or torch.isfinite(norm):
            self._scaler.step(self._optimizer)
        else:
            loss = loss * torch.nan
        self._scaler.update(None if fp16 else 1.0)
        return loss

    @property
    def skips_on_device(self) -> bool:
        """Whether the optimizer skips a step that is not finite, so that the CPU need not wait."""
        return self.plan.device.type == "cuda" and OPTIMIZERS[self.plan.config.optimizer].fused

    # --- after a step that failed ---------------------------------------------------------------

    def shrink(self, reason: str) -> Notice:
        """Take half of the patch from now on, since memory did not suffice.

        An image that was kept on the GPU makes way first; the patch then stays as it is.

        Parameters
        ----------
        reason
            What the error said.

        Raises
        ------
        RunFailedError
            The patch cannot be smaller.
        """
        self.drop_step()
        self._passes.give_up()
        if self._turn.sampler.source.give_up():
            devices.make_room(self.plan.device)
            return Notice(GIVEN_UP)
        old = self.patch_shape
        self._turn.halve_patches(reason)
        devices.make_room(self.plan.device)
        return Notice(
            f"Out of memory: patch halved from {describe_shape(old)} to "
            f"{describe_shape(self.patch_shape)} voxels; training goes on."
        )

    def drop_step(self) -> None:
        """Forget a step that broke off, so that another one can be taken."""
        self._optimizer.zero_grad(set_to_none=True)
        # A step that broke off between unscaling and updating leaves a scaler that refuses the
        # next one. The scale that was found stays.
        self._scaler = self._make_scaler(self._scaler.get_scale())
        self._passes.forget()

    # --- what it has come to --------------------------------------------------------------------

    @property
    def patch_shape(self) -> Triple:
        """The patch in use, (z, y, x), for the orientation of most annotated slices."""
        return self._turn.plan.main_patch(self._turn.patches)

    @property
    def step_voxels(self) -> int:
        """Voxels of the batch of one step."""
        return self.plan.batch_size * math.prod(self.patch_shape)

    @property
    def recorded_shapes(self) -> int:
        """Shapes of batches whose passes are replayed instead of launched one by one."""
        return self._passes.recordings

    @property
    def learned_iterations(self) -> int:
        """Iterations that the network has learned in, with those of the models it went on from."""
        return self.plan.iterations_before + self.iteration

    @property
    def finite_steps(self) -> int:
        """Steps of this run whose loss was a finite number."""
        self._losses.settle()
        return self._losses.finite

    @property
    def voxels_seen(self) -> int:
        """Labelled voxels that entered the loss."""
        return int(self._voxels_seen)

    def state(self) -> dict[str, Tensor]:
        """All that resuming needs besides the averaged weights."""
        scale = self._scaler.get_scale() if self.plan.precision == "fp16" else None
        return training_state(self.network, self._optimizer, scale)

    def _make_scaler(self, scale: float) -> torch.amp.GradScaler:
        """A scaler of fp16 gradients; in others it lets the optimizer skip what is not finite."""
        fp16 = self.plan.precision == "fp16"
        return torch.amp.GradScaler(
            self.plan.device.type,
            init_scale=scale if fp16 else 1.0,
            enabled=fp16 or self.skips_on_device,
        )

    def _make_recorder(self) -> CudaRecorder | None:
        plan = self.plan
        if plan.device.type != "cuda" or plan.turns:
            return None  # a recording holds for one domain

        def needed(images: Sequence[int]) -> int:
            count, _, z, y, x = images
            return count * training_bytes(plan.network, (z, y, x), plan.precision, True)

        return CudaRecorder(plan.device, list(self.network.parameters()), needed)


def _make_network(plan: TrainingPlan) -> Network:
    """The network on its device: new, or with the weights of a model."""
    torch.manual_seed(plan.config.seed)
    network = plan.network.build()
    for module in network.modules():
        if isinstance(module, Network):  # a cascade holds two
            module.recomputes = plan.config.recompute
    if plan.start_from is not None:
        load_weights(network, plan.start_from.weights, head=plan.keeps_head)
    form = devices.memory_format(plan.device)
    on_device: Network = network.to(plan.device, memory_format=form)  # type: ignore[call-overload]
    return on_device


def _count(target: Tensor) -> int | Tensor:
    """Labelled voxels; on a GPU a tensor, so that the CPU need not wait."""
    labelled = (target > 0).sum()
    return int(labelled) if target.device.type == "cpu" else labelled
