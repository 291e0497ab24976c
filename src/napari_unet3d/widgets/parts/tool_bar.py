"""The tool bar: buttons that work on the slice in view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_unet3d.data.wording import counted
from napari_unet3d.widgets.parts.wrapping_row import WrappingRow

Tool = Literal["", "grow", "take"]
GrowFrom = Literal["image", "prediction"]
Action = Literal["accept", "fill", "smooth", "copy", "interpolate", "accept all", "discard"]


@dataclass(frozen=True)
class Button:
    """A button of the bar.

    Parameters
    ----------
    text
        On the button.
    name
        What a screen reader says: the text alone is too short for it.
    key
        Its shortcut, as tooltips write it; "" without one.
    tip
        Whole sentences: what it does.
    """

    text: str
    name: str
    key: str
    tip: str


TOOLS: Mapping[Tool, Button] = {
    "grow": Button(
        "Grow",
        "Grow an object",
        "G",
        "Click inside an object: the region grows to its border, in the selected class.\n"
        "Drag to bound its size by the distance from the click; turn the mouse wheel with the\n"
        "button down (or Shift+wheel) to take in more or less. Esc cancels.",
    ),
    "take": Button(
        "Take",
        "Take a predicted object",
        "K",
        "Click on a predicted object: it is copied into the annotation, in its class.\n"
        "Ctrl+click (or Alt+click) rejects it: it becomes background in the annotation, so that\n"
        "the next training learns that nothing is there.",
    ),
}
ACTIONS: Mapping[Action, Button] = {
    "accept": Button(
        "Accept",
        "Accept slice",
        "A",
        "Copy the newest visible prediction of the slice in view, or its proposal, into the\n"
        "annotation. What you have painted there stays. Correct it with the brush.",
    ),
    "copy": Button(
        "Copy",
        "Copy neighboring slice",
        "Shift+C",
        "Copy the nearest annotated slice of this orientation onto the slice in view.\n"
        "What you have painted there stays.",
    ),
    "interpolate": Button(
        "Interpolate",
        "Interpolate between slices",
        "I",
        "Propose labels for the slices between the two annotated slices around the view.\n"
        "Proposals are outlined, and count in no training until you accept them.",
    ),
    "fill": Button(
        "Fill holes",
        "Fill holes",
        "Shift+F",
        "Fill the holes of the selected class on the slice in view.",
    ),
    "smooth": Button(
        "Smooth",
        "Smooth the border",
        "Shift+S",
        "Smooth the border of the selected class on the slice in view.",
    ),
}
_PROPOSALS: Mapping[Action, Button] = {
    "accept all": Button(
        "Accept all",
        "Accept all proposals",
        "",
        "Copy all proposals into the annotation, in one undo step.\n"
        "What you have painted there stays.",
    ),
    "discard": Button(
        "Discard",
        "Discard all proposals",
        "",
        "Remove all proposals. The annotation stays as it is.",
    ),
}


class ToolBar(QWidget):
    """Two tools that stay on, and actions; its value is the tool that is on.

    It takes two rows of a narrow dock. What belongs to a tool alone is shown while that is on.
    """

    valueChanged = Signal(str)
    """The user chose a `Tool`; "" for none."""
    sourceChanged = Signal()
    """The user chose what Grow follows."""
    actionRequested = Signal(str)
    """One of `Action`."""

    def __init__(self) -> None:
        super().__init__()
        self._proposals = 0
        self.tool_buttons = {name: _button(b, checkable=True) for name, b in TOOLS.items()}
        self.action_buttons = {name: _button(b) for name, b in {**ACTIONS, **_PROPOSALS}.items()}
        self._by_name: dict[str, tuple[Button, QPushButton]] = {
            **{tool: (TOOLS[tool], widget) for tool, widget in self.tool_buttons.items()},
            **{a: ({**ACTIONS, **_PROPOSALS}[a], w) for a, w in self.action_buttons.items()},
        }
        self.source_box = QComboBox()
        self.source_box.addItem("the image", "image")
        self.source_box.addItem("the prediction", "prediction")
        self.source_box.setAccessibleName("What Grow follows")
        self.source_box.setToolTip(
            "What Grow follows: the gray values of the image, or the objects of the newest\n"
            "visible prediction, which are painted in the selected class."
        )
        self.proposals_label = QLabel()
        row, self._proposals_row = QWidget(), QWidget()
        self._source_row = QWidget()
        source = QHBoxLayout(self._source_row)
        source.setContentsMargins(0, 0, 0, 0)
        source.addWidget(QLabel("Grow follows"))
        source.addWidget(self.source_box, 1)
        self._source_row.hide()
        buttons, proposals = WrappingRow(), WrappingRow()
        row.setLayout(buttons)
        self._proposals_row.setLayout(proposals)
        for tool in TOOLS:
            buttons.addWidget(self.tool_buttons[tool])
        for action in ACTIONS:
            buttons.addWidget(self.action_buttons[action])
        proposals.addWidget(self.proposals_label)
        for action in _PROPOSALS:
            proposals.addWidget(self.action_buttons[action])
        self._proposals_row.hide()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for widget in (row, self._source_row, self._proposals_row):
            layout.addWidget(widget)
        for tool, button in self.tool_buttons.items():
            button.clicked.connect(lambda checked, tool=tool: self._choose(tool if checked else ""))
        for action, button in self.action_buttons.items():
            button.clicked.connect(lambda _=False, a=action: self.actionRequested.emit(a))
        self.source_box.activated.connect(lambda _index: self.sourceChanged.emit())

    def value(self) -> Tool:
        """The tool that is on; "" when none is."""
        return next((name for name, button in self.tool_buttons.items() if button.isChecked()), "")

    def setValue(self, tool: Tool) -> None:
        """Show which tool is on."""
        for name, button in self.tool_buttons.items():
            button.setChecked(name == tool)
        self._show_source()

    def source(self) -> GrowFrom:
        """What Grow follows."""
        source: GrowFrom = self.source_box.currentData()
        return source

    def _show_source(self) -> None:
        """Offer the choice while Grow is on, and as long as it is not the usual one."""
        self._source_row.setVisible(self.value() == "grow" or self.source() != "image")

    def set_reasons(self, reasons: Mapping[str, str]) -> None:
        """Disable the tools and actions that are not possible now.

        Parameters
        ----------
        reasons
            Sentences that say why, by `Tool` or `Action`; "" or no entry for what is possible.
        """
        for name, (button, widget) in self._by_name.items():
            reason = reasons.get(name, "")
            if widget.isEnabled() == bool(reason):
                widget.setEnabled(not reason)
            tip = _tip(button, reason)
            if widget.toolTip() != tip:
                widget.setToolTip(tip)

    def set_proposals(self, number: int) -> None:
        """Show how many slices are proposed, with the buttons for them; nothing for 0."""
        self._proposals = number
        self.proposals_label.setText(f"{counted(number, 'proposal')}:")
        self._proposals_row.setVisible(number > 0)

    def _choose(self, tool: Tool) -> None:
        self.setValue(tool)
        self.valueChanged.emit(tool)


def _button(button: Button, *, checkable: bool = False) -> QPushButton:
    widget = QPushButton(button.text)
    widget.setCheckable(checkable)
    widget.setToolTip(_tip(button, ""))
    widget.setAccessibleName(button.name)
    return widget


def _tip(button: Button, reason: str) -> str:
    key = f"Key: {button.key}." if button.key else ""
    return "\n".join(filter(None, (button.tip, reason and f"Not now: {reason}", key)))
