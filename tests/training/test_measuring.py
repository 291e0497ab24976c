"""Scores on held-out slices: parts that cover them, read and computed no more than needed."""

from __future__ import annotations

from dataclasses import replace

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


def make_plan(sample: Sample, refs=REFS, limits: LookLimits | None = None):
    labels = sample.annotate((*sample.training_slices, *refs))
    annotation = SparseAnnotation(labels, sample.classes, frozenset(refs))
    plan = plan_training(sample.image, annotation, TrainingConfig(iterations=2, device="cpu"))
    return replace(plan, limits=limits or LookLimits())


def held_out_slices(sample: Sample, refs=REFS, limits=SMALL_TILES) -> HeldOutSlices:
    plan = make_plan(sample, refs, limits)
    return HeldOutSlices(plan, plan_tiles(plan), lambda: False)


def final_scores(sample: Sample, limits: LookLimits | None = None) -> HeldOutScores:
    """The final scores of a short training."""
    events = run_plan(make_plan(sample, limits=limits), TrainingControl())
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
    whole, parts = final_scores(sample), final_scores(sample, LookLimits(cpu_tile=4000))
    assert parts.scored == whole.scored == 1.0
    assert [c.voxels for c in parts.classes] == [c.voxels for c in whole.classes]


def test_measuring_ends_with_its_time_and_says_what_was_scored(sample):
    scores = final_scores(sample, LookLimits(cpu_tile=4000, final_seconds=0.0))
    assert 0 < scores.scored < 1
    assert sum(c.voxels for c in scores.classes) > 0


@pytest.mark.parametrize("kept", [1 << 28, 0], ids=["kept", "too large to be kept"])
@pytest.mark.parametrize("side", [32, 64])
def test_labels_are_read_once_however_many_parts_there_are(predicted, side, kept):
    """Reading the whole slice for each part made the cost grow with the area squared."""
    looks, labels = look_at(tubules((16, side, side)), look_seconds=np.inf, kept_labels=kept)
    area = len(HELD) * side * side
    first = looks.measure(1, 1.0, final=False)
    assert len(predicted[0]) >= side // 8, "the slices were not cut"
    assert first.scored == 1
    assert labels.read == area + (0 if kept else area)
    second = looks.measure(2, 2.0, final=False)
    assert labels.read == area + (0 if kept else 2 * area)
    assert second.classes == first.classes


@pytest.mark.parametrize("side", [32, 64])
def test_when_the_time_is_over_nothing_more_is_read_or_computed(predicted, side):
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
    for _, box, tile in held_out_slices(stack, HELD).parts(False):
        engine = looks.engine(tile, SMALL_TILES.look_overlap)
        assert computed_voxels(engine, box) == np.prod(tile)
