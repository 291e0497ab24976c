"""Shows which slices to paint next, and why; offers to go there."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_unet3d.session.suggestions import (
    DEFAULT_STRATEGY,
    STRATEGIES,
    Strategy,
    Suggestion,
)
from napari_unet3d.widgets.parts.narrow_table import NarrowTable, cell
from napari_unet3d.widgets.parts.section import Section, column
from napari_unet3d.widgets.parts.status_line import StatusLine

_MOST_ROWS = 6
"""Rows that are visible at once: as many as there are suggestions."""


class SuggestionBox(QWidget):
    """One suggestion in words, with buttons, and the others in a list.

    All but the heading, which names the suggestion, is folded away at first: the run bar shows it
    where it is the next step. Its value are the suggestions, best first.
    """

    jumpRequested = Signal(object)
    """The user wants to see the slice of this SliceRef."""
    strategyChanged = Signal(str)
    """The user chose another strategy."""

    def __init__(self) -> None:
        super().__init__()
        self._suggestions: tuple[Suggestion, ...] = ()
        self._number = 0
        self.sentence = QLabel()
        self.sentence.setWordWrap(True)
        self.sentence.setTextFormat(Qt.TextFormat.PlainText)
        self.sentence.setAccessibleName("Which slice next")
        self.go_button = QPushButton("Go there")
        self.another_button = QPushButton("Another")
        self.another_button.setToolTip("Show the next suggestion of the list.")
        self.table = NarrowTable("Suggested slices", most_rows=_MOST_ROWS)
        self.table.setWordWrap(False)
        self.table.set_titles([cell("Slice"), cell("Because")], stretched=1)
        self.strategy = QComboBox()
        self.strategy.setAccessibleName("How slices are suggested")
        for key, (name, explanation) in STRATEGIES.items():
            self.strategy.addItem(name, key)
            self.strategy.setItemData(
                self.strategy.count() - 1, explanation, Qt.ItemDataRole.ToolTipRole
            )
        self.strategy.setCurrentIndex(self.strategy.findData(DEFAULT_STRATEGY))
        buttons = QHBoxLayout()
        buttons.setContentsMargins(0, 0, 0, 0)
        buttons.addWidget(self.go_button, 1)
        buttons.addWidget(self.another_button, 1)
        self.note = StatusLine("What the suggestions rest on")
        content = column(self.sentence, self.note, spacing=4)
        inside = content.layout()
        assert isinstance(inside, QVBoxLayout)
        inside.addLayout(buttons)
        inside.addWidget(self.table)
        inside.addWidget(self.strategy)
        self.section = Section("Next slice", content, expanded=False, main=False)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.section)
        self.go_button.clicked.connect(self.go)
        self.another_button.clicked.connect(self.show_another)
        self.table.cellClicked.connect(lambda row, _column: self._choose(row))
        self.table.cellActivated.connect(lambda row, _column: self._choose(row))
        self.strategy.activated.connect(self._strategy_chosen)
        self._go_key = ""
        self._show()

    # ---- the value

    def value(self) -> tuple[Suggestion, ...]:
        """The suggestions, best first."""
        return self._suggestions

    def setValue(self, suggestions: Sequence[Suggestion]) -> None:
        """Show other suggestions, the first of them in words."""
        if tuple(suggestions) == self._suggestions:
            return
        self._suggestions, self._number = tuple(suggestions), 0
        self._show()

    def current(self) -> Suggestion | None:
        """The suggestion that is shown in words."""
        return self._suggestions[self._number] if self._suggestions else None

    def strategy_value(self) -> Strategy:
        """The chosen strategy."""
        strategy: Strategy = self.strategy.currentData()
        return strategy

    def set_note(self, text: str) -> None:
        """Say what the suggestions rest on; "" when that is clear."""
        self.note.setText(text)

    def set_key(self, key: str) -> None:
        """Name the key that goes to the suggestion, as "N"."""
        self._go_key = f" (key {key})"
        self._show_words()

    # ---- what the user does

    def go(self) -> None:
        """Ask for the slice that is shown in words."""
        suggestion = self.current()
        if suggestion is not None:
            self.jumpRequested.emit(suggestion.ref)

    def show_another(self) -> None:
        """Show the next suggestion of the list in words; after the last one, the first."""
        if self._suggestions:
            self._number = (self._number + 1) % len(self._suggestions)
            self._show_words()

    def _choose(self, row: int) -> None:
        if 0 <= row < len(self._suggestions):
            self._number = row
            self._show_words()
            self.go()

    def _strategy_chosen(self) -> None:
        self.strategyChanged.emit(self.strategy_value())

    # ---- drawing

    def _show(self) -> None:
        with QSignalBlocker(self.table):
            self.table.setRowCount(len(self._suggestions))
            for row, suggestion in enumerate(self._suggestions):
                name = str(suggestion.ref)
                items = cell(name), cell(suggestion.brief)
                for column_number, item in enumerate(items):
                    measure = suggestion.purpose == "measure"
                    what = "hold it out to measure" if measure else "paint it"
                    item.setToolTip(
                        f"{_capital(suggestion.reason)}. Click to go there, then {what}."
                    )
                    self.table.setItem(row, column_number, item)
        self.table.fit_height()
        self._show_words()

    def _show_words(self) -> None:
        suggestion = self.current()
        self.setVisible(suggestion is not None)
        if suggestion is None:
            return
        self.sentence.setText(sentence(suggestion))
        self.section.set_summary(f"{suggestion.ref}: {suggestion.brief}")
        self.go_button.setToolTip(f"Show {suggestion.ref}{self._go_key}.")
        self.go_button.setAccessibleName(f"Go to {suggestion.ref}")
        self.another_button.setVisible(len(self._suggestions) > 1)
        with QSignalBlocker(self.table):
            self.table.selectRow(self._number)


def sentence(suggestion: Suggestion) -> str:
    """The suggestion as a sentence: "Next: z=41, because …"."""
    if suggestion.purpose == "measure":
        return (
            f"To measure: {suggestion.ref}, because {suggestion.reason}. Paint it all, then hold "
            "it out."
        )
    return f"Next: {suggestion.ref}, because {suggestion.reason}."


def brief_sentence(suggestion: Suggestion) -> str:
    """The suggestion in a few words: "Next: z=41 (9 µm from z=32)."."""
    if suggestion.purpose == "measure":
        return f"To measure: {suggestion.ref}. Paint it all, then hold it out."
    return f"Next: {suggestion.ref} ({suggestion.brief[:1].lower()}{suggestion.brief[1:]})."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
