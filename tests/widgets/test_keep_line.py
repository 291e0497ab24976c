"""The line that says whether the work is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from napari_unet3d.widgets.parts.ages import age_text, moment_text
from napari_unet3d.widgets.parts.keep_line import KeepLine, KeepState, RecentEntry


@pytest.fixture
def line(qtbot: Any) -> KeepLine:
    line = KeepLine()
    qtbot.addWidget(line)
    return line


def test_a_name_that_does_not_fit_is_shortened_and_the_time_is_not(
    line: KeepLine, qtbot: Any
) -> None:
    state = KeepState("Saved 5 s ago", "a very long name of an image.tif.unet3d-session", "/path")
    line.setValue(state)
    line.resize(900, 30)
    line.show()
    qtbot.waitUntil(lambda: line.label.text() == f"Saved 5 s ago · {state.place}")
    line.resize(250, 30)
    qtbot.waitUntil(lambda: "…" in line.label.text())
    assert line.label.text().startswith("Saved 5 s ago · a")
    assert line.label.toolTip() == "/path"
    assert line.value() == state
    assert line.minimumSizeHint().width() < 150  # never widens the dock


def test_a_problem_has_the_color_of_problems(line: KeepLine) -> None:
    line.setValue(KeepState("Not saved", "cells", "The disk is full.", problem=True))
    assert line.label.objectName() == "problem"
    line.setValue(KeepState("Saved just now", "cells"))
    assert line.label.objectName() == ""


def test_recent_sessions_are_offered(line: KeepLine, qtbot: Any) -> None:
    assert [a.isEnabled() for a in line.recent_menu.actions()] == [False]
    line.set_recent([RecentEntry(Path("/a"), "nuclei & more"), RecentEntry(Path("/b"), "cells")])
    first, second = line.recent_menu.actions()
    assert first.text() == "nuclei && more"
    with qtbot.waitSignal(line.openRequested) as signal:
        second.trigger()
    assert signal.args == [Path("/b")]


def test_what_needs_a_folder_is_off_without_one(line: KeepLine) -> None:
    line.set_available(image=True, folder=False)
    actions = line.keep_in_action, line.show_action, line.anew_action
    assert [a.isEnabled() for a in actions] == [True, False, False]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "just now"), (5.2, "5 s ago"), (61, "1 min ago"), (7300, "2 h ago")],
)
def test_ages(seconds: float, text: str) -> None:
    assert age_text(seconds) == text


def test_moments() -> None:
    import time

    now = time.mktime((2025, 11, 26, 14, 32, 5, 0, 0, -1))
    assert moment_text(now, now) == "14:32"
    assert moment_text(now, now, seconds=True) == "14:32:05"
    assert moment_text(now - 86_400, now) == "25 Nov 14:32"
    assert moment_text(now - 366 * 86_400, now).endswith("2024 14:32")
