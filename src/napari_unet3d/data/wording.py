"""Numbers and lists in sentences: "1 slice", "12 slices"; "a, b and c"."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun: "1 slice", "1,200 slices", "2 classes".

    Parameters
    ----------
    number
        How many.
    noun
        One of them.
    plural
        Several of them; `noun` with an "s" when None.
    """
    return f"{number:,} {either(number, noun, plural)}"


def either(number: int, one: str, several: str | None = None) -> str:
    """Return the word for one thing, or that for several: `one` with an "s" when None."""
    if number == 1:
        return one
    return f"{one}s" if several is None else several


def joined(items: Sequence[object]) -> str:
    """Write items as "a", "a and b" or "a, b and c"."""
    names = [str(item) for item in items]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
