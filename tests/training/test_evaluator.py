"""Looks at a running training: parts of held-out slices, and when they end."""

import numpy as np
import pytest

from napari_unet3d.config import TrainingConfig
from napari_unet3d.data.annotation import SliceRef, SparseAnnotation
from napari_unet3d.data.samples import tubules
from napari_unet3d.prediction.predictor import Predictor
from napari_unet3d.training import evaluator as evaluator_module
from napari_unet3d.training.evaluator import Evaluator, box_in_slice, slice_box
from napari_unet3d.training.events import HeldOutScores
from napari_unet3d.training.trainer import Trainer

SHAPE = (16, 48, 48)


@pytest.fixture(scope="module")
def sample():
    return tubules(SHAPE)


def held_out_scores(sample, **changes):
    """The scores that a short training reports, the final ones last."""
    refs = (SliceRef(0, 5), SliceRef(1, 20))
    labels = sample.annotate((*sample.training_slices, *refs))
    annotation = SparseAnnotation(labels, sample.classes, frozenset(refs))
    config = TrainingConfig(iterations=2, **changes)
    events = list(Trainer(sample.image, annotation, config).run())
    return [e for e in events if isinstance(e, HeldOutScores)]


def test_the_parts_of_the_slices_cover_each_voxel_once(sample, monkeypatch):
    monkeypatch.setattr(evaluator_module, "CPU_TILE", 4000)  # so that slices are cut
    monkeypatch.setattr(evaluator_module, "_LOOK_VOXELS", 4000)
    found = []

    def remember(self, *args, **named):
        found.append((self._parts(True), self._parts(False)))
        return original(self, *args, **named)

    original = Evaluator.measure
    monkeypatch.setattr(Evaluator, "measure", remember)
    held_out_scores(sample)
    for parts in found[0]:
        for ref in (SliceRef(0, 5), SliceRef(1, 20)):
            boxes = [box for part, box, _ in parts if part == ref]
            assert len(boxes) > 1
            covered = np.zeros(SHAPE, int)
            for box in boxes:
                covered[tuple(map(slice, box.start, box.stop))] += 1
            whole = slice_box(SHAPE, ref)
            assert (covered[tuple(map(slice, whole.start, whole.stop))] == 1).all()
            assert covered.sum() == np.prod(whole.shape)


def test_measuring_in_parts_counts_every_labelled_voxel(sample, monkeypatch):
    whole = held_out_scores(sample)[-1]
    monkeypatch.setattr(evaluator_module, "CPU_TILE", 4000)
    parts = held_out_scores(sample)[-1]
    assert parts.scored == whole.scored == 1.0
    assert [c.voxels for c in parts.classes] == [c.voxels for c in whole.classes]


def test_measuring_ends_with_its_time_and_says_what_was_scored(sample, monkeypatch):
    monkeypatch.setattr(evaluator_module, "CPU_TILE", 4000)
    monkeypatch.setattr(evaluator_module, "_FINAL_SECONDS", 0.0)
    scores = held_out_scores(sample)[-1]
    assert 0 < scores.scored < 1
    assert sum(c.voxels for c in scores.classes) > 0


def test_a_part_is_found_in_the_array_of_its_slice():
    ref = SliceRef(1, 20)
    box = slice_box(SHAPE, ref)
    plane = np.zeros((SHAPE[0], 1, SHAPE[2]))
    assert plane[box_in_slice(box, ref)].shape == box.shape


def test_calibration_predicts_no_more_than_it_may(sample, monkeypatch):
    annotation = SparseAnnotation(sample.annotate(sample.training_slices), sample.classes)

    def predicted(most: int) -> int:
        boxes = []
        predict = Predictor.predict
        with monkeypatch.context() as patch:
            patch.setattr(evaluator_module, "_CALIBRATION_PREDICTED", (most, most))
            patch.setattr(Predictor, "predict", lambda *a: boxes.append(a[-1]) or predict(*a))
            list(Trainer(sample.image, annotation, TrainingConfig(iterations=1)).run())
        return len(boxes)

    assert predicted(10**9) == len(sample.training_slices) > 1
    assert predicted(1) == 1


def test_statistics_come_from_all_over_the_stack(sample, monkeypatch):
    monkeypatch.setattr(evaluator_module, "CPU_TILE", 4096)
    monkeypatch.setattr(evaluator_module, "_FINAL_VOXELS", 8 * 4096)
    annotation = SparseAnnotation(sample.annotate(sample.training_slices), sample.classes)
    seen = []
    read = Predictor.read
    monkeypatch.setattr(Predictor, "read", lambda *a: seen.append(a[-1].start) or read(*a))
    config = TrainingConfig(iterations=1, pixel_classifier=False)
    list(Trainer(sample.image, annotation, config).run())
    assert len(seen) == len(set(seen)) == 8
    assert all(len({start[axis] for start in seen}) > 1 for axis in (1, 2))
