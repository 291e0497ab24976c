"""Connections to events of napari, which would keep a closed widget alive."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
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
        self._owner = owner
        self._pairs: list[tuple[Any, Callable[..., Any]]] = []
        pairs = self._pairs  # without self: when Qt deletes the owner, it must not be used
        self._forget = lambda *_: _clear(pairs)
        self._is_watching = False

    def add(self, *pairs: tuple[Any, Callable[..., Any]]) -> None:
        """Connect emitters to callbacks, each pair an emitter and its callback."""
        if not self._is_watching:
            self._owner.destroyed.connect(self._forget)
            self._is_watching = True
        for emitter, callback in pairs:
            emitter.connect(callback)
            self._pairs.append((emitter, callback))

    def clear(self) -> None:
        """Disconnect all of them."""
        _clear(self._pairs)
        if self._is_watching:
            self._is_watching = False
            # Python's garbage collector may delete an owner that nothing refers to any longer,
            # together with this function; Qt would then call what is deleted, and crash.
            with suppress(RuntimeError, TypeError):  # the owner is deleted already
                self._owner.destroyed.disconnect(self._forget)


def _clear(pairs: list[tuple[Any, Callable[..., Any]]]) -> None:
    for emitter, callback in pairs:
        emitter.disconnect(callback)
    pairs.clear()
