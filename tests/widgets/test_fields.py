"""Every editor of a setting yields the value that was typed with real keys."""

from __future__ import annotations

from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication, QVBoxLayout, QWidget

from napari_unet3d.config import AugmentationConfig, PredictionConfig, TrainingConfig
from napari_unet3d.errors import BadInputError
from napari_unet3d.widgets.parts.duration import DurationBox, read_duration, write_duration
from napari_unet3d.widgets.parts.fields import (
    BoolEditor,
    ChoiceEditor,
    FieldEditor,
    ModelEditor,
    NumberEditor,
    RangeEditor,
    ShapeEditor,
    TextEditor,
    make_editor,
)
from napari_unet3d.widgets.parts.training_form import TrainingForm
from napari_unet3d.widgets.parts.typed_box import Bounds, NumberBox, read_number, steady

MODELS = (TrainingConfig, AugmentationConfig, PredictionConfig)
FIELDS = {
    f"{model.__name__}.{name}": field
    for model in MODELS
    for name, field in model.model_fields.items()
    if not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel))
}
NUMBERS = ("0", "1", "0.0001", "1e-4", "4E-6", "0,0003", "0.9995", "0.12345678901234567", "7",
           "1e-300", "3", "64", "65", "12", "179.99", "2147483647", "2147483648", "-1", "1e2",
           "0.8999999999", ".5", "5.", "+2", " 8 ")  # fmt: skip
SHAPES = ("16,64,64", "16, 64, 64", "16×64×64", "16x64x64", "16 64 64", "(8, 24, 24)")
NO_VALUES = ("abc", "1e", "--1", "1.2.3", "nan", "inf", "1e999", "ten", "0x10", "5 %", "1_000")


def kinds(field: FieldInfo) -> set[Any]:
    return {get_origin(part) or part for part in (field.annotation, *get_args(field.annotation))}


def is_number(field: FieldInfo) -> bool:
    return bool({int, float} & kinds(field)) and tuple not in kinds(field)


def accepted(field: FieldInfo, value: Any) -> bool:
    """Whether the setting itself takes a value."""
    model = next(m for m in MODELS if field in m.model_fields.values())
    name = next(n for n, f in model.model_fields.items() if f is field)
    more = {"iterations": 1} if model is TrainingConfig and name != "iterations" else {}
    try:
        return bool(getattr(model(**{name: value, **more}), name) == value)
    except ValidationError:
        return False


@pytest.fixture
def editor_of(qtbot: Any) -> Any:
    def make(field: FieldInfo) -> FieldEditor:
        editor = make_editor(field)
        qtbot.addWidget(editor)
        editor.setValue(field.get_default(call_default_factory=True))
        editor.show()
        return editor

    return make


def type_in(qtbot: Any, editor: FieldEditor, text: str) -> None:
    """Select all that is there and type `text`, key by key, then Enter."""
    target = editor.focusProxy()
    assert target is not None
    qtbot.keyClick(target, Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier)
    qtbot.keyClick(target, Qt.Key.Key_Delete)
    for letter in text:
        if letter == "×":  # on no keyboard: it is pasted
            QApplication.clipboard().setText(letter)  # type: ignore[union-attr]
            qtbot.keyClick(target, Qt.Key.Key_V, Qt.KeyboardModifier.ControlModifier)
        else:
            qtbot.keyClicks(target, letter)
    qtbot.keyClick(target, Qt.Key.Key_Return)


def typed_text(editor: Any) -> str:
    return str(editor.box.text() if hasattr(editor, "box") else editor.line.text())


