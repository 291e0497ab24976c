"""Where a prediction is shown. No window is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image

from napari_unet3d.config import default_class
from napari_unet3d.data.slice_summary import StackSummary
from napari_unet3d.session.job import Outputs
from napari_unet3d.widgets.run.prediction_view import PredictionView
from napari_unet3d.widgets.viewer.belonging import belongs_to
from napari_unet3d.widgets.viewer.layers import new_annotation_layer
from napari_unet3d.widgets.viewer.placement import lies_on
from napari_unet3d.widgets.viewer.slice_summaries import read_summary_of

SHAPE = (4, 8, 9)
CLASSES = (default_class(2, "cell"),)


def outputs() -> Outputs:
    return {
        "labels": np.zeros(SHAPE, np.uint8),
        "probabilities": np.zeros((2, *SHAPE), np.float32),
        "uncertainty": np.zeros(SHAPE, np.float32),
    }


@pytest.mark.parametrize(
    ("order", "options", "expected"),
    [
        # image, annotation and another image, from bottom to top
        ("iao", {}, "iaoP"),  # nothing opaque may hide it
        ("oia", {}, "oiPa"),
        ("ioa", {}, "ioPa"),
        ("iao", {"visible": False}, "iPao"),
        ("iao", {"blending": "additive"}, "iPao"),
        ("iao", {"opacity": 0.5}, "iPao"),
        ("ai", {}, "aiP"),
    ],
)
def test_the_prediction_is_seen(order: str, options: Any, expected: str) -> None:
    image = Image(np.zeros(SHAPE), name="i", scale=(2, 0.5, 0.5))
    annotation = new_annotation_layer(image, "time")
    annotation.name = "a"
    other = Image(np.ones(SHAPE), name="o", **options)
    layers = {"i": image, "a": annotation, "o": other}
    viewer = ViewerModel()
    viewer.layers.extend([layers[letter] for letter in order])
    viewer.layers.selection.active = annotation
    view = PredictionView(viewer, outputs(), image, CLASSES)
    view.open()
    assert view.layer is not None
    view.layer.name = "P"
    assert "".join(x.name for x in viewer.layers) == expected
    assert viewer.layers.selection.active is annotation
    view.discard()
    assert "".join(x.name for x in viewer.layers) == order


def test_what_a_cancelled_run_said_about_the_slices_is_forgotten() -> None:
    viewer = ViewerModel()
    image = viewer.add_image(np.zeros(SHAPE), name="cells")
    first, second = (StackSummary((name,), {}) for name in ("first", "second"))
    view = PredictionView(viewer, outputs(), image, CLASSES)
    view.open()
    view.summarize(first)
    view.finish()
    assert read_summary_of(image) is first
    view = PredictionView(viewer, outputs(), image, CLASSES)
    view.open()
    view.summarize(second)
    assert read_summary_of(image) is second
    view.discard()
    assert read_summary_of(image) is first


def test_an_image_that_moved_meanwhile_takes_its_prediction_along() -> None:
    viewer = ViewerModel()
    image = viewer.add_image(np.zeros(SHAPE), name="cells")
    view = PredictionView(viewer, outputs(), image, CLASSES)
    image.scale = (2, 0.5, 0.5)
    view.open()
    made = view.finish()
    companions = [x for x in viewer.layers if x not in (image, made)]
    assert len(companions) == 2
    for layer in (made, *companions):
        assert lies_on(layer, image)
        assert belongs_to(layer, image)
