"""Connections to napari's events, which outlive a widget unless they are let go of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject


class Connections:
    """Emitters and their callbacks; cleared at the latest when `owner` is deleted by Qt."""

    def __init__(self, owner: QObject) -> None:
        self._pairs: list[tuple[Any, Callable[..., Any]]] = []
        pairs = self._pairs  # not self: when Qt deletes the owner nothing of it may be touched
        owner.destroyed.connect(lambda *_: _clear(pairs))

    def add(self, *pairs: tuple[Any, Callable[..., Any]]) -> None:
        """Connect callbacks to emitters."""
        for emitter, callback in pairs:
            emitter.connect(callback)
            self._pairs.append((emitter, callback))

    def clear(self) -> None:
        """Disconnect all."""
        _clear(self._pairs)


def _clear(pairs: list[tuple[Any, Callable[..., Any]]]) -> None:
    for emitter, callback in pairs:
        emitter.disconnect(callback)
    pairs.clear()
