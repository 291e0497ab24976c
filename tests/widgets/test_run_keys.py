"""Keys of a run, pressed on the canvas."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.needs_window
WAIT = 60_000


def test_control_enter_trains_and_d_hides_the_newest_prediction(
    ready: Any, hands: Any, qtbot: Any
) -> None:
    from qtpy.QtCore import Qt

    viewer = ready._viewer
    hands.canvas.setFocus()
    qtbot.keyClick(hands.canvas, Qt.Key.Key_D)
    assert ready.run_bar.status.text() == "There is no prediction yet."
    ready.form.advanced.editors["iterations"].setValue(2)
    qtbot.keyClick(hands.canvas, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    qtbot.waitUntil(ready.runner.is_running, timeout=WAIT)
    qtbot.waitUntil(lambda: not ready.runner.is_running(), timeout=WAIT)
    assert not ready.run_bar.is_error(), ready.run_bar.message.text()

    def shown() -> list[str]:
        return sorted(x.name for x in viewer.layers if "prediction" in x.name and x.visible)

    (newest,) = shown()
    qtbot.keyClick(hands.canvas, Qt.Key.Key_D)
    assert shown() == []
    qtbot.keyClick(hands.canvas, Qt.Key.Key_D)
    assert shown() == [newest]
