"""Keys of the viewer that the plugin adds, with what they do in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shortcut:
    """A key and what it does.

    Parameters
    ----------
    key
        As napari writes it: "C", "Shift-C", "Control-Enter".
    text
        What pressing it does, as a sentence without a full stop: "Complete the slice in view".
    """

    key: str
    text: str

    @property
    def shown(self) -> str:
        """The key as tooltips write it: "Ctrl+Enter"."""
        return self.key.replace("Control", "Ctrl").replace("-", "+")


class Shortcuts:
    """Binds keys of a viewer, until `clear`.

    Parameters
    ----------
    viewer
        The napari viewer. Its keys work while the canvas has the focus and the active layer has
        no key of its own; keys that napari gives to Labels layers must not be used.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._shortcuts: list[Shortcut] = []

    def add(self, key: str, text: str, function: Callable[[], object]) -> Shortcut:
        """Call a function when a key is pressed.

        Parameters
        ----------
        key, text
            See `Shortcut`.
        function
            Called without arguments.

        Raises
        ------
        ValueError
            The key is in use by this plugin already.
        """
        if any(shortcut.key == key for shortcut in self._shortcuts):
            raise ValueError(f"The key {key} has two meanings.")
        shortcut = Shortcut(key, text)
        self._shortcuts.append(shortcut)
        self._viewer.bind_key(key, _handler(function), overwrite=True)
        return shortcut

    def table(self) -> tuple[Shortcut, ...]:
        """All keys, in the order in which they were added."""
        return tuple(self._shortcuts)

    def clear(self) -> None:
        """Give the keys back."""
        for shortcut in self._shortcuts:
            self._viewer.bind_key(shortcut.key, None)
        self._shortcuts.clear()


def _handler(function: Callable[[], object]) -> Callable[[Any], None]:
    def press(_viewer: Any) -> None:
        function()  # napari takes a returned generator for a key that is held

    return press
