"""Looks at a running training: parts of held-out slices, and when they end."""

from math import prod

import numpy as np
import pytest
import torch

from napari_unet3d.config import TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.samples import tubules
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.events import HeldOutScores
from napari_unet3d.networks.unet import UNet3D
from napari_unet3d.prediction.engine import Engine, NotFiniteError
from napari_unet3d.training import looks as evaluator_module
from napari_unet3d.training.looks import Evaluator, box_in_slice, slice_box
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
        predict = Engine.predict
        with monkeypatch.context() as patch:
            patch.setattr(evaluator_module, "_CALIBRATION_PREDICTED", (most, most))
            patch.setattr(Engine, "predict", lambda *a: boxes.append(a[-1]) or predict(*a))
            list(Trainer(sample.image, annotation, TrainingConfig(iterations=1)).run())
        return len(boxes)

    assert predicted(10**9) == len(sample.training_slices) > 1
    assert predicted(1) == 1


def test_statistics_come_from_all_over_the_stack(sample, monkeypatch):
    monkeypatch.setattr(evaluator_module, "CPU_TILE", 4096)
    monkeypatch.setattr(evaluator_module, "_FINAL_VOXELS", 8 * 4096)
    annotation = SparseAnnotation(sample.annotate(sample.training_slices), sample.classes)
    seen = []
    read = Engine.read
    monkeypatch.setattr(Engine, "read", lambda *a: seen.append(a[-1].start) or read(*a))
    config = TrainingConfig(iterations=1, pixel_classifier=False)
    list(Trainer(sample.image, annotation, config).run())
    assert len(seen) == len(set(seen)) == 8
    assert all(len({start[axis] for start in seen}) > 1 for axis in (1, 2))


# --- large slices ---------------------------------------------------------------------------


class Counted:
    """Labels that count how many voxels are read."""

    def __init__(self, labels):
        self.labels, self.shape, self.dtype, self.read = labels, labels.shape, labels.dtype, 0

    def __getitem__(self, key):
        part = self.labels[key]
        self.read += part.size
        return part


HELD = (SliceRef(0, 5), SliceRef(0, 11))


def evaluator_of(sample, held_out=HELD, hidden=(), **changes):
    """An evaluator of a network that has learned nothing, and the labels that it reads."""
    labels = sample.annotate((*sample.training_slices, *held_out))
    for ref, box in hidden:
        labels[ref.index][box] = 0
    annotation = SparseAnnotation(labels, sample.classes, frozenset(held_out))
    trainer = Trainer(sample.image, annotation, TrainingConfig(device="cpu", precision="fp32"))
    counted = Counted(labels)
    object.__setattr__(trainer.sampler.annotation, "labels", counted)
    torch.manual_seed(0)
    network = UNet3D(trainer.network_config)
    given = {"device": trainer.device, "precision": "fp32", "decay": 0.0}
    rest = {"interrupted": lambda: False, "patch_depth": lambda axis: trainer.patch_shape[axis]}
    evaluator = Evaluator(network, trainer.sampler, **given | rest | changes)
    return evaluator, counted


@pytest.fixture
def small_tiles(monkeypatch):
    for name in ("CPU_TILE", "_LOOK_VOXELS", "_FINAL_VOXELS"):
        monkeypatch.setattr(evaluator_module, name, 2048)


@pytest.fixture
def predicted(monkeypatch):
    """The boxes that were predicted, and the tiles that the network computed."""
    boxes, tiles = [], []
    predict, run = Engine.predict, Engine._run
    monkeypatch.setattr(Engine, "predict", lambda *a: boxes.append(a[-1]) or predict(*a))
    monkeypatch.setattr(Engine, "_run", lambda *a: tiles.append(a[-1]) or run(*a))
    return boxes, tiles


@pytest.mark.parametrize("kept", [1 << 28, 0], ids=["kept", "too large to be kept"])
@pytest.mark.parametrize("side", [32, 64])
def test_labels_are_read_once_however_many_parts_there_are(
    monkeypatch, small_tiles, predicted, side, kept
):
    """Reading the whole slice for each part made the cost grow with the area squared."""
    monkeypatch.setattr(evaluator_module, "_TARGET_VOXELS", kept)
    monkeypatch.setattr(evaluator_module, "_LOOK_SECONDS", np.inf)
    evaluator, labels = evaluator_of(tubules((16, side, side)))
    area = len(HELD) * side * side
    first = evaluator.measure(1, 1.0, final=False)
    assert len(predicted[0]) >= side // 8, "the slices were not cut"
    assert first.scored == 1
    assert labels.read == area + (0 if kept else area)
    second = evaluator.measure(2, 2.0, final=False)
    assert labels.read == area + (0 if kept else 2 * area)
    assert second.classes == first.classes


