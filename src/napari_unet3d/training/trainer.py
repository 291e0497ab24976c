"""The one training loop: a generator of typed events that knows no window and no printer."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Generator, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
from torch import Tensor, nn

from napari_unet3d.config import NetworkConfig, TrainingConfig, Triple
from napari_unet3d.data.annotation import SliceRef, SparseAnnotation
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.patches import PatchSampler
from napari_unet3d.data.volume import Volume, describe_shape
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.model import device as devices
from napari_unet3d.model.bundle import HeldOutRecord, ModelBundle, TrainingRecord
from napari_unet3d.model.geometry import output_shape, shrink
from napari_unet3d.model.planning import halve, plan_network, plan_patch, training_bytes
from napari_unet3d.model.unet import UNet3D
from napari_unet3d.prediction.predictor import Notice, Predictor, label_table
from napari_unet3d.prediction.scores import Overlap
from napari_unet3d.training.events import (
    HeldOutScores,
    SlicePreview,
    TrainingControl,
    TrainingEvent,
    TrainingProgress,
    TrainingStarted,
)
from napari_unet3d.training.loss import balanced_weights, masked_loss

_LEARNING_RATE = {"fast": 5e-3, "balanced": 3e-3, "paper": 1e-3}
_WARM_UP = 10
_STATISTICS_BATCHES = 20
_STATISTICS_NUMBER = 1 << 40
"""Batch numbers from here on re-estimate batch-norm statistics: none is trained on."""
_LOOKING_SHARE = 0.06
"""Share of the time that may go into held-out scores, and as much into the live slice."""
_MOST_BAD_STEPS = 20


class Trainer:
    """Fine-tunes a 3D U-Net on a sparse annotation.

    Everything is checked on construction; `run` does the work.

    Parameters
    ----------
    volume, annotation
        The stack and what is painted on it. They are read while training goes on.
    config
        Budget, device, recipe.
    start_from
        A model to go on from: its network is kept. With other classes than the annotation's
        the head is re-made.
    resume
        Go on exactly where `start_from` was stopped, with its optimizer and iteration; the
        budget of `config` counts from the model's own beginning.

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
        self.volume, self.annotation = volume, annotation
        self.config = config = config or TrainingConfig()
        volume.check()
        annotation.check(volume)
        self.device = devices.pick_device(config.device)
        self.precision = devices.pick_precision(self.device, config.precision)
        self._start_from = start_from
        self._resume = resume
        self.network_config = self._plan_network()
        if start_from is not None:
            _check_start(start_from, volume, annotation, resume)
        self.intensity = IntensityNormalization.estimate(volume)
        self.batch_size = config.batch_size or 1
        self.sampler = PatchSampler(
            volume,
            annotation,
            self.intensity,
            self._plan_patches(),
            shrink(self.network_config),
            config.rare_share,
            config.seed,
        )
        self.iteration = 0
        self._voxels_seen = 0
        self._elapsed_before = 0.0
        self._scores: HeldOutScores | None = None
        self._network: UNet3D
        self._averaged: UNet3D
        self._optimizer: torch.optim.Optimizer

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

    def _plan_patches(self) -> dict[int, Triple]:
        """Patch for each orientation of annotated slices, that fits into half the memory."""
        config, network = self.config, self.network_config
        if config.patch_shape is not None:
            try:
                output_shape(network, config.patch_shape)
            except ValueError as error:
                raise BadInputError(f"{error}; leave the patch shape empty") from error
            return dict.fromkeys(range(3), config.patch_shape)
        voxels, depth = (300_000, 16) if self.device.type == "cpu" else (2_000_000, 32)
        budget = devices.free_memory(self.device) // 2 // self.batch_size
        shapes = {}
        for axis in range(3):
            size = 8 * voxels if network.padding == "valid" else voxels
            shape = plan_patch(network, self.volume.shape, axis, size, depth)
            while training_bytes(network, shape, self.precision) > budget:
                smaller = halve(network, shape)
                if smaller is None:
                    break
                shape = smaller
            shapes[axis] = shape
        return shapes

    @property
    def patch_shape(self) -> Triple:
        """The patch for the orientation of most annotated slices."""
        axes = [s.ref.axis for s in self.sampler.slices]
        return self.sampler.shapes[max(set(axes), key=axes.count)]

    # --- the loop ---------------------------------------------------------------------------

    def run(
        self, control: TrainingControl | None = None
    ) -> Generator[TrainingEvent, None, ModelBundle | None]:
        """Train; yields what happens, returns the model, or None when cancelled.

        Raises
        ------
        RunFailedError
            The memory does not suffice for the smallest patch, the loss is not finite, or
            torch failed.
        """
        try:
            return (yield from self._run(control or TrainingControl()))
        except RuntimeError as error:
            # superqt's workers swallow RuntimeErrors: the user would wait for ever.
            raise RunFailedError(f"training failed: {error}") from error
        finally:
            for name in ("_network", "_averaged", "_optimizer"):
                self.__dict__.pop(name, None)
            devices.release(self.device)

    def _run(self, control: TrainingControl) -> Generator[TrainingEvent, None, ModelBundle | None]:
        self._build()
        started = time.monotonic() - self._elapsed_before
        scoring, viewing = _Looking(), _Looking()
        bad_steps = 0
        yield self._started()
        while not control.stopped:
            elapsed = time.monotonic() - started
            fraction = self._fraction(elapsed)
            if fraction >= 1:
                break
            notice: Notice | None = None
            try:
                loss = self._step(self._learning_rate(fraction))
            except Exception as error:
                if not devices.is_out_of_memory(error):
                    raise
                notice = self._out_of_memory_notice()
            if notice is not None:
                # Outside of the except block: the traceback would keep the tensors alive.
                self._optimizer.zero_grad(set_to_none=True)
                devices.release(self.device)
                yield notice
                continue
            bad_steps = 0 if math.isfinite(loss) else bad_steps + 1
            if bad_steps == _MOST_BAD_STEPS:
                raise RunFailedError(
                    f"the loss was not finite {bad_steps} times running: lower the learning "
                    "rate, or choose precision fp32"
                )
            elapsed = time.monotonic() - started
            fraction = self._fraction(elapsed)
            yield TrainingProgress(
                iteration=self.iteration,
                elapsed=elapsed,
                remaining=elapsed * (1 - fraction) / fraction if fraction > 0.01 else None,
                fraction=min(fraction, 1.0),
                loss=loss,
                memory=devices.used_memory(self.device),
            )
            if self.annotation.held_out and scoring.due(elapsed):
                with scoring.timed(elapsed):
                    self._scores = self._measure(elapsed)
                yield self._scores
            watched = control.watched
            if watched is not None and viewing.due(elapsed):
                with viewing.timed(elapsed):
                    preview = self._preview(watched)
                yield preview
        if control.cancelled:
            return None
        elapsed = time.monotonic() - started
        if self.annotation.held_out:
            self._scores = self._measure(elapsed)
            yield self._scores
        return self._bundle(elapsed, completed=self._fraction(elapsed) >= 1)

    def _fraction(self, elapsed: float) -> float:
        if self.config.iterations is not None:
            return self.iteration / self.config.iterations
        assert self.config.seconds is not None
        return elapsed / self.config.seconds

    def _learning_rate(self, fraction: float) -> float:
        peak = self.config.learning_rate or _LEARNING_RATE[self.config.preset]
        decay = (
            0.5 * (1 + math.cos(math.pi * fraction))
            if self.config.schedule == "cosine"
            else (1 - fraction) ** 0.9
        )
        return peak * decay * min(1.0, (self.iteration + 1) / _WARM_UP)

    def _step(self, learning_rate: float) -> float:
        """One iteration; returns the loss, and leaves the weights alone when it is not finite."""
        image, target = self.sampler.batch(
            self.iteration, self.batch_size, self.device, self.config.augmentation
        )
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        with devices.autocast(self.device, self.precision):
            logits = self._network(image.contiguous(memory_format=torch.channels_last_3d))
        loss = masked_loss(
            logits, target, dice_share=self.config.dice_share, weights=self._class_weights
        )
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        if self._scaler.is_enabled() or torch.isfinite(norm):
            self._scaler.step(self._optimizer)
        self._scaler.update()
        self.iteration += 1
        self._voxels_seen += int((target > 0).sum())
        self._average()
        return loss.item()

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.config.weight_averaging, self.iteration / (self.iteration + 9))
        averaged: list[Tensor] = list(self._averaged.parameters())
        current: list[Tensor] = list(self._network.parameters())
        torch._foreach_lerp_(averaged, current, 1 - decay)

    def _out_of_memory_notice(self) -> Notice:
        old = self.patch_shape
        for axis, shape in self.sampler.shapes.items():
            smaller = halve(self.network_config, shape)
            if smaller is None:
                raise RunFailedError(
                    f"out of memory: even a patch of {describe_shape(shape)} voxels does not "
                    "fit; close other programs, or choose the preset 'fast'"
                )
            self.sampler.shapes[axis] = smaller
        return Notice(
            f"Out of memory: patch halved from {describe_shape(old)} to "
            f"{describe_shape(self.patch_shape)} voxels; training goes on."
        )

    # --- looking at the network -------------------------------------------------------------

    def _predictor(self, axis: int) -> Predictor:
        network = self._averaged
        patch = self.sampler.shapes[axis]
        tile = None
        if self.network_config.padding == "same":
            tile = plan_patch(self.network_config, self.volume.shape, axis, 4_000_000, patch[axis])
        return Predictor(network, self.intensity, self.device, self.precision, tile)

    def _preview(self, ref: SliceRef) -> SlicePreview:
        self._estimate_statistics(4)
        found = self._predictor(ref.axis).slice(self.volume, ref.time, ref.axis, ref.index)
        return SlicePreview(ref, label_table(self.annotation.classes)[found.argmax(0)])

    def _measure(self, elapsed: float) -> HeldOutScores:
        self._estimate_statistics(_STATISTICS_BATCHES)
        classes = self.annotation.classes
        overlap = Overlap([c.value for c in classes])
        table = label_table(classes)
        for ref in sorted(self.annotation.held_out):
            found = self._predictor(ref.axis).slice(self.volume, ref.time, ref.axis, ref.index)
            target = self.annotation.held_out_target(ref)
            mask = target > 0
            truth = table[np.maximum(target, 1) - 1]
            overlap.add(table[found.argmax(0)], truth, mask)
        return HeldOutScores(
            self.iteration,
            elapsed,
            overlap.scores(),
            tuple(str(ref) for ref in sorted(self.annotation.held_out)),
            self._held_out_distance(),
        )

    def _held_out_distance(self) -> int | None:
        trained = [s.ref for s in self.sampler.slices]
        distances = [
            abs(ref.index - other.index)
            for ref in self.annotation.held_out
            for other in trained
            if (ref.axis, ref.time) == (other.axis, other.time)
        ]
        return min(distances, default=None)

    @torch.no_grad()
    def _estimate_statistics(self, batches: int) -> None:
        """Batch-norm statistics of the averaged weights, over plain patches."""
        norms = [
            m for m in self._averaged.modules()
            if isinstance(m, nn.BatchNorm3d) and m.track_running_stats
        ]  # fmt: skip
        if not norms:
            return
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over the batches
            norm.train()
        for i in range(batches):
            image, _ = self.sampler.batch(
                _STATISTICS_NUMBER + i, self.batch_size, self.device, None
            )
            with devices.autocast(self.device, self.precision):
                self._averaged(image.contiguous(memory_format=torch.channels_last_3d))
        self._averaged.eval()

    # --- beginning and end ------------------------------------------------------------------

    def _build(self) -> None:
        config = self.config
        torch.manual_seed(config.seed)
        network = UNet3D(self.network_config)
        old = self._start_from
        if old is not None:
            raw = _prefixed(old.state, "weights/") if self._resume else {}
            _load(network, raw or old.weights)
        self._network = network.to(self.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._network.train()
        self._averaged = copy.deepcopy(self._network).eval().requires_grad_(False)
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(),
            lr=config.learning_rate or _LEARNING_RATE[config.preset],
            weight_decay=config.weight_decay,
        )
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self._class_weights = None
        if config.class_weights == "balanced":
            counts = torch.as_tensor(self.sampler.class_counts, dtype=torch.float32)
            self._class_weights = balanced_weights(counts).to(self.device)
        if old is not None and self._resume:
            _load(self._averaged, old.weights)
            self._load_optimizer(_prefixed(old.state, "optimizer/"))
            self.iteration = old.record.iterations
            self._elapsed_before = old.record.seconds
            self._voxels_seen = old.record.voxels_seen

    def _load_optimizer(self, state: Mapping[str, Tensor]) -> None:
        for name, parameter in self._network.named_parameters():
            found = _prefixed(state, f"{name}/")
            if found:
                self._optimizer.state[parameter] = {
                    key: value
                    if key == "step"
                    else value.to(self.device).contiguous(memory_format=torch.channels_last_3d)
                    if value.dim() == 5
                    else value.to(self.device)
                    for key, value in found.items()
                }

    def _started(self) -> TrainingStarted:
        notes = []
        gpu = devices.unused_gpu() if self.device.type == "cpu" else None
        if gpu is not None:
            notes.append(gpu)
        return TrainingStarted(
            parameters=sum(p.numel() for p in self._network.parameters()),
            device=devices.describe(self.device),
            precision=self.precision,
            patch_shape=self.patch_shape,
            labelled_voxels=int(self.sampler.class_counts.sum()),
            notes=tuple(notes),
        )

    def _bundle(self, elapsed: float, completed: bool) -> ModelBundle:
        if not self.annotation.held_out:
            self._estimate_statistics(_STATISTICS_BATCHES)
        scores = self._scores
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
            held_out=tuple(
                HeldOutRecord(value=c.value, iou=c.iou, dice=c.dice, voxels=c.voxels)
                for c in (scores.classes if scores else ())
            ),
            completed=completed,
        )
        state = {f"weights/{n}": t for n, t in self._network.state_dict().items()}
        for name, parameter in self._network.named_parameters():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                state[f"optimizer/{name}/{key}"] = torch.as_tensor(value)
        return ModelBundle(
            network=self.network_config,
            classes=self.annotation.classes,
            intensity=self.intensity,
            voxel_size=self.volume.voxel_size,
            unit=self.volume.unit,
            record=record,
            weights=_on_cpu(self._averaged.state_dict()),
            state=_on_cpu(state),
        )


