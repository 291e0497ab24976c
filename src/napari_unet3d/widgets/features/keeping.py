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

from napari_unet3d.errors import BadInputError
from napari_unet3d.events import Checkpoint
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.session.finding import sessions_of
from napari_unet3d.session.folder import SessionFolder
from napari_unet3d.session.opening import OpenedSession
from napari_unet3d.session.recent import RecentSession, recent_sessions
from napari_unet3d.session.session import RunSettings
from napari_unet3d.widgets.parts.ages import moment_text
from napari_unet3d.widgets.parts.keep_line import KeepLine, KeepState, RecentEntry
from napari_unet3d.widgets.parts.notice import Notice, NoticeBox
from napari_unet3d.widgets.parts.section import column
from napari_unet3d.widgets.run.restoring import (
    is_untouched,
    opened_text,
    restore_annotation,
    restore_results,
    restore_voxel_size,
)
from napari_unet3d.widgets.run.runner import Finished
from napari_unet3d.widgets.viewer.belonging import identify
from napari_unet3d.widgets.viewer.image_volume import image_volume
from napari_unet3d.widgets.viewer.keeper import Keeper
from napari_unet3d.widgets.viewer.recent_menu import RecentMenu
from napari_unet3d.widgets.viewer.session_folders import Folders
from napari_unet3d.widgets.viewer.session_opening import SessionOpening, file_of
from napari_unet3d.widgets.viewer.unsaved import UnsavedPaint
from napari_unet3d.widgets.viewer.window_record import shown_slice_of, window_record
from napari_unet3d.widgets.workbench import Feature, Workbench

_RECORD_MS = 250
"""Milliseconds from a change of marks or settings to its record. The paint of the same action is
copied at that moment too (`PaintWatch` would wait 300 ms), so that both come into one commit."""
_TICK_MS = 500
"""Milliseconds between two looks at the savers: the line counts seconds."""
_CHECKPOINT_SECONDS = 60.0
"""Seconds between two checkpoints of a running training. Writing one takes a second on a CPU; in
the worst case a minute of training is lost, and no paint."""


