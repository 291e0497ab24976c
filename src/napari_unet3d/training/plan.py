"""What a training will do: every check and every choice, made before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from napari_unet3d.config import CLIP_PERCENTILES, TrainingConfig, Triple
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.clipping import Percentiles
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.joined_labels import JoinedLabels
from napari_unet3d.data.labelled_voxels import LabelledVoxels
from napari_unet3d.data.lazy import as_bad_input
from napari_unet3d.data.ledger import SliceLedger
from napari_unet3d.data.shapes import describe_shape
from napari_unet3d.data.volume import Volume
from napari_unet3d.data.written import read_settings
from napari_unet3d.errors import BadInputError
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks import NetworkConfig, network_of_kind, with_settings
from napari_unet3d.networks import device as devices
from napari_unet3d.networks.architecture import PresetFacts
from napari_unet3d.networks.device import Precision
from napari_unet3d.networks.geometry import next_fitting, smallest_map
from napari_unet3d.networks.planning import normalizable, plan_batch, plan_patches
from napari_unet3d.prediction.matching import voxel_size_note
from napari_unet3d.training.budget import Budget
from napari_unet3d.training.checkpoint import check_start
from napari_unet3d.training.limits import LookLimits
from napari_unet3d.training.losses import LOSSES
from napari_unet3d.training.optimizers import OPTIMIZERS

_MOST_CHANNELS = 64
"""Channels of an image. `NetworkConfig.in_channels` allows no more."""

Patches = Mapping[int, Triple]
"""Patch (z, y, x) in voxels for annotated slices perpendicular to axis 0, 1 and 2."""


@dataclass(frozen=True)
class TrainingPlan:
    """What a training will do; made by `plan_training`.

    Attributes
    ----------
    volume, annotation
        The stack, read into memory where it fits, and what is painted on it.
    slices
        The labelled voxels of the annotation, held-out slices left out.
    config
        The settings; the preset is that of `start_from`, where there is one.
    device, precision
        Where the network runs, and the number format of its convolutions.
    network
        Configuration of the network.
    intensity
        Normalization of the stack's gray values.
    batch_size
        Patches of one iteration.
    patches, small_patches
        Patches of the training, and of its first part (`TrainingConfig.small_patch_share`).
    learning_rate
        Peak of the learning rate.
    start_from
        The model that is trained further; None for a new one.
    resume
        Whether the training of `start_from` goes on where it was stopped.
    notes
        What the user should know before the training starts.
    limits
        How much the looks at the running training may compute.
    ledger
        The painted slices of the annotation, kept up to date while slices join the training.
    round_begin
        See `Budget`.
    seen
        Slices that the network has been trained on, as text: those of this training and of the
        model that it goes on from. The score of one that is held out flatters.
    turns
        Plans of stacks of other domains, which take turns with this one; see `training.domains`.
    """

    volume: Volume
    annotation: SparseAnnotation
    slices: tuple[LabelledVoxels, ...]
    ledger: SliceLedger
    config: TrainingConfig
    device: torch.device
    precision: Precision
    network: NetworkConfig
    intensity: IntensityNormalization
    batch_size: int
    patches: Patches
    small_patches: Patches
    learning_rate: float
    start_from: ModelBundle | None = None
    resume: bool = False
    notes: tuple[str, ...] = ()
    limits: LookLimits = field(default_factory=LookLimits)
    round_begin: float | None = None
    seen: frozenset[str] = frozenset()
    turns: tuple[TrainingPlan, ...] = ()

    @property
    def on_gpu(self) -> bool:
        """Whether the network runs on a GPU."""
        return self.device.type != "cpu"

    @property
    def budget(self) -> Budget:
        """How long the training takes."""
        before = self.start_from.record.seconds if self.start_from and self.resume else 0.0
        return Budget(self.config.seconds, self.config.iterations, before, self.round_begin)

    def in_round(self, begin: float, seconds: float) -> TrainingPlan:
        """The plan for a round that begins after `begin` seconds of training, of `seconds`."""
        update = {"seconds": begin + seconds, "iterations": None}
        config = self.config.model_copy(update=update)
        return replace(self, config=config, round_begin=begin)

    @property
    def first_iteration(self) -> int:
        """Iterations that a resumed training has had before."""
        return self.start_from.record.iterations if self.start_from and self.resume else 0

    @property
    def iterations_before(self) -> int:
        """Iterations of the models that this one goes on from, as far as they still count."""
        if self.start_from is None or not self.keeps_head:
            return 0
        old = self.start_from.record
        return old.iterations_before + (0 if self.resume else old.iterations)

    @property
    def fits_pixels(self) -> bool:
        """Whether a pixel classifier supports the network."""
        facts: PresetFacts = self.network.presets[self.config.preset]
        return self.config.pixel_classifier and facts.pixel_classifier

    @property
    def keeps_head(self) -> bool:
        """Whether the head of `start_from` is kept: its classes are the annotation's."""
        if self.start_from is None:
            return False
        tables = self.start_from.classes, self.annotation.classes
        trained, painted = ([c.value for c in table] for table in tables)
        same_network = self.start_from.network == self.network
        return trained == painted and same_network

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """(K,) labelled voxels of background and each class, held-out slices left out."""
        codes = range(1, len(self.annotation.classes) + 2)
        return np.array([sum(s.counts.get(c, 0) for s in self.slices) for c in codes], np.int64)

    @property
    def held_out_seen(self) -> tuple[str, ...]:
        """The held-out slices that the network has been trained on."""
        return tuple(str(r) for r in sorted(self.annotation.held_out) if str(r) in self.seen)

    @property
    def axes(self) -> frozenset[int]:
        """Axes that annotated slices are perpendicular to."""
        return frozenset(s.ref.axis for s in self.slices)

    def main_patch(self, patches: Patches | None = None) -> Triple:
        """The patch for the orientation of most annotated slices."""
        axes = [s.ref.axis for s in self.slices]
        return (patches or self.patches)[max(set(axes), key=axes.count)]


