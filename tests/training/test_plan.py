"""The plan of a training: which input it refuses, and which sizes it chooses."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from toy_stack import (
    IMAGE,
    SHAPE,
    SMALL,
    TRAINED,
    annotate,
    make_plan,
    make_trainer,
    run,
)

from bundles import random_bundle
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.io.reading import read_volume
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.networks import device as devices
from napari_unet3d.training.losses import LOSSES
from napari_unet3d.training.plan import plan_training

# --- bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"device": "cuda:7"}, r"cuda:7.*cpu"),
        ({"precision": "fp16"}, r"fp16.*bf16"),
        ({"patch_shape": (8, 24, 23)}, r"23.*leave the patch shape empty"),
        ({"patch_shape": (0, 24, 24)}, r"too small.*leave the patch shape empty"),
        ({"patch_shape": (8, -24, 24)}, r"too small.*leave the patch shape empty"),
        ({"image": IMAGE[0]}, r"2D"),
        ({"image": np.ones(SHAPE)}, r"same value"),
        ({"labels": np.zeros(SHAPE, np.uint8)}, r"[Nn]othing is painted"),
        ({"labels": np.where(annotate(*TRAINED) == 2, 2, 0)}, r"Only class 2"),
        ({"labels": annotate(*TRAINED)[1:]}, r"11 × 36 × 40.*12 × 36 × 40"),
        ({"labels": annotate(*TRAINED).astype(float)}, r"float64"),
        ({"labels": annotate(*TRAINED), "held_out": TRAINED}, r"z=2, z=9.*nothing is left"),
        ({"labels": annotate(*TRAINED), "held_out": [SliceRef(0, 99)]}, r"z=99"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(given, text):
    with pytest.raises(BadInputError, match=text):
        make_plan(**given)


def test_a_patch_without_statistics_is_refused():
    """The deepest map would have one voxel, of which torch can take no statistics."""
    with pytest.raises(BadInputError, match=r"\(2, 4, 4\) voxels shrinks to a single one"):
        make_plan(patch_shape=(2, 4, 4))


def test_a_loss_that_is_none_is_refused_with_the_choices():
    with pytest.raises(BadInputError, match=r"'hinge' is not a loss.*ce_dice"):
        make_plan(loss="hinge")
    assert make_plan(loss="ce_dice").config.loss in LOSSES


def test_a_network_of_no_kind_is_refused():
    with pytest.raises(BadInputError, match=r"'transformer'.*unet"):
        make_plan(start=None, network="transformer")


def test_model_for_other_channels():
    with pytest.raises(BadInputError, match=r"2 channel.*1"):
        make_plan(start=random_bundle(SMALL.model_copy(update={"in_channels": 2})))


def test_resuming_needs_a_model():
    with pytest.raises(BadInputError, match="no model to resume"):
        make_plan(start=None, resume=True)


def test_resuming_with_a_budget_that_is_used_up_is_refused():
    model = run(make_trainer(iterations=2))[1]
    with pytest.raises(BadInputError, match=r"2 iterations.*larger"):
        make_plan(iterations=2, start=model, resume=True)
    assert make_plan(iterations=3, start=model, resume=True).first_iteration == 2


def test_voxels_that_cannot_be_read_are_bad_input_before_the_start(tmp_path):
    path = tmp_path / "a.zarr"
    zarr.create_array(str(path), data=IMAGE, chunks=(6, 36, 40), zarr_format=2)
    (path / "1.0.0").write_bytes(b"abc")
    volume = read_volume(path)
    with pytest.raises(BadInputError, match=r"its chunk 1\.0\.0 is damaged"):
        plan_training(volume, SparseAnnotation.from_labels(annotate(*TRAINED)))


# --- choices --------------------------------------------------------------------------------


def test_normalization_setting_reaches_the_network():
    plan = make_plan(start=None, preset="fast", normalization="channel")
    assert plan.network.normalization == "channel"


def test_planned_patch_is_thin_across_the_painted_slices():
    image = np.random.default_rng(0).normal(size=(60, 64, 70)).astype(np.float32)
    labels = np.zeros(image.shape, np.uint8)
    labels[..., 10] = np.arange(64) % 2 + 1
    plan = make_plan(labels, image, start=None, patch_shape=None)
    z, y, x = plan.main_patch()
    assert 2 * x < min(z, y)
    assert plan.main_patch() == plan.patches[2]
    assert plan.axes == {2}


def test_small_patches_have_about_a_third_of_the_voxels():
    image = np.random.default_rng(0).normal(size=(60, 200, 200)).astype(np.float32)
    labels = np.zeros(image.shape, np.uint8)
    labels[10] = np.arange(200) % 2 + 1
    plan = make_plan(labels, image, start=None, patch_shape=None)
    small, large = (np.prod(plan.main_patch(p)) for p in (plan.small_patches, plan.patches))
    assert 0.2 < small / large < 0.5


def test_little_memory_means_smaller_patches_and_a_note(monkeypatch):
    image = np.random.default_rng(0).normal(size=(60, 200, 200)).astype(np.float32)
    labels = np.zeros(image.shape, np.uint8)
    labels[10] = np.arange(200) % 2 + 1
    given = {"labels": labels, "image": image, "start": None, "patch_shape": None}
    plenty = make_plan(**given)
    monkeypatch.setattr(devices, "free_memory", lambda device: 50 << 20)
    little = make_plan(**given)
    assert np.prod(little.main_patch()) < np.prod(plenty.main_patch())
    assert any("Little memory is free" in note for note in little.notes)
    assert not any("memory" in note for note in plenty.notes)


def test_a_stored_setting_that_is_not_allowed_any_more_is_told_once():
    start = random_bundle(SMALL)
    record = start.record.model_copy(update={"config": {**start.record.config, "old": 1}})
    plan = make_plan(start=start.model_copy(update={"record": record}))
    (note,) = (note for note in plan.notes if "not known any more" in note)
    assert '"old"' in note
    assert not any("not known" in n for n in make_plan(start=start).notes)


def test_fp32_on_a_cpu_takes_two_patches_a_step():
    assert make_plan(precision="fp32").batch_size == 2
    assert make_plan(precision="bf16").batch_size == 2  # a very small stack
    assert make_plan(precision="fp32", batch_size=1).batch_size == 1


def test_labelled_voxels_are_counted_class_by_class():
    plan = make_plan()
    bar_voxels = 2 * 18 * 16
    assert plan.class_counts.tolist() == [2 * SHAPE[1] * SHAPE[2] - bar_voxels, bar_voxels]


def beads() -> tuple[np.ndarray, np.ndarray]:
    """Single voxels of 300…4000 on noise of 100 ± 5, class 2, in 0.1 % of the voxels."""
    rng = np.random.default_rng(0)
    truth = np.zeros(SHAPE, np.uint8)
    for z in (2, 9):
        truth[z].flat[rng.choice(truth[z].size, 8, replace=False)] = 2
    image = rng.normal(100, 5, SHAPE)
    image[truth == 2] = rng.uniform(300, 4000, 16)
    return image.astype(np.uint16), truth


def test_painted_beads_are_not_clipped_in_training_nor_prediction():
    image, truth = beads()
    labels = annotate(*TRAINED, truth=truth)
    _, bundle = run(make_trainer(labels, image, pixel_classifier=False))
    assert bundle.intensity.clip[0][0] == 0.1
    assert bundle.intensity.clip[0][1] > 99.9
    normalized = bundle.intensity.apply(image[None])[0]
    assert len(np.unique(normalized[truth == 2])) >= 14
    # What `predict` does with the same stack.
    again = IntensityNormalization.estimate(Volume(image), bundle.intensity.clip)
    assert again == bundle.intensity
    # A model that is trained further, on a stack where less is painted, keeps its percentiles.
    further = make_plan(annotate(SliceRef(0, 2)), IMAGE, start=bundle)
    assert further.intensity.clip == bundle.intensity.clip


def test_percentiles_are_a_setting():
    plan = make_plan(clip_percentiles=(5, 99.95))
    assert plan.intensity.clip == ((5, 99.95),)
    # No setting cuts what is painted: here 60 % of the class.
    assert make_plan(clip_percentiles=(5, 80)).intensity.clip[0][1] > 99
    assert make_plan().intensity.clip == ((0.1, 99.9),)
