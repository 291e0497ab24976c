"""napari's current colors, for what its style sheet does not reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from napari.settings import get_settings
from napari.utils.theme import get_theme


@dataclass(frozen=True)
class Colors:
    """Colors of the current theme as #rrggbb."""

    background: str
    foreground: str
    primary: str
    text: str
    accent: str
    error: str


def theme_colors() -> Colors:
    """The colors of the theme that napari shows now."""
    theme = get_theme(get_settings().appearance.theme)
    return Colors(
        background=_hex(theme.background),
        foreground=_hex(theme.foreground),
        primary=_hex(theme.primary),
        text=_hex(theme.text),
        accent=_hex(theme.current),
        error=_hex(theme.error),
    )


def theme_changed() -> Any:
    """The event emitter that tells of another theme."""
    return get_settings().appearance.events.theme


def _hex(color: Any) -> str:
    red, green, blue = color.as_rgb_tuple(alpha=False)
    return f"#{red:02x}{green:02x}{blue:02x}"
