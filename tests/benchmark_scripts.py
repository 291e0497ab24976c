"""The scripts of `benchmarks/`, which are no package, as modules for a test."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@contextmanager
def imported(names: Sequence[str]) -> Iterator[SimpleNamespace]:
    """Import scripts by name, and forget them when the block ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield SimpleNamespace(**{name: __import__(name) for name in names})
        for name in names:
            del sys.modules[name]
