"""How long a 20 ms timer of napari's event loop is late: idle, training, and painting meanwhile.

Opens the true window, so run it with a screen or under Xvfb::

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/responsiveness.py --seconds 30
    ... python benchmarks/responsiveness.py --shape 512 1024 1024

Painting is a stroke of the mouse every half second, on a slice after the other, so that slices
join the training all the time; `keep learning` is a training in rounds. The target is a 95th
percentile below 50 ms on 2 CPU cores, also with a stack of 512 × 1024 × 1024 voxels.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import own_folder
import torch  # noqa: F401  # before Qt, which Windows needs

TIMER_MS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30, help="Time of the training.")
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 160, 160), help="z y x")
    parser.add_argument("--most", type=float, default=600, help="Seconds to watch a segmentation.")
    parser.add_argument("--preset", default="balanced", choices=("fast", "balanced", "paper"))
    options = parser.parse_args()
    own_folder.use()

    import napari
    from qtpy.QtWidgets import QApplication

    from napari_unet3d.config import TrainingConfig
    from napari_unet3d.widgets.launch import launch

    image, labels, classes = _stack(tuple(options.shape))
    viewer = launch(image, labels, classes=classes, block=False)
    assert isinstance(viewer, napari.Viewer)
    (dock,) = (w for w in viewer.window.dock_widgets.values() if hasattr(w, "runner"))
    dock.form.setValue(TrainingConfig(preset=options.preset, seconds=options.seconds))
    dock.annotator.rescan()
    app = QApplication.instance()
    assert app is not None
    _spin(app, 2, lambda: True)  # the window is drawn for the first time

    print(f"{'':14}{'median':>9}{'p95':>9}{'max':>9}   delay of a {TIMER_MS} ms timer, ms")
    _print("idle", _delays(app, 5, lambda: True))
    painter = _Painter(viewer, dock.choice.value()[1])
    dock.runner.eventsArrived.connect(painter.note)
    painter.begin()
    _print("painting", _delays(app, options.seconds, lambda: True))
    painter.end()

    dock.run_bar.start_button.click()
    started = time.monotonic()
    _print("checking", _delays(app, 120, lambda: dock.runner.phase == "checking"))
    trains = options.seconds / 2
    _print("training", _delays(app, trains, lambda: dock.runner.phase == "training"))
    painter.begin()
    _print("+ painting", _delays(app, trains, lambda: dock.runner.phase == "training"))
    painter.end()
    _spin(app, 10 * options.seconds, lambda: dock.runner.phase == "training")
    _print("segmenting", _delays(app, options.most, lambda: dock.runner.phase == "segmenting"))
    print(dock.run_bar.status.text(), f"({time.monotonic() - started:.1f} s in all)")
    if dock.runner.is_running():
        dock.run_bar.cancel_button.click()
        _spin(app, 60, dock.runner.is_running)

    dock.run_bar.keep_learning.setChecked(True)
    _spin(app, 120, lambda: dock.runner.phase != "training")
    painter.begin()
    _print("keep learning", _delays(app, options.seconds, dock.runner.is_running))
    painter.end()
    dock.run_bar.keep_learning.setChecked(False)
    dock.run_bar.cancel_button.click()
    _spin(app, 60, dock.runner.is_running)
    print(f"{painter.strokes} strokes; slices that joined: {painter.joined}")

    dock.run_bar.start_button.click()
    _spin(app, 120, lambda: dock.runner.phase != "training" or not dock.curve.points()[0])
    started = time.monotonic()
    viewer.close()
    _spin(app, 10, lambda: _training_threads() > 0)
    print(f"closing while training took {time.monotonic() - started:.2f} s")


def _stack(shape: tuple[int, int, int]) -> tuple[Any, np.ndarray, Any]:
    """Image, annotation and classes: the built-in tubules, repeated where the stack is large."""
    from napari_unet3d.data.samples import tubules
    from napari_unet3d.data.volume import Volume

    size = tuple(min(n, most) for n, most in zip(shape, (64, 256, 256), strict=True))
    sample = tubules(size)
    painted = sample.annotate(sample.training_slices)
    if size == shape:
        return sample.image, painted, sample.classes
    times = [-(-n // m) for n, m in zip(shape, size, strict=True)]
    small = sample.image.crop(0, (0, 0, 0), size)[0]
    small = np.clip(small / small.max() * 255, 0, 255).astype(np.uint8)
    image = np.ascontiguousarray(np.tile(small, times)[tuple(map(slice, shape))])
    labels = np.zeros(shape, np.uint8)
    labels[tuple(map(slice, size))] = painted
    volume = Volume(image, voxel_size=sample.image.voxel_size, unit=sample.image.unit)
    return volume, labels, sample.classes


class _Painter:
    """Paints strokes with the mouse, an event every 16 ms, each second stroke on another slice."""

    def __init__(self, viewer: Any, layer: Any) -> None:
        from qtpy.QtCore import QTimer

        self._viewer, self._layer = viewer, layer
        self._canvas = viewer.window._qt_viewer.canvas.native
        self._timer = QTimer()
        self._timer.timeout.connect(self._move)
        self._moves: list[tuple[Any, ...]] = []
        self.strokes = self.joined = 0

    def begin(self) -> None:
        """Begin to paint."""
        self._viewer.layers.selection.active = self._layer
        self._layer.mode, self._layer.brush_size = "paint", 8
        self._timer.start(16)

    def end(self) -> None:
        """Finish the stroke, and put the brush away."""
        self._timer.stop()
        while self._moves:
            self._send(*self._moves.pop(0))

    def note(self, events: list[Any]) -> None:
        """Count the slices that joined."""
        self.joined += sum(len(getattr(event, "trained", ())) for event in events)

    def _move(self) -> None:
        if not self._moves:
            self._plan_stroke()
        self._send(*self._moves.pop(0))

    def _plan_stroke(self) -> None:
        """Half a second of mouse events: a stroke, and a pause that only moves the pointer."""
        from qtpy.QtCore import QEvent, QPointF, Qt

        self.strokes += 1
        if self.strokes % 2 == 0:
            depth = self._layer.data.shape[0]
            self._viewer.dims.set_current_step(0, (7 * self.strokes) % depth)
        self._layer.selected_label = 1 + self.strokes % 2
        left, none, kind = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton, QEvent.Type
        size = self._canvas.width(), self._canvas.height()
        x, y = np.random.default_rng(self.strokes).uniform(0.3, 0.7, 2) * size
        path = [QPointF(x + 3 * i, y + 2 * i) for i in range(30)]
        self._moves = [(kind.MouseMove, none, none, p) for p in path[:1]]
        self._moves += [(kind.MouseButtonPress, left, left, p) for p in path[:1]]
        self._moves += [(kind.MouseMove, none, left, p) for p in path[1:14]]
        self._moves += [(kind.MouseButtonRelease, left, none, p) for p in path[13:14]]
        self._moves += [(kind.MouseMove, none, none, p) for p in path[14:]]

    def _send(self, kind: Any, button: Any, buttons: Any, point: Any) -> None:
        from qtpy.QtCore import QPointF, Qt
        from qtpy.QtGui import QMouseEvent
        from qtpy.QtWidgets import QApplication

        place = QPointF(self._canvas.mapToGlobal(point.toPoint()))
        no_key = Qt.KeyboardModifier.NoModifier
        QApplication.sendEvent(
            self._canvas, QMouseEvent(kind, point, place, button, buttons, no_key)
        )


def _delays(app: Any, seconds: float, going_on: Any) -> np.ndarray:
    """Delays of a repeating timer in milliseconds, as long as `going_on` says yes."""
    from qtpy.QtCore import Qt, QTimer

    delays: list[float] = []
    due = time.perf_counter() + TIMER_MS / 1000

    def tick() -> None:
        nonlocal due
        now = time.perf_counter()
        delays.append(max(0.0, 1000 * (now - due)))
        due = now + TIMER_MS / 1000

    timer = QTimer()
    timer.setTimerType(Qt.TimerType.PreciseTimer)
    timer.timeout.connect(tick)
    timer.start(TIMER_MS)
    _spin(app, seconds, going_on)
    timer.stop()
    return np.array(delays or [np.nan])


def _spin(app: Any, seconds: float, going_on: Any) -> None:
    """Run the true event loop until the time is up or `going_on` says no."""
    from qtpy.QtCore import QEventLoop, QTimer

    loop, watch = QEventLoop(), QTimer()
    stop_at = time.monotonic() + seconds
    watch.timeout.connect(
        lambda: None if going_on() and time.monotonic() < stop_at else loop.quit()
    )
    watch.start(50)
    loop.exec()
    watch.stop()


def _training_threads() -> int:
    import threading

    return sum(thread.name == "unet3d" for thread in threading.enumerate())


def _print(what: str, delays: np.ndarray) -> None:
    median, high = np.percentile(delays, (50, 95))
    print(
        f"{what:14}{median:9.1f}{high:9.1f}{delays.max():9.1f}   ({len(delays)} ticks)", flush=True
    )


if __name__ == "__main__":
    main()
