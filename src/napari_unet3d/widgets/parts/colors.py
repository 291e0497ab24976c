"""Colors of the dock: readable on any theme, as one style sheet."""

from __future__ import annotations

from dataclasses import dataclass

BACKGROUND_COLOR = "#4b1eb4"
"""Color of painted background: it differs from all class colors, also for color-blind users, and
from gray images. Its contrast to the first eight classes is at least 1.8."""
BACKGROUND_ALPHA = 0.3
"""Opacity of painted background, 0 to 1, beside classes of 1: a complete slice can be seen through,
and still differs from an unlabelled one on any gray value (CIEDE2000 of at least 11)."""
TEXT_CONTRAST = 4.5
"""Contrast ratio that WCAG 2.2 (1.4.3, level AA) asks for between text and its background."""
EDGE_CONTRAST = 3.0
"""Contrast ratio that WCAG 2.2 (1.4.11) asks for between a mark and its surroundings."""
_STEPS = 20
"""Mixtures tried on the way from a color to black or white: steps of 5 % are too small to see."""


@dataclass(frozen=True)
class Colors:
    """Colors of one theme as #rrggbb."""

    background: str
    foreground: str
    primary: str
    highlight: str
    text: str
    accent: str
    error: str

    @property
    def muted(self) -> str:
        """Text of what cannot be used now."""
        return readable(mix(self.text, self.background, 0.4), self.background, self.primary)

    @property
    def placeholder(self) -> str:
        """Text that stands in an empty field."""
        return readable(mix(self.text, self.primary, 0.3), self.primary)

    @property
    def problem(self) -> str:
        """Text that says what is wrong with a field."""
        return readable(self.error, self.background)


def dock_style(colors: Colors) -> str:
    """The style sheet of the dock; napari's own applies to what it does not name."""
    c = colors
    on_accent = readable(c.text, c.accent)
    edge = readable(mix(c.primary, c.text, 0.3), c.foreground, least=EDGE_CONTRAST)
    error_edge = readable(c.error, c.foreground, least=EDGE_CONTRAST)
    return f"""
QFrame#message, QFrame#notice {{
    background: {c.foreground}; border-left: 4px solid {edge}; }}
QFrame#message[error="true"], QFrame#notice[error="true"] {{
    border-left: 4px solid {error_edge}; }}
QFrame#message QScrollArea, QFrame#message QLabel, QFrame#notice QLabel, QWidget#words {{
    background: {c.foreground}; color: {readable(c.text, c.foreground)}; border: 0px; }}
QLabel#problem {{ color: {c.problem}; }}

QPushButton, QToolButton {{ border: 2px solid transparent; padding: 2px; }}
QComboBox {{ border: 2px solid transparent; padding: 1px 8px 1px 6px; }}
QLineEdit {{ border: 2px solid transparent; padding: 0px; }}
QAbstractSpinBox {{ border: 2px solid transparent; padding: 0px 10px; }}
QAbstractSpinBox QLineEdit {{ border: 0px; background: transparent; }}
QCheckBox {{ border: 2px solid transparent; padding: 0px; }}
QTableView {{ border: 2px solid transparent; padding: 0px; }}
QProgressBar {{ border: 2px solid {c.primary}; }}
QLineEdit, QAbstractSpinBox {{ placeholder-text-color: {c.placeholder}; }}
QLineEdit[wrong="true"], QAbstractSpinBox[wrong="true"] {{ border-color: {c.problem}; }}

QPushButton:checked, QPushButton:pressed {{ background: {c.accent}; color: {on_accent}; }}
QWidget:disabled {{ color: {c.muted}; }}
QPushButton:disabled, QComboBox:disabled, QLineEdit:disabled, QAbstractSpinBox:disabled {{
    background: {c.background}; border: 2px solid {c.primary}; color: {c.muted}; }}
QAbstractSpinBox QLineEdit:disabled {{ border: 0px; }}

QPushButton#start {{
    background: {c.accent}; color: {on_accent}; font-weight: bold; font-size: 11pt; }}
QPushButton#start:disabled {{ background: {c.foreground}; color: {c.muted}; }}
QPushButton#start:hover {{ border-color: {on_accent}; }}

QPushButton:focus, QToolButton:focus, QComboBox:focus, QLineEdit:focus, QAbstractSpinBox:focus,
QCheckBox:focus, QTableView:focus, QProgressBar:focus {{ border: 2px solid {c.text}; }}
QPushButton:checked:focus, QPushButton#start:focus {{ border: 2px solid {on_accent}; }}
QAbstractSpinBox QLineEdit:focus {{ border: 0px; }}
"""


# ---------------------------------------------------------------- contrast


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colors #rrggbb, from 1 (equal) to 21 (WCAG 2.2)."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def readable(color: str, *backgrounds: str, least: float = TEXT_CONTRAST) -> str:
    """`color`, or the nearest mixture with black or white that can be read on `backgrounds`."""

    def worst(candidate: str) -> float:
        return min(contrast(candidate, background) for background in backgrounds)

    candidates = [color]
    for step in range(1, _STEPS + 1):
        candidates += [mix(color, end, step / _STEPS) for end in ("#ffffff", "#000000")]
    return next((c for c in candidates if worst(c) >= least), max(candidates, key=worst))


def mix(color: str, other: str, share: float) -> str:
    """Mix two colors #rrggbb; `share` of the result, 0 to 1, is `other`."""
    pairs = zip(_channels(color), _channels(other), strict=True)
    red, green, blue = (round((1 - share) * a + share * b) for a, b in pairs)
    return f"#{red:02x}{green:02x}{blue:02x}"


def _luminance(color: str) -> float:
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in _channels(color))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _channels(color: str) -> tuple[int, ...]:
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))
