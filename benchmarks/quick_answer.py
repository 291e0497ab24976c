"""How long the quick answer takes, from the end of a stroke to the labels on the screen.

Opens the true window, so run it with a screen or under Xvfb::

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/quick_answer.py
    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/quick_answer.py --threads 1

Strokes are true mouse events on a simulated stack of tubes. Measured is the time from the release
of the button to the first drawing of a new answer, and to the last one, when all that is in view
is answered. `first` is the first stroke that makes an answer possible: gray values are sampled, and
the classifier begins anew. `slice` is a move to another slice. The target for a stroke is 1 s on 2
cores with 512² voxels in view.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import own_folder
import torch  # before Qt, which Windows needs

CASES = ((64, 512, 512), (64, 2048, 2048))
IN_VIEW = 512
"""Voxels along the edges of the part in view."""
STROKES = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=0, help="Of torch; its own choice when 0.")
    parser.add_argument("--whole", action="store_true", help="Show whole slices, not 512² of them.")
    options = parser.parse_args()
    own_folder.use()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"{torch.get_num_threads()} threads; first drawing / all in view, seconds")
    print("| stack | first | stroke, median | stroke, slowest | slice |")
    print("|---|---|---|---|---|")
    for shape in CASES:
        print(_row(shape, options.whole), flush=True)


def _row(shape: tuple[int, int, int], whole: bool) -> str:
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_unet3d.data.slices import SliceRef

    viewer = napari.Viewer()
    viewer.window._qt_window.resize(1300, 1000)
    _, dock = viewer.window.add_plugin_dock_widget("napari-unet3d", "Annotate & train")
    dock = getattr(dock, "__wrapped__", dock)
    app = QApplication.instance()
    assert app is not None
    viewer.add_image(_tubes(shape), name="tubes")
    _spin(app, 5, lambda: dock.choice.value()[1] is not None)
    layer = dock.choice.value()[1]
    z = shape[0] // 2
    viewer.dims.set_point(0, z)
    camera = viewer.scene.camera
    if not whole:
        camera.center = (shape[1] / 2, shape[2] / 2)
        canvas = viewer.window._qt_viewer.canvas.native
        camera.zoom = min(canvas.width(), canvas.height()) / IN_VIEW
    _spin(app, 0.5, lambda: False)
    drawings: list[float] = []
    feature = next(f for f in dock.features if hasattr(f, "check_box") and f.place == "annotate")
    feature.check_box.setChecked(True)

    def drawn(_event: Any = None) -> None:
        drawings.append(time.perf_counter())

    def wait(begin: float) -> tuple[float, float]:
        drawings.clear()
        _spin(app, 20, lambda: bool(drawings))
        rest = time.perf_counter() + 0.4
        while time.perf_counter() < rest:
            before = len(drawings)
            _spin(app, 0.02, lambda: False)
            if len(drawings) > before:
                rest = time.perf_counter() + 0.4
        return drawings[0] - begin, drawings[-1] - begin

    layer.brush_size = 6
    middle = np.array([shape[1] / 2, shape[2] / 2])
    dock.annotator.choose_label(2)
    _stroke(viewer, app, middle + np.array([-40, -60]), middle + np.array([-40, 40]))
    _spin(app, 1, lambda: False)
    dock.annotator.choose_label(1)
    begin = _stroke(viewer, app, middle + np.array([60, -60]), middle + np.array([60, 40]))
    _spin(app, 30, lambda: feature.layer is not None)
    first = time.perf_counter() - begin
    feature.layer.events.set_data.connect(drawn)
    _spin(app, 30 if whole else 3, lambda: False)
    strokes = []
    for number in range(STROKES):
        dock.annotator.choose_label(1 + number % 2)
        start = middle + np.array([number * 25 - 80, -90])
        strokes.append(wait(_stroke(viewer, app, start, start + np.array([10, 60]))))
    begin = time.perf_counter()
    dock.annotator.jump(SliceRef(0, z + 5))
    other = wait(begin)
    viewer.close()
    _spin(app, 0.5, lambda: False)
    by_first = sorted(strokes)
    median, slowest = by_first[len(strokes) // 2], by_first[-1]
    cells = [" × ".join(map(str, shape)), f"{first:.2f}"]
    cells += [f"{a:.2f} / {b:.2f}" for a, b in (median, slowest, other)]
    return f"| {' | '.join(cells)} |"


def _tubes(shape: tuple[int, int, int]) -> np.ndarray:
    """Bright tubes in noise, uint16, made plane by plane."""
    rng = np.random.default_rng(0)
    z, y, x = shape
    coarse = rng.standard_normal((y // 8 + 1, x // 8 + 1))
    pattern = np.kron(coarse, np.ones((8, 8)))[:y, :x]
    image = np.empty(shape, np.uint16)
    for i in range(z):
        plane = 400 * (np.roll(pattern, i, 0) > 0.6) + rng.normal(300, 60, (y, x))
        image[i] = plane.clip(0, 65535)
    return image


def _stroke(viewer: Any, app: Any, start: np.ndarray, stop: np.ndarray) -> float:
    """Press, drag and release the left button; returns when it was released."""
    from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
    from qtpy.QtGui import QMouseEvent

    canvas, camera = viewer.window._qt_viewer.canvas.native, viewer.scene.camera
    left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
    path = np.linspace(start, stop, 8)
    events = [(QEvent.Type.MouseMove, none, none), (QEvent.Type.MouseButtonPress, left, left)]
    events += [(QEvent.Type.MouseMove, none, left)] * (len(path) - 1)
    events += [(QEvent.Type.MouseButtonRelease, left, none)]
    for (kind, button, buttons), (y, x) in zip(events, [path[0], *path, path[-1]], strict=True):
        pixel = QPoint(
            round((x - camera.center[-1]) * camera.zoom + canvas.width() / 2),
            round((y - camera.center[-2]) * camera.zoom + canvas.height() / 2),
        )
        place = QPointF(pixel), QPointF(canvas.mapToGlobal(pixel))
        modifiers = Qt.KeyboardModifier.NoModifier
        released = time.perf_counter()
        app.sendEvent(canvas, QMouseEvent(kind, *place, button, buttons, modifiers))
    return released


def _spin(app: Any, seconds: float, until: Callable[[], bool]) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end and not until():
        app.processEvents()
        time.sleep(0.002)


if __name__ == "__main__":
    main()
