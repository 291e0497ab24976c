"""Take the pictures of README and tutorial: the true window, driven through a whole session.

Run it under Xvfb; it trains for a minute::

    xvfb-run -a -s "-screen 0 1600x1000x24" python docs/images/take.py
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: F401  # before Qt, which Windows needs

HERE = Path(__file__).parent
SIZE = (1400, 900)
DOCK_WIDTH = 340


def main(seconds: float = 60) -> None:
    import napari
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QApplication

    from napari_unet3d.data.samples import tubules
    from napari_unet3d.data.slices import SliceRef

    viewer = napari.Viewer(title="napari-unet3d")
    window = viewer.window._qt_window
    window.resize(*SIZE)
    docked, dock = viewer.window.add_plugin_dock_widget("napari-unet3d", "Annotate & train")
    dock = getattr(dock, "__wrapped__", dock)
    window.resizeDocks([docked], [DOCK_WIDTH], Qt.Orientation.Horizontal)
    app = QApplication.instance()
    assert app is not None

    def wait(seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            app.processEvents()
            time.sleep(0.01)

    def take(name: str) -> None:
        wait(0.5)
        window.grab().save(str(HERE / f"{name}.png"))
        print(name)

    take("1-start")
    viewer.open_sample("napari-unet3d", "tubules")
    wait(1)
    layer = dock.choice.value()[1]
    truth = viewer.layers["kidney tubules truth"].data
    sample = tubules()
    viewer.dims.set_point(0, sample.training_slices[1].index)
    viewer.reset_view()
    wait(0.5)

    # A few scribbles with the real mouse, each along the middle of a structure.
    layer.brush_size = 4
    plane = truth[sample.training_slices[1].index]
    for value in (3, 2, 1):
        dock.annotator.choose_label(value)
        for path in _paths(plane == (0 if value == 1 else value)):
            _stroke(viewer, app, path * 0.5)
    wait(1)
    take("2-scribbles")

    annotation = sample.annotate((*sample.training_slices, *sample.held_out_slices))
    index = np.nonzero(annotation)
    layer.data_setitem(index, annotation[index])
    for ref in sample.held_out_slices:
        dock.annotator.rescan()
        dock.annotator.jump(ref)
        wait(0.2)
        dock.slice_table.hold_out_button.click()
    dock.annotator.jump(sample.training_slices[1])
    take("3-slices")

    dock.annotator.jump(SliceRef(0, 26))
    dock.form.budget.setValue(seconds)
    dock.run_bar.start_button.click()
    wait(30, lambda: dock.runner.phase == "training" and dock.run_bar.stop_button.isVisible())
    wait(0.7 * seconds, lambda: dock.runner.phase != "training")
    take("4-training")
    wait(600, lambda: not dock.runner.is_running())
    take("5-result")
    viewer.layers["kidney tubules annotation"].visible = False
    viewer.layers["kidney tubules"].visible = False
    viewer.dims.ndisplay = 3
    viewer.reset_view()
    viewer.scene.camera.angles = (0, 30, -50)
    viewer.scene.camera.zoom *= 0.8
    prediction = viewer.layers["kidney tubules prediction"]
    prediction.selected_label, prediction.show_selected_label = 3, True  # the lumens
    viewer.layers["kidney tubules prediction"].opacity = 1
    wait(2)
    take("6-in-3d")
    print(dock.run_bar.status.text())
    viewer.close()


def _paths(mask: np.ndarray, most: int = 4) -> list[np.ndarray]:
    """Paths (n, 2) through the middle of the largest parts of a mask."""
    from scipy import ndimage
    from skimage.graph import route_through_array

    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    parts, _ = ndimage.label(depth > 2.5)
    sizes = np.bincount(parts.ravel())[1:]
    paths = []
    for part in np.argsort(-sizes)[:most] + 1:
        inside = np.argwhere(parts == part)
        ends = inside[np.argmin(inside @ (1, 0.4))], inside[np.argmax(inside @ (1, 0.4))]
        costs = np.where(parts == part, 1 / depth.clip(1) ** 2, 1e6)
        route, _ = route_through_array(costs, *ends, fully_connected=True)
        paths.append(np.array(route[:60:2], float))
    return paths


def _stroke(viewer: Any, app: Any, path: np.ndarray) -> None:
    from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
    from qtpy.QtGui import QMouseEvent

    canvas, camera = viewer.window._qt_viewer.canvas.native, viewer.scene.camera
    left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
    events = [(QEvent.Type.MouseMove, none, none), (QEvent.Type.MouseButtonPress, left, left)]
    events += [(QEvent.Type.MouseMove, none, left)] * (len(path) - 1)
    events += [(QEvent.Type.MouseButtonRelease, left, none)]
    for (kind, button, buttons), (y, x) in zip(events, [path[0], *path, path[-1]], strict=True):
        pixel = QPoint(
            round((x - camera.center[-1]) * camera.zoom + canvas.width() / 2),
            round((y - camera.center[-2]) * camera.zoom + canvas.height() / 2),
        )
        place = QPointF(pixel), QPointF(canvas.mapToGlobal(pixel))
        event = QMouseEvent(kind, *place, button, buttons, Qt.KeyboardModifier.NoModifier)
        app.sendEvent(canvas, event)
        app.processEvents()


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