def plan_training(
    volume: Volume,
    annotation: SparseAnnotation,
    config: TrainingConfig | None = None,
    start_from: ModelBundle | None = None,
    resume: bool = False,
    *,
    network: NetworkConfig | None = None,
) -> TrainingPlan:
    """Check the input of a training and choose all that it needs.

    Parameters
    ----------
    volume, annotation
        The stack and what is painted on it. Both are read here, part by part.
    config
        Budget, device, recipe; the defaults when None.
    start_from, resume
        See `Trainer`.
    network
        The network, where it is not to be planned for the stack.

    Raises
    ------
    BadInputError
        The stack, the annotation and the settings do not go together; the text has the cure.
    """
    if resume and start_from is None:
        raise BadInputError(
            "There is no model to resume. Give the model that was stopped as `start_from`, or "
            "leave `resume` out to start anew."
        )
    config = config or TrainingConfig()
    if start_from is not None:
        config = _as_trained(config, start_from, resume)
    _check_name("a loss", config.loss, LOSSES)
    _check_name("an optimizer", config.optimizer, OPTIMIZERS)
    volume.check()
    annotation.check(volume)
    if volume.n_channels > _MOST_CHANNELS:
        raise BadInputError(
            f"The image has {volume.n_channels} channels, the most are {_MOST_CHANNELS}. Leave "
            "some out."
        )
    device = devices.pick_device(config.device)
    precision = devices.pick_precision(device, config.precision)
    is_given = network is not None
    if network is None:
        network = plan_network(volume, annotation, config, start_from)
        if network.shows_maps:
            raise BadInputError(
                "A network that shows maps cannot be trained: leave the setting 'gate' out."
            )
        if start_from is not None:
            check_start(start_from, volume, annotation, resume)
    with as_bad_input():
        volume = volume.in_memory(devices.room_for_images())
        annotation = replace(annotation, labels=JoinedLabels(annotation.labels))
        ledger = annotation.ledger()
        slices = annotation.labelled_voxels(ledger=ledger)
        # A network that is given is for another kind of stacks than those of the model.
        clip = _clip_percentiles(config, None if is_given else start_from)
        intensity = IntensityNormalization.estimate(volume, clip, slices)
    batch_size = config.batch_size or plan_batch(
        network, volume.shape, device.type != "cpu", precision
    )
    choice = _PatchChoice(network, volume.shape, config.patch_shape, device, precision, batch_size)
    plan = TrainingPlan(
        volume=volume,
        annotation=annotation,
        slices=slices,
        ledger=ledger,
        config=config,
        device=device,
        precision=precision,
        network=network,
        intensity=intensity,
        batch_size=batch_size,
        patches=choice.patches(small=False),
        small_patches=choice.patches(small=True),
        learning_rate=_learning_rate(config, network),
        start_from=start_from,
        resume=resume,
        seen=frozenset(str(s.ref) for s in slices) | _seen_before(start_from),
    )
    budget = plan.budget
    if budget.fraction(plan.first_iteration, budget.seconds_before) >= 1:
        raise BadInputError(
            f"The model has had {plan.first_iteration} iterations in "
            f"{budget.seconds_before:.0f} s, so the budget is used up: give a larger one (it "
            "counts from the model's beginning)."
        )
    return replace(plan, notes=_notes(plan, choice))


def _check_name(what: str, name: str, known: Mapping[str, object]) -> None:
    if name not in known:
        raise BadInputError(f"'{name}' is not {what}. Choose one of: {', '.join(sorted(known))}.")


