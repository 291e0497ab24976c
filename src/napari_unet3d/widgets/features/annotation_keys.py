"""Keys of the canvas for annotating: classes, states of the slice in view, undo."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from napari.layers import Labels

from napari_unet3d.config import BACKGROUND, UNLABELLED
from napari_unet3d.data.slices import SliceRef, read_slice
from napari_unet3d.widgets.parts.class_table import SHORTCUT_MODIFIER
from napari_unet3d.widgets.parts.connections import Connections
from napari_unet3d.widgets.viewer.layers import role_of
from napari_unet3d.widgets.workbench import Feature, Workbench

_UNDO, _REDO = "Control-Z", "Control-Shift-Z"


class AnnotationKeys(Feature):
    """Binds the keys that the tooltips of class table and slice table name.

    Parameters
    ----------
    bench
        The parts and mediators of the dock.
    """

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        annotator = bench.annotator
        for digit in range(10):
            bench.shortcuts.add(
                f"{SHORTCUT_MODIFIER}-{digit}",
                f"Paint with class {digit} of the table" if digit else "Erase",
                partial(self._choose_row, digit),
            )
        for key, text, action in (
            ("C", "Complete the slice in view", self._complete),
            ("H", "Hold the slice in view out, or train on it again", self._hold_out),
            ("Shift-E", "Nothing here: the slice in view becomes background", annotator.empty),
            ("Shift-R", "Revert the last change of the state of the slice", annotator.revert),
        ):
            bench.shortcuts.add(key, text, partial(self._on_shown, action))
        # napari's own keys of a Labels layer come before these. They undo the same while the
        # annotation is selected; a prediction gets keys that do, too.
        bench.shortcuts.add(_UNDO, "Undo the last action on the annotation", annotator.undo)
        bench.shortcuts.add(_REDO, "Repeat what was undone last", annotator.redo)
        self._prediction: Any = None
        self._connections = Connections(self)
        active = bench.viewer.layers.selection.events.active
        self._connections.add((active, self._layer_selected))
        self._layer_selected()

    def cleanup(self) -> None:
        """Give napari's keys back to a prediction."""
        self._connections.clear()
        self._unbind()

    def _layer_selected(self, _event: Any = None) -> None:
        self._unbind()
        layer = self.bench.viewer.layers.selection.active
        if isinstance(layer, Labels) and role_of(layer) in ("prediction", "companion"):
            self._prediction = layer
            layer.bind_key(_UNDO, lambda layer: self._replay("undo", layer), overwrite=True)
            layer.bind_key(_REDO, lambda layer: self._replay("redo", layer), overwrite=True)

    def _unbind(self) -> None:
        layer, self._prediction = self._prediction, None
        if layer is not None:
            for key in (_UNDO, _REDO):
                layer.bind_key(key, None)

    def _replay(self, name: str, layer: Any) -> None:
        """Undo or redo paint on a prediction, or, where it has none, the last action."""
        own = getattr(layer, f"_{name}_history", ())
        getattr(layer if own else self.bench.annotator, name)()

    def _choose_row(self, digit: int) -> None:
        labels = [BACKGROUND, *(c.value for c in self.bench.class_table.value())]
        if digit == 0:
            self.bench.annotator.choose_label(UNLABELLED)
        elif digit <= len(labels):
            self.bench.annotator.choose_label(labels[digit - 1])

    def _on_shown(self, action: Callable[[SliceRef], None]) -> None:
        shown = self.bench.annotator.shown()
        if shown is not None:
            action(shown)
        else:
            self.bench.run_bar.tell("Show a single slice (2D view) first.")

    def _complete(self, ref: SliceRef) -> None:
        layer = self.bench.annotator.layer()
        if layer is None or read_slice(layer.data, ref).any():
            self.bench.annotator.complete(ref)
        else:
            self.bench.run_bar.tell(
                f"Nothing is painted on {ref}. Is nothing there? Press Shift+E."
            )

    def _hold_out(self, ref: SliceRef) -> None:
        self.bench.annotator.hold_out(ref, ref not in self.bench.slice_table.value())
