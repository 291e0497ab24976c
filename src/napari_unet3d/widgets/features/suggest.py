"""Says which slice to paint next, and why, and goes there."""

from __future__ import annotations

from typing import Any

from napari_unet3d.data.content import Floats, gray_content
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.session.suggestions import Scene, suggest
from napari_unet3d.session.texts import few_text
from napari_unet3d.widgets.parts.suggestion_box import SuggestionBox, brief_sentence, sentence
from napari_unet3d.widgets.run.runner import Finished
from napari_unet3d.widgets.viewer.slice_summaries import newest_summary, read_summary_of
from napari_unet3d.widgets.workbench import Feature, Offer, Workbench

_UNKNOWN = (
    "Where the model is unsure on this stack is not known yet: a run tells it. Until then, gray "
    "values and distances count."
)


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
            (bench.session.changed, self._update),
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
        model = self.bench.session.value().model
        if not self._just_ran or model is None:
            return Offer(brief_sentence(suggestion), go)
        bundle = model.bundle
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
        if newest_summary(events) is not None:
            self._just_ran = True
            self._update()

    def _ended(self, finished: Any) -> None:
        if not isinstance(finished, Finished):
            self._just_ran = False
            self._update()

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
        stack = read_summary_of(image)
        summary = None if stack is None else stack.by_time.get(time)
        return Scene(
            volume.shape,
            volume.voxel_size,
            volume.unit,
            time,
            frozenset(s.ref for s in bench.annotator.slices() if s.ref.time == time),
            bench.slice_table.value(),
            () if stack is None else stack.class_names,
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
        unknown = scene.known() is None and self.bench.session.value().model is not None
        self.box.set_note(_UNKNOWN if unknown else "")
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
