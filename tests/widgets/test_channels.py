"""All channels that are ticked reach every part that looks at the image, and come back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from bundles import random_bundle
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.networks.unet import UNetConfig
from napari_unet3d.session.session import NamedModel
from napari_unet3d.widgets.dock import SegmentationDock
from napari_unet3d.widgets.features.keeping import Keeping
from napari_unet3d.widgets.features.objects import ObjectsFeature
from napari_unet3d.widgets.features.quality import Quality
from napari_unet3d.widgets.features.quick_answer import QuickAnswering
from napari_unet3d.widgets.features.suggest import NextSlice
from napari_unet3d.widgets.features.tools import Tools
from napari_unet3d.widgets.features.uncertainty import WhereUnsure
from napari_unet3d.widgets.viewer.belonging import bind
from napari_unet3d.widgets.viewer.layers import prediction_layer, role_of, write_held_out

NETWORK = UNetConfig(
    in_channels=2, widths=(4, 8), strides=((2, 2, 2),), kernels=((3, 3, 3),) * 2, padding="same"
)


def feature(dock: Any, kind: type) -> Any:
    return next(f for f in dock.features if isinstance(f, kind))


def tick(dock: Any, number: int = 0) -> None:
    dock.choice.channels.menu().actions()[number].trigger()


def open_dock(viewer: Any) -> Any:
    dock = SegmentationDock(viewer)
    viewer.window.add_dock_widget(dock, name="Annotate & train", area="right")
    dock.form.advanced.editors["iterations"].setValue(2)
    dock.form.advanced.editors["patch_shape"].setValue((8, 16, 16))
    return dock


def test_two_channels_reach_each_feature(
    make_napari_viewer: Callable[..., Any], stack: np.ndarray, painted: np.ndarray, qtbot: Any
) -> None:
    viewer = make_napari_viewer()
    dock = open_dock(viewer)
    viewer.add_image(stack[::-1].copy(), name="upside down")
    qtbot.waitUntil(lambda: dock.choice.value()[1] is not None, timeout=3000)
    viewer.add_image(stack, name="bar")
    layer = dock.choice.value()[1]
    where = np.nonzero(painted)
    layer.data_setitem(where, painted[where])
    dock.annotator.rescan()
    dock.annotator.jump(SliceRef(0, 4))
    quick, suggest = feature(dock, QuickAnswering), feature(dock, NextSlice)
    quick.toggle()
    content = suggest._scene().content
    qtbot.waitUntil(lambda: suggest._scene().content is not content, timeout=5000)
    alone = suggest._scene().content
    tick(dock)
    assert dock.choice.volume()[0].n_channels == 2
    assert quick._quick._volume.n_channels == 2
    qtbot.waitUntil(lambda: suggest._scene().content is not None, timeout=5000)
    assert not np.array_equal(suggest._scene().content[0], alone[0])
    quick.toggle()

    tools, quality = feature(dock, Tools), feature(dock, Quality)
    assert tools.pointing._volume().n_channels == quality._work().volume.n_channels == 2

    model = NamedModel(random_bundle(NETWORK, [2]), "of two channels")
    unsure = feature(dock, WhereUnsure)
    unsure.bench.session.update(model=model)
    unsure.check_box.setChecked(True)
    assert unsure.check_box.isChecked()  # a model of two channels refuses one
    assert unsure._model is not None

    objects = feature(dock, ObjectsFeature)
    objects.source.setCurrentIndex(objects.source.findData(layer))
    objects.form.setValue(objects.form.value().model_copy(update={"smallest": 0.0}))
    objects.find()
    qtbot.waitUntil(lambda: objects._found is not None, timeout=10_000)
    assert objects._found[1].gray.shape[1] == 2
    tick(dock)
    qtbot.waitUntil(lambda: not unsure.check_box.isChecked(), timeout=5000)
    assert "channel" in unsure.status.text()
    dock.cleanup()


def test_the_channels_of_a_session_come_back(
    make_napari_viewer: Callable[..., Any],
    stack: np.ndarray,
    painted: np.ndarray,
    tmp_path: Path,
    qtbot: Any,
) -> None:
    files = [tmp_path / name for name in ("cells.tif", "actin.tif", "dna.tif")]
    for i, path in enumerate(files):
        tifffile.imwrite(path, stack + i)
    viewer = make_napari_viewer()
    dock = open_dock(viewer)
    for path in files:
        viewer.open(str(path), plugin="napari-unet3d")
    qtbot.waitUntil(lambda: dock.choice.value()[1] is not None, timeout=5000)
    tick(dock, 1)
    layer = dock.choice.value()[1]
    where = np.nonzero(painted)
    layer.data_setitem(where, painted[where])
    keeping = feature(dock, Keeping)
    qtbot.waitUntil(lambda: keeping.keeper() is not None, timeout=10_000)
    keeper = keeping.keeper()
    qtbot.waitUntil(lambda: bool(keeper.folder.state.record.channels), timeout=10_000)
    qtbot.waitUntil(lambda: not keeper.waits(), timeout=10_000)
    dock.cleanup()

    viewer = make_napari_viewer()
    dock = open_dock(viewer)
    viewer.open(str(files[0]), plugin="napari-unet3d")  # the others are not opened by hand
    keeping = feature(dock, Keeping)
    qtbot.waitUntil(lambda: keeping.keeper() is not None, timeout=10_000)
    (channel,) = dock.choice.channels_value()
    assert channel.source.path == str(files[2])
    annotation = next(x for x in viewer.layers if role_of(x) == "annotation")
    np.testing.assert_array_equal(annotation.data, painted)
    dock.cleanup()


def test_layers_of_one_file_know_which_channel_they_are(
    make_napari_viewer: Callable[..., Any], stack: np.ndarray, tmp_path: Path, qtbot: Any
) -> None:
    path = tmp_path / "cells.ome.tif"
    tifffile.imwrite(path, np.stack([stack, stack + 1, stack + 2]), metadata={"axes": "CZYX"})
    viewer = make_napari_viewer()
    dock = open_dock(viewer)
    viewer.open(str(path), plugin="napari-unet3d")
    qtbot.waitUntil(lambda: dock.choice.value()[1] is not None, timeout=5000)
    tick(dock, 0)  # all of them are ticked at first
    layer = dock.choice.value()[1]
    layer.data_setitem((np.array([3]),) * 3, 2)
    keeping = feature(dock, Keeping)
    qtbot.waitUntil(lambda: keeping.keeper() is not None, timeout=10_000)
    keeper = keeping.keeper()
    qtbot.waitUntil(lambda: bool(keeper.folder.state.record.channels), timeout=10_000)
    assert [c.index for c in keeper.folder.state.record.channels] == [2]
    dock.cleanup()


def test_the_prediction_of_another_stack_of_this_shape_is_not_judged(
    make_napari_viewer: Callable[..., Any], stack: np.ndarray, qtbot: Any
) -> None:
    viewer = make_napari_viewer()
    dock = open_dock(viewer)
    for name in ("one", "other"):
        viewer.add_image(stack, name=name)
    qtbot.waitUntil(lambda: dock.choice.value()[1] is not None, timeout=5000)
    image, annotation = dock.choice.value()
    other = viewer.layers["other" if image.name == "one" else "one"]
    write_held_out(annotation, [SliceRef(0, 3)])
    transform = {"scale": image.scale, "units": image.units}
    prediction = prediction_layer(np.zeros(stack.shape, np.uint8), "labels", (), transform)
    bind(prediction, other)
    viewer.add_layer(prediction)
    dock.annotator.rescan()
    panel = feature(dock, Quality).panel
    assert not panel.errors.isEnabled()
    bind(prediction, image)
    dock.annotator.rescan()
    qtbot.waitUntil(panel.errors.isEnabled, timeout=3000)
    dock.cleanup()