def _as_trained(config: TrainingConfig, start_from: ModelBundle, resume: bool) -> TrainingConfig:
    """Settings with what a model brings along: its network, and when resumed, its optimizer."""
    trained = start_from.record.training_config
    # A network stays what it was planned as, and goes on at the rate of its preset.
    kept: dict[str, object] = {"preset": trained.preset, "network": start_from.network.kind}
    kept["network_settings"] = trained.network_settings
    if resume:
        kept |= {"optimizer": trained.optimizer, "momentum": trained.momentum}
    return config.model_copy(update=kept)


def _learning_rate(config: TrainingConfig, network: NetworkConfig) -> float:
    """Peak learning rate: the wish of the user, or the optimizer's, or the preset's."""
    preset = network.presets[config.preset].learning_rate
    return config.learning_rate or OPTIMIZERS[config.optimizer].learning_rate or preset


def _notes(plan: TrainingPlan, choice: _PatchChoice) -> tuple[str, ...]:
    """What the user should know before the training starts."""
    notes = [devices.unused_gpu() if not plan.on_gpu else None]
    if plan.start_from is not None:
        notes.append(voxel_size_note(plan.start_from, plan.volume))
        notes += plan.start_from.record.config_notes
        if which := ", ".join(plan.held_out_seen):
            notes.append(
                f"The model that is trained further has learned from {which}: what is measured "
                "there flatters, unless that was another stack."
            )
    if choice.is_short_of_memory:
        notes.append(
            f"Little memory is free: the patch is only {describe_shape(plan.main_patch())} "
            "voxels. Close other programs for a better result."
        )
    return tuple(note for note in notes if note)


def _seen_before(start_from: ModelBundle | None) -> frozenset[str]:
    """The slices that a model was trained on; of other stacks, too, which have the same names."""
    if start_from is None:
        return frozenset()
    record = start_from.record
    return frozenset((*record.trained_slices, *record.held_out_seen))


def _clip_percentiles(
    config: TrainingConfig, start_from: ModelBundle | None
) -> Percentiles | tuple[Percentiles, ...]:
    """Percentiles of the model that is trained further, unless others than the default are set."""
    if start_from is None or config.clip_percentiles != CLIP_PERCENTILES:
        return config.clip_percentiles
    return start_from.intensity.clip


def plan_network(
    volume: Volume,
    annotation: SparseAnnotation,
    config: TrainingConfig,
    start_from: ModelBundle | None = None,
) -> NetworkConfig:
    """The network of a training: that of a model, or one that is planned for the stack."""
    n_classes = len(annotation.classes) + 1
    if start_from is not None:
        return start_from.network.for_classes(n_classes)
    planned = network_of_kind(config.network).plan(
        config.preset,
        volume.voxel_size,
        volume.shape,
        in_channels=volume.n_channels,
        n_classes=n_classes,
        accelerator=devices.pick_device(config.device).type != "cpu",
        normalization=config.normalization,
    )
    return with_settings(planned, read_settings(config.network_settings))


class _PatchChoice:
    """Chooses the patches: the wish of the user, or what the free memory allows."""

    def __init__(
        self,
        network: NetworkConfig,
        stack_shape: Triple,
        wish: Triple | None,
        device: torch.device,
        precision: Precision,
        batch_size: int,
    ) -> None:
        self._network, self._stack_shape, self._wish = network, stack_shape, wish
        self._accelerator, self._precision = device.type != "cpu", precision
        self._memory = devices.free_memory(device) // 2 // batch_size
        if wish is not None:
            _check_patch(network, wish)

    @property
    def is_short_of_memory(self) -> bool:
        """Whether the large patches would be larger if more memory were free."""
        return self._wish is None and self._plan(False, self._memory) != self._plan(False, 1 << 62)

    def patches(self, small: bool) -> Patches:
        """Large patches, or those of the first part of the training."""
        if self._wish is not None:
            return dict.fromkeys(range(3), self._wish)
        return self._plan(small, self._memory)

    def _plan(self, small: bool, memory: int) -> Patches:
        shape = self._stack_shape
        return plan_patches(self._network, shape, self._accelerator, memory, self._precision, small)


def _check_patch(network: NetworkConfig, patch: Triple) -> None:
    """Raise `BadInputError` unless the network can be trained on such a patch."""
    try:
        if smallest_map(network, patch) == 1:
            raise ValueError(f"a patch of {patch} voxels shrinks to a single one")
    except ValueError as error:
        larger = describe_shape(normalizable(network, next_fitting(network, patch)))
        raise BadInputError(f"{error}; leave the patch shape empty, or take {larger}") from error
