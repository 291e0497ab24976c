"""Reads settings that another version of the program wrote.

A setting may have been added, renamed, removed or bounded more tightly since then. None of this
may keep a model from opening, so a value that is not allowed any more is replaced by itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

_Model = TypeVar("_Model", bound=BaseModel)

_INCLUSIVE_BOUNDS = {"greater_than_equal": "ge", "less_than_equal": "le"}
"""Pydantic's errors about a bound that is itself allowed, and the name of the bound in them."""
_NAMED = 5
"""Unknown settings that a note names; a damaged file may hold any number of them."""
_SHOWN = 40
"""Characters of a stored name or value that a note shows, so that two fit into a line."""


def read_settings(
    model: type[_Model], stored: Mapping[str, Any], group: str = ""
) -> tuple[_Model, tuple[str, ...]]:
    """Stored settings as this version of the program knows them.

    - A setting that is not stored gets its default.
    - A setting that was renamed is found by its older names, which stand beside the field:
      ``Field(..., json_schema_extra={"formerly": ["older name"]})``.
    - A setting that is not known is left out.
    - A number beyond its bound is set to the bound. Any other value that is not allowed gives
      way to the default.

    Parameters
    ----------
    model
        The class of the settings; each field has a default.
    stored
        Values by name, as `json.loads` gives them.
    group
        What stands before the names in the notes.

    Returns
    -------
    settings, notes
        The settings, and a sentence for each change of a stored value.
    """
    keys = {name: key for name, f in model.model_fields.items() if (key := _key(name, f, stored))}
    values = {name: stored[key] for name, key in keys.items()}
    notes = [_unknown_note(group, unknown)] if (unknown := set(stored) - set(keys.values())) else []
    for name, value in values.items():
        inner = model.model_fields[name].annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel) and isinstance(value, Mapping):
            values[name], more = read_settings(inner, value, f"{group}{name}.")
            notes += more
    settings = _nearest(model, values)
    used = settings.model_dump(mode="json")
    notes += [
        f"The model's setting {_shown(group + name)} was {_shown(value)}, which is not allowed any "
        f"more: {_shown(used[name])} is used."
        for name, value in values.items()
        if not isinstance(value, BaseModel) and used[name] != value
    ]
    return settings, tuple(notes)


def _key(name: str, field: FieldInfo, stored: Mapping[str, Any]) -> str | None:
    """The name under which a setting is stored: its own or an older one."""
    extra = field.json_schema_extra
    formerly = extra.get("formerly", ()) if isinstance(extra, dict) else ()
    names = [name, *formerly] if isinstance(formerly, list | tuple) else [name]
    return next((str(n) for n in names if n in stored), None)


def _nearest(model: type[_Model], values: Mapping[str, Any]) -> _Model:
    """The settings with these values, as far as they are allowed."""
    values = dict(values)
    clamped: set[str] = set()
    while True:
        try:
            return model.model_validate(values)
        except ValidationError as error:
            bounds = {str(e["loc"][0]): _bound(e) for e in error.errors() if e["loc"]}
            # Without a place, the error is about values that do not go together.
            wrong = values.keys() & bounds.keys() if bounds else _conflict(model, values)
            if not wrong:
                raise  # a default is not allowed: a mistake in the program
        for name in wrong:
            bound = bounds.get(name)
            if bound is None or name in clamped:
                del values[name]
            else:
                values[name] = bound
                clamped.add(name)


def _bound(error: ErrorDetails) -> float | None:
    """The bound that a number exceeds, if it is itself allowed."""
    key = _INCLUSIVE_BOUNDS.get(error["type"])
    bound: float | None = error["ctx"][key] if key and len(error["loc"]) == 1 else None
    return bound


def _conflict(model: type[BaseModel], values: Mapping[str, Any]) -> set[str]:
    """A value without which the others go together; all values where no single one is it."""
    for name in values:
        try:
            model.model_validate({n: v for n, v in values.items() if n != name})
        except ValidationError:
            continue
        return {name}
    return set(values)


def _unknown_note(group: str, names: Iterable[str]) -> str:
    shown = sorted(_shown(group + name) for name in names)
    more = ", …" if len(shown) > _NAMED else ""
    return f"Settings of the model that are not known any more: {', '.join(shown[:_NAMED])}{more}."


def _shown(value: object) -> str:
    """A stored value as short text; control characters are escaped."""
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
