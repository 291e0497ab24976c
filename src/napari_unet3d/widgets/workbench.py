"""The parts and mediators of a dock, handed to its features as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QWidget

from napari_unet3d.widgets.actions import Actions
from napari_unet3d.widgets.annotator import Annotator
from napari_unet3d.widgets.file_actions import FileActions
from napari_unet3d.widgets.pairing import Pairing
from napari_unet3d.widgets.parts.class_table import ClassTable
from napari_unet3d.widgets.parts.curve import Curve
from napari_unet3d.widgets.parts.results import Results
from napari_unet3d.widgets.parts.run_bar import Action, RunBar
from napari_unet3d.widgets.parts.slice_table import SliceTable
from napari_unet3d.widgets.parts.training_form import TrainingForm
from napari_unet3d.widgets.run.background import Background
from napari_unet3d.widgets.run.report import RunReport
from napari_unet3d.widgets.run.runner import Runner
from napari_unet3d.widgets.viewer.layer_choice import LayerChoice
from napari_unet3d.widgets.viewer.shortcuts import Shortcuts
from napari_unet3d.widgets.viewer.window_session import WindowSession

Place = Literal["header", "annotate", "train", "progress", "result", "section"]
"""Where the widget of a feature stands: below the choice of layers, at the end of a section, or
in a section of its own, which the feature's title heads."""


@dataclass(frozen=True, eq=False)
class Workbench:
    """Everything that a feature of the dock may use.

    Parameters
    ----------
    viewer
        The napari viewer, not a proxy.
    dock
        The dock; the Qt parent of dialogs.
    session
        The session of the window.
    background
        Calls slow functions in threads.
    shortcuts
        Keys of the viewer.
    choice, class_table, slice_table, form, curve, results, run_bar
        The parts of the dock.
    annotator, pairing, actions, file_actions
        The mediators.
    runner, report
        Run the work in a thread, and show its events.
    """

    viewer: Any
    dock: QWidget
    session: WindowSession
    background: Background
    shortcuts: Shortcuts
    choice: LayerChoice
    class_table: ClassTable
    slice_table: SliceTable
    form: TrainingForm
    curve: Curve
    results: Results
    run_bar: RunBar
    annotator: Annotator
    pairing: Pairing
    actions: Actions
    file_actions: FileActions
    runner: Runner
    report: RunReport


@dataclass(frozen=True)
class Offer:
    """What to do next, as a feature of the dock proposes it in the run bar.

    Parameters
    ----------
    text
        One or two sentences.
    actions
        Text and function of each button below it.
    """

    text: str
    actions: tuple[Action, ...] = ()


class Feature(QObject):
    """One addition to the dock: a mediator with at most one widget.

    A subclass makes its widget in its constructor, adds its keys to ``bench.shortcuts``, and
    connects to the signals of the bench. One line in `widgets.features.FEATURES` adds it.

    Parameters
    ----------
    bench
        The parts and mediators of the dock.

    Attributes
    ----------
    place
        Where the widget stands.
    title
        Heading of a section of its own.
    widget
        The widget; None for a feature that has only keys, menus or layers.
    """

    showRequested = Signal()
    """Something in a section of its own is worth a look: the dock unfolds it and scrolls there."""
    settled = Signal()
    """The message of the run bar was removed: the dock may show the next step there again."""

    place: ClassVar[Place] = "section"
    title: ClassVar[str] = ""

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench.dock)
        self.bench = bench
        self.widget: QWidget | None = None

    def unsaved(self) -> tuple[str, ...]:
        """Sentences on what would be lost if the window were closed; asked when it is about to."""
        return ()

    def may_close(self) -> bool:
        """Ask the user what to do with what would be lost; whether the window may be closed."""
        return True

    def offer(self) -> Offer | None:
        """What to do after a run; the dock shows it instead of its own words. None for nothing."""
        return None

    def cleanup(self) -> None:
        """Disconnect from the viewer, and end what runs in the background; called once."""
