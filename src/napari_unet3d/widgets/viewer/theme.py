"""The colors of napari's themes, as the dock uses them."""

from __future__ import annotations

from typing import Any

from napari.settings import get_settings
from napari.utils.theme import get_theme

from napari_unet3d.widgets.parts.colors import Colors


def theme_colors(name: str | None = None) -> Colors:
    """Read the colors of a theme of napari.

    Parameters
    ----------
    name
        The theme, as in ``viewer.theme``; that of napari's settings when None. A viewer may show
        another one than the settings name (View ▸ Toggle Theme).
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
