"""Scores on held-out slices: parts that cover them, read and computed no more than needed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from looked_at import HELD, SMALL_TILES, look_at

from napari_unet3d.config import TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.boxes import slice_box
from napari_unet3d.data.samples import Sample, tubules
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.events import HeldOutScores
from napari_unet3d.prediction.engine import Engine
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.limits import LookLimits
from napari_unet3d.training.measuring import HeldOutSlices, box_in_slice
from napari_unet3d.training.plan import plan_training
from napari_unet3d.training.tiles import computed_voxels, plan_tiles
from napari_unet3d.training.trainer import run_plan

SHAPE = (16, 48, 48)
REFS = (SliceRef(0, 5), SliceRef(1, 20))


@pytest.fixture(scope="module")
def sample() -> Sample:
    return tubules(SHAPE)


def make_plan(sample: Sample, refs=REFS, limits: LookLimits | None = None, **settings):
    labels = sample.annotate((*sample.training_slices, *refs))
    annotation = SparseAnnotation(labels, sample.classes, frozenset(refs))
    config = TrainingConfig(iterations=2, device="cpu", **settings)
    plan = plan_training(sample.image, annotation, config)
    return replace(plan, limits=limits or LookLimits())


def held_out_slices(sample: Sample, refs=REFS, limits=SMALL_TILES) -> HeldOutSlices:
    plan = make_plan(sample, refs, limits)
    return HeldOutSlices(plan, plan_tiles(plan), lambda: False)


def final_scores(sample: Sample, limits: LookLimits | None = None) -> HeldOutScores:
    """The final scores of a short training."""
    quick = {"preset": "fast", "patch_shape": (8, 24, 24), "pixel_classifier": False}
    events = run_plan(make_plan(sample, limits=limits, **quick), TrainingControl())
    return [e for e in events if isinstance(e, HeldOutScores)][-1]


@pytest.fixture
def predicted(monkeypatch):
    """The boxes that were predicted, and the tiles that the network computed."""
    boxes, tiles = [], []
    predict, run = Engine.predict, Engine._run
    monkeypatch.setattr(Engine, "predict", lambda *a: boxes.append(a[-1]) or predict(*a))
    monkeypatch.setattr(Engine, "_run", lambda *a: tiles.append(a[-1]) or run(*a))
    return boxes, tiles


# --- the parts ------------------------------------------------------------------------------


@pytest.mark.parametrize("final", [False, True])
def test_the_parts_of_the_slices_cover_each_voxel_once(sample, final):
    parts = held_out_slices(sample).parts(final)
    for ref in REFS:
        boxes = [box for part, box, _ in parts if part == ref]
        assert len(boxes) > 1
        covered = np.zeros(SHAPE, int)
        for box in boxes:
            covered[box.slices] += 1
        whole = slice_box(SHAPE, ref)
        assert (covered[whole.slices] == 1).all()
        assert covered.sum() == np.prod(whole.shape)


@pytest.mark.parametrize("final", [False, True])
def test_the_first_parts_are_spread_over_all_slices(final):
    parts = held_out_slices(tubules((16, 64, 64)), HELD).parts(final)
    assert len(parts) >= 16
    for ref in HELD:
        corners = [box.start for other, box, _ in parts[: len(parts) // 2] if other == ref]
        assert len(corners) == pytest.approx(len(parts) / 4, abs=1)
        for axis in (1, 2):
            assert {c[axis] < 32 for c in corners} == {True, False}


def test_a_part_is_found_in_the_array_of_its_slice():
    ref = SliceRef(1, 20)
    box = slice_box(SHAPE, ref)
    plane = np.zeros((SHAPE[0], 1, SHAPE[2]))
    assert plane[box_in_slice(box, ref)].shape == box.shape


# --- the scores -----------------------------------------------------------------------------


def test_measuring_in_parts_counts_every_labelled_voxel(sample):
    whole = final_scores(sample, LookLimits(final_seconds=600.0))
    parts = final_scores(sample, LookLimits(cpu_tile=4000, final_seconds=600.0))
    assert parts.scored == whole.scored == 1.0
    assert [c.voxels for c in parts.classes] == [c.voxels for c in whole.classes]


def test_measuring_ends_with_its_time_and_says_what_was_scored(sample):
    scores = final_scores(sample, LookLimits(cpu_tile=4000, final_seconds=0.0))
    assert 0 < scores.scored < 1
    assert sum(c.voxels for c in scores.classes) > 0


@pytest.mark.parametrize("kept", [1 << 28, 0], ids=["kept", "too large to be kept"])
def test_labels_are_read_once_however_many_parts_there_are(predicted, kept):
    """Reading the whole slice for each part made the cost grow with the area squared."""
    side = 32
    looks, labels = look_at(tubules((16, side, side)), look_seconds=np.inf, kept_labels=kept)
    area = len(HELD) * side * side
    first = looks.measure(1, 1.0, final=False)
    assert len(predicted[0]) >= side // 8, "the slices were not cut"
    assert first.scored == 1
    assert labels.read == area + (0 if kept else area)
    second = looks.measure(2, 2.0, final=False)
    assert labels.read == area + (0 if kept else 2 * area)
    assert second.classes == first.classes


def test_when_the_time_is_over_nothing_more_is_read_or_computed(predicted):
    side = 32
    looks, labels = look_at(tubules((16, side, side)), look_seconds=0.0)
    scores = looks.measure(1, 1.0, final=False)
    boxes, tiles = predicted
    assert 0 < scores.scored < 0.5
    assert len(boxes) == len(tiles) == 1
    assert labels.read == len(HELD) * side * side


def test_parts_without_labels_cost_nothing(predicted):
    stack = tubules((16, 48, 48))
    hidden = [(ref, np.s_[:, 8:]) for ref in HELD]  # nearly all
    looks, _ = look_at(stack, hidden=hidden, look_seconds=np.inf)
    scores = looks.measure(1, 1.0, final=False)
    assert scores.scored == 1
    assert all(box.start[2] < 8 for box in predicted[0])
    assert len(predicted[0]) < len(held_out_slices(stack, HELD).parts(False)) / 2


def test_a_look_needs_one_tile_a_part():
    stack = tubules((16, 64, 64))
    looks, _ = look_at(stack)
    engine = cache(looks.engine)
    for _, box, tile in held_out_slices(stack, HELD).parts(False):
        assert computed_voxels(engine(tile), box) == np.prod(tile)


# --- slice by slice -------------------------------------------------------------------------


def pooled(scores: HeldOutScores, value: int) -> tuple[int, int, int]:
    """Hits, false and missed voxels of a class on all slices together."""
    entries = [c for s in scores.by_slice for c in s.classes if c.value == value]
    return tuple(sum(getattr(c, name) for c in entries) for name in ("hits", "false", "missed"))


def test_the_scores_of_the_slices_add_up_to_those_of_all(sample):
    scores = final_scores(sample, LookLimits(cpu_tile=4000, final_seconds=600.0))
    assert [s.ref for s in scores.by_slice] == ["z=5", "y=20"]
    assert sum(s.measured for s in scores.by_slice) == sum(s.labelled for s in scores.by_slice)
    for score in scores.classes:
        hits, false, missed = pooled(scores, score.value)
        assert hits + missed == score.voxels > 0
        assert score.iou == hits / (hits + false + missed)


def test_a_slice_that_was_measured_in_part_says_so_and_has_no_distance(sample):
    scores = final_scores(sample, LookLimits(cpu_tile=4000, final_seconds=0.0))
    assert scores.by_slice
    measured, labelled = (
        sum(getattr(s, name) for s in scores.by_slice) for name in ("measured", "labelled")
    )
    assert 0 < measured < labelled
    assert all(c.distance is None for s in scores.by_slice for c in s.classes)


class Drawn:
    """An engine that predicts what was drawn: (C, Z, Y, X) probabilities."""

    def __init__(self, outputs: np.ndarray) -> None:
        self.outputs = outputs

    def predict(self, _time, box):
        part = self.outputs[box.slices]
        return (np.arange(3)[:, None, None, None] == part).astype(np.float32)


def test_distances_are_in_the_unit_of_the_stack(sample):
    """A prediction that is the truth, moved by two voxels along x, of 0.5 µm each."""
    ref = SliceRef(0, 5)
    labels = np.zeros(SHAPE, np.uint8)
    labels[3] = sample.annotate((SliceRef(0, 3),))[3]
    labels[ref.index] = 1
    labels[ref.index, 10:40, 10:30] = 2
    labels[ref.index, 44:] = 0  # nothing is known there
    annotation = SparseAnnotation(labels, sample.classes, frozenset((ref,)))
    image = replace(sample.image, voxel_size=(3.0, 0.5, 0.5), unit="µm")
    plan = plan_training(image, annotation, TrainingConfig(iterations=2, device="cpu"))
    outputs = np.zeros(SHAPE, np.uint8)
    outputs[ref.index, 10:40, 12:32] = 1
    outputs[ref.index, 45:, 12:32] = 1
    slices = HeldOutSlices(plan, plan_tiles(plan), lambda: False)
    scores = slices.measure(lambda tile: Drawn(outputs), 1, 1.0, final=True)
    (on_slice,) = scores.by_slice
    first = on_slice.classes[0]
    assert (first.hits, first.false, first.missed) == (30 * 18, 60, 60)
    assert on_slice.measured == on_slice.labelled == 44 * 48
    assert first.distance95 == 1.0
    assert 0 < first.distance < 1
    assert on_slice.classes[1].distance is None, "the other class is neither painted nor predicted"
    early = slices.measure(lambda tile: Drawn(outputs), 1, 1.0, final=False)
    assert early.by_slice[0].classes[0].hits == 30 * 18
    assert early.by_slice[0].classes[0].distance is None, "quick looks measure no distances"
