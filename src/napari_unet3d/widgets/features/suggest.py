"""Says which slice to paint next, and why, and goes there."""

from __future__ import annotations

import weakref
from typing import Any

from napari.layers import Image

from napari_unet3d.data.content import Floats, gray_content
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import SlicesSummarized
from napari_unet3d.session.suggestions import Scene, suggest
from napari_unet3d.session.texts import few_text
from napari_unet3d.widgets.parts.suggestion_box import SuggestionBox, brief_sentence, sentence
from napari_unet3d.widgets.run.runner import Finished
from napari_unet3d.widgets.workbench import Feature, Offer, Workbench

_Result = tuple[weakref.ref[Image], SlicesSummarized]


class NextSlice(Feature):
    """Suggests slices from what is painted and, after a run, from what the model was unsure about.

    A run tells how unsure it is on each slice (`SlicesSummarized`), which takes no layer and no
    memory. Before the first run, the gray values of the image take its place.
    """

    place = "annotate"

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self.box = SuggestionBox()
        self.widget = self.box
        self._result: _Result | None = None
        self._before: _Result | None = None
        """The result before the run that goes on, which comes back when that fails."""
        self._content: dict[tuple[Any, ...], tuple[Floats, Floats, Floats] | None] = {}
        """By time point, image and channels; None while it is read."""
        self._key: tuple[Any, ...] = ()
        self._just_ran = False
        go = bench.shortcuts.add("N", "Go to the suggested next slice", self.go)
        self.box.set_key(go.shown)
        for signal, slot in (
            (bench.annotator.changed, self._update),
            (bench.choice.valueChanged, self._update),
            (bench.choice.channelsChanged, self._update),
            (bench.runner.eventsArrived, self._note),
            (bench.runner.finished, self._ended),
            (bench.runner.failed, self._ended),
            (self.box.strategyChanged, self._update),
            (self.box.jumpRequested, self._jump),
        ):
            signal.connect(slot)
        self._update()

    def go(self) -> None:
        """Show the suggested slice; if it is in view already, the next suggestion."""
        suggestion = self.box.current()
        if suggestion is not None and suggestion.ref == self.bench.annotator.shown():
            self.box.show_another()
        self.box.go()
        chosen = self.box.current()
        if chosen is not None and self.box.sentence.visibleRegion().isEmpty():
            self.bench.run_bar.tell(sentence(chosen))  # the dock is scrolled to another section

    def offer(self) -> Offer | None:
        """Where to paint next; after a run with the reason, and with what became of the run."""
        suggestion = self.box.current()
        if suggestion is None:
            return None
        go = (("Go there", self.box.go),)
        if not self._just_ran or self._result is None:
            return Offer(brief_sentence(suggestion), go)
        bundle = self._result[1].bundle
        if rest := self.bench.report.rest():
            return Offer(f"{rest} {brief_sentence(suggestion)}", go)
        if bundle.record.starved:  # more time comes before more paint
            return Offer(f"{few_text(bundle)} Give it more time. {brief_sentence(suggestion)}", go)
        then = " Paint it, then press Continue training." if suggestion.purpose == "train" else ""
        return Offer(sentence(suggestion) + then, go)

    def _jump(self, ref: SliceRef) -> None:
        self.bench.annotator.jump(ref)
        self.showRequested.emit()  # the classes and tools to paint it with

    # ---- what is known

    def _note(self, events: list[Any]) -> None:
        image = self.bench.choice.value()[0]  # it cannot be changed during a run
        for event in events:
            if isinstance(event, SlicesSummarized) and image is not None:
                self._before = self._result
                self._result, self._just_ran = (weakref.ref(image), event), True
                self._update()

    def _ended(self, finished: Any) -> None:
        if not isinstance(finished, Finished):
            self._result, self._just_ran = self._before, False
            self._update()
        self._before = self._result

    def _scene(self) -> Scene | None:
        """What a suggestion depends on; None without a pair of image and annotation."""
        bench = self.bench
        image, annotation = bench.choice.value()
        if image is None or annotation is None or bench.pairing.problem():
            return None
        try:
            volume, _ = bench.choice.volume()
            volume.check_header()
        except BadInputError:
            return None
        shown = bench.annotator.shown()
        time = 0 if shown is None else shown.time
        names: tuple[str, ...] = ()
        summary = None
        if self._result is not None and self._result[0]() is image:
            summary = self._result[1].summaries.get(time)
            names = tuple(c.name for c in self._result[1].bundle.classes)
        return Scene(
            volume.shape,
            volume.voxel_size,
            volume.unit,
            time,
            frozenset(s.ref for s in bench.annotator.slices() if s.ref.time == time),
            bench.slice_table.value(),
            names,
            summary,
            self._content_of(volume, time) if summary is None else None,
        )

    def _content_of(self, volume: Volume, time: int) -> Any:
        """Content of the slices; it is read in the background when it is first asked for."""
        choice = self.bench.choice
        key = time, *map(id, (choice.value()[0], *choice.channels_value()))
        if key not in self._content:
            self._content = {key: None}

            def arrived(content: tuple[Floats, Floats, Floats]) -> None:
                if key in self._content:
                    self._content[key] = content
                    self._update()

            self.bench.background.ask(lambda: gray_content(volume, time), arrived)
        return self._content[key]

    def _update(self, _: Any = None) -> None:
        scene = self._scene()
        if scene is None:
            self._key, self._just_ran = (), False
            self.box.setValue(())
            return
        strategy = self.box.strategy_value()
        key = (
            scene.shape,
            scene.voxel_size,
            scene.unit,
            scene.time,
            scene.painted,
            bool(scene.held_out),
            id(scene.summary),
            id(scene.content),
            strategy,
        )
        if key == self._key:
            return
        if self._key and key[4] != self._key[4]:
            self._just_ran = False  # the user painted
        self._key = key
        self.box.setValue(suggest(scene, strategy))
        self.settled.emit()  # the next step may be another one