@pytest.mark.parametrize("name", [n for n, f in FIELDS.items() if is_number(f)])
def test_a_typed_number_is_used_as_it_is_or_refused_in_words(
    name: str, editor_of: Any, qtbot: Any
) -> None:
    field = FIELDS[name]
    editor = editor_of(field)
    assert isinstance(editor, NumberEditor)
    whole = int in kinds(field)
    used = 0
    for text in NUMBERS:
        type_in(qtbot, editor, text)
        assert typed_text(editor) == text  # nothing is rounded or written over
        number = float(text.replace(",", "."))
        wanted = int(number) if whole and number.is_integer() else number
        fits = not (whole and not number.is_integer()) and accepted(field, wanted)
        if fits:
            assert editor.value() == wanted
            assert isinstance(editor.value(), int if whole else float)
            assert editor.problem.isHidden()
            used += 1
        else:
            with pytest.raises(BadInputError, match="Write a"):
                editor.value()
            assert editor.problem.isVisible()
            assert "Write a" in editor.problem.text()
    assert used > 1


@pytest.mark.parametrize("name", [n for n, f in FIELDS.items() if is_number(f)])
@pytest.mark.parametrize("text", NO_VALUES)
def test_what_is_no_number_stays_and_is_named(
    name: str, text: str, editor_of: Any, qtbot: Any
) -> None:
    editor = editor_of(FIELDS[name])
    type_in(qtbot, editor, text)
    assert typed_text(editor) == text
    assert text[:4] in editor.problem.text()
    with pytest.raises(BadInputError):
        editor.value()
    type_in(qtbot, editor, "1")  # the complaint ends with its cause
    assert accepted(FIELDS[name], 1) == editor.problem.isHidden()


@pytest.mark.parametrize("name", [n for n, f in FIELDS.items() if is_number(f)])
def test_an_emptied_field_is_automatic_or_refused(name: str, editor_of: Any, qtbot: Any) -> None:
    field = FIELDS[name]
    editor = editor_of(field)
    type_in(qtbot, editor, "")
    if type(None) in kinds(field):
        assert editor.value() is None
        type_in(qtbot, editor, "automatic")
        assert editor.value() is None
    else:
        with pytest.raises(BadInputError, match="Nothing is typed"):
            editor.value()
        assert editor.problem.isVisible()


def is_range(field: FieldInfo) -> bool:
    return get_args(field.annotation) == (float, float)


@pytest.mark.parametrize(
    "name", [n for n, f in FIELDS.items() if tuple in kinds(f) and not is_range(f)]
)
def test_shapes_as_people_type_them(name: str, editor_of: Any, qtbot: Any) -> None:
    editor = editor_of(FIELDS[name])
    assert isinstance(editor, ShapeEditor)
    for text in SHAPES:
        type_in(qtbot, editor, text)
        assert typed_text(editor) == text
        assert editor.value() == tuple(int(p) for p in "".join(
            c if c.isdigit() else " " for c in text).split())  # fmt: skip
    for text in ("16", "16,64", "1,2,3,4", "8, many, 8", "0,8,8", "-8,8,8", "8.5,8,8"):
        type_in(qtbot, editor, text)
        assert typed_text(editor) == text
        with pytest.raises(BadInputError, match="three whole numbers"):
            editor.value()


@pytest.mark.parametrize("name", [n for n, f in FIELDS.items() if is_range(f)])
def test_ranges_as_people_type_them(name: str, editor_of: Any, qtbot: Any) -> None:
    field = FIELDS[name]
    editor = editor_of(field)
    assert isinstance(editor, RangeEditor)
    assert editor.value() == field.default
    for text in ("0.5, 99.95", "0.5,99.95", "0.5 99.95", "(0.5; 99.95)", "0,5 99,95", "0,5; 99,95"):
        type_in(qtbot, editor, text)
        assert typed_text(editor) == text
        assert editor.value() == (0.5, 99.95)
    for text in ("", "5", "1 2 3", "low, high", "9, 9", "99, 1"):
        type_in(qtbot, editor, text)
        assert typed_text(editor) == text
        with pytest.raises(BadInputError, match=r"range|not a number"):
            editor.value()
        assert editor.problem.isVisible()