@pytest.mark.parametrize("side", [32, 64])
def test_when_the_time_is_over_nothing_more_is_read_or_computed(
    monkeypatch, small_tiles, predicted, side
):
    monkeypatch.setattr(evaluator_module, "_LOOK_SECONDS", 0.0)
    evaluator, labels = evaluator_of(tubules((16, side, side)))
    scores = evaluator.measure(1, 1.0, final=False)
    boxes, tiles = predicted
    assert 0 < scores.scored < 0.5
    assert len(boxes) == len(tiles) == 1
    assert labels.read == len(HELD) * side * side


def test_parts_without_labels_cost_nothing(monkeypatch, small_tiles, predicted):
    monkeypatch.setattr(evaluator_module, "_LOOK_SECONDS", np.inf)
    nearly_all = np.s_[:, 8:]
    evaluator, _ = evaluator_of(tubules((16, 48, 48)), hidden=[(ref, nearly_all) for ref in HELD])
    scores = evaluator.measure(1, 1.0, final=False)
    assert scores.scored == 1
    assert all(box.start[2] < 8 for box in predicted[0])
    assert len(predicted[0]) < len(evaluator._parts(False)) / 2


def test_a_look_needs_one_tile_a_part(small_tiles, predicted):
    evaluator, _ = evaluator_of(tubules((16, 64, 64)))
    for ref, box, tile in evaluator._parts(False):
        predictor = evaluator._predictor(tile, evaluator_module._LOOK_OVERLAP)
        assert len(predictor.tiles(box)) == 1, (ref, box)


@pytest.mark.parametrize("final", [False, True])
def test_the_first_parts_are_spread_over_all_slices(small_tiles, final):
    evaluator, _ = evaluator_of(tubules((16, 64, 64)))
    parts = evaluator._parts(final)
    assert len(parts) >= 16
    for ref in HELD:
        corners = [box.start for other, box, _ in parts[: len(parts) // 2] if other == ref]
        assert len(corners) == pytest.approx(len(parts) / 4, abs=1)
        for axis in (1, 2):
            assert {c[axis] < 32 for c in corners} == {True, False}


def test_the_cost_of_a_look_is_known_before(monkeypatch, small_tiles, predicted):
    """For its throttle: the statistics' tile, and the part that is always scored."""
    monkeypatch.setattr(evaluator_module, "_LOOK_SECONDS", 0.0)
    evaluator, _ = evaluator_of(tubules((16, 64, 64)))
    computed = []
    read = Engine.read
    monkeypatch.setattr(Engine, "read", lambda *a: computed.append(prod(a[-1].shape)) or read(*a))
    expected = evaluator.measure_voxels()
    evaluator.measure(1, 1.0, final=False)
    assert sum(computed) == expected
    computed.clear()
    expected = evaluator.preview_voxels(HELD[0])
    evaluator.preview(HELD[0])
    assert sum(computed[1:]) == expected


def test_a_network_that_gives_no_numbers_has_no_score_and_no_preview(small_tiles):
    evaluator, _ = evaluator_of(tubules((16, 48, 48)))
    evaluator.network.head.bias.fill_(torch.inf)
    scores = evaluator.measure(1, 1.0, final=False)
    assert [c.iou for c in scores.classes] == [None, None]
    assert scores.scored == 0
    assert evaluator.preview(HELD[0]) is None
    evaluator.estimate_statistics(final=True)
    with pytest.raises(NotFiniteError):
        evaluator.measure(2, 2.0, final=True)


def test_statistics_that_overflow_are_estimated_again_in_fp32(monkeypatch, small_tiles):
    """As in fp16, which a CPU is too slow for."""
    evaluator, _ = evaluator_of(tubules((16, 48, 48)), precision="bf16")
    forward = UNet3D.forward

    def short(self, x):
        return forward(self, x * torch.inf if torch.is_autocast_enabled("cpu") else x)

    monkeypatch.setattr(UNet3D, "forward", short)
    evaluator.estimate_statistics(final=False)
    assert all(t.isfinite().all() for t in evaluator.network.state_dict().values())
