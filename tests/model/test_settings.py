"""Settings that another version of the program wrote."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from napari_unet3d.model.settings import read_settings


class _Noise(BaseModel):
    model_config = ConfigDict(extra="forbid")
    strength: float = Field(0.1, ge=0, le=1, json_schema_extra={"formerly": ["std", "sigma"]})
    kind: Literal["normal", "salt"] = "normal"


class _Settings(BaseModel):
    """The settings of tomorrow."""

    model_config = ConfigDict(extra="forbid")
    seconds: float | None = Field(60.0, gt=0, le=1000)
    iterations: int | None = Field(None, ge=1, le=100)
    rate: float = Field(1e-3, gt=0, lt=1)
    sizes: tuple[Annotated[int, Field(ge=1, le=9)], ...] = (1, 2)
    range: tuple[float, float] = (0.1, 99.9)
    added: bool = True
    noise: _Noise = _Noise()

    @field_validator("range")
    @classmethod
    def _rises(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise ValueError("the range must rise")
        return value

    @model_validator(mode="after")
    def _some_budget(self) -> Self:
        if self.seconds is None and self.iterations is None:
            raise ValueError("give a budget")
        return self


def _read(**stored: Any) -> tuple[dict[str, Any], list[str]]:
    """What differs from the defaults, and the notes."""
    settings, notes = read_settings(_Settings, json.loads(json.dumps(stored)))
    return settings.model_dump(exclude_defaults=True), list(notes)


def test_what_is_allowed_is_kept_without_a_word() -> None:
    stored = {"seconds": None, "iterations": 5, "sizes": [3, 4], "noise": {"kind": "salt"}}
    settings, notes = _read(**stored)
    assert settings == stored | {"sizes": (3, 4)}
    assert notes == []


def test_what_was_added_since_has_its_default() -> None:
    assert _read(iterations=5) == ({"iterations": 5}, [])


@pytest.mark.parametrize("name", ["std", "sigma", "strength"])
def test_what_was_renamed_is_found(name: str) -> None:
    assert _read(noise={name: 0.7}) == ({"noise": {"strength": 0.7}}, [])


def test_the_name_of_today_wins() -> None:
    settings, (note,) = _read(noise={"std": 0.2, "strength": 0.7})
    assert settings == {"noise": {"strength": 0.7}}
    assert "noise.std" in note


@pytest.mark.parametrize(
    ("stored", "used"),
    [
        ({"iterations": 5000}, {"iterations": 100}),
        ({"iterations": 0}, {"iterations": 1}),
        ({"noise": {"strength": 7}}, {"noise": {"strength": 1}}),
    ],
)
def test_what_is_bounded_more_tightly_is_set_to_the_bound(
    stored: dict[str, Any], used: dict[str, Any]
) -> None:
    settings, (note,) = _read(**stored)
    assert settings == used
    ((group, value),) = stored.items()
    assert group in note
    assert str(value["strength"] if isinstance(value, dict) else value) in note


@pytest.mark.parametrize(
    "stored",
    [
        {"rate": 1},  # the bound itself is not allowed
        {"rate": "fast"},
        {"sizes": [4, 10]},
        {"range": [9, 3]},
        {"noise": {"kind": "pepper"}},
        {"noise": 3},
        {"added": [True]},
    ],
)
def test_what_is_not_allowed_any_more_gives_way_to_the_default(stored: dict[str, Any]) -> None:
    settings, (note,) = _read(iterations=5, **stored)
    assert settings == {"iterations": 5} or settings == {"iterations": 5, "noise": {}}
    assert next(iter(stored)) in note
    assert "not allowed" in note


def test_values_that_do_not_go_together_any_more() -> None:
    settings, (note,) = _read(seconds=None, rate=0.5)
    assert settings == {"rate": 0.5}
    assert "seconds" in note


def test_what_is_not_known_any_more_is_left_out_and_named() -> None:
    settings, (note,) = _read(iterations=5, gone=1, noise={})
    assert settings["iterations"] == 5
    assert "gone" in note


def test_notes_stay_short_and_harmless() -> None:
    unknown = {f"{i}\x1b[31m{'x' * 500}": 0 for i in range(1000)}
    _, notes = _read(**unknown, rate="\x1b]0;title\x07" + "y" * 10_000)
    assert len(notes) == 2
    assert all(len(note) < 500 and note.isprintable() for note in notes)


def test_a_default_that_is_not_allowed_is_an_error() -> None:
    class Wrong(BaseModel):
        needed: int

    with pytest.raises(ValidationError, match="needed"):
        read_settings(Wrong, {"needed": "x"})