@pytest.mark.parametrize("name", [n for n in FIELDS if n.endswith(".device")])
def test_devices_follow_their_pattern(name: str, editor_of: Any, qtbot: Any) -> None:
    editor = editor_of(FIELDS[name])
    assert isinstance(editor, TextEditor)
    for text in ("cpu", "cuda:1", "auto"):
        type_in(qtbot, editor, text)
        assert editor.value() == text
    type_in(qtbot, editor, "gpu")
    with pytest.raises(BadInputError, match="cuda:N"):
        editor.value()


def test_every_field_has_an_editor_of_a_kind_that_is_tested() -> None:
    tested = (bool, int, float, tuple, str)
    for field in FIELDS.values():
        literal = any(isinstance(part, str) for part in _flat(field.annotation))
        assert literal or set(tested) & kinds(field)


def _flat(annotation: Any) -> list[Any]:
    args = get_args(annotation)
    return [x for part in args for x in _flat(part)] if args else [annotation]


HARD = {
    float: (0.0, 1e-4, 4e-6, 0.9995, 0.1 + 0.2, 1 / 3, 5e-324, 0.1234567890123456789, 1e-17, 0.5),
    int: (1, 2, 3, 64, 2**31 - 1, 10**8, 12_345_678, 8, 256, 0),
    tuple: (
        (16, 64, 64),
        (1, 1, 1),
        (132, 132, 116),
        (1, 4096, 999_999),
        (0.0, 100.0),
        (0.1 + 0.2, 1 / 3),
        (1e-17, 99.99999),
    ),
    str: ("auto", "cpu", "mps", "cuda:12", "pruned=1", "a=[1, 2]; b=true"),
    bool: (True, False),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_value_comes_back_exactly(name: str, editor_of: Any, qtbot: Any) -> None:
    field = FIELDS[name]
    editor = editor_of(field)
    literals = [x for x in _flat(field.annotation) if isinstance(x, str)]
    values = [v for kind, hard in HARD.items() if kind in kinds(field) for v in hard]
    values = [*literals, *values, *([None] if type(None) in kinds(field) else [])]
    values = [v for v in values if accepted(field, v)]
    values.append(field.get_default())
    assert len(set(values)) > 1
    for value in values:
        editor.setValue(value)
        assert editor.value() == value
        assert type(editor.value()) is type(value)
        if not isinstance(editor, BoolEditor | ChoiceEditor):
            qtbot.keyClick(editor.focusProxy(), Qt.Key.Key_Return)
            assert editor.value() == value


def test_the_bounds_are_those_of_the_settings(editor_of: Any) -> None:
    for field in filter(is_number, FIELDS.values()):
        box = editor_of(field).box
        for bound in (box.minimum(), box.maximum()):
            if bound is None:
                continue
            for number in (bound, bound - 1e-9, bound + 1e-9, bound - 1, bound + 1):
                number = int(number) if int in kinds(field) else float(number)
                editor = editor_of(field)
                editor.setValue(number)
                if accepted(field, number):
                    assert editor.value() == number
                else:
                    with pytest.raises(BadInputError):
                        editor.value()


def test_pasting_and_leaving_the_field_change_nothing(qtbot: Any) -> None:
    parent = QWidget()
    layout = QVBoxLayout(parent)
    boxes = [NumberBox(Bounds(0, 1), whole=False, optional=False) for _ in range(2)]
    for box in boxes:
        layout.addWidget(box)
    qtbot.addWidget(parent)
    parent.show()
    parent.activateWindow()
    boxes[0].setFocus()
    qtbot.waitUntil(boxes[0].hasFocus)
    boxes[0].selectAll()
    QApplication.clipboard().setText("0.000123456789")  # type: ignore[union-attr]
    qtbot.keyClick(boxes[0], Qt.Key.Key_V, Qt.KeyboardModifier.ControlModifier)
    qtbot.keyClick(boxes[0], Qt.Key.Key_Tab)
    assert boxes[1].hasFocus()
    assert boxes[0].text() == "0.000123456789"
    assert boxes[0].value() == 0.000123456789


@pytest.mark.parametrize(
    ("low_excluded", "value", "up", "down"),
    [(True, 1e-3, 2e-3, 5e-4), (True, 3e-4, 5e-4, 2e-4), (True, 10.0, 10.0, 5.0),
     (False, 0.1, 0.2, 0.0), (False, 10.0, 10.0, 9.9), (False, 0.3, 0.4, 0.2)],
)  # fmt: skip
def test_arrow_keys_step(
    low_excluded: bool, value: float, up: float, down: float, qtbot: Any
) -> None:
    box = NumberBox(Bounds(0, 10, low_excluded), whole=False, optional=False)
    qtbot.addWidget(box)
    for key, wanted in ((Qt.Key.Key_Up, up), (Qt.Key.Key_Down, down)):
        box.setValue(value)
        qtbot.keyClick(box, key)
        assert box.value() == wanted


def test_stepping_from_automatic_and_back(qtbot: Any) -> None:
    box = NumberBox(Bounds(1, 64), whole=True, optional=True)
    qtbot.addWidget(box)
    box.setValue(None)
    seen = []
    for key in (Qt.Key.Key_Down, Qt.Key.Key_Up, Qt.Key.Key_Up, Qt.Key.Key_Down, Qt.Key.Key_Down):
        qtbot.keyClick(box, key)
        seen.append(box.value())
    assert seen == [None, 1, 2, 1, None]
    box.lineEdit().setText("many")  # type: ignore[union-attr]
    qtbot.keyClick(box, Qt.Key.Key_Up)
    assert box.text() == "many"


def test_the_wheel_passes_over_boxes_that_are_not_used(qtbot: Any) -> None:
    form = TrainingForm()
    qtbot.addWidget(form)
    form.show()
    form.advanced_section.setExpanded(True)
    augmentation = form.advanced.editors["augmentation"]
    assert isinstance(augmentation, ModelEditor)
    editors = (*form.advanced.editors.values(), *augmentation.editors.values())
    boxes = [e.focusProxy() for e in editors if not isinstance(e, ModelEditor)]
    boxes += [form.budget, form.preset, form.device, form.start_from]
    before = form.value()
    for box in boxes:
        assert box is not None
        box.clearFocus()
        assert not turn(box)  # what is around it scrolls
    assert form.value() == before


def turn(target: QWidget) -> bool:
    """Turn the wheel by one notch with the pointer on `target`; whether it took it."""
    center = QPointF(target.rect().center())
    event = QWheelEvent(
        center,
        QPointF(target.mapToGlobal(target.rect().center())),
        QPoint(),
        QPoint(0, -120),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(target, event)
    return event.isAccepted()


def test_the_wheel_steps_the_box_that_is_used(qtbot: Any) -> None:
    box = NumberBox(Bounds(1, 64), whole=True, optional=False)
    qtbot.addWidget(box)
    box.setValue(8)
    box.show()
    box.activateWindow()
    box.setFocus()
    qtbot.waitUntil(box.hasFocus)
    assert turn(box)
    assert box.value() == 7


# ---------------------------------------------------------------- the budget


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2 h", 7200), ("5 min", 300), ("3:20 min", 200), ("90", 90), ("90 s", 90), ("1.5 min", 90),
     ("1,5 h", 5400), ("2:30 h", 9000), ("0.5 s", 0.5), ("1e3 s", 1000), ("1:30:00", 5400),
     ("1 h 30 min", 5400), ("5m", 300), ("2 hours", 7200), ("720 h", 30 * 86400)],
)  # fmt: skip
def test_a_typed_budget_is_the_budget(text: str, seconds: float, qtbot: Any) -> None:
    form = TrainingForm()
    qtbot.addWidget(form)
    form.show()
    form.budget.selectAll()
    for letter in text:
        qtbot.keyClicks(form.budget, letter)
    qtbot.keyClick(form.budget, Qt.Key.Key_Return)
    assert form.budget.text() == text
    assert form.value().seconds == seconds
    assert form.budget_editor.problem.isHidden()


