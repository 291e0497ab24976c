"""From what stands on the command line to checked settings."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import ValidationError

from napari_unet3d.config import PredictionConfig, TrainingConfig
from napari_unet3d.errors import BadInputError

T = TypeVar("T")

CHECKPOINT_SECONDS = 180.0
"""Seconds between checkpoints: a crash costs three minutes, and writing one takes a second."""


def training(others: list[str], **given: Any) -> TrainingConfig:
    """Training settings: those given, and others written as name=value."""
    for item in others:
        key, separator, value = item.partition("=")
        if not separator or key not in TrainingConfig.model_fields:
            names = ", ".join(sorted(TrainingConfig.model_fields))
            raise BadInputError(f"--set {item}: write name=value with one of {names}")
        try:
            given[key] = json.loads(value)
        except json.JSONDecodeError:
            given[key] = value
    return validated(TrainingConfig, **given)


def prediction(**given: Any) -> PredictionConfig:
    """Prediction settings."""
    return validated(PredictionConfig, **given)


def class_names(text: str | None) -> dict[int, str]:
    """Label value → name, from 2=nucleus,3=membrane."""
    names = {}
    for part in filter(None, (text or "").split(",")):
        value, separator, name = part.partition("=")
        if not separator or not name.strip():
            raise BadInputError(f"--names {text}: write value=name, as in 2=nucleus,3=membrane")
        names[number(value)] = name.strip()
    return names


def number(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise BadInputError(f"{text!r} is not a whole number") from None


def gibibytes(size: float | None) -> int | None:
    """Bytes of a size in GiB."""
    if size is not None and not (math.isfinite(size) and size > 0):
        raise BadInputError(f"--memory {size}: give a number of GiB above 0")
    return None if size is None else int(size * 2**30)


def validated(make: Callable[..., T], **given: Any) -> T:
    """Make a settings object; what does not fit is named with its value."""
    try:
        return make(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "settings"
        said = first["msg"]
        if first["type"] == "string_pattern_mismatch" and name == "device":
            said = "use auto, cpu, cuda, cuda:N or mps"
        raise BadInputError(f"{name} = {first['input']!r}: {said}") from error
