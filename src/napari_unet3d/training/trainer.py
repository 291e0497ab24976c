"""The one training loop: a generator of typed events that knows no window and no printer."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Generator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

import torch
from torch import nn

from napari_unet3d.config import CLIP_PERCENTILES, NetworkConfig, TrainingConfig, Triple
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.clipping import Percentiles
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.lazy import as_bad_input
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume, describe_shape
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.events import (
    Checkpoint,
    FinishingStarted,
    HeldOutScores,
    Notice,
    PixelsStarted,
    TrainingEvent,
    TrainingProgress,
    TrainingStarted,
)
from napari_unet3d.model.bundle import HeldOutRecord, ModelBundle, TrainingRecord
from napari_unet3d.networks import device as devices
from napari_unet3d.networks.geometry import shrink, smallest_map
from napari_unet3d.networks.planning import halve, plan_batch, plan_network, plan_patches
from napari_unet3d.networks.unet import UNet3D
from napari_unet3d.prediction.predictor import NotFiniteError, voxel_size_note
from napari_unet3d.sampling.patches import PatchSampler
from napari_unet3d.sampling.source import open_source
from napari_unet3d.training.checkpoint import (
    check_start,
    load_training_state,
    load_weights,
    on_cpu,
    training_state,
)
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.forecast import Speed
from napari_unet3d.training.listening import CancelledError, Listener, StoppedError
from napari_unet3d.training.looks import Evaluator
from napari_unet3d.training.losses import balanced_weights, masked_loss
from napari_unet3d.training.throttle import Throttle

_LEARNING_RATE = {"fast": 5e-3, "balanced": 3e-3, "paper": 1e-3}
_WARM_UP = 10
_PIXEL_SHARE, _PIXEL_SECONDS, _PIXEL_MOST = 0.3, 10.0, 0.6
"""The pixel classifier has learned enough after this share of the time; or, in a short training,
after these seconds, but no more than the larger share."""
_MOST_BAD_STEPS = 20
_FINISHING_SECONDS, _FINISHING_SHARE = 10.0, 0.1
"""Seconds for the final statistics with the calibration, and again for the scores: ten, or a
tenth of the budget. On idle cores they take less; on busy ones they would take minutes."""

_Look = TypeVar("_Look")


class Trainer:
    """Fine-tunes a 3D U-Net on a sparse annotation.

    Everything is checked on construction; `run` does the work.

    Parameters
    ----------
    volume, annotation
        The stack and what is painted on it. The labels, and an image that is not in memory and
        too large for it, are read while training goes on.
    config
        Budget, device, recipe.
    start_from
        A model to go on from: its network is kept. With other classes than the annotation's
        the head is re-made.
    resume
        Go on exactly where `start_from` was stopped, with its optimizer and iteration; the
        budget of `config` counts from the model's own beginning.

    A trainer trains once: `run` refuses a second call.

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
        if resume and start_from is None:
            raise BadInputError(
                "There is no model to resume. Give the model that was stopped as `start_from`, or "
                "leave `resume` out to start anew."
            )
        self.volume, self.annotation = volume, annotation
        config = config or TrainingConfig()
        if start_from is not None:
            # A network stays what it was planned as, and goes on at the rate of its preset.
            config = config.model_copy(update={"preset": start_from.record.config.preset})
        self.config = config
        volume.check()
        annotation.check(volume)
        if volume.n_channels > 64:
            raise BadInputError(f"the image has {volume.n_channels} channels; 64 is the most")
        self.device = devices.pick_device(config.device)
        self.precision = devices.pick_precision(self.device, config.precision)
        self._start_from = start_from
        self._resume = resume
        self.network_config = self._plan_network()
        if start_from is not None:
            check_start(start_from, volume, annotation, resume)
        with as_bad_input():
            self.volume = volume = volume.in_memory(devices.room_for_images())
            painted = annotation.labelled_voxels()
            self.intensity = IntensityNormalization.estimate(volume, self._clip(), painted)
        self.batch_size = config.batch_size or plan_batch(self.device.type != "cpu", self.precision)
        self._short_of_memory = False
        self._patches = self._plan_patches(small=True), self._plan_patches(small=False)
        self._shapes = self._patches[1]
        self.sampler = PatchSampler(
            open_source(volume, self.intensity, self.device),
            annotation,
            shrink(self.network_config),
            config.rare_share,
            config.seed,
            painted,
        )
        self.iteration = 0
        if start_from is not None and resume:
            self.iteration = start_from.record.iterations
            if self._fraction(start_from.record.seconds) >= 1:
                raise BadInputError(
                    f"the model has had {self.iteration} iterations in "
                    f"{start_from.record.seconds:.0f} s, so the budget is used up: give a larger "
                    "one (it counts from the model's beginning)"
                )
        self._voxels_seen = 0
        self._finite_steps = 0
        self._scaler = self._new_scaler()
        self._has_run = False
        self._told: list[Notice] = []
        self._peak = config.learning_rate or _LEARNING_RATE[config.preset]

    def _clip(self) -> Percentiles | tuple[Percentiles, ...]:
        """Percentiles to begin with: those of the model that is trained further, or the setting."""
        chosen = self.config.clip_percentiles
        if self._start_from is None or chosen != CLIP_PERCENTILES:
            return chosen
        return self._start_from.intensity.clip

    # --- planning ---------------------------------------------------------------------------

    def _plan_network(self) -> NetworkConfig:
        n_classes = len(self.annotation.classes) + 1
        if self._start_from is not None:
            return self._start_from.network.model_copy(update={"n_classes": n_classes})
        return plan_network(
            self.config.preset,
            self.volume.voxel_size,
            self.volume.shape,
            in_channels=self.volume.n_channels,
            n_classes=n_classes,
            accelerator=self.device.type != "cpu",
            normalization=self.config.normalization,
        )

    def _plan_patches(self, small: bool) -> dict[int, Triple]:
        """Patch for each orientation of annotated slices."""
        network, wish = self.network_config, self.config.patch_shape
        if wish is not None:
            try:
                if smallest_map(network, wish) == 1:
                    raise ValueError(f"a patch of {wish} voxels shrinks to a single one")
            except ValueError as error:
                raise BadInputError(
                    f"{error}; leave the patch shape empty, or make it larger"
                ) from error
            return dict.fromkeys(range(3), wish)
        memory = devices.free_memory(self.device) // 2 // self.batch_size
        accelerator, shape = self.device.type != "cpu", self.volume.shape
        planned, unlimited = (
            plan_patches(network, shape, accelerator, n, self.precision, small)
            for n in (memory, 1 << 62)
        )
        self._short_of_memory = planned != unlimited
        return planned

    @property
    def patch_shape(self) -> Triple:
        """The patch for the orientation of most annotated slices."""
        axes = [s.ref.axis for s in self.sampler.slices]
        return self._shapes[max(set(axes), key=axes.count)]

    # --- the loop ---------------------------------------------------------------------------

    def run(
        self, control: TrainingControl | None = None
    ) -> Generator[TrainingEvent, None, ModelBundle | None]:
        """Train; yields what happens, returns the model, or None when cancelled.

        Raises
        ------
        TrainingFailedError
            The memory does not suffice for the smallest patch, the loss is not finite, or
            torch failed. It holds the model that was trained until then, if there is one.
        BadInputError
            On a second call.
        """
        if self._has_run:
            raise BadInputError(
                "This trainer has run already: a second run would begin with another state. Make "
                "a new Trainer; with start_from=model it goes on from a model."
            )
        self._has_run = True
        return self._run_guarded(control or TrainingControl())

    def _run_guarded(
        self, control: TrainingControl
    ) -> Generator[TrainingEvent, None, ModelBundle | None]:
        """Run, with the device set up, and turn whatever fails into `TrainingFailedError`."""
        repeatable = self.config.iterations is not None
        devices.prepare(self.device)
        try:
            # A search for the fastest convolutions takes long for each shape of patch and tile;
            # fp32 is what it says.
            with torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=repeatable, allow_tf32=False
            ):
                return (yield from self._run(control))
        except CancelledError:
            return None
        except Exception as error:
            # superqt's workers swallow RuntimeErrors: the user would wait for ever.
            traceback.clear_frames(error.__traceback__)  # they hold the device's memory
            told = isinstance(error, RunFailedError | BadInputError)
            text = str(error) if told else f"training failed: {devices.reason(error)}"
            raise TrainingFailedError(text, self._rescue()) from error
        finally:
            for name in ("_network", "_evaluator", "_optimizer", "_listener"):
                self.__dict__.pop(name, None)
            devices.release(self.device)

    def _run(self, control: TrainingControl) -> Generator[TrainingEvent, None, ModelBundle | None]:
        self._build(control)
        first = self.iteration
        before = self._start_from.record.seconds if self._start_from and self._resume else 0.0
        self._began = time.monotonic() - before
        speed = Speed(self._evaluator, self.device, self.volume, self._has_pixels)
        yield self._started(speed)
        if self._has_pixels:
            yield from self._learn_pixels(control, before)
        try:
            yield from self._iterate(control)
        except StoppedError:
            self._optimizer.zero_grad(set_to_none=True)
        if control.cancelled:
            return None
        if self.iteration > first and not self._finite_steps:
            raise RunFailedError(
                "The loss was never a finite number, so nothing was learned. Choose precision "
                "'fp32', or start from another model."
            )
        return (yield from self._finish(control, speed))

    def _iterate(self, control: TrainingControl) -> Generator[TrainingEvent, None, None]:
        """The iterations, with looks and checkpoints between them, until the budget is used."""
        scoring, viewing = Throttle(), Throttle()
        bad_steps, saved = 0, self._elapsed
        self._listener.stoppable = True
        while not control.stopped:
            fraction = self._fraction(self._elapsed)
            if fraction >= 1 and self.iteration:
                break
            notice: Notice | None = None
            self._shapes = self._patches[fraction >= self.config.small_patch_share]
            begin = time.monotonic()
            try:
                loss = self._step(self._learning_rate(fraction))
            except Exception as error:
                if not devices.is_out_of_memory(error):
                    raise
                notice = self._out_of_memory_notice(devices.reason(error))
            if notice is not None:
                # Outside of the except block: the traceback would keep the tensors alive.
                self._optimizer.zero_grad(set_to_none=True)
                # A step that broke off between unscaling and updating leaves a scaler that
                # refuses the next one.
                self._scaler = self._new_scaler(self._scaler.get_scale())
                devices.make_room(self.device)
                yield notice
                continue
            bad_steps = 0 if math.isfinite(loss) else bad_steps + 1
            if bad_steps == _MOST_BAD_STEPS:
                raise RunFailedError(
                    f"the loss was not finite {bad_steps} times running: lower the learning "
                    "rate, or choose precision fp32"
                )
            step = time.monotonic() - begin
            elapsed = self._elapsed
            fraction = self._fraction(elapsed)
            yield TrainingProgress(
                iteration=self.iteration,
                elapsed=elapsed,
                remaining=elapsed * (1 - fraction) / fraction if fraction > 0.01 else None,
                fraction=min(fraction, 1.0),
                loss=loss,
                memory=devices.used_memory(self.device),
            )
            # A prediction takes about a third of a training step for as many voxels.
            per_voxel = step / (3 * self.batch_size * math.prod(self.patch_shape))
            if self.annotation.held_out and scoring.due(elapsed):
                cost = per_voxel * self._evaluator.measure_voxels()
                if scoring.affordable(elapsed, cost):
                    with scoring.timed(elapsed):
                        look = self._attempt(
                            "The held-out slices could not be measured this time",
                            partial(self._evaluator.measure, self.iteration, elapsed, final=False),
                        )
                    if look is not None:
                        yield look
            watched = control.watched
            if watched is not None and self._in_stack(watched) and viewing.due(elapsed):
                cost = per_voxel * self._evaluator.preview_voxels(watched)
                if viewing.affordable(elapsed, cost):
                    with viewing.timed(elapsed):
                        preview = self._attempt(
                            "The slice on the screen could not be predicted this time",
                            partial(self._evaluator.preview, watched),
                        )
                    if preview is not None:
                        yield preview
            interval = control.checkpoint_seconds
            if interval is not None and self._elapsed - saved >= interval:
                checkpoint = self._attempt("No checkpoint could be made", self._checkpoint)
                if checkpoint is not None:
                    yield checkpoint
                saved = self._elapsed

    def _attempt(self, failure: str, look: Callable[[], _Look]) -> _Look | Notice | None:
        """Look at the model; a training must not end because that does not succeed.

        Parameters
        ----------
        failure
            What to say then, the beginning of a sentence.
        look
            Returns an event.

        Returns
        -------
        event, Notice or None
            What `look` returned; or, where memory does not suffice or the image cannot be read,
            a notice, which is given once.
        """
        try:
            return look()
        except NotFiniteError:
            raise
        except Exception as error:
            if not isinstance(error, RunFailedError) and not devices.is_out_of_memory(error):
                raise
            reason = devices.reason(error).rstrip(".")
        # Outside of the except block: the traceback would keep the tensors alive.
        devices.make_room(self.device)
        notice = Notice(f"{failure}: {reason}.")
        if notice in self._told:
            return None
        self._told.append(notice)
        return notice

    def _checkpoint(self) -> Checkpoint:
        self._evaluator.estimate_statistics(final=False)
        return Checkpoint(self._bundle(self._elapsed, None))

    def _finish(
        self, control: TrainingControl, speed: Speed
    ) -> Generator[TrainingEvent, None, ModelBundle | None]:
        """Statistics, calibration and scores of the final model, which is returned."""
        elapsed = self._elapsed
        self._listener.stoppable = False
        self._listener.allow(self._finishing_limit)
        yield FinishingStarted(elapsed, speed.finishing(self._listener.limit))
        self._evaluator.estimate_statistics(final=True)
        trained = self.iteration > 0 or self._head_kept
        notice = self._attempt(
            "The model could not be calibrated", partial(self._evaluator.calibrate, trained)
        )
        if notice is not None:
            yield notice
        scores: HeldOutScores | Notice | None = None
        if self.annotation.held_out:
            self._listener.allow(self._finishing_limit)
            scores = self._attempt(
                "The held-out slices could not be measured",
                partial(self._evaluator.measure, self.iteration, elapsed, final=True),
            )
            if scores is not None:
                yield scores
        if control.cancelled:
            return None
        return self._bundle(elapsed, scores if isinstance(scores, HeldOutScores) else None)

    @property
    def _elapsed(self) -> float:
        """Seconds of the training, those before it was resumed included."""
        return time.monotonic() - self._began

    @property
    def _has_pixels(self) -> bool:
        return self.config.pixel_classifier and self.config.preset != "paper"

    @property
    def _finishing_limit(self) -> float:
        """Seconds for each part of the end. A number of iterations must repeat exactly."""
        if self.config.iterations is not None or self.config.seconds is None:
            return math.inf
        return max(_FINISHING_SECONDS, _FINISHING_SHARE * self.config.seconds)

    def _learn_pixels(
        self, control: TrainingControl, before: float
    ) -> Generator[TrainingEvent, None, None]:
        """Fit the pixel classifier within its share of the time that is left."""
        yield PixelsStarted()
        end = math.inf
        if self.config.iterations is None and self.config.seconds is not None:
            rest = self.config.seconds - before
            share = max(_PIXEL_SHARE * rest, min(_PIXEL_MOST * rest, _PIXEL_SECONDS))
            end = time.monotonic() + share
        notice: Notice | None = None
        try:
            self._evaluator.learn_pixels(
                lambda: 0 if control.stopped else end - time.monotonic(), lambda: control.stopped
            )
        except Exception as error:
            if not devices.is_out_of_memory(error):
                raise
            instead = "the network stands alone" if self._evaluator.pixels is None else "it stays"
            notice = Notice(f"Too little memory to fit the pixel classifier: {instead}.")
        if notice is not None:
            devices.make_room(self.device)
            yield notice

    def _in_stack(self, ref: SliceRef) -> bool:
        """Whether a watched slice is one of this volume: the user may look at another image."""
        return ref.index < self.volume.shape[ref.axis] and ref.time < self.volume.n_times

    def _fraction(self, elapsed: float) -> float:
        if self.config.iterations is not None:
            return self.iteration / self.config.iterations
        assert self.config.seconds is not None
        return elapsed / self.config.seconds

    def _learning_rate(self, fraction: float) -> float:
        decay = (
            0.5 * (1 + math.cos(math.pi * fraction))
            if self.config.schedule == "cosine"
            else max(0.0, 1 - fraction) ** 0.9
        )
        return self._peak * decay * min(1.0, (self.iteration + 1) / _WARM_UP)

    def _step(self, learning_rate: float) -> float:
        """One iteration; returns the loss, and leaves the weights alone when it is not finite."""
        image, target = self.sampler.batch(
            self.iteration, self.batch_size, self._shapes, self.config.augmentation
        )
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        with devices.autocast(self.device, self.precision):
            logits = self._network(
                image.contiguous(memory_format=devices.memory_format(self.device))
            )
        loss = masked_loss(
            logits, target, dice_share=self.config.dice_share, weights=self._class_weights
        )
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        if self._scaler.is_enabled() or torch.isfinite(norm):
            self._scaler.step(self._optimizer)
        elif not self._scaler.is_enabled():
            loss = loss * torch.nan  # counts as a bad step
        self._scaler.update()
        self.iteration += 1
        self._voxels_seen += int((target > 0).sum())
        self._evaluator.update(self._network, self.iteration)
        value = loss.item()
        self._finite_steps += math.isfinite(value)
        return value

    def _out_of_memory_notice(self, reason: str) -> Notice:
        old = self.patch_shape
        for axis in {s.ref.axis for s in self.sampler.slices}:
            shape = self._shapes[axis]
            smaller = halve(self.network_config, shape)
            if smaller is None:
                raise RunFailedError(
                    f"out of memory: even a patch of {describe_shape(shape)} voxels does not "
                    f"fit; close other programs, or choose the preset 'fast' ({reason})"
                )
            self._shapes[axis] = smaller
        return Notice(
            f"Out of memory: patch halved from {describe_shape(old)} to "
            f"{describe_shape(self.patch_shape)} voxels; training goes on."
        )

    # --- beginning and end ------------------------------------------------------------------

    def _build(self, control: TrainingControl) -> None:
        config, old = self.config, self._start_from
        self._head_kept = False
        torch.manual_seed(config.seed)
        network = UNet3D(self.network_config)
        if old is not None:
            classes = (old.classes, self.annotation.classes)
            trained, painted = ([c.value for c in table] for table in classes)
            self._head_kept = trained == painted
            load_weights(network, old.weights, head=self._head_kept)
        form = devices.memory_format(self.device)
        self._network = network.to(self.device, memory_format=form)  # type: ignore[call-overload]
        self._network.train()
        self._listener = Listener(control)
        self._listener.attach(self._network)
        self._evaluator = Evaluator(
            self._network,
            self.sampler,
            self.device,
            self.precision,
            config.weight_averaging,
            self._listener.interrupted,
            lambda axis: self._shapes[axis][axis],
            config.class_shift,
        )
        if old is not None and old.pixels and self._head_kept and self._has_pixels:
            self._evaluator.keep_pixels(old)
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(), lr=self._peak, weight_decay=config.weight_decay
        )
        self._class_weights = None
        if config.class_weights == "balanced":
            counts = torch.as_tensor(self.sampler.class_counts, dtype=torch.float32)
            self._class_weights = balanced_weights(counts).to(self.device)
        if old is not None and self._resume:
            load_training_state(self._network, self._optimizer, old.state)
            self._voxels_seen = old.record.voxels_seen

    def _new_scaler(self, scale: float = 2.0**16) -> torch.amp.GradScaler:
        """A scaler of fp16 gradients; torch's own first scale by default."""
        return torch.amp.GradScaler(self.device.type, scale, enabled=self.precision == "fp16")

    def _rescue(self) -> ModelBundle | None:
        """The model as it is when the training fails.

        None when nothing was learned yet, or when the weights cannot be had from the device.
        """
        if not self._finite_steps or "_evaluator" not in self.__dict__:
            return None
        self._listener.stoppable = False
        self._listener.allow(self._finishing_limit)
        try:
            devices.make_room(self.device)
            self._finish_what_can_be()
            try:
                bundle = self._bundle(self._elapsed, None)
            except Exception:  # without the optimizer's state it is a quarter as large
                bundle = self._bundle(self._elapsed, None, state=False)
        except Exception:  # the reason why the training failed must not be hidden by another
            return None
        finite = all(t.isfinite().all() for t in bundle.weights.values() if t.is_floating_point())
        return bundle if finite else None

    def _finish_what_can_be(self) -> None:
        """Statistics and calibration of the model, where memory still suffices for them."""
        evaluator = self._evaluator
        before = {n: t.clone() for n, t in evaluator.network.named_buffers()}
        try:
            evaluator.estimate_statistics(final=True)
        except Exception:
            evaluator.network.load_state_dict(before, strict=False)
            evaluator.leave_it_to_pixels()
            return
        try:
            evaluator.calibrate(trained=True)
        except NotFiniteError:
            evaluator.leave_it_to_pixels()
        except Exception:  # both have the same say, as before
            devices.make_room(self.device)

    def _started(self, speed: Speed) -> TrainingStarted:
        notes = [devices.unused_gpu() if self.device.type == "cpu" else None]
        if self._start_from is not None:
            notes.append(voxel_size_note(self._start_from, self.volume))
        if self._short_of_memory:
            notes.append(
                f"Little memory is free: the patch is only {describe_shape(self.patch_shape)} "
                "voxels. Close other programs for a better result."
            )
        return TrainingStarted(
            parameters=sum(p.numel() for p in self._network.parameters()),
            device=devices.describe(self.device),
            precision=self.precision,
            patch_shape=self.patch_shape,
            labelled_voxels=int(self.sampler.class_counts.sum()),
            notes=tuple(note for note in notes if note),
            forecast=speed.forecast(self._expected_training(speed), self._finishing_limit),
        )

    def _expected_training(self, speed: Speed) -> float | None:
        """Seconds until the budget is used."""
        if self.config.iterations is None:
            assert self.config.seconds is not None
            return max(self.config.seconds - self._elapsed, 0.0)
        left = self.config.iterations - self.iteration
        return speed.training(left, self.batch_size, self.patch_shape)

    @property
    def _iterations_before(self) -> int:
        """Iterations of the models that this one went on from, as far as they still count."""
        if self._start_from is None or not self._head_kept:
            return 0
        old = self._start_from.record
        return old.iterations_before + (0 if self._resume else old.iterations)

    def _bundle(
        self, elapsed: float, scores: HeldOutScores | None, *, state: bool = True
    ) -> ModelBundle:
        record = TrainingRecord(
            version=_version(),
            config=self.config,
            iterations=self.iteration,
            seconds=elapsed,
            device=devices.describe(self.device),
            precision=self.precision,
            patch_shape=self.patch_shape,
            voxels_seen=self._voxels_seen,
            trained_slices=tuple(str(s.ref) for s in self.sampler.slices),
            held_out_slices=scores.slices if scores else (),
            held_out_distance=scores.distance if scores else None,
            held_out_scored=scores.scored if scores else 1.0,
            held_out=tuple(HeldOutRecord(**vars(c)) for c in (scores.classes if scores else ())),
            completed=self._fraction(elapsed) >= 1,
            iterations_before=self._iterations_before,
        )
        pixels = self._evaluator.pixels
        return ModelBundle(
            network=self.network_config,
            classes=self.annotation.classes,
            intensity=self.intensity,
            voxel_size=self.volume.voxel_size,
            unit=self.volume.unit,
            record=record,
            calibration=self._evaluator.calibration,
            weights=on_cpu(self._evaluator.network.state_dict()),
            pixels=on_cpu(pixels.state_dict()) if pixels is not None else {},
            state=training_state(self._network, self._optimizer) if state else {},
        )


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


def _version() -> str:
    try:
        return version("napari-unet3d")
    except PackageNotFoundError:
        return ""