@pytest.mark.parametrize("text", ["soon", "3 days", "0", "0 s", "721 h", "-5 min", "5 mni", "1:75"])
def test_a_budget_that_cannot_be_used_is_refused_by_name(text: str, qtbot: Any) -> None:
    form = TrainingForm()
    qtbot.addWidget(form)
    form.show()
    form.budget.selectAll()
    qtbot.keyClicks(form.budget, text)
    with pytest.raises(BadInputError, match=r"Budget.*Write a time such as"):
        form.value()
    assert form.budget.text() == text
    assert "Write a time" in form.budget_editor.problem.text()


def test_an_empty_budget_needs_iterations(qtbot: Any) -> None:
    form = TrainingForm()
    qtbot.addWidget(form)
    form.budget.clear()
    with pytest.raises(BadInputError, match="Budget"):
        form.value()
    form.advanced.editors["iterations"].setValue(5)
    assert form.value().seconds is None
    assert form.value().iterations == 5


@pytest.mark.parametrize("seconds", [0.1, 1 / 3, 1, 59.6, 60, 200, 3599, 3600, 3601, 7500.5, 86400])
def test_a_budget_comes_back_exactly(seconds: float, qtbot: Any) -> None:
    box = DurationBox()
    qtbot.addWidget(box)
    box.setValue(seconds)
    assert box.value() == seconds
    assert read_duration(write_duration(seconds)) == seconds
    qtbot.keyClick(box, Qt.Key.Key_Return)
    assert box.value() == seconds


