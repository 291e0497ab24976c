"""Settings as a user writes them: names and values as text."""

from __future__ import annotations

import json
from typing import Any

from napari_unet3d.errors import BadInputError


def read_value(text: str) -> Any:
    """A number, a truth, a list or a name, as JSON has it; other text stays text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # no JSON, or numbers and brackets beyond all limits
        return text


def read_settings(text: str) -> dict[str, Any]:
    """Settings from a text such as "widths=[16, 32]; deep_supervision=true".

    Raises
    ------
    BadInputError
        A part is no setting.
    """
    settings = {}
    for part in filter(None, (p.strip() for p in text.split(";"))):
        name, separator, value = (p.strip() for p in part.partition("="))
        if not (separator and name.isidentifier() and value):
            raise BadInputError(
                f"'{part}' is no setting. Write name=value, and a semicolon between two of them, "
                "such as widths=[16, 32, 64]; deep_supervision=true."
            )
        settings[name] = read_value(value)
    return settings