class _Looking:
    """Decides when the next look at the network is due, so that looking stays cheap."""

    def __init__(self) -> None:
        self._next = 1.0

    def due(self, elapsed: float) -> bool:
        return elapsed >= self._next

    @contextlib.contextmanager
    def timed(self, elapsed: float) -> Iterator[None]:
        begin = time.monotonic()
        yield
        cost = time.monotonic() - begin
        self._next = elapsed + cost + cost / _LOOKING_SHARE


def _check_start(
    bundle: ModelBundle, volume: Volume, annotation: SparseAnnotation, resume: bool
) -> None:
    if bundle.network.in_channels != volume.n_channels:
        raise BadInputError(
            f"the model was trained on {bundle.network.in_channels} channel(s), the image has "
            f"{volume.n_channels}: choose an image with the same channels, or start afresh"
        )
    if not resume:
        return
    if not bundle.state:
        raise BadInputError(
            "the model was saved without its optimizer, so it cannot be resumed: fine-tune it"
        )
    trained, painted = (
        [c.value for c in classes] for classes in (bundle.classes, annotation.classes)
    )
    if trained != painted:
        raise BadInputError(
            f"the model was trained with the classes {trained}, painted are {painted}: a resumed "
            "training needs the same; fine-tune instead"
        )


def _load(network: UNet3D, weights: Mapping[str, Tensor]) -> None:
    """Load what fits; the head stays fresh when the number of classes differs."""
    own = network.state_dict()
    network.load_state_dict({n: t for n, t in weights.items() if t.shape == own[n].shape}, False)


def _prefixed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n: t.detach().to("cpu", copy=True).contiguous() for n, t in tensors.items()}


def _version() -> str:
    try:
        return version("napari-unet3d")
    except PackageNotFoundError:
        return ""
