"""Keys of the canvas for annotating: classes, states of the slice in view, undo."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from napari_unet3d.config import BACKGROUND, UNLABELLED
from napari_unet3d.data.slices import SliceRef, read_slice
from napari_unet3d.widgets.parts.class_table import SHORTCUT_MODIFIER
from napari_unet3d.widgets.workbench import Feature, Workbench


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
        # For layers without undo of their own, such as images; napari's keys of a Labels layer
        # come first, and undo the same while the annotation is selected.
        bench.shortcuts.add("Control-Z", "Undo the last action on the annotation", annotator.undo)
        bench.shortcuts.add("Control-Shift-Z", "Repeat what was undone last", annotator.redo)

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
            self.bench.viewer.status = "Show a single slice (2D view) first."

    def _complete(self, ref: SliceRef) -> None:
        layer = self.bench.annotator.layer()
        if layer is None or read_slice(layer.data, ref).any():
            self.bench.annotator.complete(ref)
        else:
            self.bench.viewer.status = (
                f"Nothing is painted on {ref}. Is nothing there? Press Shift+E."
            )

    def _hold_out(self, ref: SliceRef) -> None:
        self.bench.annotator.hold_out(ref, ref not in self.bench.slice_table.value())
