"""The colors of napari's themes, as the dock uses them."""

from __future__ import annotations

from typing import Any

from napari.settings import get_settings
from napari.utils.theme import get_theme

from napari_unet3d.widgets.parts.colors import Colors


def theme_colors(name: str | None = None) -> Colors:
    """The colors of a theme of napari; of the one in its settings when None.

    A viewer may show another theme than the settings name (View ▸ Toggle Theme): give
    ``viewer.theme``.
    """
    theme = get_theme(name or get_settings().appearance.theme)
    return Colors(
        background=_hex(theme.background),
        foreground=_hex(theme.foreground),
        primary=_hex(theme.primary),
        highlight=_hex(theme.highlight),
        text=_hex(theme.text),
        accent=_hex(theme.current),
        error=_hex(theme.error),
    )


def _hex(color: Any) -> str:
    red, green, blue = color.as_rgb_tuple(alpha=False)
    return f"#{red:02x}{green:02x}{blue:02x}"
