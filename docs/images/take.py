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

    from napari_unet3d.data.annotation import SliceRef
    from napari_unet3d.data.samples import tubules

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

    # A few scribbles with the real mouse, each along voxels of one class.
    for value in (3, 2, 1, 3, 2, 1):
        dock.annotator.choose_label(value)
        for y, x0, x1 in _runs(truth[sample.training_slices[1].index], value)[:4]:
            _stroke(viewer, app, (y / 2, x0 / 2), (y / 2, x1 / 2))
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
    dock.footer.start_button.click()
    wait(300, lambda: dock.runner.phase == "training" and len(dock.curve.points()[1]) > 3)
    wait(seconds / 3)
    take("4-training")
    wait(600, lambda: not dock.runner.is_running())
    take("5-result")
    viewer.layers["kidney tubules annotation"].visible = False
    viewer.layers["kidney tubules"].visible = False
    viewer.dims.ndisplay = 3
    viewer.scene.camera.angles = (10, -25, 130)
    viewer.layers["kidney tubules prediction"].opacity = 1
    wait(2)
    take("6-in-3d")
    print(dock.footer.status.text())
    viewer.close()


def _runs(plane: np.ndarray, value: int) -> list[tuple[int, int, int]]:
    """Rows with the longest stretches of a value: (y, first x, last x), spread over the plane."""
    found = []
    for y in range(6, plane.shape[0] - 6, 3):
        edges = np.flatnonzero(np.diff(np.r_[0, plane[y] == (0 if value == 1 else value), 0]))
        for first, last in edges.reshape(-1, 2):
            found.append((int(last - first), y, int(first) + 2, int(last) - 3))
    rng = np.random.default_rng(value)
    longest = sorted(found, reverse=True)[:12]
    return [longest[i][1:] for i in rng.permutation(len(longest))]


def _stroke(viewer: Any, app: Any, start: tuple[float, float], stop: tuple[float, float]) -> None:
    from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
    from qtpy.QtGui import QMouseEvent

    canvas, camera = viewer.window._qt_viewer.canvas.native, viewer.scene.camera
    left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
    path = list(np.linspace(start, stop, 6))
    events = [(QEvent.Type.MouseMove, none, none), (QEvent.Type.MouseButtonPress, left, left)]
    events += [(QEvent.Type.MouseMove, none, left)] * 5
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
