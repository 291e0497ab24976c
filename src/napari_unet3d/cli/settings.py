"""Turn the words of the command line into checked settings."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from napari_unet3d.config import PredictionConfig, TrainingConfig
from napari_unet3d.errors import BadInputError

T = TypeVar("T")
Config = TypeVar("Config", bound=BaseModel)
DEMO_FOLDER = "napari-unet3d-demo"
"""Folder that the results of the demo go to by default."""
Number = TypeVar("Number", int, float)
_MOST_GIBIBYTES = 2.0**30
"""GiB. No machine has more, and larger numbers of bytes lose their last digits as floats."""
_MOST_CHARACTERS = 60
"""Characters of a wrong value that a message repeats: it must fit on a line with its reason."""
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

CHECKPOINT_SECONDS = 180.0
"""Seconds between checkpoints: a crash costs three minutes of training, and writing a checkpoint
takes a second."""


def training(others: list[str], **given: Any) -> TrainingConfig:
    """Make training settings from options, and from others written as name=value.

    Raises
    ------
    BadInputError
        A name is no setting, or a value cannot be used.
    """
    return validated(TrainingConfig, **given | _parsed(others))


def changed(config: Config, given: Mapping[str, Any], others: Sequence[str] = ()) -> Config:
    """Settings of which some are replaced: those `given` by name, and `others` as name=value.

    Raises
    ------
    BadInputError
        A name is no setting, or a value cannot be used.
    """
    values = config.model_dump() | dict(given) | _parsed(others)
    if "seconds" in given and "iterations" in values:
        values["iterations"] = None  # it would take the place of the seconds
    return validated(type(config), **values)


def _parsed(others: Sequence[str]) -> dict[str, Any]:
    """Training settings that are written as name=value."""
    values: dict[str, Any] = {}
    for item in others:
        key, separator, value = item.partition("=")
        if not separator or key not in TrainingConfig.model_fields:
            names = ", ".join(sorted(TrainingConfig.model_fields))
            raise BadInputError(f"--set {item}: write name=value with one of {names}")
        try:
            values[key] = json.loads(value)
        except (ValueError, RecursionError):  # no JSON, or numbers and brackets beyond all limits
            values[key] = value
    return values


def prediction(**given: Any) -> PredictionConfig:
    """Make prediction settings; `BadInputError` when a value cannot be used."""
    return validated(PredictionConfig, **given)


def class_names(text: str | None) -> dict[int, str]:
    """Read names by label value from a text such as "2=nucleus,3=membrane"."""
    names = {}
    for part in filter(None, (text or "").split(",")):
        value, separator, name = part.partition("=")
        if not separator or not name.strip():
            raise BadInputError(f"--names {text}: write value=name, as in 2=nucleus,3=membrane")
        try:
            names[int(value)] = name.strip()
        except ValueError:
            raise BadInputError(
                f"--names: {_short(value)} is not a whole number; write value=name, as in "
                "2=nucleus,3=membrane"
            ) from None
    return names


def time_points(text: str | None) -> list[int] | None:
    """Read time points from a text such as "0,3"; None when the option is not given."""
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise BadInputError(
            f"--times {_short(text)}: write whole numbers, counted from 0, as in 0,3"
        ) from None


def three(option: str, text: str | None, make: Callable[[str], Number]) -> list[Number] | None:
    """Read three numbers above 0 from "z,y,x"; None when the option is not given."""
    if text is None:
        return None
    try:
        numbers = [make(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 3 or not all(math.isfinite(n) and n > 0 for n in numbers):
        example = "32,128,128" if make is int else "0.5,0.2,0.2"
        raise BadInputError(
            f"{option} {text}: give three numbers above 0 for z, y and x, as in {example}"
        )
    return numbers


def reading(axes: str | None, voxel_size: str | None) -> dict[str, Any]:
    """Make the keywords of `read_volume` from the options that were given."""
    given = {"axes": axes, "voxel_size": three("--voxel-size", voxel_size, float)}
    return {name: value for name, value in given.items() if value is not None}


def gibibytes(size: float | None) -> int | None:
    """Turn GiB into bytes."""
    if size is not None and not 0 < size <= _MOST_GIBIBYTES:
        raise BadInputError(f"--memory {size}: give a number of GiB above 0")
    return None if size is None else int(size * 2**30)


def validated(make: Callable[..., T], **given: Any) -> T:
    """Make a settings object; a `BadInputError` names the value that cannot be used."""
    try:
        return make(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "settings"
        words = _WORDS.get(first["type"])
        said = first["msg"] if words is None else words.format(**_plain(first.get("ctx", {})))
        if first["type"] == "string_pattern_mismatch" and name == "device":
            said = "use auto, cpu, cuda, cuda:N (the number of a GPU, such as cuda:0) or mps"
        raise BadInputError(f"{name} = {_short(repr(first['input']))}: {said}") from error


def _short(value: str) -> str:
    return value if len(value) <= _MOST_CHARACTERS else f"{value[:_MOST_CHARACTERS]}…"


def _plain(bounds: Mapping[str, Any]) -> dict[str, Any]:
    """Write whole numbers without a decimal point: "above 0" rather than "above 0.0"."""
    return {
        name: int(bound) if isinstance(bound, float) and bound.is_integer() else bound
        for name, bound in bounds.items()
    }
