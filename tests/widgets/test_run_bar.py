"""The message at the button, and what can be pressed under it."""

from __future__ import annotations

from typing import Any

import pytest
from qtpy.QtCore import Qt, QTimer

from napari_unet3d.widgets.parts.run_bar import RunBar


@pytest.fixture
def run_bar(qtbot: Any) -> RunBar:
    run_bar = RunBar()
    qtbot.addWidget(run_bar)
    run_bar.resize(300, 300)
    run_bar.show()
    return run_bar


def test_a_button_under_the_message_does_what_it_says(run_bar: RunBar, qtbot: Any) -> None:
    done: list[str] = []
    run_bar.set_message(
        "Label 7 is in no class.",
        error=False,
        actions=[("Add class 7", lambda: done.append("7")), ("Leave", lambda: done.append("no"))],
    )
    buttons = run_bar.action_buttons()
    assert list(buttons) == ["Add class 7", "Leave"]
    for button in buttons.values():
        assert button.isVisible()
        qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert done == ["7", "no"]


def test_the_next_message_has_its_own_buttons(run_bar: RunBar) -> None:
    run_bar.set_message("One.", actions=[("A", lambda: None)])
    run_bar.set_message("Two.")
    assert run_bar.message.text() == "Two."
    assert not run_bar.action_buttons()


def test_a_remark_outlives_messages_and_passes(run_bar: RunBar) -> None:
    run_bar.tell("z=5 is complete.")
    run_bar.set_message("Ready to train on 1 slice.")
    run_bar.set_status("")
    assert run_bar.remark.isVisible()
    assert run_bar.remark.text() == "z=5 is complete."
    for timer in run_bar.findChildren(QTimer):
        if timer.isActive():
            timer.timeout.emit()
    assert not run_bar.remark.isVisible()


def test_a_button_may_change_the_message(run_bar: RunBar, qtbot: Any) -> None:
    def next_message() -> None:
        run_bar.set_message("Next.", actions=[("B", lambda: None)])

    run_bar.set_message("First.", actions=[("A", next_message)])
    qtbot.mouseClick(run_bar.action_buttons()["A"], Qt.MouseButton.LeftButton)
    assert run_bar.message.text() == "Next."
    assert list(run_bar.action_buttons()) == ["B"]
    qtbot.wait(20)  # the button that was pressed is deleted now


def test_names_are_no_markup_and_no_shortcut(run_bar: RunBar) -> None:
    run_bar.set_message("<b>R&D</b>", actions=[("Add R&D", lambda: None)])
    assert run_bar.message.textFormat() == Qt.TextFormat.PlainText
    (button,) = run_bar.action_buttons().values()
    assert button.text() == "Add R&&D"
    assert list(run_bar.action_buttons()) == ["Add R&D"]


def test_an_empty_message_takes_no_room(run_bar: RunBar) -> None:
    run_bar.set_message("Something.", actions=[("A", lambda: None)])
    assert run_bar.message.isVisible()
    run_bar.set_message("", actions=[("A", lambda: None)])
    assert not run_bar.message.isVisible()
    assert not run_bar.action_buttons()


def test_errors_and_questions_are_kept(run_bar: RunBar) -> None:
    run_bar.set_message("A hint.")
    assert not run_bar.is_error()
    assert not run_bar.is_kept()
    run_bar.set_message("It failed.", error=True)
    assert run_bar.is_error()
    assert run_bar.is_kept()
    run_bar.ask("Sure?", [("Yes", lambda: None)])
    assert not run_bar.is_error()
    assert run_bar.is_kept()
    run_bar.set_message("")
    assert not run_bar.is_kept()


def test_the_message_is_as_high_as_its_text(run_bar: RunBar, qtbot: Any) -> None:
    heights = []
    for text in ("Short.", "Some words that need a few lines. " * 5):
        run_bar.set_message(text)
        qtbot.wait(20)
        heights.append(run_bar.message.height())
        assert not run_bar._words.verticalScrollBar().isVisible()  # type: ignore[union-attr]
    assert heights[1] > 2 * heights[0]


def test_the_expectation_is_shown_until_a_run_says_more(qtbot: Any) -> None:
    bar = RunBar()
    qtbot.addWidget(bar)
    bar.show()
    bar.set_expectation("1 min training, then the whole stack.", "Nothing is known yet.")
    assert bar.expectation.isVisible() and bar.expectation.toolTip() == "Nothing is known yet."
    bar.show_running(can_stop=True)
    bar.set_status("45 s · 3 min left")
    assert not bar.expectation.isVisible()
    bar.set_status("Done in 2 min", stays=True)
    bar.show_ready()
    assert not bar.expectation.isVisible() and bar.status.text() == "Done in 2 min"
    assert not bar._passing.isActive()  # it stays until the user goes on
    bar.set_status("")
    assert bar.expectation.isVisible() and not bar.status.isVisible()
