"""The true window under Xvfb, and hands that work in it: for the pictures and the film."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: F401  # before Qt, which Windows needs
from PIL import Image

HERE = Path(__file__).parent


class Studio:
    """A napari window with the dock.

    Parameters
    ----------
    size
        Width and height of the window in pixels.
    dock_width
        Width of the dock in pixels.
    theme
        "dark" or "light".
    folder
        Where pictures are saved.

    Attributes
    ----------
    clicks, keys, strokes
        What the hands did so far.
    """

    def __init__(
        self,
        size: tuple[int, int] = (1400, 900),
        dock_width: int = 340,
        theme: str = "dark",
        folder: Path = HERE,
    ) -> None:
        import napari
        from qtpy.QtCore import Qt
        from qtpy.QtWidgets import QApplication

        self.viewer: Any = napari.Viewer(title="napari-unet3d")
        self.viewer.theme = theme
        self.window: Any = self.viewer.window._qt_window
        self.window.resize(*size)
        docked, dock = self.viewer.window.add_plugin_dock_widget(
            "napari-unet3d", "Annotate & train"
        )
        self.dock: Any = getattr(dock, "__wrapped__", dock)
        self.window.resizeDocks([docked], [dock_width], Qt.Orientation.Horizontal)
        self.app: Any = QApplication.instance()
        self.clicks = self.keys = self.strokes = 0
        self._folder = folder
        self._frames: list[tuple[Image.Image, float]] = []

    def wait(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let the window work for some seconds, or until something is so; return whether it is."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if until():
                return True
            self.app.processEvents()
            time.sleep(0.01)
        return until()

    def take(self, name: str) -> None:
        """Save a picture of the window."""
        self.wait(0.5)
        self._picture().save(self._folder / f"{name}.png", optimize=True)
        print(name)

    def frame(self, seconds: float) -> None:
        """Add a picture of the window to the film, which shows it so long."""
        self.app.processEvents()
        self._frames.append((self._picture(), seconds))

    def film(self, path: Path, width: int, colors: int) -> None:
        """Write the frames as an animated GIF of this width in pixels and number of colors."""
        frames = []
        for picture, _ in self._frames:
            size = width, round(picture.height * width / picture.width)
            small = picture.resize(size, Image.Resampling.LANCZOS)
            frames.append(small.quantize(colors, dither=Image.Dither.NONE))
        durations = [round(1000 * seconds) for _, seconds in self._frames]
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0)

    def _picture(self) -> Image.Image:
        image = self.window.grab().toImage()
        image = image.convertToFormat(image.Format.Format_RGB888)
        data = image.constBits().asstring(image.sizeInBytes())
        size, stride = (image.width(), image.height()), image.bytesPerLine()
        return Image.frombytes("RGB", size, data, "raw", "RGB", stride)

    def click(self, button: Any) -> None:
        """Click a button with the real mouse, when it is enabled."""
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        if not self.wait(20, button.isEnabled):
            raise RuntimeError(f"'{button.text()}' is disabled: {button.toolTip()}")
        QTest.mouseClick(button, Qt.MouseButton.LeftButton, pos=button.rect().center())
        self.clicks += 1
        self.app.processEvents()

    def key(self, key: str) -> None:
        """Press a key on the canvas, written as Qt does: "C", "Shift+E", "Ctrl+Return"."""
        from qtpy.QtGui import QKeySequence
        from qtpy.QtTest import QTest

        combination = QKeySequence(key)[0]
        self.canvas.setFocus()
        QTest.keyClick(self.canvas, combination.key(), combination.keyboardModifiers())
        self.keys += 1
        self.app.processEvents()

    @property
    def canvas(self) -> Any:
        """The widget in which napari draws."""
        return self.viewer.window._qt_viewer.canvas.native

    def stroke(
        self, path: Sequence[Sequence[float]], each: Callable[[], object] = lambda: None
    ) -> None:
        """Press, drag along world positions (y, x), and release the left button.

        Parameters
        ----------
        path
            World positions of the two displayed axes; a single one is a click.
        each
            Called after each move.
        """
        from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
        from qtpy.QtGui import QMouseEvent

        camera = getattr(self.viewer, "scene", self.viewer).camera
        left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
        events = [(QEvent.Type.MouseMove, none, none), (QEvent.Type.MouseButtonPress, left, left)]
        events += [(QEvent.Type.MouseMove, none, left)] * (len(path) - 1)
        events += [(QEvent.Type.MouseButtonRelease, left, none)]
        places = [path[0], *path, path[-1]]
        for (kind, button, buttons), (y, x) in zip(events, places, strict=True):
            pixel = QPoint(
                round((x - camera.center[-1]) * camera.zoom + self.canvas.width() / 2),
                round((y - camera.center[-2]) * camera.zoom + self.canvas.height() / 2),
            )
            place = QPointF(pixel), QPointF(self.canvas.mapToGlobal(pixel))
            event = QMouseEvent(kind, *place, button, buttons, Qt.KeyboardModifier.NoModifier)
            self.app.sendEvent(self.canvas, event)
            self.app.processEvents()
            each()
        if len(path) > 1:
            self.strokes += 1
        else:
            self.clicks += 1

    def close(self) -> None:
        """Close the window."""
        self.viewer.close()


def feature(dock: Any, name: str) -> Any:
    """Find a feature of the dock by the name of its class."""
    return next(x for x in dock.features if type(x).__name__ == name)


def paths_through(mask: np.ndarray, most: int = 4) -> list[np.ndarray]:
    """Find paths (n, 2) through the middle of the largest parts of a mask."""
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
