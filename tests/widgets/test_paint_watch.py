"""Which paint of a layer is handed over, and when; without a viewer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.layers import Labels

from napari_unet3d.widgets.viewer import paint_watch
from napari_unet3d.widgets.viewer.paint_watch import PaintWatch


def test_paint_that_has_waited_long_is_put_right_after_the_next_stroke(
    qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy computer, each look of the timer may fall into another stroke."""
    monkeypatch.setattr(paint_watch, "_LONG_WAIT", 0.0)
    monkeypatch.setattr(paint_watch, "_SETTLE_MS", 60_000)
    monkeypatch.setattr(paint_watch, "_PAUSE_MS", 60_000)
    layer = Labels(np.zeros((2, 8, 8), np.uint8))
    put: list[Any] = []
    watch = PaintWatch(layer, (1, 8, 8), {}, lambda *part: put.append(part))
    layer.data_setitem((np.array([1]), np.array([2]), np.array([3])), 2)
    qtbot.waitUntil(lambda: bool(put), timeout=5000)
    ((where, labels),) = put
    assert where == ((1, 2), (0, 8), (0, 8)) and labels[0, 2, 3] == 2
    watch.stop()