def test_train_names_the_field_that_cannot_be_used(qtbot: Any) -> None:
    form = TrainingForm()
    qtbot.addWidget(form)
    editor = form.advanced.editors["augmentation"].editors["rotation"]  # type: ignore[attr-defined]
    type_in(qtbot, editor, "360")
    with pytest.raises(BadInputError, match=r"'rotation'.*360.*from 0 to 180"):
        form.value()
    assert form.advanced_section.header.isChecked()
    assert not editor.problem.isHidden()


# ---------------------------------------------------------------- reading numbers


@pytest.mark.parametrize(
    ("text", "number"),
    [("1 000", 1000), ("10 000.5", 10000.5), ("0,001", 0.001), ("\u22121", -1), ("1,5", 1.5)],
)
def test_numbers_as_people_type_them(text: str, number: float) -> None:
    assert float(read_number(text)) == number


def test_a_comma_that_can_mean_two_things_is_asked_about() -> None:
    with pytest.raises(BadInputError, match=r"1000 or 1\.000"):
        read_number("1,000")


@pytest.mark.parametrize("text", ["٣", "１", "9" * 5000, "1e99999", ""])
def test_odd_texts_are_no_numbers(text: str) -> None:
    with pytest.raises(BadInputError, match="is not a number"):
        read_number(text)


@pytest.mark.parametrize(
    ("bounds", "words"),
    [(Bounds(0, 1), "from 0 to 1"), (Bounds(0, 10, True), "above 0, and at most 10"),
     (Bounds(0, 1, False, True), "0 or more, and below 1"), (Bounds(0, None, True), "above 0"),
     (Bounds(1, 100_000_000), "from 1 to 100 000 000"), (Bounds(), "")],
)  # fmt: skip
def test_bounds_in_words(bounds: Bounds, words: str) -> None:
    assert str(bounds) == words


def test_steady_lets_a_box_be_reached_by_tab(qtbot: Any) -> None:
    box = QWidget()
    qtbot.addWidget(box)
    steady(box)
    assert box.focusPolicy() == Qt.FocusPolicy.StrongFocus


def test_the_settings_agree_with_pydantic() -> None:
    adapter = TypeAdapter(TrainingConfig)
    assert adapter.validate_python(TrainingConfig().model_dump()) == TrainingConfig()
