"""One more output, in one class and one line, is offered and shown by the window."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels

from bundles import random_bundle
from napari_unet3d.config import PredictionConfig
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import drain
from napari_unet3d.prediction import outputs
from napari_unet3d.session.job import make_outputs, run_job
from napari_unet3d.session.session import NamedModel, RunSettings, Session
from napari_unet3d.widgets.parts.training_form import TrainingForm
from napari_unet3d.widgets.run.prediction_view import PredictionView
from napari_unet3d.widgets.viewer.room import check_result
from predictions import SAME, blobs
from toy_predictions import SecondClass, second_class


def test_the_form_offers_it_and_the_view_shows_it(
    qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "OUTPUTS", (*outputs.OUTPUTS, SecondClass()))
    form = TrainingForm()
    qtbot.addWidget(form)
    box = form.outputs["second_class"]
    assert (box.text(), box.toolTip()) == (SecondClass.title, SecondClass.tooltip)
    with qtbot.waitSignal(form.valueChanged):
        box.setChecked(True)
    form.outputs["probabilities"].setChecked(True)
    wanted = form.wanted_outputs()
    assert wanted == ("probabilities", "second_class")

    bundle = random_bundle(SAME, values=(2, 3, 7))
    data = blobs((8, 24, 24))[0]
    volume = Volume(data)
    check_result(volume, bundle.classes, wanted)
    arrays = make_outputs(volume, bundle.classes, wanted)
    viewer = ViewerModel()
    image = viewer.add_layer(Image(data, name="cells"))
    view = PredictionView(viewer, arrays, image, bundle.classes)
    view.open()
    settings = RunSettings(prediction=PredictionConfig(device="cpu", precision="fp32"))
    session = Session(volume=volume, model=NamedModel(bundle, "toy"), settings=settings)
    drain(run_job(session, outputs=arrays, train=False))
    view.finish()

    layer = viewer.layers["cells prediction: second class"]
    assert isinstance(layer, Labels)
    assert not layer.visible
    expected = second_class(np.asarray(arrays["probabilities"]), bundle.classes)
    np.testing.assert_array_equal(layer.data, expected)
    colors = viewer.layers["cells prediction"].colormap
    assert all(np.array_equal(layer.colormap.map(v), colors.map(v)) for v in (2, 3, 7))
