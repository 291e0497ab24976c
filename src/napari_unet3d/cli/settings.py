"""Turn the words of the command line into checked settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from napari_unet3d.config import PredictionConfig, TrainingConfig, written
from napari_unet3d.data.refusals import reason
from napari_unet3d.data.written import read_value
from napari_unet3d.errors import BadInputError

T = TypeVar("T")
Config = TypeVar("Config", bound=BaseModel)
DEMO_FOLDER = "napari-unet3d-demo"
"""Folder that the results of the demo go to by default."""
Number = TypeVar("Number", int, float)
_MOST_GIBIBYTES = 2.0**30
"""GiB. No machine has more, and larger numbers of bytes lose their last digits as floats."""
_OF_NETWORK = "network."
"""Before the name of a setting of the network."""
_MOST_CHARACTERS = 60
"""Characters of a wrong value that a message repeats: it must fit on a line with its reason."""
CHECKPOINT_SECONDS = 180.0
"""Seconds between checkpoints: a crash costs three minutes of training, and writing a checkpoint
takes a second."""


def training(others: list[str], **given: Any) -> TrainingConfig:
    """Make training settings from options, and from others written as name=value.

    A setting of the network is written as network.name=value.

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
    if given.get("seconds") is not None and "iterations" in values:
        values["iterations"] = None  # it would take the place of the seconds
    return validated(type(config), **values)


def check_budget(seconds: float | None, iterations: int | None) -> None:
    """Raise BadInputError where a training is given both seconds and iterations."""
    if seconds is not None and iterations is not None:
        raise BadInputError("give --seconds or --iterations, not both")


def _parsed(others: Sequence[str]) -> dict[str, Any]:
    """Training settings that are written as name=value."""
    values: dict[str, Any] = {}
    network = of_network([item for item in others if item.startswith(_OF_NETWORK)])
    for item in (item for item in others if not item.startswith(_OF_NETWORK)):
        key, separator, value = item.partition("=")
        if not separator or key not in TrainingConfig.model_fields:
            names = ", ".join(sorted(TrainingConfig.model_fields))
            raise BadInputError(
                f"--set {item}: write name=value with one of {names}, or {_OF_NETWORK}name=value"
            )
        values[key] = read_value(value)
    return values | ({"network_settings": written(network)} if network else {})


def of_network(others: Sequence[str]) -> dict[str, Any]:
    """Settings of a network that are written as network.name=value.

    Raises
    ------
    BadInputError
        One is written otherwise.
    """
    values: dict[str, Any] = {}
    for item in others:
        key, separator, value = item.partition("=")
        name = key.removeprefix(_OF_NETWORK)
        if not (separator and name and key.startswith(_OF_NETWORK)):
            raise BadInputError(f"--set {item}: write {_OF_NETWORK}name=value")
        values[name] = read_value(value)
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
        said = reason(first)
        if first["type"] == "string_pattern_mismatch" and name == "device":
            said = "use auto, cpu, cuda, cuda:N (the number of a GPU, such as cuda:0) or mps"
        raise BadInputError(f"{name} = {_short(repr(first['input']))}: {said}") from error


def _short(value: str) -> str:
    return value if len(value) <= _MOST_CHARACTERS else f"{value[:_MOST_CHARACTERS]}…"
