"""The message at the button, and what can be pressed under it."""

from __future__ import annotations

from typing import Any

import pytest
from qtpy.QtCore import Qt

from napari_unet3d.widgets.parts.footer import Footer


@pytest.fixture
def footer(qtbot: Any) -> Footer:
    footer = Footer()
    qtbot.addWidget(footer)
    footer.resize(300, 300)
    footer.show()
    return footer


def test_a_button_under_the_message_does_what_it_says(footer: Footer, qtbot: Any) -> None:
    done: list[str] = []
    footer.set_message(
        "Label 7 is in no class.",
        error=False,
        actions=[("Add class 7", lambda: done.append("7")), ("Leave", lambda: done.append("no"))],
    )
    buttons = footer.action_buttons()
    assert list(buttons) == ["Add class 7", "Leave"]
    for button in buttons.values():
        assert button.isVisible()
        qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert done == ["7", "no"]


def test_the_next_message_has_its_own_buttons(footer: Footer) -> None:
    footer.set_message("One.", actions=[("A", lambda: None)])
    footer.set_message("Two.")
    assert footer.message.text() == "Two."
    assert not footer.action_buttons()


def test_a_button_may_change_the_message(footer: Footer, qtbot: Any) -> None:
    def next_message() -> None:
        footer.set_message("Next.", actions=[("B", lambda: None)])

    footer.set_message("First.", actions=[("A", next_message)])
    qtbot.mouseClick(footer.action_buttons()["A"], Qt.MouseButton.LeftButton)
    assert footer.message.text() == "Next."
    assert list(footer.action_buttons()) == ["B"]
    qtbot.wait(20)  # the button that was pressed is deleted now


def test_names_are_no_markup_and_no_shortcut(footer: Footer) -> None:
    footer.set_message("<b>R&D</b>", actions=[("Add R&D", lambda: None)])
    assert footer.message.textFormat() == Qt.TextFormat.PlainText
    (button,) = footer.action_buttons().values()
    assert button.text() == "Add R&&D"
    assert list(footer.action_buttons()) == ["Add R&D"]


def test_an_empty_message_takes_no_room(footer: Footer) -> None:
    footer.set_message("Something.", actions=[("A", lambda: None)])
    assert footer.message.isVisible()
    footer.set_message("", actions=[("A", lambda: None)])
    assert not footer.message.isVisible()
    assert not footer.action_buttons()


def test_errors_and_questions_are_kept(footer: Footer) -> None:
    footer.set_message("A hint.")
    assert not footer.is_error()
    assert not footer.is_kept()
    footer.set_message("It failed.", error=True)
    assert footer.is_error()
    assert footer.is_kept()
    footer.ask("Sure?", [("Yes", lambda: None)])
    assert not footer.is_error()
    assert footer.is_kept()
    footer.set_message("")
    assert not footer.is_kept()


def test_the_message_is_as_high_as_its_text(footer: Footer, qtbot: Any) -> None:
    heights = []
    for text in ("Short.", "Some words that need a few lines. " * 5):
        footer.set_message(text)
        qtbot.wait(20)
        heights.append(footer.message.height())
        assert not footer._words.verticalScrollBar().isVisible()  # type: ignore[union-attr]
    assert heights[1] > 2 * heights[0]
