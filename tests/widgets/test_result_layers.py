"""A new result takes the place of the last one; nothing that the user made his own goes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels

from napari_unet3d.config import default_class
from napari_unet3d.session.job import Outputs
from napari_unet3d.widgets.run.prediction_view import PredictionView
from napari_unet3d.widgets.viewer.predictions import newest_prediction
from napari_unet3d.widgets.viewer.result_layers import bring_back, keep_result

SHAPE = (4, 8, 9)
CLASSES = (default_class(2, "cell"),)


def outputs() -> Outputs:
    return {"labels": np.zeros(SHAPE, np.uint8), "uncertainty": np.zeros(SHAPE, np.float32)}


def finished(viewer: Any, image: Image) -> tuple[PredictionView, Labels]:
    view = PredictionView(viewer, outputs(), image, CLASSES)
    view.open()
    return view, view.finish()


@pytest.fixture
def viewer() -> ViewerModel:
    viewer = ViewerModel()
    viewer.add_image(np.zeros(SHAPE), name="cells")
    return viewer


def names(viewer: ViewerModel) -> list[str]:
    return [x.name for x in viewer.layers]


def test_ten_runs_leave_one_result_where_and_as_the_user_has_put_it(viewer: ViewerModel) -> None:
    image = viewer.layers["cells"]
    _, first = finished(viewer, image)
    viewer.add_image(np.zeros(SHAPE), name="on top", visible=False)
    viewer.layers.move(viewer.layers.index(first), len(viewer.layers))
    first.opacity, first.contour = 0.9, 2
    viewer.layers["cells prediction: uncertainty"].visible = True
    viewer.layers.selection.active = first
    for _ in range(9):
        _, last = finished(viewer, image)
        assert names(viewer) == [
            "cells",
            "on top",
            "cells prediction: uncertainty",
            "cells prediction",
        ]
    assert last is viewer.layers["cells prediction"] is viewer.layers.selection.active
    assert (last.opacity, last.contour, last.visible) == (0.9, 2, True)
    assert viewer.layers["cells prediction: uncertainty"].visible


def renamed(layer: Labels) -> None:
    layer.name = "the good one"


def painted(layer: Labels) -> None:
    layer.data_setitem((np.array([1]), np.array([2]), np.array([3])), 2)


@pytest.mark.parametrize("own", [renamed, painted, keep_result])
def test_what_the_user_made_his_own_stays(viewer: ViewerModel, own: Any) -> None:
    image = viewer.layers["cells"]
    _, first = finished(viewer, image)
    own(first)
    view, second = finished(viewer, image)
    assert first in viewer.layers
    assert view.replaced is None
    assert not first.visible
    _, third = finished(viewer, image)
    assert first in viewer.layers
    assert second not in viewer.layers
    assert third.name != first.name


def test_each_image_has_a_result_of_its_own(viewer: ViewerModel) -> None:
    other = viewer.add_image(np.zeros(SHAPE), name="nuclei")
    finished(viewer, viewer.layers["cells"])
    finished(viewer, other)
    finished(viewer, viewer.layers["cells"])
    assert {"cells prediction", "nuclei prediction"} < set(names(viewer))


def test_a_cancelled_run_replaces_nothing(viewer: ViewerModel) -> None:
    image = viewer.layers["cells"]
    _, first = finished(viewer, image)
    view = PredictionView(viewer, outputs(), image, CLASSES)
    assert view.before() is first.data
    view.open()
    assert not first.visible
    view.discard()
    assert first.visible
    assert names(viewer) == ["cells", "cells prediction: uncertainty", "cells prediction"]


def test_the_earlier_result_comes_back_and_is_kept(viewer: ViewerModel) -> None:
    image = viewer.layers["cells"]
    _, first = finished(viewer, image)
    view, second = finished(viewer, image)
    assert view.replaced is not None
    assert first not in viewer.layers
    bring_back(viewer, view.replaced)
    assert first.name == "cells prediction (earlier)"
    assert "cells prediction (earlier): uncertainty" in names(viewer)
    assert (first.visible, second.visible) == (True, False)
    finished(viewer, image)
    assert first in viewer.layers
    assert second not in viewer.layers


def test_the_newest_prediction_is_the_one_that_was_begun_last(viewer: ViewerModel) -> None:
    image = viewer.layers["cells"]
    _, first = finished(viewer, image)
    keep_result(first)
    _, second = finished(viewer, image)
    assert viewer.layers.index(second) < viewer.layers.index(first)
    first.visible = True
    assert newest_prediction(viewer) is second
    second.visible = False
    assert newest_prediction(viewer, image) is first
    assert newest_prediction(viewer, image, hidden=True) is second
    assert newest_prediction(ViewerModel()) is None
