"""Nothing is lost: work is saved in a session folder, and is there again when its image opens."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from napari.layers import Image, Labels
from qtpy.QtCore import QTimer, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QFileDialog

from napari_unet3d.config import ObjectsConfig
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import Checkpoint, RoundFinished
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.model.evidence import Evidence
from napari_unet3d.session.recent import RecentSession, recent_sessions
from napari_unet3d.session.session import RunSettings
from napari_unet3d.widgets.features.continuing import Continuing
from napari_unet3d.widgets.parts.ages import moment_text
from napari_unet3d.widgets.parts.keep_line import KeepLine, KeepState, RecentEntry
from napari_unet3d.widgets.parts.notice import Notice, NoticeBox
from napari_unet3d.widgets.parts.section import column
from napari_unet3d.widgets.run.runner import Finished
from napari_unet3d.widgets.viewer.belonging import belongs_to, owners
from napari_unet3d.widgets.viewer.image_volume import image_volume
from napari_unet3d.widgets.viewer.keeper import Keeper
from napari_unet3d.widgets.viewer.layers import file_of
from napari_unet3d.widgets.viewer.objects_layer import table_of
from napari_unet3d.widgets.viewer.recent_menu import RecentMenu
from napari_unet3d.widgets.viewer.session_folders import Folders
from napari_unet3d.widgets.viewer.slice_summaries import write_summary_of
from napari_unet3d.widgets.viewer.unsaved import UnsavedPaint
from napari_unet3d.widgets.viewer.window_record import window_record
from napari_unet3d.widgets.workbench import Feature, Workbench

_RECORD_MS = 250
"""Milliseconds from a change of marks or settings to its record. The paint of the same action is
copied at that moment too (`PaintWatch` would wait 300 ms), so that both come into one commit."""
_TICK_MS = 500
"""Milliseconds between two looks at the savers: the line counts seconds."""
_CHECKPOINT_SECONDS = 60.0
"""Seconds between two checkpoints of a running training, of which the first comes after ten
seconds. Writing one takes a second on a CPU; in the worst case a minute of training is lost, and no
paint."""


class Keeping(Feature):
    """Saves what the user does, and brings it back.

    Each annotation layer that is painted gets a `Keeper`, which saves it in a session folder until
    the layer is removed or the dock is closed. Settings, marks and the model go to the keeper of
    the chosen annotation; results to that of the annotation for which the run was started.
    """

    place = "header"

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self.folders = Folders(bench.viewer, self, bench.background.ask)
        self.continuing = Continuing(bench, self.folders, self)
        self.line, self.notice = KeepLine(), self.continuing.notice
        self.trouble = NoticeBox(in_a_row=True)
        """Why the work is not saved; it stays until that is over."""
        self.widget = column(self.line, self.trouble, self.notice, spacing=2)
        self._unsaved = UnsavedPaint(bench.viewer, bench.dock, self.folders.why_unsaved)
        self._recent: list[RecentSession] = []
        self._menu = RecentMenu(bench.viewer, self, self._entries, self.open)
        self._run_layer: Labels | None = None
        self._settings = RunSettings()
        self._blank = bench.results.state()
        self._record_timer, self._tick = QTimer(self), QTimer(self)
        self._record_timer.setSingleShot(True)
        self._record_timer.setInterval(_RECORD_MS)
        self._tick.start(_TICK_MS)
        for signal, slot in (
            (self._record_timer.timeout, self._put_record),
            (self._tick.timeout, self._look),
            (self.folders.changed, self._show),
            (self.folders.attached, self._attached),
            (self.folders.told, self.continuing.say),
            (self.continuing.changed, self._show),
            (self.continuing.failed, self._work_changed),
            (self.continuing.anewRequested, self.start_anew),
            (self.line.openRequested, self.open),
            (self.line.chooseRequested, self._choose_session),
            (self.line.keepInRequested, self._choose_place),
            (self.line.showFolderRequested, self._show_folder),
            (self.line.startAnewRequested, self.start_anew),
            (self.line.recentWanted, self._fill_menu),
            (bench.pairing.changed, self._pair_changed),
            (bench.annotator.changed, self._work_changed),
            (bench.form.valueChanged, self._record_timer.start),
            (bench.choice.timesChanged, self._record_timer.start),
            (bench.choice.channelsChanged, self._record_timer.start),
            (bench.session.changed, self._model_changed),
            (bench.session.openRequested, self._open_wanted),
            (bench.session.objectsFound, self._put_objects),
            (bench.runner.phaseChanged, self._follow_run),
            (bench.runner.eventsArrived, self._take_events),
            (bench.runner.trained, self._put_checkpoint),
            (bench.runner.finished, self._put_results),
        ):
            signal.connect(slot)
        self._read_recent(then=self.continuing.offer)
        QTimer.singleShot(0, self._open_wanted)
        self._show()

    # ---- what is saved, and whether

    def keeper(self) -> Keeper | None:
        """The keeper of the chosen annotation; None before the first stroke."""
        return self.folders.keeper(self.bench.annotator.layer())

    def unsaved(self) -> tuple[str, ...]:
        return self._unsaved.texts()

    def may_close(self) -> bool:
        return self._unsaved.may_close()

    def cleanup(self) -> None:
        try:
            self._tick.stop()
            self._record_timer.stop()
            self._put_record()
            self._unsaved.stop()
            self._menu.stop()
            self.continuing.cleanup()
        finally:
            self.folders.cleanup()
        self._run_layer = None

    def _work_changed(self) -> None:
        self.continuing.refresh_notice()
        layer = self.bench.annotator.layer()
        if layer is None:
            return
        if self.folders.keeper(layer) is not None:
            if not self._record_timer.isActive():
                self._record_timer.start()
        elif self.bench.annotator.slices() and self.continuing.path() is None:
            self._make_folder(layer)

    def _make_folder(self, layer: Labels) -> None:
        image, chosen = self.bench.choice.value()
        if image is None or chosen is not layer or self.continuing.is_looking_for(image):
            return
        try:
            volume = image_volume(image, self.bench.choice.first_axis_value())[0]
        except BadInputError as error:
            self.folders.tell(layer, str(error))
            return
        self.folders.make(layer, volume, file_of(image), self._current_settings())

    def _attached(self, layer: Labels) -> None:
        """A layer has a folder now: save with it what is known beside its paint."""
        if layer is self.bench.annotator.layer():
            self._put_record()
            self._model_changed()
        self._read_recent()
        self._show()

    def _put_record(self) -> None:
        keeper = self.keeper()
        if keeper is None:
            return
        image, layer = self.bench.choice.value()
        if layer is keeper.layer and image is not None:
            keeper.put_record(
                window_record(
                    keeper.folder.record(),
                    (image, *self.bench.choice.channels_value()),
                    layer,
                    self._current_settings(),
                    self.bench.session.value(),
                    self.bench.annotator.shown(),
                )
            )

    def _current_settings(self) -> RunSettings:
        """The settings in the form; the last good ones while something wrong is typed there."""
        with suppress(BadInputError):
            self._settings = self.bench.actions.settings()
        return self._settings

    # ---- a run

    def _follow_run(self, phase: str) -> None:
        if phase == "checking":
            self._run_layer = self.bench.annotator.layer()
            self.bench.runner.checkpoint_every(_CHECKPOINT_SECONDS)

    def _run_keeper(self) -> Keeper | None:
        return self.folders.keeper(self._run_layer) or self.keeper()

    def _take_events(self, events: Sequence[Any]) -> None:
        for event in events:
            if isinstance(event, Checkpoint | RoundFinished):
                self._put_checkpoint(event.bundle)

    def _put_checkpoint(self, bundle: ModelBundle) -> None:
        """Save what a run has learned; `put_model` replaces it when the run is over."""
        if (keeper := self._run_keeper()) is not None:
            keeper.saver.put_checkpoint(bundle)

    def _model_changed(self) -> None:
        session = self.bench.session.value()
        keeper = self._run_keeper() if self.bench.runner.is_running() else self.keeper()
        if keeper is None:
            return
        if session.model is not None:
            keeper.put_model(session.model, session.scores)
        self._record_timer.start()  # scores and evidence are in the record

    def _put_results(self, finished: Finished | None) -> None:
        keeper, self._run_layer = self._run_keeper(), None
        if keeper is None:
            return
        if finished is None:
            keeper.saver.drop_checkpoint()
        else:
            keeper.put_outputs(finished.outputs, finished.bundle.classes)
            if finished.summary is not None:
                keeper.put_summary(finished.summary)

    def _put_objects(self, layer: Labels, config: ObjectsConfig) -> None:
        """Save objects with the annotation of their image."""
        table, folders, chosen = table_of(layer), self.folders, self.keeper()
        keepers = sorted(folders.keepers(), key=lambda keeper: keeper is not chosen)
        for keeper in keepers:
            image = folders.image_of(keeper.layer)
            own = belongs_to(layer, image) if image is not None else False
            own = own or (keeper is chosen and not owners(layer, ()))  # labels of the user
            if own and table is not None and keeper.layer.data.shape == layer.data.shape:
                keeper.put_objects(layer.data, table, config)
                return

    # ---- images and sessions open

    def _pair_changed(self) -> None:
        image, layer = self.bench.choice.value()
        self._unsaved.note_file(self.bench.annotator.layer())
        if layer is not None and self.folders.keeper(layer) is None:
            self.folders.reattach(layer)
        if layer is not None and self.folders.is_busy(layer):
            pass  # its folder is just being opened
        elif image is not None and self.continuing.path() is None:
            self.continuing.look_for_session(image)
        self._show()

    def open(self, path: Path) -> None:
        """Open a session and its image; what is wrong is shown in the notice."""
        self.continuing.open(path)

    def _open_wanted(self) -> None:
        if (path := self.bench.session.take_wanted()) is not None:
            self.open(path)

    # ---- the menu

    def start_anew(self) -> None:
        """Begin with an empty annotation; the session so far gets another name.

        The empty annotation has its session at once: when the image is opened again, that one is
        continued, and not the session that was put aside.
        """
        keeper = self.keeper()
        self.continuing.dismiss()
        if keeper is None:
            return
        if problem := keeper.problem():
            self.continuing.say(f"The session was not put aside, since it is not saved. {problem}")
            return
        layer, viewer = keeper.layer, self.bench.viewer
        aside = self.folders.put_aside(layer)
        for old in (layer, *self.continuing.take_restored()):
            if old in viewer.layers:
                viewer.layers.remove(old)
        if (image := self.bench.choice.value()[0]) is not None:
            write_summary_of(image, None)
        self.bench.session.update(model=None, scores=None, evidence=Evidence())
        self.bench.results.set_state(self._blank)
        self.bench.pairing.start()
        if (new := self.bench.annotator.layer()) is not None:
            self._make_folder(new)
        self._read_recent()
        self.continuing.say(
            f"What was there is kept in '{aside.name}'.",
            ("OK", self.continuing.dismiss),
            ("Open it again", partial(self.open, aside)),
        )

    def _choose_session(self) -> None:
        path = QFileDialog.getExistingDirectory(self.bench.dock, "Open session")
        if path:
            self.open(Path(path))

    def _choose_place(self) -> None:
        path = QFileDialog.getExistingDirectory(self.bench.dock, "Keep the session in")
        layer = self.bench.annotator.layer()
        if path and layer is not None:
            self.keep_in(layer, Path(path))

    def keep_in(self, layer: Labels, place: Path) -> None:
        """Move the session of a layer into a folder, or make it there."""
        self.folders.keep_in(layer, place)
        self._work_changed()

    def _show_folder(self) -> None:
        if (keeper := self.keeper()) is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(keeper.path)))

    def _fill_menu(self) -> None:
        self.line.set_recent(self._entries())
        self._read_recent()

    def _read_recent(self, then: Any = None) -> None:
        def read(recent: list[RecentSession]) -> None:
            self._recent = recent
            self.line.set_recent(self._entries())
            if then is not None:
                then(recent)

        self.bench.background.ask(recent_sessions, read)

    def _entries(self) -> list[RecentEntry]:
        kept = {keeper.path for keeper in self.folders.keepers()}
        return [
            RecentEntry(r.path, f"{r.image_name} · {moment_text(r.saved.timestamp())}")
            for r in self._recent
            if r.path not in kept
        ]

    # ---- the line

    def _look(self) -> None:
        layer = self.bench.annotator.layer()
        if layer is not None and self.folders.problem(layer):
            self._work_changed()  # tries again
        self._show()

    def _show(self) -> None:
        image, layer = self.bench.choice.value()
        keeper = self.keeper()
        state = self._state(image, layer, keeper)
        self.line.setValue(state)
        cure = (("Keep in…", self._choose_place),)
        self.trouble.setValue(Notice(state.tip, cure, blocks=True) if state.problem else None)
        self.line.set_available(image=layer is not None, folder=keeper is not None)

    def _state(self, image: Image | None, layer: Labels | None, keeper: Keeper | None) -> KeepState:
        if (path := self.continuing.path()) is not None:
            return KeepState("Opening …", path.name, str(path))
        if keeper is not None:
            return keeper.state()
        if layer is not None and (problem := self.folders.problem(layer)):
            return KeepState("Not saved", tip=problem, problem=True)
        if layer is not None and self.folders.is_busy(layer):
            return KeepState("Saving …")
        if image is None:
            return KeepState("Nothing to save yet", tip="Open an image, or a recent session.")
        return KeepState(
            "Saved from the first stroke on",
            tip="What you paint, train and set is saved as you work. 'Keep in…' says where.",
        )
