"""A tiny stack, and hands: real mouse strokes on napari's canvas."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_unet3d.config import ClassInfo, default_class
from napari_unet3d.data.slices import SliceRef

SHAPE = (10, 40, 44)
STRUCTURE = default_class(2, "structure")


@pytest.fixture(autouse=True)
def _delete_closed_widgets(qtbot: Any) -> Iterator[None]:
    """Widgets given to qtbot are closed by now; Qt deletes them only in an event loop."""
    yield
    from qtpy.QtCore import QCoreApplication, QEvent

    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


@pytest.fixture(autouse=True)
def own_data_folder(tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a data folder of its own: the session of another one would be continued."""
    folder = tmp_path_factory.mktemp("data")
    monkeypatch.setenv("XDG_DATA_HOME", str(folder))
    return Path(folder)


@pytest.fixture(autouse=True)
def _quick_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save paint a tenth of a second after it was put, instead of two: many tests wait for it."""
    from napari_unet3d.session.autosave import AutoSaver

    monkeypatch.setitem(AutoSaver.__init__.__kwdefaults__, "interval", 0.1)


@pytest.fixture
def stack() -> np.ndarray:
    """A bright bar in noise."""
    rng = np.random.default_rng(0)
    image = rng.normal(100, 10, SHAPE)
    image[2:8, 10:30, 12:32] += 80
    return image.astype(np.float32)


@pytest.fixture
def painted() -> np.ndarray:
    """Two complete slices of the stack."""
    labels = np.zeros(SHAPE, np.uint8)
    for z in (3, 6):
        labels[z] = 1
        labels[z, 10:30, 12:32] = 2
    return labels


@pytest.fixture
def classes() -> tuple[ClassInfo, ...]:
    return (STRUCTURE,)


class Hands:
    """Works on the true window as a user does."""

    def __init__(self, viewer: Any, qtbot: Any) -> None:
        self.viewer, self.qtbot = viewer, qtbot

    @property
    def canvas(self) -> Any:
        return self.viewer.window._qt_viewer.canvas.native

    def position(self, world: Sequence[float]) -> Any:
        """Pixel on the canvas of a world position (two displayed axes)."""
        from qtpy.QtCore import QPoint

        # napari 0.9 moved the camera into the scene.
        camera = getattr(self.viewer, "scene", self.viewer).camera
        size = self.canvas.size()
        y = (world[0] - camera.center[-2]) * camera.zoom + size.height() / 2
        x = (world[1] - camera.center[-1]) * camera.zoom + size.width() / 2
        return QPoint(round(x), round(y))

    def stroke(self, start: Sequence[float], stop: Sequence[float], steps: int = 8) -> None:
        """Press, drag and release the left button."""
        from qtpy.QtCore import QEvent, QPointF, Qt
        from qtpy.QtGui import QMouseEvent
        from qtpy.QtWidgets import QApplication

        left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
        path = np.linspace(start, stop, steps)
        kinds = [(QEvent.Type.MouseMove, none, none), (QEvent.Type.MouseButtonPress, left, left)]
        kinds += [(QEvent.Type.MouseMove, none, left)] * (steps - 1)
        kinds += [(QEvent.Type.MouseButtonRelease, left, none)]
        points = [path[0], *path, path[-1]]
        for (kind, button, buttons), point in zip(kinds, points, strict=True):
            pixel = self.position(point)
            event = QMouseEvent(
                kind,
                QPointF(pixel),
                QPointF(self.canvas.mapToGlobal(pixel)),
                button,
                buttons,
                Qt.KeyboardModifier.NoModifier,
            )
            QApplication.sendEvent(self.canvas, event)
            QApplication.processEvents()

    def press(self, button: Any) -> None:
        """Click a button of the dock with the mouse."""
        from qtpy.QtCore import Qt

        assert button.isVisible() and button.isEnabled(), button.text()
        self.qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    return make_napari_viewer(show=True)


@pytest.fixture
def dock(viewer: Any, qtbot: Any) -> Iterator[Any]:
    """The dock in a true window, with nothing open; it gets what napari gives to plugins."""
    from napari.utils._proxies import PublicOnlyProxy

    from napari_unet3d.widgets.dock import SegmentationDock

    dock = SegmentationDock(PublicOnlyProxy(viewer))
    viewer.window.add_dock_widget(dock, name="Annotate & train", area="right")
    viewer.window._qt_window.resize(1200, 900)
    dock.form.advanced.editors["iterations"].setValue(4)
    dock.form.advanced.editors["patch_shape"].setValue((8, 24, 24))
    yield dock
    with suppress(RuntimeError):  # the window may be gone, and the dock with it
        dock.cleanup()
    qtbot.waitUntil(lambda: not [t for t in threading.enumerate() if t.name == "unet3d"])
    # pytest keeps the fixtures until the very end: let go of the viewer, which is to be freed.
    vars(dock).clear()


@pytest.fixture
def hands(dock: Any, viewer: Any, qtbot: Any) -> Iterator[Hands]:
    hands = Hands(viewer, qtbot)
    yield hands
    vars(hands).clear()


@pytest.fixture
def ready(dock: Any, stack: np.ndarray, painted: np.ndarray, qtbot: Any) -> Any:
    """The dock with the tiny stack, annotated on two slices."""
    viewer = dock._viewer
    viewer.add_image(stack, name="cells", scale=(2, 0.5, 0.5), units=("um",) * 3)
    qtbot.waitUntil(lambda: dock.choice.value()[1] is not None, timeout=3000)
    qtbot.waitUntil(lambda: not dock.annotator.holding.reason(), timeout=5000)
    layer = dock.choice.value()[1]
    indices = np.nonzero(painted)
    layer.data_setitem(indices, painted[indices])
    dock.annotator.rescan()
    return dock


@pytest.fixture
def annotate_anew(dock: Any, qtbot: Any) -> Callable[[], Any]:
    """Adds an annotation to the chosen image, and waits until it may be painted on."""

    def annotate() -> Any:
        layer = dock.add_annotation()
        qtbot.waitUntil(lambda: not dock.annotator.holding.reason(), timeout=5000)
        return layer

    return annotate


@pytest.fixture
def annotate(qtbot: Any) -> Iterator[Callable[[Any], tuple[Any, Any, Any]]]:
    """Makes an annotator on a viewer model with these labels: viewer, layer, annotator."""
    from napari.components import ViewerModel

    from napari_unet3d.widgets.annotator import Annotator
    from napari_unet3d.widgets.parts.class_table import ClassTable
    from napari_unet3d.widgets.parts.slice_table import SliceTable

    made = []

    def make(data: Any) -> tuple[Any, Any, Annotator]:
        viewer = ViewerModel()
        layer = viewer.add_labels(data)
        layer.brush_size = 3
        tables = ClassTable(), SliceTable()
        for table in tables:
            qtbot.addWidget(table)
        annotator = Annotator(viewer, *tables)
        annotator.set_layer(layer)
        made.append((annotator, tables))
        return viewer, layer, annotator

    yield make
    for annotator, _ in made:
        annotator.cleanup()


@pytest.fixture
def held_out() -> frozenset[SliceRef]:
    return frozenset({SliceRef(0, 6)})