class Keeping(Feature):
    """Saves what the user does, and brings it back.

    Each annotation layer that is painted gets a `Keeper`, which saves it in a session folder until
    the layer is removed or the dock is closed. Settings, marks and the model go to the keeper of
    the chosen annotation; results to that of the annotation for which the run was started.
    """

    place = "header"

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self.line, self.notice = KeepLine(), NoticeBox(in_a_row=True)
        self.trouble = NoticeBox(in_a_row=True)
        """Why the work is not saved; it stays until that is over."""
        self.widget = column(self.line, self.trouble, self.notice, spacing=2)
        ask, axis = bench.background.ask, bench.choice.first_axis_value
        self.folders = Folders(bench.viewer, self, ask)
        self.opening = SessionOpening(bench.viewer, self, ask, axis)
        self._unsaved = UnsavedPaint(bench.viewer, bench.dock, self.folders.why_unsaved)
        self._recent: list[RecentSession] = []
        self._menu = RecentMenu(bench.viewer, self, self._entries, self.open)
        self._looked: set[str] = set()
        """Identifiers of the images whose session was looked for."""
        self._run_layer: Labels | None = None
        self._settings = RunSettings()
        self._opened: OpenedSession | None = None
        """The session that the notice tells of."""
        self._restored: list[Any] = []
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
            (self.opening.ready, self._continue),
            (self.opening.failed, self._refused),
            (self.opening.imageWanted, self._ask_for_image),
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
            (bench.session.changed, self._model_changed),
            (bench.session.openRequested, self._open_wanted),
            (bench.runner.phaseChanged, self._follow_run),
            (bench.runner.eventsArrived, self._take_checkpoint),
            (bench.runner.trained, self._put_checkpoint),
            (bench.runner.finished, self._put_results),
        ):
            signal.connect(slot)
        self._read_recent(then=self._offer)
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
        self._tick.stop()
        self._record_timer.stop()
        self._put_record()
        self._unsaved.stop()
        self._menu.stop()
        self.opening.stop()
        self.folders.cleanup()
        self._opened = self._run_layer = None
        self._restored = []

    def _work_changed(self) -> None:
        self._refresh_notice()
        layer = self.bench.annotator.layer()
        if layer is None:
            return
        if self.folders.keeper(layer) is not None:
            if not self._record_timer.isActive():
                self._record_timer.start()
        elif self.bench.annotator.slices() and self.opening.path is None:
            self._make_folder(layer)

    def _make_folder(self, layer: Labels) -> None:
        image, chosen = self.bench.choice.value()
        if image is None or chosen is not layer:
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
        if layer is keeper.layer:
            keeper.put_record(
                window_record(
                    keeper.folder.record(),
                    image,
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

    def _take_checkpoint(self, events: Sequence[Any]) -> None:
        for event in events:
            if isinstance(event, Checkpoint):
                self._put_checkpoint(event.bundle)

    def _put_checkpoint(self, bundle: ModelBundle) -> None:
        """Save what a run has learned; `put_model` replaces it when the run is over."""
        if (keeper := self._run_keeper()) is not None:
            keeper.saver.put_checkpoint(bundle)

    def _model_changed(self) -> None:
        session = self.bench.session.value()
        keeper = self._run_keeper() if self.bench.runner.is_running() else self.keeper()
        if keeper is not None and session.model is not None:
            keeper.put_model(session.model, session.scores)
            self._record_timer.start()

    def _put_results(self, finished: Finished | None) -> None:
        keeper, self._run_layer = self._run_keeper(), None
        if keeper is None:
            return
        if finished is None:
            keeper.saver.drop_checkpoint()
        else:
            keeper.put_outputs(finished.outputs, finished.bundle.classes)

    # ---- an image opens

    def _pair_changed(self) -> None:
        image, layer = self.bench.choice.value()
        self._unsaved.note_file(self.bench.annotator.layer())
        if layer is not None and self.folders.keeper(layer) is None:
            self.folders.reattach(layer)
        if layer is not None and self.folders.is_busy(layer):
            pass  # its folder is just being opened
        elif image is not None and self.opening.path is None:
            self._look_for_session(image)
        self._show()

    def _look_for_session(self, image: Image) -> None:
        """Continue the session of an image that was opened, if there is one."""
        identifier = identify(image)
        if identifier in self._looked:
            return
        try:
            volume = image_volume(image, self.bench.choice.first_axis_value())[0]
        except BadInputError:
            return
        self._looked.add(identifier)
        if self.folders.has_image(image):
            return
        question = partial(sessions_of, volume, file_of(image))
        self.bench.background.ask(question, partial(self._found_sessions, image))

    def _found_sessions(self, image: Image, paths: Sequence[Path]) -> None:
        kept = {keeper.path for keeper in self.folders.keepers()}
        paths = [path for path in paths if path not in kept]
        if paths and image in self.bench.viewer.layers and self.opening.path is None:
            self.opening.open(paths[0], image)
            self._show()

    # ---- open, continue

    def open(self, path: Path) -> None:
        """Open a session and its image; what is wrong is shown in the notice."""
        for keeper in self.folders.keepers():
            if keeper.path == path.absolute():
                self._choose(keeper.layer)
                return
        self.dismiss()
        self.opening.open(path)
        self._show()

    def _open_wanted(self) -> None:
        if (path := self.bench.session.take_wanted()) is not None:
            self.open(path)

    def _choose(self, layer: Labels) -> None:
        self.bench.choice.setValue(self.folders.image_of(layer), layer)

    def _continue(self, opened: OpenedSession, image: Image) -> None:
        self._looked.add(identify(image))
        choice, record = self.bench.choice, opened.record
        restore_voxel_size(image, record)
        choice.setValue(image, choice.value()[1] if choice.value()[0] is image else None)
        if record.axes is not None and len(record.axes) == 4:
            choice.set_first_axis("time" if record.axes[0] == "T" else "channels")
        layer = choice.value()[1]
        if layer is None or not is_untouched(layer) or layer.data.shape != opened.labels.shape:
            layer = self.bench.pairing.add_annotation()
        if layer is None or tuple(layer.data.shape) != tuple(opened.labels.shape):
            opened.folder.close()
            self._say(f"'{image.name}' does not fit the session '{opened.folder.path.name}'.")
            return
        self.folders.reserve(layer)
        restore_annotation(layer, opened)
        self.bench.annotator.rescan()
        self._restore_settings(record.settings)
        keeper = self.folders.attach(opened.folder, layer, opened.saved)
        keeper.note_model(opened.model)
        if opened.model is not None:
            self._restore_model(opened)
        self._restored = restore_results(self.bench.viewer, image, opened)
        if (shown := shown_slice_of(record)) is not None:
            self.bench.annotator.jump(shown)
        self._opened = opened
        self._refresh_notice()
        self._show()

    def _restore_settings(self, settings: RunSettings) -> None:
        bench = self.bench
        bench.form.setValue(settings.training)
        bench.form.set_wanted_outputs(settings.outputs)
        bench.choice.set_times(settings.times)

    def _restore_model(self, opened: OpenedSession) -> None:
        bench, scores = self.bench, opened.record.scores
        assert opened.model is not None
        bench.session.update(model=opened.model, scores=scores)
        classes = opened.model.bundle.classes
        bench.results.set_scores(scores, classes)
        bench.form.set_starting_point("last")

    def _continue_training(self) -> None:
        """Go on with the training that was cut off."""
        opened = self._opened
        self.dismiss()
        if opened is not None and opened.checkpoint is not None:
            self.bench.session.update(model=opened.checkpoint, scores=None)
            self.bench.form.set_starting_point("last")
            self.bench.actions.start()

    # ---- the notice

    def dismiss(self) -> None:
        """Hide the notice."""
        self._opened = None
        self.notice.setValue(None)

    def _say(self, text: str, *answers: tuple[str, Any]) -> None:
        self._opened = None
        self.notice.setValue(Notice(text, answers or (("OK", self.dismiss),)))

    def _refresh_notice(self) -> None:
        if self._opened is None:
            return
        annotator = self.bench.annotator
        n = len(annotator.slices()) if annotator.share_read() == 1 else None
        answers: list[tuple[str, Any]] = [("OK", self.dismiss), ("Start anew", self.start_anew)]
        if self._opened.checkpoint is not None:
            answers.insert(0, ("Continue training", self._continue_training))
        self.notice.setValue(Notice(opened_text(self._opened, n), tuple(answers)))

    def _offer(self) -> None:
        """Offer the session that was open when napari crashed, unless there is an image."""
        crashed = next((r for r in self._recent if r.crashed), None)
        if crashed is None or self.opening.path is not None or self.folders.keepers():
            return
        if self.bench.choice.value()[0] is not None:
            return
        until = moment_text(crashed.saved.timestamp(), seconds=True)
        self._say(
            f"napari ended unexpectedly while '{crashed.image_name}' was open. Everything up to "
            f"{until} is saved.",
            ("Continue", partial(self.open, crashed.path)),
            ("Not now", partial(self._put_off, crashed.path)),
        )

    def _put_off(self, path: Path) -> None:
        """Do not offer a session again at each start; it stays among the recent ones."""
        self.dismiss()
        self.bench.background.ask(lambda: SessionFolder.open(path).close(), lambda _: None)

    def _refused(self, path: Path, text: str) -> None:
        self._show()
        self._say(
            f"{text} What you paint here is saved as a new session.",
            ("Try again", partial(self.open, path)),
            ("OK", self.dismiss),
        )
        self._work_changed()

    def _ask_for_image(self, path: Path, text: str, image: Image | None) -> None:
        answers: list[tuple[str, Any]] = [("Not now", self.dismiss)]
        if image is None:
            answers.insert(0, ("Choose the image…", partial(self._choose_image, path)))
        else:
            answers.insert(0, ("Use it anyway", partial(self._use_anyway, path, image)))
        self._show()
        self._say(text, *answers)
        self._work_changed()

    def _choose_image(self, path: Path) -> None:
        file, _ = QFileDialog.getOpenFileName(self.bench.dock, "Choose the image")
        if not file:
            return
        self.dismiss()
        before = set(self.bench.viewer.layers)
        try:
            self.bench.viewer.open(file, plugin="napari-unet3d", layer_type="image")
        except Exception as error:  # readers raise anything
            self._say(f"'{file}' cannot be opened: {error}")
            return
        new = [x for x in self.bench.viewer.layers if isinstance(x, Image) and x not in before]
        if new:
            self._looked.update(identify(x) for x in new)
            self.opening.open(path, new[0])

    def _use_anyway(self, path: Path, image: Image) -> None:
        self.dismiss()
        self.opening.open(path, image, anyway=True)

    # ---- the menu

    def start_anew(self) -> None:
        """Begin with an empty annotation; the session so far gets another name."""
        keeper = self.keeper()
        self.dismiss()
        if keeper is None:
            return
        if problem := keeper.problem():
            self._say(f"The session was not put aside, since it is not saved. {problem}")
            return
        layer, viewer = keeper.layer, self.bench.viewer
        aside = self.folders.put_aside(layer)
        for old in (layer, *self._restored):
            if old in viewer.layers:
                viewer.layers.remove(old)
        self._restored = []
        self.bench.session.update(model=None, scores=None)
        self.bench.results.set_state(self._blank)
        self.bench.pairing.start()
        self._read_recent()
        self._say(
            f"What was there is kept in '{aside.name}'.",
            ("OK", self.dismiss),
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
                then()

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
        if self.opening.path is not None:
            return KeepState("Opening …", self.opening.path.name, str(self.opening.path))
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
