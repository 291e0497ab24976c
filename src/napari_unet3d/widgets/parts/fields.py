"""Editors made from pydantic fields, which hold bounds, texts and defaults."""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QVBoxLayout,
    QWidget,
)

from napari_unet3d.errors import BadInputError
from napari_unet3d.widgets.parts.duration import DurationBox
from napari_unet3d.widgets.parts.typed_box import (
    AUTOMATIC,
    Bounds,
    NumberBox,
    read_number,
    shown,
    steady,
)


class FieldEditor(QWidget):
    """Edits the value of one field; `make_editor` chooses the subclass.

    A typed text stays as it is typed. If it cannot be used, `value` raises, and a line under the
    field says why when the user leaves the field.

    Parameters
    ----------
    widget
        The widget that edits the value.
    """

    valueChanged = Signal()

    def __init__(self, widget: QWidget) -> None:
        super().__init__()
        self._widget = widget
        self.problem = QLabel()
        self.problem.setObjectName("problem")
        self.problem.setWordWrap(True)
        self.problem.setTextFormat(Qt.TextFormat.PlainText)
        self.problem.hide()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(widget)
        layout.addWidget(self.problem)
        self.setFocusProxy(widget)

    def value(self) -> Any:
        """The value that is typed or chosen.

        Raises
        ------
        BadInputError
            The typed text cannot be used; says why, and which text can.
        """
        raise NotImplementedError

    def setValue(self, value: Any) -> None:
        """Show a value."""
        raise NotImplementedError

    def show_problem(self) -> None:
        """Show the problem of the typed text under the field; nothing if it has none."""
        try:
            self.value()
        except BadInputError as error:
            self._say(str(error))
        else:
            self._say("")

    def _edited(self, *_: Any) -> None:
        if self.problem.text():  # not before the field was left once: the user still types
            self.show_problem()
        self.valueChanged.emit()

    def _say(self, text: str) -> None:
        if text == self.problem.text():
            return
        self.problem.setText(text)
        self.problem.setVisible(bool(text))
        self._widget.setProperty("wrong", bool(text))
        if (style := self._widget.style()) is not None:
            style.unpolish(self._widget)
            style.polish(self._widget)


class BoolEditor(FieldEditor):
    def __init__(self) -> None:
        self.box = QCheckBox()
        super().__init__(self.box)
        self.box.toggled.connect(lambda _: self.valueChanged.emit())

    def value(self) -> bool:
        return self.box.isChecked()

    def setValue(self, value: Any) -> None:
        self.box.setChecked(bool(value))


class ChoiceEditor(FieldEditor):
    def __init__(self, choices: Iterable[Any]) -> None:
        self.box = QComboBox()
        super().__init__(self.box)
        steady(self.box)
        # A long choice must not make the dock wider.
        self.box.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.box.setMinimumContentsLength(4)
        for choice in choices:
            self.box.addItem(AUTOMATIC if choice is None else str(choice), choice)
        self.box.currentIndexChanged.connect(lambda _: self.valueChanged.emit())

    def value(self) -> Any:
        return self.box.currentData()

    def setValue(self, value: Any) -> None:
        self.box.setCurrentIndex(self.box.findData(value))


class NumberEditor(FieldEditor):
    """Edits a number; an empty field means "automatic" when optional."""

    def __init__(self, bounds: Bounds, *, whole: bool, optional: bool) -> None:
        self.box = NumberBox(bounds, whole=whole, optional=optional)
        super().__init__(self.box)
        self.box.valueChanged.connect(self._edited)
        self.box.editingFinished.connect(self.show_problem)

    def value(self) -> float | None:
        return self.box.value()  # type: ignore[no-any-return]

    def setValue(self, value: Any) -> None:
        self.box.setValue(value)


class DurationEditor(FieldEditor):
    """Edits a time in seconds, in the given box."""

    def __init__(self, box: DurationBox) -> None:
        self.box = box
        super().__init__(box)
        box.valueChanged.connect(self._edited)
        box.editingFinished.connect(self.show_problem)

    def value(self) -> float | None:
        return self.box.value()

    def setValue(self, value: Any) -> None:
        self.box.setValue(value)


class TextEditor(FieldEditor):
    """Edits a text of a given pattern."""

    def __init__(self, pattern: str, description: str) -> None:
        self.line = QLineEdit()
        super().__init__(self.line)
        self._pattern, self._description = re.compile(pattern), description
        self.line.textChanged.connect(self._edited)
        self.line.editingFinished.connect(self.show_problem)

    def value(self) -> str:
        text = self.line.text().strip()
        if self._pattern.search(text) is None:
            raise BadInputError(f"'{shown(text)}' cannot be used here. Write {self._description}")
        return text

    def setValue(self, value: Any) -> None:
        self.line.setText(str(value))


