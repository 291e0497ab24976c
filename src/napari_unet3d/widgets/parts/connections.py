"""Connections to events of napari, which would keep a closed widget alive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject


class Connections:
    """Connects emitters to callbacks, until `clear`, or until Qt deletes the owner.

    Parameters
    ----------
    owner
        The widget or object that the callbacks belong to.
    """

    def __init__(self, owner: QObject) -> None:
        self._pairs: list[tuple[Any, Callable[..., Any]]] = []
        owner.destroyed.connect(_Clearing(self._pairs))

    def add(self, *pairs: tuple[Any, Callable[..., Any]]) -> None:
        """Connect emitters to callbacks, each pair an emitter and its callback."""
        for emitter, callback in pairs:
            emitter.connect(callback)
            self._pairs.append((emitter, callback))

    def clear(self) -> None:
        """Disconnect all of them."""
        _clear(self._pairs)


class _Clearing:
    """Disconnects when Qt deletes the owner.

    Python's garbage collector may have emptied the owner, and all that only it refers to, before
    Qt calls this. A lambda would then crash the program; this object has lost its attribute only.
    """

    def __init__(self, pairs: list[tuple[Any, Callable[..., Any]]]) -> None:
        self._pairs = pairs

    def __call__(self, *_: Any) -> None:
        _clear(getattr(self, "_pairs", []))


def _clear(pairs: list[tuple[Any, Callable[..., Any]]]) -> None:
    for emitter, callback in pairs:
        emitter.disconnect(callback)
    pairs.clear()
