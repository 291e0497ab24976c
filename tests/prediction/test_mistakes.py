"""Where a segmentation is wrong, and slices that are predicted alone."""

from __future__ import annotations

import numpy as np

from bundles import random_bundle
from napari_unet3d.config import PredictionConfig, default_class
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import drain
from napari_unet3d.networks.unet import UNetConfig
from napari_unet3d.prediction.mistakes import CONFUSED, FALSE, MISSED, MISTAKES, find_mistakes
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.prediction.single_slices import predict_slices

CLASSES = (default_class(2), default_class(3).model_copy(update={"output": 7}))
_M, _F, _C = MISSED.value, FALSE.value, CONFUSED.value
NETWORK = UNetConfig(
    widths=(4, 8), strides=((2, 2, 2),), kernels=((3, 3, 3),) * 2, padding="same", n_classes=2
)


def test_each_pair_of_truth_and_prediction():
    codes = np.array([[1, 1, 1], [2, 2, 2], [3, 3, 3], [0, 0, 0]], np.uint8)
    predicted = np.array([[0, 2, 7]] * 4)
    expected = [[0, _F, _F], [_M, 0, _C], [_M, _C, 0], [0, 0, 0]]
    assert find_mistakes(predicted, codes, CLASSES).tolist() == expected


def test_a_class_that_is_not_in_the_table_is_never_right():
    codes = np.array([[1, 2, 0]], np.uint8)
    assert find_mistakes(np.array([[9, 9, 9]]), codes, CLASSES).tolist() == [[_F, _C, 0]]


def test_kinds_differ_in_number_name_and_color():
    for name in ("value", "name", "color"):
        assert len({getattr(m, name) for m in MISTAKES}) == 3


def test_slices_alone_are_those_of_the_whole_stack():
    image = np.random.default_rng(0).normal(100, 10, (8, 20, 24)).astype(np.float32)
    volume, bundle = Volume(image), random_bundle(NETWORK)
    config = PredictionConfig(device="cpu", precision="fp32", tile_shape=(8, 24, 24))
    whole = np.zeros(image.shape, np.uint8)
    drain(predict(bundle, volume, whole, config=config))
    refs = (SliceRef(0, 3), SliceRef(1, 11), SliceRef(2, 0))
    alone = predict_slices(bundle, volume, refs, config)
    assert list(alone) == list(refs)
    assert 0.02 < (whole > 0).mean() < 0.98
    for ref, expected in zip(refs, (whole[3], whole[:, 11], whole[:, :, 0]), strict=True):
        assert alone[ref].shape == expected.shape
        assert (alone[ref] == expected).mean() > 0.97  # tiles that lie otherwise round otherwise
