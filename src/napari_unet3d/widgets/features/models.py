"""A folder of models: pick one, read its card, segment with it, or train it further."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)

from napari_unet3d.config import PredictionConfig
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.exchange.shelf import Shown, models_in, show_model
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.session.report.content import Picture
from napari_unet3d.session.report.html import stretched
from napari_unet3d.session.slice_view import Field
from napari_unet3d.session.texts import error_text
from napari_unet3d.session.trial import try_model
from napari_unet3d.widgets.parts.file_dialogs import ask_folder
from napari_unet3d.widgets.parts.status_line import StatusLine
from napari_unet3d.widgets.run.newest import Newest, Question
from napari_unet3d.widgets.viewer.view_field import visible_field
from napari_unet3d.widgets.workbench import Feature, Workbench

_ROWS = 6
"""Models that the list shows without scrolling."""
_CARD_HEIGHT = 180
"""Pixels of the card, which scrolls."""
_COVER_HEIGHT = 96
"""Pixels of the picture of a package, at most."""
_TRIAL_WIDTH, _TRIAL_HEIGHT = 300, 150
"""Pixels of the trial on the slice in view, at most: the dock is not made wider."""


class _Card(QTextBrowser):
    """Shows a card; what it points to is neither opened nor read."""

    def loadResource(self, _kind: int, _name: Any) -> Any:
        return None


class Models(Feature):
    """A list of the models of a folder, and the card of the one that is picked."""

    title = "Models"

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self.folder_button = QPushButton("Choose a folder of models…")
        self.folder_button.setToolTip(
            "List the models of a folder: *.unet3d, and bioimage.io packages of this program."
        )
        self.list = QListWidget()
        self.list.setAccessibleName("Models of the folder")
        row = self.list.fontMetrics().height() + 4
        self.list.setFixedHeight(_ROWS * row)
        self.picture = QLabel()
        self.picture.setAccessibleName("Picture of the model")
        self.trial_caption = QLabel()
        self.trial_caption.setWordWrap(True)
        self.trial = QLabel()
        self.trial.setAccessibleName("What the model makes of the slice in view")
        self.card = _Card()
        self.card.setAccessibleName("Card of the model")
        self.card.setFixedHeight(_CARD_HEIGHT)
        self.card.setOpenLinks(False)
        self.apply_button = QPushButton("Segment this image")
        self.apply_button.setToolTip("Make this the current model, and segment the image with it.")
        self.further_button = QPushButton("Train further")
        self.further_button.setToolTip(
            "Make this the current model; the next training goes on from its weights."
        )
        self.status = StatusLine("Models")
        self.widget = self._lay_out()
        self._folder: Path | None = None
        self._shown: Shown | None = None
        self._newest = Newest(bench.background, self._tried, self._say)
        for signal, slot in (
            (self.folder_button.clicked, self._choose),
            (self.list.currentItemChanged, self._picked),
            (self.apply_button.clicked, self.apply),
            (self.further_button.clicked, self.train_further),
            (bench.runner.phaseChanged, self._changed),
            (bench.choice.valueChanged, self._changed),
        ):
            signal.connect(slot)
        self._show_state()

    def open(self, folder: Path) -> None:
        """List the models of a folder."""
        self._folder = folder
        self.folder_button.setText(f"{folder.name or folder}…")
        self._forget()
        self.list.clear()
        paths = models_in(folder)
        for path in paths:
            item = QListWidgetItem(path.name)
            item.setData(Qt.ItemDataRole.UserRole, path)
            item.setToolTip(str(path))
            self.list.addItem(item)
        self.list.setVisible(bool(paths))
        self.status.setText("" if paths else f"There is no model in {folder}.")

    def cleanup(self) -> None:
        """Drop the trial that runs."""
        self._newest.drop()

    def apply(self) -> None:
        """Segment the image with the model that is picked."""
        if self._use():
            self.bench.actions.apply()

    def train_further(self) -> None:
        """Let the next training go on from the model that is picked."""
        if not self._use():
            return
        start = self.bench.form.start_from
        start.setCurrentIndex(start.findData("last"))
        self.status.setText("The next training goes on from this model.")

    def _use(self) -> bool:
        shown = self._shown
        if shown is None or shown.bundle is None:
            return False
        self.bench.file_actions.use_bundle(shown.bundle, shown.path)
        return True

    def _choose(self) -> None:
        folder = ask_folder(self.bench.dock, "Folder of models")
        if folder is not None:
            self.open(folder)

    def _picked(self, item: QListWidgetItem | None, _before: Any = None) -> None:
        self._forget()
        if item is None:
            return
        path = item.data(Qt.ItemDataRole.UserRole)
        self.status.setText(f"Reading {path.name} …")
        self.bench.background.ask(partial(show_model, path), self._answered)

    def _answered(self, shown: Shown) -> None:
        item = self.list.currentItem()
        if item is None or item.data(Qt.ItemDataRole.UserRole) != shown.path:
            return  # another one was picked meanwhile
        self._shown = shown
        self.status.setText("" if shown.problem is None else error_text(shown.problem))
        self.card.setMarkdown(_without_headings(shown.card))
        self.card.setVisible(bool(shown.card))
        if shown.cover:
            picture = QPixmap.fromImage(QImage.fromData(shown.cover))
            fits = min(picture.height(), _COVER_HEIGHT)
            self.picture.setPixmap(picture.scaledToHeight(fits))
        self.picture.setVisible(bool(shown.cover))
        self._show_state()
        self._newest.ask(partial(self._question, shown))

    def _question(self, shown: Shown) -> Question | None:
        """What the model that is picked makes of the slice in view; None where that is unknown."""
        image = self.bench.choice.value()[0]
        ref, annotation = self.bench.annotator.shown(), self.bench.annotator.layer()
        if shown is not self._shown or shown.bundle is None or self.bench.runner.is_running():
            return None
        if image is None or ref is None or annotation is None:
            return None
        field, config = visible_field(annotation, ref), self.bench.form.prediction_config()
        try:
            volume, _ = self.bench.choice.volume()
            volume.check_header()
        except BadInputError as error:
            self._say(error)
            return None
        self.trial_caption.setText(f"Trying it on {ref} …")
        self.trial_caption.setVisible(True)
        return partial(_try, shown, shown.bundle, volume, ref, field, config)

    def _tried(self, outcome: tuple[Shown, Picture | Exception]) -> None:
        shown, found = outcome
        if shown is not self._shown:
            return  # another one was picked meanwhile
        if isinstance(found, Exception):
            self._say(found)
            return
        pixels = stretched(found)
        height, width = pixels.shape[:2]
        image = QImage(pixels.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
        self.trial.setPixmap(
            QPixmap.fromImage(image).scaled(
                _TRIAL_WIDTH,
                _TRIAL_HEIGHT,
                Qt.AspectRatioMode.KeepAspectRatio,
                Qt.TransformationMode.SmoothTransformation,
            )
        )
        self.trial_caption.setText(found.caption)
        self.trial.setVisible(True)

    def _say(self, error: Exception) -> None:
        self.trial_caption.setVisible(False)
        self.status.setText(error_text(error))

    def _forget(self) -> None:
        self._shown = None
        for part in (self.card, self.picture, self.trial_caption, self.trial):
            part.setVisible(False)
        self.status.setText("")
        self._show_state()

    def _changed(self, *_: Any) -> None:
        """Another image, or another phase of a run."""
        self._show_state()
        self._newest.drop()
        for part in (self.trial_caption, self.trial):
            part.setVisible(False)
        if self._shown is not None:
            self._newest.ask(partial(self._question, self._shown))

    def _show_state(self, *_: Any) -> None:
        running = self.bench.runner.is_running()
        usable = self._shown is not None and self._shown.bundle is not None and not running
        self.further_button.setEnabled(usable)
        self.apply_button.setEnabled(usable and self.bench.choice.value()[0] is not None)
        for button in (self.apply_button, self.further_button):
            button.setVisible(self._shown is not None)

    def _lay_out(self) -> QWidget:
        widget = QWidget()
        layout = QVBoxLayout(widget)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        buttons = QHBoxLayout()
        buttons.setSpacing(4)
        buttons.addWidget(self.apply_button, 1)
        buttons.addWidget(self.further_button, 1)
        self.list.setVisible(False)
        for part in (
            self.folder_button,
            self.list,
            self.picture,
            self.trial_caption,
            self.trial,
            self.card,
        ):
            layout.addWidget(part)
        layout.addLayout(buttons)
        layout.addWidget(self.status)
        return widget


def _try(
    shown: Shown,
    bundle: ModelBundle,
    volume: Volume,
    ref: SliceRef,
    field: Field,
    config: PredictionConfig,
    _interrupted: Any,
) -> tuple[Shown, Picture | Exception]:
    try:
        return shown, try_model(bundle, volume, ref, field, config)
    except (BadInputError, RunFailedError) as error:
        return shown, error


def _without_headings(card: str) -> str:
    """A card whose headings are bold: those of Qt take half of the dock."""
    lines = card.splitlines()[1:]  # the list says its name
    return "\n".join(
        f"**{line.removeprefix('## ')}**" if line.startswith("## ") else line for line in lines
    )
