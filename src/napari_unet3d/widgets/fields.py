"""Editors made from pydantic fields: one place for bounds, texts and defaults."""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

_LARGEST_INT = 2**31 - 1
_AUTOMATIC = "automatic"


class FieldEditor(QWidget):
    """Edits the value of one field; the subclass is chosen by `make_editor`."""

    valueChanged = Signal()

    def __init__(self, widget: QWidget) -> None:
        super().__init__()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(widget)
        self.setFocusProxy(widget)

    def value(self) -> Any:
        raise NotImplementedError

    def setValue(self, value: Any) -> None:
        raise NotImplementedError


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
        for choice in choices:
            self.box.addItem(_AUTOMATIC if choice is None else str(choice), choice)
        self.box.currentIndexChanged.connect(lambda _: self.valueChanged.emit())

    def value(self) -> Any:
        return self.box.currentData()

    def setValue(self, value: Any) -> None:
        self.box.setCurrentIndex(self.box.findData(value))


class IntEditor(FieldEditor):
    """Whole numbers; one step below the least one stands for "automatic" when optional."""

    def __init__(self, low: int, high: int, *, optional: bool) -> None:
        self.box = QSpinBox()
        super().__init__(self.box)
        self.low, self.optional = low, optional
        self.box.setRange(low - 1 if optional else low, min(high, _LARGEST_INT))
        if optional:
            self.box.setSpecialValueText(_AUTOMATIC)
        self.box.valueChanged.connect(lambda _: self.valueChanged.emit())

    def value(self) -> int | None:
        number = self.box.value()
        return None if self.optional and number < self.low else number

    def setValue(self, value: Any) -> None:
        self.box.setValue(self.low - 1 if value is None else int(value))


class FloatEditor(FieldEditor):
    """Numbers between bounds; zero stands for "automatic" when optional."""

    def __init__(self, low: float, high: float, *, optional: bool) -> None:
        self.box = QDoubleSpinBox()
        super().__init__(self.box)
        self.optional = optional
        span = high - low
        self.box.setDecimals(1 if span > 50 else 2 if span > 5 else 3)
        if optional:
            self.box.setDecimals(5)
            self.box.setSpecialValueText(_AUTOMATIC)
        step = 10.0 ** -self.box.decimals()
        self.box.setRange(low, high)
        self.box.setSingleStep(max(step, span / 100 if not optional else step * 10))
        self.box.valueChanged.connect(lambda _: self.valueChanged.emit())

    def value(self) -> float | None:
        number = self.box.value()
        return None if self.optional and number == self.box.minimum() else number

    def setValue(self, value: Any) -> None:
        self.box.setValue(self.box.minimum() if value is None else float(value))


class ShapeEditor(FieldEditor):
    """Three sizes "z, y, x"; empty stands for "automatic"."""

    def __init__(self) -> None:
        self.line = QLineEdit()
        super().__init__(self.line)
        self.line.setPlaceholderText(f"{_AUTOMATIC} (z, y, x)")
        self.line.textChanged.connect(lambda _: self.valueChanged.emit())

    def value(self) -> Any:
        text = self.line.text().replace("×", ",").replace("x", ",").strip()
        if not text:
            return None
        parts = [part.strip() for part in text.split(",")]
        # What is no number is handed on: the model says what is wrong with it.
        return tuple(int(part) if part.isdigit() else part for part in parts)

    def setValue(self, value: Any) -> None:
        self.line.setText("" if value is None else ", ".join(map(str, value)))


class ModelEditor(FieldEditor):
    """All fields of a pydantic model as a form; tool tips are the fields' descriptions."""

    def __init__(self, model: type[BaseModel], skip: Iterable[str] = ()) -> None:
        form = QWidget()
        super().__init__(form)
        self.model = model
        layout = QFormLayout(form)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        self.editors: dict[str, FieldEditor] = {}
        skipped = set(skip)
        for name, field in model.model_fields.items():
            if name in skipped:
                continue
            editor = make_editor(field)
            editor.setValue(field.get_default(call_default_factory=True))
            title = name.replace("_", " ").capitalize()
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
        return {name: editor.value() for name, editor in self.editors.items()}

    def setValue(self, value: Any) -> None:
        for name, editor in self.editors.items():
            editor.setValue(getattr(value, name))


def make_editor(field: FieldInfo) -> FieldEditor:
    """The editor that suits a field's annotation and bounds."""
    kinds = _kinds(field.annotation)
    optional = types.NoneType in kinds
    kinds = [kind for kind in kinds if kind is not types.NoneType]
    kind = kinds[0]
    if get_origin(kind) is Literal:
        return ChoiceEditor([*([None] if optional else []), *get_args(kind)])
    if kind is bool:
        return BoolEditor()
    if get_origin(kind) is tuple:
        return ShapeEditor()
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return ModelEditor(kind)
    low, high = _bounds(field)
    if kind is int:
        return IntEditor(int(low), int(high), optional=optional)
    if kind is float:
        return FloatEditor(low, high, optional=optional)
    raise TypeError(f"no editor for {field.annotation}")


def _kinds(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for part in get_args(annotation) for kind in _kinds(part)]
    return [annotation]


def _bounds(field: FieldInfo) -> tuple[float, float]:
    low, high = 0.0, float(_LARGEST_INT)
    for limit in field.metadata:
        for name in ("ge", "gt"):
            if (bound := getattr(limit, name, None)) is not None:
                low = float(bound)
        if (bound := getattr(limit, "le", None)) is not None:
            high = float(bound)
        if (bound := getattr(limit, "lt", None)) is not None:
            # The last number a spin box can show below an excluded bound.
            high = float(bound) - (1 if float(bound) > 2 else 0.001)
    return low, high
