"""Point and click on the slice in view: grow, take, accept, fill, smooth, copy, interpolate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, ClassVar

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QTimer

from napari_unet3d.config import BACKGROUND, UNLABELLED
from napari_unet3d.data.editing.components import count_components
from napari_unet3d.data.editing.interpolation import Interpolation
from napari_unet3d.data.editing.neighbors import around, neighbors
from napari_unet3d.data.editing.planes import spacing_in_slice
from napari_unet3d.data.editing.retouching import fill_holes, smooth
from napari_unet3d.data.editing.taking import unlabelled_edit
from napari_unet3d.data.edits import SliceEdit
from napari_unet3d.data.slices import SliceRef, read_slice
from napari_unet3d.data.volume import Volume
from napari_unet3d.data.wording import counted
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.events import SlicePreview
from napari_unet3d.widgets.annotator import UNDO_HINT
from napari_unet3d.widgets.features.accepting import AcceptingAll
from napari_unet3d.widgets.parts.connections import Connections
from napari_unet3d.widgets.parts.tool_bar import Tool, ToolBar
from napari_unet3d.widgets.parts.tool_reasons import NO_PREDICTION, ToolSituation, tool_reasons
from napari_unet3d.widgets.viewer.layers import read_accepted
from napari_unet3d.widgets.viewer.pointing import Pointing
from napari_unet3d.widgets.viewer.predictions import (
    Source,
    has_origin,
    newest_prediction,
    note_origin,
)
from napari_unet3d.widgets.viewer.proposals import (
    AcceptedProposals,
    add_proposals,
    find_proposals,
    note_proposed,
    proposed,
    write_proposals,
)
from napari_unet3d.widgets.workbench import Feature, Place, Workbench

_MOST_COUNTED = 2**21
"""Voxels of a slice. Counting the objects of a larger one takes more than 20 ms."""


class Tools(Feature):
    """Mediates between the tool bar, the canvas, the predictions and the annotation."""

    place: ClassVar[Place] = "annotate"

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self.bar, self._tell = ToolBar(), bench.run_bar.tell
        self.widget = self.bar
        self._previewed: set[SliceRef] = set()
        """Slices that the unfinished prediction of the present run shows already."""
        self._accepted = AcceptedProposals()
        self._sync_timer = QTimer(self)
        self._sync_timer.setSingleShot(True)
        self._sync_timer.setInterval(0)
        self._sync_timer.timeout.connect(self._sync_proposals)
        self._interpolating = False
        self._accepting = AcceptingAll(bench, self)
        annotator = bench.annotator
        self.pointing = Pointing(
            bench.viewer,
            self,
            volume=self._volume,
            source=self._source,
            label=bench.class_table.selected_label,
            classes=annotator.classes,
        )
        self._functions: dict[str, Callable[[SliceRef, Labels], None]] = {
            "accept": self._accept,
            "fill": self._fill,
            "smooth": self._smooth,
            "copy": self._copy,
            "interpolate": self._interpolate,
        }
        for key, text, action in (
            ("A", "Accept the prediction, or the proposal, of the slice in view", "accept"),
            ("I", "Interpolate between the annotated slices around the view", "interpolate"),
            ("Shift-C", "Copy the nearest annotated slice onto the slice in view", "copy"),
            ("Shift-F", "Fill the holes of the selected class on the slice in view", "fill"),
            ("Shift-S", "Smooth the selected class on the slice in view", "smooth"),
        ):
            bench.shortcuts.add(key, text, partial(self.do, action))
        grow, take = "Grow an object from a click", "Take or reject predicted objects"
        bench.shortcuts.add("G", f"{grow}, on and off", partial(self.toggle, "grow"))
        bench.shortcuts.add("K", f"{take}, on and off", partial(self.toggle, "take"))
        for signal, slot in (
            (self.bar.valueChanged, self._tool_chosen),
            (self.bar.sourceChanged, self._source_chosen),
            (self.bar.actionRequested, self.do),
            (self.pointing.edited, self._pointed),
            (self.pointing.told, self._tell),
            (self.pointing.ended, self._ended),
            (self._accepting.told, self._tell),
            (annotator.changed, self._annotation_changed),
            (bench.pairing.changed, self._pair_changed),
            (bench.pairing.acceptRequested, partial(self.do, "accept")),
            (bench.runner.phaseChanged, self._phase_changed),
            (bench.runner.eventsArrived, self._events_arrived),
            (bench.runner.finished, self._finished),
        ):
            signal.connect(slot)
        self._connections = Connections(self)
        self._connections.add(
            (bench.viewer.layers.events, self._layer_event),
            (bench.viewer.dims.events.ndisplay, self._update),
        )
        self._update()

    def cleanup(self) -> None:
        self._sync_timer.stop()
        self._accepting.stop()
        self._connections.clear()
        self.pointing.cleanup()
        self._accepted.clear()

    # ---- the tools that stay on

    def toggle(self, tool: Tool) -> None:
        """Switch a tool on, or off when it is on; say why where that is not possible."""
        if reason := self._reasons().get(tool, ""):
            self._tell(_sentence(reason))
            return
        self.bar.setValue("" if self.bar.value() == tool else tool)
        self._tool_chosen(self.bar.value())

    def _tool_chosen(self, tool: Tool) -> None:
        layer = self.bench.annotator.layer()
        self._tell("")
        if not tool or layer is None:
            self._switch_off()
            return
        self.bench.annotator.lend_mouse(True)
        self.pointing.set_grow_from(self.bar.source())
        self.pointing.start(tool, layer)

    def _source_chosen(self) -> None:
        self.pointing.set_grow_from(self.bar.source())
        self._update()

    def _switch_off(self) -> None:
        self.pointing.stop()
        self._ended()

    def _ended(self) -> None:
        self.bar.setValue("")
        self.bench.annotator.lend_mouse(False)

    def _pointed(self, edit: SliceEdit, text: str) -> None:
        if self.bench.annotator.apply([edit]):
            self._tell(f"{text}; {UNDO_HINT}")

    # ---- actions

    def do(self, action: str) -> None:
        """Do one of the actions of the bar on the slice in view; say why where it cannot."""
        layer, ref = self.bench.annotator.layer(), self.bench.annotator.shown()
        if reason := self._reasons().get(action, ""):
            self._tell(_sentence(reason))
            return
        if self.bench.annotator.holding.refuses():
            return
        try:
            if action == "accept all":
                if (proposals := self._proposals()) is not None:
                    self._accepting.start(proposals)
            elif action == "discard":
                self._discard()
            elif ref is not None and layer is not None:
                self._functions[action](ref, layer)
        except (BadInputError, RunFailedError, MemoryError) as error:
            self._tell(str(error))

    def _accept(self, ref: SliceRef, layer: Labels) -> None:
        source = self._source(ref)
        if text := source.missing_text():
            raise BadInputError(text)
        edit = unlabelled_edit(ref, read_slice(layer.data, ref), source.labels)
        if edit is None:
            self._tell(f"Nothing to accept: {ref} is painted all over.")
            return
        accepted = {**read_accepted(layer), ref: source.origin}
        self.bench.annotator.apply([edit], accepted=accepted)
        self._tell(f"{self._objects(edit)} taken from {source.name}; {UNDO_HINT}")

    def _fill(self, ref: SliceRef, layer: Labels) -> None:
        plane = read_slice(layer.data, ref)
        self._retouch(ref, plane, fill_holes(plane, self._selected()), "Holes", "filled")

    def _smooth(self, ref: SliceRef, layer: Labels) -> None:
        plane = read_slice(layer.data, ref)
        after = smooth(plane, self._selected(), spacing_in_slice(tuple(layer.scale), ref))
        self._retouch(ref, plane, after, "Border", "smoothed")

    def _retouch(
        self, ref: SliceRef, before: np.ndarray, after: np.ndarray, noun: str, verb: str
    ) -> None:
        edit = SliceEdit.between(ref, before, after)
        if edit is None:
            self._tell(f"Nothing to be {verb} on {ref}.")
            return
        self.bench.annotator.apply([edit])
        self._tell(f"{noun} {verb}, {counted(edit.voxels, 'voxel')} changed; {UNDO_HINT}")

    def _copy(self, ref: SliceRef, layer: Labels) -> None:
        nearest = self._neighbors(ref)[0]
        plane, labels = read_slice(layer.data, ref), read_slice(layer.data, nearest)
        edit = unlabelled_edit(ref, plane, labels)
        if edit is None:
            self._tell(f"Nothing to copy: {nearest} has no paint where {ref} has none.")
            return
        self.bench.annotator.apply([edit])
        self._tell(f"{counted(edit.voxels, 'voxel')} copied from {nearest}; {UNDO_HINT}")

    def _interpolate(self, ref: SliceRef, layer: Labels) -> None:
        image, _ = self.bench.choice.value()
        first, last = around(self._neighbors(ref), ref)
        if image is None or first is None or last is None:
            return
        known = find_proposals(self.bench.viewer, image, layer)
        target = add_proposals(self.bench.viewer, image, layer) if known is None else known
        if any(r.axis != ref.axis for r in proposed(target)):
            self._discard()  # proposals of two orientations would overwrite each other
            target = add_proposals(self.bench.viewer, image, layer)
        painted = {s.ref for s in self.bench.annotator.slices() if s.state == "complete"}
        between = [SliceRef(ref.axis, i, ref.time) for i in range(first.index + 1, last.index)]
        wanted = [r for r in between if r not in painted]
        origin = f"interpolated between {first} and {last}, {datetime.now():%Y-%m-%d %H:%M}"
        one, other = (np.array(read_slice(layer.data, end)) for end in (first, last))
        spacing = spacing_in_slice(tuple(layer.scale), ref)
        planes = Interpolation.planes(one, other, spacing, (first.index, last.index), wanted)
        self._interpolating = True
        self._update()
        self._tell(f"Interpolating between {first} and {last} …")
        self.bench.background.ask(
            partial(write_proposals, target.data, planes),
            lambda _: self._interpolated(target, wanted, origin),
        )

    def _interpolated(self, layer: Labels, refs: Sequence[SliceRef], origin: str) -> None:
        self._interpolating = False
        if layer in self.bench.viewer.layers:
            note_proposed(layer, {**proposed(layer), **dict.fromkeys(refs, origin)})
            self._tell(
                f"{counted(len(refs), 'slice')} proposed. Check them; A accepts the slice in view."
            )
        self._update()

    # ---- proposals

    def _discard(self) -> None:
        proposals = self._proposals()
        if proposals is not None:
            number = len(proposed(proposals))
            self._accepted.clear()
            self.bench.viewer.layers.remove(proposals)
            self._tell(f"{counted(number, 'proposal')} discarded.")

    def _sync_proposals(self) -> None:
        layer, proposals = self.bench.annotator.layer(), self._proposals()
        if layer is not None and proposals is not None:
            self._accepted.sync(proposals, read_accepted(layer))
            self._update()

    def _proposals(self) -> Labels | None:
        layer, (image, _) = self.bench.annotator.layer(), self.bench.choice.value()
        return None if layer is None else find_proposals(self.bench.viewer, image, layer)

    # ---- what there is

    def _volume(self) -> Volume:
        return self.bench.choice.volume()[0]

    def _source(self, ref: SliceRef) -> Source:
        """The proposal of a slice or, without one, its newest visible prediction."""
        proposals = self._proposals()
        if (origin := proposed(proposals).get(ref)) is not None and proposals is not None:
            return Source.from_proposals(proposals, ref, origin)
        prediction = self._prediction()
        if prediction is None:
            raise BadInputError(_sentence(NO_PREDICTION))
        running = self.bench.runner.is_running() and not has_origin(prediction)
        if running and ref not in self._previewed:
            raise BadInputError(f"{ref} is not predicted yet: wait until the run shows it.")
        return Source.from_prediction(prediction, ref, self.bench.annotator.classes())

    def _prediction(self) -> Labels | None:
        layer, (image, _) = self.bench.annotator.layer(), self.bench.choice.value()
        return None if layer is None else newest_prediction(self.bench.viewer, image, layer)

    def _selected(self) -> tuple[int, ...]:
        """The selected class; all classes when background or "unlabelled" is selected."""
        label = self.bench.class_table.selected_label()
        if label in (UNLABELLED, BACKGROUND):
            return tuple(c.value for c in self.bench.annotator.classes())
        return (label,)

    def _neighbors(self, ref: SliceRef) -> list[SliceRef]:
        return neighbors(self.bench.annotator.slices(), ref, self.bench.slice_table.value())

    def _reasons(self) -> dict[str, str]:
        annotator = self.bench.annotator
        if annotator.layer() is None:
            return tool_reasons(ToolSituation(False))
        ref = annotator.shown()
        before, after = (None, None) if ref is None else around(self._neighbors(ref), ref)
        return tool_reasons(
            ToolSituation(
                True,
                ref,
                held_out=ref in self.bench.slice_table.value(),
                has_prediction=self._prediction() is not None,
                follows_prediction=self.bar.source() == "prediction",
                proposed=frozenset(proposed(self._proposals())),
                before=before,
                after=after,
                is_interpolating=self._interpolating,
            )
        )

    # ---- something changed

    def _update(self, _event: Any = None) -> None:
        reasons, tool = self._reasons(), self.bar.value()
        self.bar.set_reasons(reasons)
        self.bar.set_proposals(len(proposed(self._proposals())))
        if tool and reasons.get(tool):
            self._switch_off()

    def _layer_event(self, event: Any) -> None:
        if event.type in ("inserted", "removed", "visible"):
            self._update()

    def _annotation_changed(self) -> None:
        self._sync_timer.start()  # redrawing the proposals takes as long as the edit itself
        self._update()

    def _pair_changed(self) -> None:
        self._switch_off()
        self._accepted.clear()
        self._update()

    def _phase_changed(self, phase: str) -> None:
        if phase == "checking":
            self._previewed.clear()
        self._update()

    def _events_arrived(self, events: Sequence[Any]) -> None:
        self._previewed.update(e.ref for e in events if isinstance(e, SlicePreview))

    def _finished(self, finished: Any) -> None:
        if finished is not None:
            model = self.bench.session.value().model
            note_origin(finished.layer, "" if model is None else model.name)
        self._update()

    def _objects(self, edit: SliceEdit) -> str:
        """Say what an edit paints: "12 objects of 'nuclei', 3 objects of 'cells'"."""
        if edit.mask.size > _MOST_COUNTED:
            return counted(edit.voxels, "voxel")
        plane = np.where(edit.mask, edit.labels, 0)
        numbers = [(count_components(plane, c.value), c) for c in self.bench.annotator.classes()]
        parts = [f"{counted(number, 'object')} of '{c.name}'" for number, c in numbers if number]
        return ", ".join(parts) or "Background"


def _sentence(reason: str) -> str:
    return reason[:1].upper() + reason[1:]
