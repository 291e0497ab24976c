"""Keys of the viewer that the plugin adds, with what they do in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QObject

from napari_unet3d.widgets.parts.connections import Connections


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
    """Binds keys of a viewer, until `clear`, or until Qt deletes the owner.

    Parameters
    ----------
    viewer
        The napari viewer. Its keys work while the canvas has the focus and the active layer has
        no key of its own; keys that napari gives to Labels layers must not be used.
    owner
        The widget that the functions belong to: a viewer must not keep it alive.
    """

    def __init__(self, viewer: Any, owner: QObject) -> None:
        self._viewer = viewer
        self._shortcuts: list[Shortcut] = []
        self._connections = Connections(owner)

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
        self._connections.add((_Key(self._viewer, key), _handler(function)))
        return shortcut

    def table(self) -> tuple[Shortcut, ...]:
        """All keys, in the order in which they were added."""
        return tuple(self._shortcuts)

    def clear(self) -> None:
        """Give the keys back."""
        self._connections.clear()
        self._shortcuts.clear()


class _Key:
    """A key of a viewer as an emitter, to which one handler is connected."""

    def __init__(self, viewer: Any, key: str) -> None:
        self._viewer, self._key = viewer, key

    def connect(self, handler: Callable[[Any], None]) -> None:
        self._viewer.bind_key(self._key, handler, overwrite=True)

    def disconnect(self, _handler: Callable[[Any], None]) -> None:
        self._viewer.bind_key(self._key, None)


def _handler(function: Callable[[], object]) -> Callable[[Any], None]:
    def press(_viewer: Any) -> None:
        function()  # napari takes a returned generator for a key that is held

    return press
