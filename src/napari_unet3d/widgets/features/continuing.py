"""Opens sessions in a dock, shows what is in them, and asks what has to be asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from napari.layers import Image, Labels
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QFileDialog

from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.session.finding import sessions_of
from napari_unet3d.session.folder import SessionFolder
from napari_unet3d.session.opening import OpenedSession
from napari_unet3d.session.recent import RecentSession
from napari_unet3d.session.session import RunSettings
from napari_unet3d.widgets.parts.ages import moment_text
from napari_unet3d.widgets.parts.notice import Notice, NoticeBox
from napari_unet3d.widgets.run.restoring import (
    is_untouched,
    opened_text,
    restore_annotation,
    restore_channels,
    restore_objects,
    restore_results,
    restore_voxel_size,
)
from napari_unet3d.widgets.viewer.belonging import identify, image_id
from napari_unet3d.widgets.viewer.image_volume import image_volume
from napari_unet3d.widgets.viewer.keeper import Contents
from napari_unet3d.widgets.viewer.layers import file_of
from napari_unet3d.widgets.viewer.session_folders import Folders
from napari_unet3d.widgets.viewer.session_opening import SessionOpening
from napari_unet3d.widgets.viewer.slice_summaries import write_summary_of
from napari_unet3d.widgets.viewer.window_record import shown_slice_of
from napari_unet3d.widgets.workbench import Workbench

_OPENING = "A session is being opened: paint when its annotation is there."
_SHORTEST_REST = 10.0
"""Seconds. A training that was cut off goes on at least so long: the pixel classifier is fitted
anew."""


class Continuing(QObject):
    """Brings sessions back: that of an image that is opened, and those that the user chooses.

    Parameters
    ----------
    bench
        The parts and mediators of the dock.
    folders
        The session folders of the window.
    parent
        The Qt parent.
    """

    changed = Signal()
    """A session is being opened, or that has ended."""
    failed = Signal()
    """No session was opened: what is painted needs a new one."""
    anewRequested = Signal()
    """The user wants to start anew instead."""

    def __init__(self, bench: Workbench, folders: Folders, parent: QObject) -> None:
        super().__init__(parent)
        self.bench, self.folders = bench, folders
        self.notice = NoticeBox(in_a_row=True)
        self.opening = SessionOpening(bench.viewer, self, bench.background.ask)
        self._looked: set[str] = set()
        """Identifiers of the images whose session was looked for."""
        self._searches: set[str] = set()
        """Identifiers of the images whose session is being looked for."""
        self._opened: OpenedSession | None = None
        """The session that the notice tells of."""
        self._restored: list[Any] = []
        self.opening.ready.connect(self._continue)
        self.opening.failed.connect(self._refused)
        self.opening.imageWanted.connect(self._ask_for_image)

    def path(self) -> Path | None:
        """The session that is being opened; None when none is."""
        return self.opening.path

    def _hold_brush(self) -> None:
        """Let nobody paint while a session is looked for or opened: it brings its annotation."""
        holding = self.bench.annotator.holding
        if self._searches or self.opening.path is not None:
            holding.hold(_OPENING)
        else:
            holding.release(_OPENING)

    def cleanup(self) -> None:
        """Open no more, and forget the layers."""
        self.opening.stop()
        self.bench.annotator.holding.release(_OPENING)
        self._opened, self._restored = None, []

    def take_restored(self) -> list[Any]:
        """The layers of results that were added for the last session; empty afterwards."""
        restored, self._restored = self._restored, []
        return restored

    # ---- an image opens

    def look_for_session(self, image: Image) -> None:
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
        self._searches.add(identifier)
        self._hold_brush()
        question = partial(_sessions_of, volume, file_of(image))
        self.bench.background.ask(question, partial(self._found_sessions, image, identifier))

    def is_looking_for(self, image: Image) -> bool:
        """Whether it is not known yet if this image has a session."""
        return image_id(image) in self._searches

    def _found_sessions(self, image: Image, identifier: str, paths: Sequence[Path]) -> None:
        self._searches.discard(identifier)
        kept = {keeper.path for keeper in self.folders.keepers()}
        paths = [path for path in paths if path not in kept]
        if paths and image in self.bench.viewer.layers and self.opening.path is None:
            self._open(paths[0], image)
        else:
            self._hold_brush()
            self.failed.emit()

    # ---- open, continue

    def open(self, path: Path) -> None:
        """Open a session and its image; what is wrong is shown in the notice."""
        if self.bench.runner.is_running():  # its model would go into the other session
            self.say(
                f"'{path.name}' is not opened during a run. Wait for its end or cancel it, then "
                "open the session."
            )
            return
        for keeper in self.folders.keepers():
            if keeper.path == path.absolute():
                self._choose(keeper.layer)
                return
        self.dismiss()
        self._open(path)

    def _open(self, path: Path, image: Image | None = None, *, anyway: bool = False) -> None:
        self.opening.open(path, image, anyway=anyway)
        self._hold_brush()
        self.bench.run_bar.tell(_OPENING)
        self.changed.emit()

    def _choose(self, layer: Labels) -> None:
        self.bench.choice.setValue(self.folders.image_of(layer), layer)

    def _continue(self, opened: OpenedSession, image: Image) -> None:
        self._opening_ended()
        self._looked.add(identify(image))
        choice, record = self.bench.choice, opened.record
        restore_voxel_size(image, record)
        choice.setValue(image, choice.value()[1] if choice.value()[0] is image else None)
        if record.axes is not None and len(record.axes) == 4:
            choice.set_first_axis("time" if record.axes[0] == "T" else "channels")
        notes = restore_channels(self.bench.viewer, choice, image, record)
        opened = replace(opened, notes=(*opened.notes, *notes))
        layer = choice.value()[1]
        if layer is None or not is_untouched(layer) or layer.data.shape != opened.labels.shape:
            layer = self.bench.pairing.add_annotation()
        if layer is None or tuple(layer.data.shape) != tuple(opened.labels.shape):
            opened.folder.close()
            self.say(f"'{image.name}' does not fit the session '{opened.folder.path.name}'.")
            return
        self.folders.reserve(layer)
        restore_annotation(layer, opened)
        write_summary_of(image, opened.summary)
        self.bench.annotator.rescan()
        self._restore_settings(record.settings)
        self._restore_model(opened)  # first: the folder takes the model of the window
        self.folders.attach(opened.folder, layer, opened.saved, Contents.of(opened))
        self._restored = restore_results(self.bench.viewer, image, opened)
        objects = restore_objects(self.bench.viewer, image, opened, self._restored)
        if objects is not None and opened.objects is not None:
            self._restored.append(objects)
            self.bench.session.tell_objects(objects, opened.objects.config, opened=True)
        if (shown := shown_slice_of(record)) is not None:
            self.bench.annotator.jump(shown)
        self._opened = opened
        self.refresh_notice()
        self.changed.emit()

    def _opening_ended(self) -> None:
        self._hold_brush()
        self.bench.run_bar.tell("")

    def _restore_settings(self, settings: RunSettings) -> None:
        bench = self.bench
        bench.form.setValue(settings.training, settings.prediction)
        bench.form.set_wanted_outputs(settings.outputs)
        bench.choice.set_times(settings.times)

    def _restore_model(self, opened: OpenedSession) -> None:
        bench, record = self.bench, opened.record
        if opened.model is None:
            bench.session.update(evidence=record.evidence)
            return
        bench.session.update(model=opened.model, scores=record.scores, evidence=record.evidence)
        bench.results.set_scores(record.scores, opened.model.bundle.classes)
        bench.form.set_starting_point("last")

    def _continue_training(self) -> None:
        """Go on with the training that was cut off."""
        opened = self._opened
        self.dismiss()
        if opened is not None and opened.checkpoint is not None:
            bundle = opened.checkpoint.bundle
            self.bench.session.update(model=opened.checkpoint, scores=None)
            self.bench.form.set_starting_point("last")
            budget = bundle.record.training_config.seconds
            if budget is None:
                self.bench.actions.start()
            else:
                left = max(_SHORTEST_REST, budget - bundle.record.seconds)
                self.bench.actions.train_more(left, self.bench.annotator.layer())

    # ---- the notice

    def dismiss(self) -> None:
        """Hide the notice."""
        self._opened = None
        self.notice.setValue(None)

    def say(self, text: str, *answers: tuple[str, Any]) -> None:
        """Show a text, with buttons."""
        self._opened = None
        self.notice.setValue(Notice(text, answers or (("OK", self.dismiss),)))

    def refresh_notice(self) -> None:
        """Tell how many slices are there, once they are counted."""
        if self._opened is None:
            return
        annotator = self.bench.annotator
        n = len(annotator.slices()) if annotator.share_read() == 1 else None
        answers: list[tuple[str, Any]] = [
            ("OK", self.dismiss),
            ("Start anew", self.anewRequested.emit),
        ]
        if self._opened.checkpoint is not None:
            answers.insert(0, ("Continue training", self._continue_training))
        self.notice.setValue(Notice(opened_text(self._opened, n), tuple(answers)))

    def offer(self, recent: Sequence[RecentSession]) -> None:
        """Offer the session that was open when napari crashed, unless there is an image."""
        crashed = next((r for r in recent if r.crashed), None)
        if crashed is None or self.opening.path is not None or self.folders.keepers():
            return
        if self.bench.choice.value()[0] is not None:
            return
        until = moment_text(crashed.saved.timestamp(), seconds=True)
        self.say(
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
        self._opening_ended()
        self.changed.emit()
        self.say(
            f"{text} What you paint here is saved as a new session.",
            ("Try again", partial(self.open, path)),
            ("OK", self.dismiss),
        )
        self.failed.emit()

    def _ask_for_image(self, path: Path, text: str, image: Image | None) -> None:
        self._opening_ended()
        answers: list[tuple[str, Any]] = [("Not now", self.dismiss)]
        if image is None:
            answers.insert(0, ("Choose the image…", partial(self._choose_image, path)))
        else:
            answers.insert(0, ("Use it anyway", partial(self._use_anyway, path, image)))
        self.changed.emit()
        self.say(text, *answers)
        self.failed.emit()

    def _choose_image(self, path: Path) -> None:
        file, _ = QFileDialog.getOpenFileName(self.bench.dock, "Choose the image")
        if not file:
            return
        self.dismiss()
        before = set(self.bench.viewer.layers)
        try:
            self.bench.viewer.open(file, plugin="napari-unet3d", layer_type="image")
        except Exception as error:  # readers raise anything
            self.say(f"'{file}' cannot be opened: {error}")
            return
        new = [x for x in self.bench.viewer.layers if isinstance(x, Image) and x not in before]
        if new:
            self._looked.update(identify(x) for x in new)
            self._open(path, new[0])

    def _use_anyway(self, path: Path, image: Image) -> None:
        self.dismiss()
        self._open(path, image, anyway=True)


def _sessions_of(volume: Volume, path: Path | None) -> list[Path]:
    """The sessions of an image; none where looking for them fails."""
    try:
        return sessions_of(volume, path)
    except Exception:  # whatever it is: without an answer, nobody could paint
        return []
