"""The pixel classifier of a training, and how much weight it has."""

from __future__ import annotations

import math

from toy_stack import (
    IMAGE,
    TRAINED,
    annotate,
    failing,
    make_learner,
    make_trainer,
    run,
    same_tensors,
    with_checkpoints,
)

from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import Checkpoint, Notice
from napari_unet3d.model.mixture import Calibration
from napari_unet3d.model.mixture_fit import usual_calibration
from napari_unet3d.pixels.features import MORE_SCALES, feature_count
from napari_unet3d.prediction.engine import Engine
from napari_unet3d.training import support as support_module
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.looks import Looks
from napari_unet3d.training.trainer import Trainer


def test_too_little_memory_for_pixels_keeps_those_of_the_model(monkeypatch):
    _, bundle = run(make_trainer(iterations=2))
    failing(monkeypatch, support_module, "fit_pixels", MemoryError(), math.inf)
    usual = bundle.model_copy(update={"calibration": usual_calibration(2)})
    events, grown = run(make_trainer(iterations=1, start=usual))
    assert grown.calibration == usual_calibration(3)
    events, further = run(make_trainer(iterations=1, start=bundle))
    assert further.calibration == bundle.calibration
    assert any("it stays" in e.text for e in events if isinstance(e, Notice))
    assert same_tensors(further.pixels, bundle.pixels)
    events, alone = run(make_trainer(iterations=1))
    assert any("stands alone" in e.text for e in events if isinstance(e, Notice))
    assert not alone.pixels


def test_stop_before_the_network_has_learned_leaves_it_to_the_pixels(monkeypatch):
    control = TrainingControl()
    fit = support_module.fit_pixels

    def fit_and_stop(*given):
        fitted = fit(*given)
        control.stop()
        return fitted

    monkeypatch.setattr(support_module, "fit_pixels", fit_and_stop)
    trainer = Trainer(Volume(IMAGE), SparseAnnotation.from_labels(annotate(*TRAINED)))
    _, bundle = run(trainer, control)
    assert bundle.record.iterations == 0
    assert bundle.calibration == Calibration(network=0, pixels=1)


def test_a_network_has_its_usual_weight_where_nothing_is_fitted(monkeypatch):
    """Where there was no time, or a single slice; what the network learned before counts."""
    fit = support_module.fit_pixels
    _, fitted = run(make_trainer(iterations=2))
    assert fitted.calibration not in (usual_calibration(2), Calibration(network=0, pixels=1))
    predicted, predict = [], Engine.predict
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "predict", lambda *a: predicted.append(a[-1]) or predict(*a))
        _, single = run(make_trainer(annotate(TRAINED[0]), iterations=2))
    assert single.calibration == usual_calibration(2)
    assert len(predicted) == 1, "enough to see that it gives numbers"
    monkeypatch.setattr(support_module, "fit_pixels", lambda *given: (fit(*given)[0], []))
    _, bundle = run(make_trainer(iterations=2))  # as where there was no time for the rest
    assert bundle.calibration == usual_calibration(2)
    _, further = run(make_trainer(iterations=1, start=bundle))
    assert further.calibration == usual_calibration(3)


def test_fitted_weights_hold_until_the_classifier_is_fitted_anew():
    """As in a training that goes on in rounds, which slices join."""
    learner = make_learner(iterations=3)
    looks = Looks(learner, lambda: False)
    support = looks.support

    def weigh() -> Calibration:
        looks.prepare(final=False)
        return support.calibration

    assert support.fit(lambda: math.inf, lambda: False) is None
    learner.advance(0.0)
    assert weigh() == usual_calibration(1)
    looks.calibrate()
    fitted = support.calibration
    assert fitted != usual_calibration(1)
    learner.advance(0.0)
    assert weigh() == fitted
    looks.adopt([TRAINED[0]])
    assert support.fit(lambda: math.inf, lambda: False) is None
    assert weigh() == usual_calibration(2)


def test_samples_are_taken_anew_where_a_joined_slice_brings_a_coarser_scale(
    monkeypatch,
):
    """Trees of several slices ask about more features than those of one."""
    learner = make_learner(annotate(TRAINED[0]), iterations=1)
    looks = Looks(learner, lambda: False)
    widths, fit = [], support_module.fit_pixels
    monkeypatch.setattr(
        support_module,
        "fit_pixels",
        lambda samples, *rest: (
            widths.append([s.features.shape[1] for s in samples]) or fit(samples, *rest)
        ),
    )
    assert looks.support.fit(lambda: math.inf, lambda: False) is None
    learner.adopt(make_trainer(annotate(*TRAINED)).plan)
    looks.adopt([TRAINED[1]])
    assert looks.support.fit(lambda: math.inf, lambda: False) is None
    assert widths == [[feature_count(1)], [feature_count(1, MORE_SCALES)] * 2]
    assert [c.ref for c in looks.support.check_slices()] == ["z=2", "z=9"]


def test_looks_on_the_way_weigh_the_network_by_what_it_has_learned():
    events, _ = run(make_trainer(iterations=3), with_checkpoints())
    weights = [e.bundle.calibration for e in events if isinstance(e, Checkpoint)]
    assert weights == [usual_calibration(n) for n in (1, 2, 3)]


def test_annotated_slices_are_checked_by_cross_fitting():
    _, bundle = run(make_trainer(iterations=1))
    checks = bundle.record.cross_fitted
    assert [c.ref for c in checks] == ["z=2", "z=9"]
    for check in checks:
        (bar,) = check.classes
        assert 0 < bar.hits <= min(bar.found, bar.voxels)
        assert 0 < bar.expected_hits <= min(bar.found, bar.expected_voxels)
