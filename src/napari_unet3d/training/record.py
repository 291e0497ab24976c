"""The model of a training, with the record of how it came to be."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from napari_unet3d.events import HeldOutScores
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.model.domains import DomainFacts
from napari_unet3d.model.evidence import SliceCheck
from napari_unet3d.model.record import HeldOutRecord, TrainingRecord
from napari_unet3d.networks import device as devices
from napari_unet3d.networks.universal import UniversalUNetConfig
from napari_unet3d.training.checkpoint import on_cpu
from napari_unet3d.training.learner import Learner
from napari_unet3d.training.looks import Looks
from napari_unet3d.training.plan import TrainingPlan


def make_bundle(
    learner: Learner,
    looks: Looks,
    elapsed: float,
    scores: HeldOutScores | None = None,
    *,
    state: bool = True,
) -> ModelBundle:
    """The model as it is now.

    Parameters
    ----------
    learner, looks
        The training, and the statistics and calibration of its model.
    elapsed
        Seconds of the training until now.
    scores
        Final scores on the held-out slices; None when there are none.
    state
        Whether the model can be resumed. Without, it takes a quarter of the memory.
    """
    plan, support = learner.plan, looks.support
    pixels = support.pixels
    return ModelBundle(
        network=plan.network,
        classes=plan.annotation.classes,
        intensity=plan.intensity,
        voxel_size=plan.volume.voxel_size,
        unit=plan.volume.unit,
        record=make_record(learner, elapsed, scores, support.check_slices(), support.unseen.weight),
        calibration=support.calibration,
        other_domains=_other_domains(plan),
        weights=on_cpu(looks.network.state_dict()),
        pixels=on_cpu(pixels.state_dict()) if pixels is not None else {},
        state=learner.state() | support.unseen.state() if state else {},
    )


def _other_domains(plan: TrainingPlan) -> tuple[DomainFacts, ...]:
    """The domains of a universal network that this plan is not about."""
    network, known = plan.network, {}
    if not isinstance(network, UniversalUNetConfig):
        return ()
    if plan.start_from is not None:
        before = plan.start_from
        known = {d.name: d for d in (before.active_domain(), *before.other_domains)}
    for turn in plan.turns:
        assert isinstance(turn.network, UniversalUNetConfig)
        known[turn.network.domain.name] = DomainFacts(
            name=turn.network.domain.name,
            classes=turn.annotation.classes,
            intensity=turn.intensity,
            voxel_size=turn.volume.voxel_size,
            unit=turn.volume.unit,
        )
    known.pop(network.domain.name, None)
    return tuple(known.values())


def make_record(
    learner: Learner,
    elapsed: float,
    scores: HeldOutScores | None = None,
    cross_fitted: tuple[SliceCheck, ...] = (),
    unseen_weight: float | None = None,
) -> TrainingRecord:
    """How the model came to be; parameters as those of `make_bundle`."""
    plan = learner.plan
    return TrainingRecord(
        version=_package_version(),
        config=plan.config,
        iterations=learner.iteration,
        seconds=elapsed,
        device=devices.describe(plan.device),
        precision=plan.precision,
        patch_shape=learner.patch_shape,
        voxels_seen=learner.voxels_seen,
        trained_slices=tuple(str(s.ref) for s in plan.slices),
        held_out_slices=scores.slices if scores else (),
        held_out_seen=plan.held_out_seen,
        held_out_distance=scores.distance if scores else None,
        held_out_scored=scores.scored if scores else 1.0,
        held_out=tuple(HeldOutRecord(**vars(c)) for c in (scores.classes if scores else ())),
        held_out_by_slice=scores.by_slice if scores else (),
        cross_fitted=cross_fitted,
        unseen_weight=unseen_weight,
        completed=plan.budget.fraction(learner.iteration, elapsed) >= 1,
        iterations_before=plan.iterations_before,
    )


def _package_version() -> str:
    try:
        return version("napari-unet3d")
    except PackageNotFoundError:
        return ""