class ShapeEditor(FieldEditor):
    """Edits three sizes "z, y, x"; an empty field means "automatic" when optional."""

    def __init__(self, *, optional: bool) -> None:
        self.line = QLineEdit()
        super().__init__(self.line)
        self._optional = optional
        self.line.setPlaceholderText(f"{AUTOMATIC} (z, y, x)" if optional else "z, y, x")
        self.line.textChanged.connect(self._edited)
        self.line.editingFinished.connect(self.show_problem)

    def value(self) -> tuple[int, ...] | None:
        text = self.line.text().strip()
        if self._optional and text.lower() in ("", AUTOMATIC, "auto"):
            return None
        parts = [part for part in re.split(r"[\s,;×x]+", text.lower().strip("()[] ")) if part]
        if len(parts) != 3 or not all(re.fullmatch(r"0*[1-9]\d{0,8}", part) for part in parts):
            more = f", or leave it empty for {AUTOMATIC}" if self._optional else ""
            raise BadInputError(
                f"'{shown(text)}' is not a size. Write three whole numbers above 0 in the order "
                f"z, y, x, such as 16, 64, 64{more}."
            )
        return tuple(int(part) for part in parts)

    def setValue(self, value: Any) -> None:
        self.line.setText("" if value is None else ", ".join(map(str, value)))


class RangeEditor(FieldEditor):
    """Edits two numbers "low, high", the second above the first."""

    def __init__(self) -> None:
        self.line = QLineEdit()
        super().__init__(self.line)
        self.line.setPlaceholderText("low, high")
        self.line.textChanged.connect(self._edited)
        self.line.editingFinished.connect(self.show_problem)

    def value(self) -> tuple[float, float]:
        text = self.line.text().strip("()[] \t")
        parts = [part for part in re.split(r"\s*;\s*|,\s+|\s+", text) if part]
        if len(parts) == 1:  # the only comma stands between the numbers
            parts = text.split(",")
        if len(parts) != 2:
            raise BadInputError(
                f"'{shown(text)}' is not a range. Write two numbers, such as 0.1, 99.9."
            )
        low, high = (float(read_number(part)) for part in parts)
        if not low < high:
            raise BadInputError(
                f"'{shown(text)}' is not a range: the second number must be above the first."
            )
        return low, high

    def setValue(self, value: Any) -> None:
        self.line.setText(", ".join(map(str, value)))


class ModelEditor(FieldEditor):
    """Edits all fields of a pydantic model in a form, with their descriptions as tool tips.

    Parameters
    ----------
    model
        The model.
    skip
        Fields that are left out.
    choices
        Values that are offered for a field, where its annotation does not list them.
    """

    def __init__(
        self,
        model: type[BaseModel],
        skip: Iterable[str] = (),
        choices: Mapping[str, Iterable[Any]] | None = None,
    ) -> None:
        form = QWidget()
        super().__init__(form)
        self.model = model
        layout = QFormLayout(form)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.editors: dict[str, FieldEditor] = {}
        skipped = set(skip)
        for name, field in model.model_fields.items():
            if name in skipped:
                continue
            offered = (choices or {}).get(name)
            editor = make_editor(field) if offered is None else ChoiceEditor(offered)
            editor.setValue(field.get_default(call_default_factory=True))
            title = _title(name)
            label = QLabel(title)
            for widget in (label, editor):
                widget.setToolTip(field.description or "")
            target = editor.focusProxy() or editor
            target.setAccessibleName(title)
            target.setAccessibleDescription(field.description or "")
            label.setBuddy(target)
            if isinstance(editor, ModelEditor):
                label.setText(f"<b>{title}</b>")
                layout.addRow(label)
                layout.addRow(editor)
            else:
                layout.addRow(label, editor)
            editor.valueChanged.connect(self.valueChanged)
            self.editors[name] = editor

    def value(self) -> dict[str, Any]:
        """The values by name.

        Raises
        ------
        BadInputError
            A typed text cannot be used; names the field, the reason and the cure.
        """
        values: dict[str, Any] = {}
        for name, editor in self.editors.items():
            try:
                values[name] = editor.value()
            except BadInputError as error:
                editor.show_problem()
                if isinstance(editor, ModelEditor):  # its message names the field
                    raise
                raise BadInputError(f"Advanced setting '{_title(name).lower()}': {error}") from None
        return values

    def show_problem(self) -> None:
        for editor in self.editors.values():
            editor.show_problem()

    def setValue(self, value: Any) -> None:
        for name, editor in self.editors.items():
            editor.setValue(getattr(value, name))


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def make_editor(field: FieldInfo) -> FieldEditor:
    """Make the editor that suits the annotation and the bounds of a field."""
    kinds = _kinds(field.annotation)
    optional = types.NoneType in kinds
    kinds = [kind for kind in kinds if kind is not types.NoneType]
    kind = kinds[0]
    if get_origin(kind) is Literal:
        return ChoiceEditor([*([None] if optional else []), *get_args(kind)])
    if kind is bool:
        return BoolEditor()
    if get_origin(kind) is tuple:
        return RangeEditor() if get_args(kind) == (float, float) else ShapeEditor(optional=optional)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return ModelEditor(kind)
    if kind is str:
        pattern = next(p for m in field.metadata if (p := getattr(m, "pattern", None)))
        return TextEditor(pattern, field.description or "")
    if kind in (int, float):
        return NumberEditor(_bounds(field), whole=kind is int, optional=optional)
    raise TypeError(f"no editor for {field.annotation}")


def _kinds(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for part in get_args(annotation) for kind in _kinds(part)]
    return [annotation]


def _bounds(field: FieldInfo) -> Bounds:
    bounds = {
        name: bound
        for limit in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if (bound := getattr(limit, name, None)) is not None
    }
    return Bounds(
        low=bounds.get("gt", bounds.get("ge")),
        high=bounds.get("lt", bounds.get("le")),
        low_excluded="gt" in bounds,
        high_excluded="lt" in bounds,
    )
