"""Class table and slice ledger, without a viewer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_unet3d.config import ClassInfo, default_class
from napari_unet3d.data.painted_slices import PaintedSlice
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.events import ClassScore, HeldOutScores
from napari_unet3d.widgets.parts.class_table import ClassTable
from napari_unet3d.widgets.parts.colors import BACKGROUND_COLOR
from napari_unet3d.widgets.parts.results import Results
from napari_unet3d.widgets.parts.slice_table import SliceTable

CLASSES = (default_class(2, "cell"), default_class(3, "wall"))
SLICES = [
    PaintedSlice(SliceRef(0, 4), {1: 50, 2: 50}, "complete", 100),
    PaintedSlice(SliceRef(1, 7), {2: 12_345}, "partial", 40_000),
]


@pytest.fixture
def class_table(qtbot: Any) -> ClassTable:
    table = ClassTable()
    qtbot.addWidget(table)
    table.setValue(CLASSES)
    return table


@pytest.fixture
def slice_table(qtbot: Any) -> SliceTable:
    table = SliceTable()
    qtbot.addWidget(table)
    table.show()
    return table


def test_background_is_always_the_first_row(class_table: ClassTable) -> None:
    assert class_table.value() == CLASSES
    assert class_table.table.item(0, 0).text() == "background"
    assert not class_table.table.item(0, 0).flags() & Qt.ItemFlag.ItemIsEditable
    class_table.select_label(1)
    assert not class_table.remove_button.isEnabled()


def test_adding_takes_the_lowest_free_label(class_table: ClassTable, qtbot: Any) -> None:
    class_table.setValue((default_class(2), default_class(4)))
    with qtbot.waitSignal(class_table.valueChanged) as signal:
        class_table.add_button.click()
    assert [c.value for c in signal.args[0]] == [2, 3, 4]
    assert class_table.selected_label() == 3


def test_renaming_in_place(class_table: ClassTable, qtbot: Any) -> None:
    with qtbot.waitSignal(class_table.valueChanged):
        class_table.table.item(1, 0).setText("  nucleus ")
    assert class_table.value()[0].name == "nucleus"


def test_an_empty_name_is_refused(class_table: ClassTable, qtbot: Any) -> None:
    with qtbot.assertNotEmitted(class_table.valueChanged):
        class_table.table.item(1, 0).setText("  ")
    assert class_table.table.item(1, 0).text() == "cell"


def test_removing_and_coloring(class_table: ClassTable) -> None:
    class_table.set_color(3, "#123456")
    assert class_table.value()[1] == ClassInfo(value=3, name="wall", color="#123456")
    class_table.select_label(2)
    class_table.remove_button.click()
    assert [c.value for c in class_table.value()] == [3]
    class_table.select_label(3)
    assert not class_table.remove_button.isEnabled()  # the last class stays


def test_a_click_chooses_the_label(class_table: ClassTable, qtbot: Any) -> None:
    class_table.show()
    item = class_table.table.visualItemRect(class_table.table.item(2, 0))
    with qtbot.waitSignal(class_table.labelChosen) as signal:
        qtbot.mouseClick(class_table.table.viewport(), Qt.MouseButton.LeftButton, pos=item.center())
    assert signal.args == [3]


def test_setting_a_value_emits_nothing(class_table: ClassTable, qtbot: Any) -> None:
    with qtbot.assertNotEmitted(class_table.valueChanged):
        class_table.setValue(CLASSES[:1])


def test_an_empty_ledger_says_what_to_do(slice_table: SliceTable) -> None:
    assert slice_table.hint.isVisible()
    assert not slice_table.table.isVisible()
    assert not slice_table.complete_button.isEnabled()


def test_the_ledger_shows_state_and_counts(slice_table: SliceTable) -> None:
    slice_table.set_slices(SLICES, CLASSES)
    texts = [
        [slice_table.table.item(row, column).text().strip() for column in range(5)]
        for row in range(2)
    ]
    assert texts == [["z=4", "complete", "50", "50", "—"], ["y=7", "partial", "—", "12 k", "—"]]
    assert "xz" in slice_table.table.item(1, 0).toolTip()


def test_many_classes_are_squares_in_a_narrow_dock(slice_table: SliceTable, qtbot: Any) -> None:
    classes = tuple(default_class(v) for v in range(2, 14))
    slice_table.resize(290, 300)
    slice_table.set_slices(SLICES, classes)
    titles = [slice_table.table.horizontalHeaderItem(c).text() for c in range(3)]
    assert titles == ["Slice", "State", "Painted"]
    texts = [slice_table.table.item(1, column).text() for column in range(3)]
    assert texts == ["y=7", "partial", "12 k"]
    assert "class 2 12,345 voxels" in slice_table.table.item(1, 0).toolTip()
    icon = slice_table.table.item(0, 2).icon()
    image = icon.pixmap(icon.availableSizes()[0]).toImage()
    colors = {image.pixelColor(x, 5).name() for x in range(image.width())}
    assert BACKGROUND_COLOR in colors
    assert classes[0].color in colors
    assert classes[1].color not in colors
    slice_table.resize(1200, 300)
    qtbot.waitUntil(lambda: slice_table.table.columnCount() == 15, timeout=3000)


def test_colors_do_not_repeat(class_table: ClassTable) -> None:
    class_table.setValue((default_class(3).model_copy(update={"color": default_class(2).color}),))
    for _ in range(19):
        class_table.add()
    assert len({c.color for c in class_table.value()}) == 20


def test_a_removed_class_comes_back_as_it_was(class_table: ClassTable) -> None:
    class_table.set_color(3, "#123456")
    wall = class_table.value()[1]
    class_table.select_label(3)
    class_table.remove_button.click()
    class_table.add(3)
    assert class_table.value()[1] == wall
    class_table.add(3)  # it is there
    class_table.add_all((7, 3, 9))
    assert [c.value for c in class_table.value()] == [2, 3, 7, 9]


def test_the_buttons_act_on_the_shown_slice(slice_table: SliceTable, qtbot: Any) -> None:
    slice_table.set_slices(SLICES, CLASSES)
    slice_table.set_shown(SliceRef(0, 4))
    assert not slice_table.complete_button.isEnabled()
    slice_table.set_shown(SliceRef(1, 7))
    assert "y=7" in slice_table.complete_button.text()
    with qtbot.waitSignal(slice_table.completeRequested) as signal:
        slice_table.complete_button.click()
    assert signal.args == [SliceRef(1, 7)]
    slice_table.set_shown(SliceRef(0, 5))
    assert not slice_table.complete_button.isEnabled()
    assert not slice_table.hold_out_button.isEnabled()
    slice_table.set_shown(None)
    assert "2D" in slice_table.complete_button.toolTip()


def test_holding_out_and_back(slice_table: SliceTable, qtbot: Any) -> None:
    slice_table.set_slices(SLICES, CLASSES)
    slice_table.set_shown(SliceRef(0, 4))
    with qtbot.waitSignal(slice_table.valueChanged) as signal:
        slice_table.hold_out_button.click()
    assert signal.args == [frozenset({SliceRef(0, 4)})]
    assert slice_table.table.item(0, 1).text() == "held out"
    slice_table.hold_out_button.click()
    assert slice_table.value() == frozenset()
    assert slice_table.table.item(0, 1).text() == "complete"


def test_a_click_on_a_row_jumps(slice_table: SliceTable, qtbot: Any) -> None:
    slice_table.set_slices(SLICES, CLASSES)
    item = slice_table.table.visualItemRect(slice_table.table.item(1, 0))
    with qtbot.waitSignal(slice_table.jumpRequested) as signal:
        qtbot.mouseClick(slice_table.table.viewport(), Qt.MouseButton.LeftButton, pos=item.center())
    assert signal.args == [SliceRef(1, 7)]


def test_arrow_keys_jump(slice_table: SliceTable, qtbot: Any) -> None:
    slice_table.set_slices(SLICES, CLASSES)
    slice_table.set_shown(SliceRef(0, 4))
    slice_table.activateWindow()
    slice_table.table.setFocus()
    qtbot.waitUntil(slice_table.table.hasFocus)
    with qtbot.waitSignal(slice_table.jumpRequested) as signal:
        qtbot.keyClick(slice_table.table, Qt.Key.Key_Down)
    assert signal.args == [SliceRef(1, 7)]


@pytest.fixture
def results(qtbot: Any) -> Results:
    results = Results()
    qtbot.addWidget(results)
    return results


def test_an_absent_class_is_a_dash(results: Results) -> None:
    scores = (ClassScore(2, 0.8, 0.9, 100), ClassScore(3, None, None, 0))
    results.set_scores(HeldOutScores(9, 1.0, scores, ("z=4", "z=9"), 5, final=True), CLASSES)
    rows = [[results.table.item(r, c).text().strip() for c in range(3)] for r in range(3)]
    assert rows == [["cell", "0.80", "0.90"], ["wall", "—", "—"], ["mean", "0.80", "0.90"]]
    assert "5 slices away" in results.text.text()
    assert "same stack" in results.text.text()


def test_without_held_out_slices_nothing_is_claimed(results: Results) -> None:
    results.set_scores(None, CLASSES)
    assert "Not measured" in results.text.text()
    assert results.table.isHidden()


def test_rows_that_come_change_and_go_are_drawn(slice_table: SliceTable, qtbot: Any) -> None:
    """Whatever it showed before, the table is as if it had been filled at once."""
    rng = np.random.default_rng(0)
    states = ("partial", "complete")

    def some() -> list[PaintedSlice]:
        places = [(int(rng.integers(3)), int(rng.integers(9)), int(rng.integers(2)))]
        share = rng.choice([0.05, 0.2, 0.6])
        places += [place for place in np.ndindex(3, 9, 2) if rng.random() < share]
        return [
            PaintedSlice(SliceRef(*p), {2: int(rng.integers(1, 4))}, states[rng.integers(2)], 10)
            for p in set(places)
        ]

    fresh = SliceTable()
    fresh.resize(slice_table.size())
    qtbot.addWidget(fresh)
    seen = set()
    for _ in range(12):
        rows = some()
        held_out = frozenset(row.ref for row in rows if rng.random() < 0.2)
        seen.add(len(rows))
        fresh.set_slices([], CLASSES[:1])
        for table in (slice_table, fresh):
            table.setValue(held_out)
            table.set_slices(rows, CLASSES)
        assert _texts(slice_table) == _texts(fresh)
        assert [text[0] for text in _texts(slice_table)] == [
            str(row.ref) for row in sorted(rows, key=lambda row: row.ref)
        ]
        assert slice_table.table.height() == fresh.table.height()
        heights = {slice_table.table.rowHeight(row) for row in range(len(rows))}
        assert heights == {fresh.table.rowHeight(0)}
    assert min(seen) < 8 < max(seen)
    slice_table.set_slices([], CLASSES)
    assert slice_table.table.rowCount() == 0


def test_unchanged_rows_are_not_drawn_again(slice_table: SliceTable) -> None:
    rows = [PaintedSlice(SliceRef(0, z), {1: z}, "partial", 100) for z in range(1, 30)]
    slice_table.set_slices(rows, CLASSES)
    items = {row.ref: slice_table.table.item(i, 0) for i, row in enumerate(rows)}
    rows[7] = PaintedSlice(SliceRef(0, 8), {1: 99}, "partial", 100)
    slice_table.set_slices([*rows[:20], *rows[21:]], CLASSES)
    kept = [slice_table.table.item(i, 0) for i in range(slice_table.table.rowCount())]
    assert [kept[i] is items[rows[i].ref] for i in (0, 6, 7, 8, 19)] == [
        True,
        True,
        False,
        True,
        True,
    ]
    assert kept[20] is items[rows[21].ref]
    assert slice_table.table.item(7, 2).text().strip() == "99"


def test_while_it_is_counted_the_ledger_says_so(slice_table: SliceTable) -> None:
    slice_table.set_share_read(0.42)
    assert "42%" in slice_table.hint.text()
    slice_table.set_share_read(1)
    assert "Painted slices are listed here" in slice_table.hint.text()


def _texts(table: SliceTable) -> list[list[str]]:
    inner = table.table
    rows = range(inner.rowCount())
    return [[inner.item(row, c).text() for c in range(inner.columnCount())] for row in rows]
