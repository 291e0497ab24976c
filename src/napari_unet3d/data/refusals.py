"""Words for what is wrong with a setting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import ErrorDetails

_WORDS = {
    "greater_than": "it must be above {gt}",
    "greater_than_equal": "it must be at least {ge}",
    "less_than": "it must be below {lt}",
    "less_than_equal": "it must be at most {le}",
    "finite_number": "it must be a finite number",
    "int_type": "it must be a whole number",
    "int_parsing": "it must be a whole number",
    "int_parsing_size": "it is too large",
    "int_from_float": "it must be a whole number",
    "float_type": "it must be a number",
    "float_parsing": "it must be a number",
    "bool_type": "it must be true or false",
    "bool_parsing": "it must be true or false",
    "string_type": "it must be a text",
    "string_too_short": "it is empty",
    "string_too_long": "it has more than {max_length} characters",
    "tuple_type": "write a list, as in [16,64,64]",
    "missing": "a number is missing: write a list of three, as in [16,64,64]",
    "too_long": "it has more than {max_length} numbers",
    "literal_error": "use one of {expected}",
    "extra_forbidden": "there is no such setting",
}
"""Words for what is wrong with a setting, by pydantic's name of the error."""


def reason(error: ErrorDetails) -> str:
    """Say what is wrong, and what can be used.

    Parameters
    ----------
    error
        One of the errors that pydantic found.
    """
    words = _WORDS.get(error["type"])
    if words is None:
        return error["msg"].removeprefix("Value error, ")
    return words.format(**_plain(error.get("ctx", {})))


def _plain(bounds: Mapping[str, Any]) -> dict[str, Any]:
    """Write whole numbers without a decimal point: "above 0" rather than "above 0.0"."""
    return {
        name: int(bound) if isinstance(bound, float) and bound.is_integer() else bound
        for name, bound in bounds.items()
    }
