"""What a designer would check: contrast, focus, keys, room; on the true widgets."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QApplication,
    QCheckBox,
    QComboBox,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QSlider,
    QTableWidget,
    QToolButton,
    QWidget,
)

from napari_unet3d.config import default_class
from napari_unet3d.widgets.parts.colors import (
    EDGE_CONTRAST,
    TEXT_CONTRAST,
    contrast,
    dock_style,
    mix,
    readable,
)
from napari_unet3d.widgets.parts.on_screen import KeepOnScreen
from napari_unet3d.widgets.parts.section import Section
from napari_unet3d.widgets.viewer.theme import theme_colors

THEMES = ("dark", "light")
CONTROLS = (QPushButton, QToolButton, QComboBox, QLineEdit, QAbstractSpinBox, QCheckBox,
            QTableWidget)  # fmt: skip


# ---------------------------------------------------------------- colors without a window


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [("#000000", "#ffffff", 21), ("#777777", "#ffffff", 4.48), ("#ff0000", "#ff0000", 1)],
)
def test_contrast_is_that_of_the_guideline(one: str, other: str, ratio: float) -> None:
    assert contrast(one, other) == pytest.approx(ratio, abs=0.01)
    assert contrast(one, other) == contrast(other, one)


@pytest.mark.parametrize("background", ["#000000", "#444444", "#808080", "#ff0000", "#ffffff"])
def test_any_color_becomes_readable(background: str) -> None:
    for color in ("#000000", "#99121f", "#808080", "#ffffff"):
        assert contrast(readable(color, background), background) >= TEXT_CONTRAST
    assert readable("#ffffff", "#000000") == "#ffffff"  # what can be read stays


def test_mixing() -> None:
    assert mix("#000000", "#ffffff", 0.5) == "#808080"
    assert mix("#102030", "#ffffff", 0) == "#102030"


@pytest.mark.parametrize("theme", THEMES)
def test_the_derived_colors_can_be_read(theme: str) -> None:
    c = theme_colors(theme)
    assert contrast(c.muted, c.background) >= TEXT_CONTRAST
    assert contrast(c.placeholder, c.primary) >= TEXT_CONTRAST
    assert contrast(c.problem, c.background) >= TEXT_CONTRAST
    assert contrast(c.text, c.background) >= EDGE_CONTRAST  # the ring of the focus


# ---------------------------------------------------------------- the true window


def pixels(widget: QWidget) -> np.ndarray:
    """What is drawn, (height, width, 3) uint8."""
    image = widget.grab().toImage().convertToFormat(widget.grab().toImage().Format.Format_RGB888)
    data = image.constBits()
    assert data is not None
    data.setsize(image.sizeInBytes())
    rows = np.frombuffer(data, np.uint8).reshape(image.height(), image.bytesPerLine())
    return rows[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).copy()


def drawn_contrast(widget: QWidget) -> float:
    """Contrast of the text as it is drawn: the most common color, and the one farthest from it."""
    inner = pixels(widget)[3:-3, 3:-3].reshape(-1, 3)
    colors = Counter(map(tuple, inner.tolist()))
    names = {"#{:02x}{:02x}{:02x}".format(*color) for color in colors}
    background = "#{:02x}{:02x}{:02x}".format(*colors.most_common(1)[0][0])
    return max(contrast(name, background) for name in names)


def visible(dock: Any, *kinds: type) -> list[Any]:
    return [
        w
        for kind in kinds
        for w in dock.findChildren(kind)
        if w.isVisible() and w.width() > 12 and w.height() > 8
    ]


def open_all(dock: Any, qtbot: Any) -> None:
    for section in dock.findChildren(Section):
        section.setExpanded(True)
    editor = dock.form.advanced.editors["seed"]
    editor.box.lineEdit().setText("none")
    editor.show_problem()
    dock.class_table.table.clearSelection()
    qtbot.wait(50)


@pytest.mark.needs_window
def test_all_text_can_be_read_in_both_themes_and_after_a_change(ready: Any, qtbot: Any) -> None:
    open_all(ready, qtbot)
    for theme in (*THEMES, "dark"):
        ready._viewer.theme = theme
        for error, actions in ((False, []), (True, [("Add class 7", lambda: None)])):
            ready.run_bar.set_message("Ready to train on 3 slices.", error, actions)
            qtbot.wait(50)
            widgets = visible(ready, QLabel, QPushButton, QComboBox, QCheckBox, QToolButton,
                              QLineEdit)  # fmt: skip
            texts = [w for w in widgets if _says(w)]
            assert len(texts) > 30
            low = {_says(w): round(r, 2) for w in texts if (r := drawn_contrast(w)) < TEXT_CONTRAST}
            assert not low, (theme, low)
        for table in (ready.class_table.table, ready.slice_table.table):
            assert drawn_contrast(table.viewport()) >= TEXT_CONTRAST
    assert ready.styleSheet() == dock_style(theme_colors("dark"))


def _says(widget: Any) -> str:
    text = widget.currentText() if isinstance(widget, QComboBox) else widget.text()
    return str(text or getattr(widget, "placeholderText", str)())


@pytest.mark.needs_window
def test_the_focus_is_seen_on_every_control(ready: Any, qtbot: Any) -> None:
    for theme in THEMES:
        open_all(ready, qtbot)
        ready._viewer.theme = theme
        ready.window().activateWindow()
        ring = theme_colors(theme).text
        reached = [w for w in visible(ready, *CONTROLS) if _takes_focus(w)]
        assert len(reached) > 30
        for widget in reached:
            ready.run_bar.progress.clearFocus()
            QApplication.processEvents()
            widget.setFocus(Qt.FocusReason.TabFocusReason)
            QApplication.processEvents()
            assert widget.hasFocus()
            drawn = pixels(widget)
            edge = np.concatenate([drawn[[0, 1, -2, -1]].reshape(-1, 3),
                                   drawn[:, [0, 1, -2, -1]].reshape(-1, 3)])  # fmt: skip
            most = max(contrast("#{:02x}{:02x}{:02x}".format(*c), theme_colors(theme).background)
                       for c in np.unique(edge, axis=0))  # fmt: skip
            assert most >= EDGE_CONTRAST, (widget, ring)


def _takes_focus(widget: QWidget) -> bool:
    policy = widget.focusPolicy()
    inside = isinstance(widget.parent(), QAbstractSpinBox | QComboBox)
    return widget.isEnabled() and bool(policy & Qt.FocusPolicy.TabFocus) and not inside


@pytest.mark.needs_window
def test_tab_reaches_every_control_from_top_to_bottom(ready: Any, qtbot: Any) -> None:
    open_all(ready, qtbot)
    ready.window().activateWindow()
    ready.run_bar.ask("Go on?", [("Yes", lambda: None), ("No", lambda: None)])
    qtbot.wait(50)
    wanted = [w for w in visible(ready, *CONTROLS) if _takes_focus(w)]
    ready.choice.image.setFocus()
    qtbot.waitUntil(ready.choice.image.hasFocus, timeout=3000)
    order = [ready.choice.image]
    for _ in range(len(wanted) + 20):
        qtbot.keyClick(order[-1], Qt.Key.Key_Tab)
        now = QApplication.focusWidget()
        if now is order[0] or now is None or not ready.isAncestorOf(now):
            break
        order.append(now)
    missing = [w for w in wanted if w not in order]
    assert not missing
    assert order[-1] is ready.run_bar.keep_learning
    column = ready.scroll_area.widget()
    assert order[-4:] == [*ready.run_bar.action_buttons().values(), ready.run_bar.start_button,
                          ready.run_bar.keep_learning]  # fmt: skip
    tops = [w.mapTo(column, w.rect().topLeft()).y() for w in order if column.isAncestorOf(w)]
    assert len(tops) > 30
    assert all(below >= above for above, below in pairwise(tops))


@pytest.mark.needs_window
def test_every_control_has_a_name_for_screen_readers(ready: Any, qtbot: Any) -> None:
    open_all(ready, qtbot)
    ready.run_bar.set_message("Go on?", actions=[("Go there", lambda: None)])
    qtbot.wait(50)
    reached = [w for w in visible(ready, *CONTROLS, QSlider, QProgressBar) if _takes_focus(w)]
    assert len(reached) > 40
    nameless = [w for w in reached if not _name(w)]
    assert not nameless
    names = Counter(map(_name, reached))
    assert not {name: n for name, n in names.items() if n > 1}  # else nobody tells them apart


def _name(widget: Any) -> str:
    """What a screen reader says: the name, or the text of a button."""
    text = widget.text() if isinstance(widget, QAbstractButton) else ""
    return str(widget.accessibleName() or text.replace("&", ""))


@pytest.mark.needs_window
def test_no_alt_key_belongs_to_napari_and_to_us(ready: Any, qtbot: Any) -> None:
    from napari._app_model import get_app_model
    from napari.settings import get_settings

    open_all(ready, qtbot)
    taken = {"Alt+" + QKeySequence.mnemonic(a.text()).toString().removeprefix("Alt+")
             for a in ready.window().menuBar().actions()}  # fmt: skip
    taken |= {str(rule.keybinding) for rule in get_app_model().keybindings}
    for keys in get_settings().shortcuts.shortcuts.values():
        taken |= {str(key) for key in keys}
    assert {"Alt+S", "Alt+C", "Alt+F"} <= taken
    texts = [w.text() for w in (*ready.findChildren(QAbstractButton), *ready.findChildren(QLabel))]
    ours = Counter(key.toString() for key in map(QKeySequence.mnemonic, texts) if not key.isEmpty())
    assert len(ours) > 10
    assert not taken & set(ours)
    assert max(ours.values()) == 1
    assert QKeySequence.mnemonic(ready.run_bar.start_button.text()).toString() in ours


@pytest.mark.needs_window
def test_the_tables_show_all_their_rows(ready: Any, qtbot: Any) -> None:
    for n in (1, 3, 6):
        ready.class_table.setValue(tuple(default_class(v) for v in range(2, 2 + n)))
        qtbot.wait(20)
        table = ready.class_table.table
        last = table.visualItemRect(table.item(n, 0))
        assert last.bottom() <= table.viewport().rect().bottom()
        assert not table.verticalScrollBar().isVisible()


@pytest.mark.needs_window
def test_nothing_is_cut_in_the_narrowest_dock(ready: Any, qtbot: Any) -> None:
    for n_classes in (1, 3, 12):
        classes = tuple(default_class(v) for v in range(2, 2 + n_classes))
        ready.class_table.setValue(classes)
        ready.slice_table.set_slices(ready.slice_table.slices(), classes)
        open_all(ready, qtbot)
        window = ready.window()
        docked = ready.parent()
        while not docked.inherits("QDockWidget"):
            docked = docked.parent()
        window.resizeDocks([docked], [300], Qt.Orientation.Horizontal)
        qtbot.wait(50)
        assert ready.width() < 320
        area = ready.scroll_area
        assert area.widget().width() <= area.viewport().width()
        for widget in visible(ready, *CONTROLS, QLabel):
            right = widget.mapTo(ready, widget.rect().topRight()).x()
            assert right < ready.width(), widget
            if isinstance(widget, QPushButton):
                assert widget.width() >= widget.minimumSizeHint().width(), widget.text()
        table = ready.slice_table.table
        state = table.visualItemRect(table.item(0, 1))
        assert state.width() >= table.fontMetrics().horizontalAdvance("complete")


@pytest.mark.needs_window
def test_the_button_stays_on_the_screen_when_the_window_does_not(ready: Any, qtbot: Any) -> None:
    window = ready.window()
    screen = window.screen().availableGeometry()
    window.resize(900, screen.height() - 50)
    window.move(0, 0)
    qtbot.wait(100)
    start = ready.run_bar.start_button
    bottom = ready.layout().contentsMargins().bottom()
    assert bottom == 0
    window.move(0, 300)
    qtbot.waitUntil(lambda: ready.layout().contentsMargins().bottom() > 0, timeout=3000)
    qtbot.wait(50)
    assert ready.mapToGlobal(ready.rect().bottomLeft()).y() > screen.bottom()
    assert start.mapToGlobal(start.rect().bottomLeft()).y() <= screen.bottom()
    window.move(0, 0)
    qtbot.waitUntil(lambda: ready.layout().contentsMargins().bottom() == 0, timeout=3000)


def test_on_screen_leaves_a_hidden_widget_alone(qtbot: Any) -> None:
    widget = QWidget()
    qtbot.addWidget(widget)
    KeepOnScreen(widget).update()


@pytest.mark.needs_window
def test_a_long_message_scrolls_and_leaves_room(ready: Any, qtbot: Any) -> None:
    ready.run_bar.set_message("word " * 1000, error=True)
    qtbot.wait(50)
    assert ready.run_bar.height() < 400
    assert ready.run_bar.start_button.isVisible()
    ready.run_bar.set_message("Short.")
    qtbot.waitUntil(lambda: ready.run_bar.height() < 140, timeout=3000)
