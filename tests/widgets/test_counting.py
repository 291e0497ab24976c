"""A large annotation is counted by another thread while it is painted."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import QObject

from napari_unet3d.data.ledger import find_painted_slices
from napari_unet3d.widgets.run.background import Background
from napari_unet3d.widgets.viewer.counting import Counting

SHAPE = (18, 1000, 1000)
"""18 MB: just large enough to be read elsewhere."""


class Seen(np.ndarray):
    """Labels that note which threads read whole planes of them."""

    readers: set[str]

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple) and key[1:] == (slice(0, SHAPE[1]), slice(None)):
            self.readers.add(threading.current_thread().name)
        return np.asarray(super().__getitem__(key))


@pytest.fixture
def counted(qtbot: Any) -> Any:
    parent = QObject()
    background = Background(parent)
    viewer = ViewerModel()
    labels = np.zeros(SHAPE, np.uint8).view(Seen)
    labels.readers = set()
    layer: Any = viewer.add_labels(np.zeros(SHAPE, np.uint8))
    layer.data = labels
    layer.brush_size = 9
    counting = Counting(parent, lambda: None, background.ask)
    counting.set_layer(layer)
    yield layer, counting
    counting.cleanup()
    qtbot.waitUntil(lambda: not background.is_busy(), timeout=20_000)
    background.cleanup()


def rows(counting: Counting, qtbot: Any) -> list[Any]:
    qtbot.waitUntil(lambda: not counting.is_waiting(), timeout=20_000)
    return counting.slices()


def test_planes_are_read_in_another_thread_only(counted: Any, qtbot: Any) -> None:
    layer, counting = counted
    counting.rescan()
    assert counting.share_read() < 1
    layer.paint((3, 500, 500), 2)
    assert [str(row.ref) for row in rows(counting, qtbot)] == ["z=3"]
    assert counting.share_read() == 1
    layer.data[7, 5:9, 5:9] = 4  # by another plugin
    layer.refresh()
    assert [str(row.ref) for row in rows(counting, qtbot)] == ["z=3", "z=7"]
    assert counting.slices() == find_painted_slices(np.asarray(layer.data))
    assert threading.main_thread().name not in layer.data.readers
    assert layer.data.readers


def test_a_stroke_while_it_is_read_is_counted_once(counted: Any, qtbot: Any) -> None:
    layer, counting = counted
    rng = np.random.default_rng(0)
    counting.rescan()
    for nth in range(12):
        with layer.block_history():
            for _ in range(3):
                layer.paint((int(rng.integers(18)), *rng.integers(20, 980, 2)), 1 + nth % 3)
                qtbot.wait(int(rng.integers(0, 12)))
        if nth % 4 == 3:
            layer.undo()
            layer.refresh()  # reads all planes again
    expected = find_painted_slices(np.asarray(layer.data))
    assert rows(counting, qtbot) == sorted(expected, key=lambda row: row.ref)
    assert expected
