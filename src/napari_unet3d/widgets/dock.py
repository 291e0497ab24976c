"""The dock "Annotate & train": from the first stroke to the dense segmentation, top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from napari.layers import Labels
from napari.utils.notifications import show_info
from qtpy.QtCore import QSize, Signal
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_unet3d.session.session import RunSettings
from napari_unet3d.widgets.actions import Actions
from napari_unet3d.widgets.annotator import Annotator
from napari_unet3d.widgets.class_removal import ClassRemoval
from napari_unet3d.widgets.features import FEATURES
from napari_unet3d.widgets.file_actions import FileActions
from napari_unet3d.widgets.pairing import Pairing
from napari_unet3d.widgets.parts.class_table import ClassTable
from napari_unet3d.widgets.parts.colors import dock_style
from napari_unet3d.widgets.parts.connections import Connections
from napari_unet3d.widgets.parts.curve import Curve
from napari_unet3d.widgets.parts.devices import find_devices
from napari_unet3d.widgets.parts.hint import Situation, next_step
from napari_unet3d.widgets.parts.on_screen import KeepOnScreen
from napari_unet3d.widgets.parts.results import Results
from napari_unet3d.widgets.parts.run_bar import RunBar
from napari_unet3d.widgets.parts.slice_table import SliceTable
from napari_unet3d.widgets.parts.step_column import StepColumn
from napari_unet3d.widgets.parts.training_form import TrainingForm
from napari_unet3d.widgets.run.background import Background
from napari_unet3d.widgets.run.report import RunReport
from napari_unet3d.widgets.run.runner import Runner
from napari_unet3d.widgets.viewer.layer_choice import LayerChoice
from napari_unet3d.widgets.viewer.lifetime import WindowWatch
from napari_unet3d.widgets.viewer.shortcuts import Shortcuts
from napari_unet3d.widgets.viewer.theme import theme_colors
from napari_unet3d.widgets.viewer.window_session import WindowSession, session_of
from napari_unet3d.widgets.workbench import Feature, Offer, Place, Workbench

_PATIENCE = 1.5
"""Seconds that closing the window waits for the training to end, so that it feels immediate."""


class SegmentationDock(QWidget):
    """Paint, train, watch, save: everything in one narrow dock.

    Its value is a `RunSettings`, composed of the values of its parts.

    Parameters
    ----------
    napari_viewer
        The viewer; napari passes it by this name.
    """

    valueChanged = Signal()
    """The user changed a setting of the run."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        # napari gives a proxy to plugins. Layers taken from it are proxies too, which are not the
        # objects in events and in the layer list.
        viewer: Any = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self._viewer = viewer
        self._cleaned = False

        # ---- parts
        self.choice = LayerChoice()
        self.class_table, self.slice_table = ClassTable(asks_before_removal=True), SliceTable()
        self.form, self.curve, self.results = TrainingForm(), Curve(), Results()
        self.run_bar = RunBar()
        # ---- mediators
        session = session_of(viewer)
        self._background = Background(self)
        self.shortcuts = Shortcuts(viewer, self)
        self.runner = Runner(self)
        self.report = RunReport(self.runner, self.run_bar, self.curve, self.results)
        tables = self.class_table, self.slice_table
        self.annotator = Annotator(viewer, *tables, self._background.ask)
        self._removal = ClassRemoval(self.annotator, self.class_table, self.run_bar)
        self.pairing = Pairing(viewer, self, self.choice, self.annotator, self._background)
        self.run_actions = Actions(
            viewer,
            self,
            session,
            self.runner,
            self.report,
            choice=self.choice,
            annotator=self.annotator,
            form=self.form,
            results=self.results,
            run_bar=self.run_bar,
            pair_problem=self.pairing.problem,
        )
        self.file_actions = FileActions(
            viewer,
            self,
            session,
            self.runner,
            self.report,
            form=self.form,
            results=self.results,
            run_bar=self.run_bar,
        )
        self.features = self._make_features(session)
        self._make_sections()
        self._window_watch = WindowWatch(
            self, lambda: bool(self._unsaved()), lambda: all(f.may_close() for f in self.features)
        )
        self._slices, self._tables = self.annotator.slices(), self._table_values()
        self._situation, self._hint = Situation(), next_step(Situation())

        self._lay_out()
        self._apply_theme()
        self._connections = Connections(self)
        self._connect()
        self._sum_up_form()
        # Trying a GPU takes seconds; until then, the form offers "Automatic".
        self._background.ask(find_devices, lambda devices: self.form.set_devices(*devices))
        self.pairing.sync()
        self.pairing.start()
        self._show_hint()

    def _make_features(self, session: WindowSession) -> tuple[Feature, ...]:
        bench = Workbench(
            viewer=self._viewer,
            dock=self,
            session=session,
            background=self._background,
            shortcuts=self.shortcuts,
            choice=self.choice,
            class_table=self.class_table,
            slice_table=self.slice_table,
            form=self.form,
            curve=self.curve,
            results=self.results,
            run_bar=self.run_bar,
            annotator=self.annotator,
            pairing=self.pairing,
            actions=self.run_actions,
            file_actions=self.file_actions,
            runner=self.runner,
            report=self.report,
        )
        return tuple(feature(bench) for feature in FEATURES)

    def _make_sections(self) -> None:
        placed = self._widgets_at
        more = [f for f in self.features if f.place == "section" and f.widget is not None]
        self.scroll_area = StepColumn(
            annotate=(self.class_table, self.slice_table, *placed("annotate")),
            train=(self.form, *placed("train")),
            progress=(self.curve, *placed("progress")),
            result=(self.results, *placed("result")),
            more={f.title: f.widget for f in more if f.widget is not None},
        )
        self.annotate_section = self.scroll_area.annotate
        self.train_section = self.scroll_area.train
        self.progress_section = self.scroll_area.progress
        self.results_section = self.scroll_area.result
        self.feature_sections = self.scroll_area.more
        for feature in self.features:
            if (section := self.scroll_area.section(feature.place, feature.title)) is not None:
                feature.showRequested.connect(partial(self.scroll_area.show_section, section))

    def _widgets_at(self, place: Place) -> list[QWidget]:
        widgets = (f.widget for f in self.features if f.place == place)
        return [widget for widget in widgets if widget is not None]

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.choice)
        for widget in self._widgets_at("header"):
            layout.addWidget(widget)
        layout.addWidget(self.scroll_area, 1)
        layout.addWidget(self.pairing.notice)
        layout.addWidget(self.run_bar)
        KeepOnScreen(self)
        self.setMinimumWidth(300)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)

    def _connect(self) -> None:
        layers = self._viewer.layers.events
        self._connections.add(  # to napari, which outlives the dock
            (layers.inserted, self._layer_inserted),
            (layers.removed, self.pairing.sync),
            (layers.reordered, self.pairing.sync),
            (layers.renamed, self.pairing.sync),
            (layers.inserted, self.file_actions.show_available),
            (layers.removed, self.file_actions.show_available),
            (self._viewer.events.theme, self._apply_theme),
        )
        for feature in self.features:
            feature.settled.connect(self._show_hint)
        for signal, slot in (
            (self.pairing.outdated, self._forget_message),
            (self.pairing.changed, self._show_hint),
            (self.pairing.failed, self._show_error),
            (self.annotator.told, self.run_bar.tell),
            (self.annotator.changed, self._forget_error),
            (self.annotator.changed, self._show_hint),
            (self.run_actions.idle, self._show_hint),
            (self.file_actions.idle, self._show_hint),
            (self.runner.phaseChanged, self._follow_run),
            (self.form.valueChanged, self.valueChanged),
            (self.form.valueChanged, self._sum_up_form),
            (self.form.problemShown, partial(self.scroll_area.show_section, self.train_section)),
            (self.choice.timesChanged, self.valueChanged),
            (self._window_watch.closed, self.cleanup),
            (self._window_watch.removed, self._removed),
        ):
            signal.connect(slot)

    def minimumSizeHint(self) -> QSize:
        """The hint of the layout, without the margin that `KeepOnScreen` sets."""
        size, layout = super().minimumSizeHint(), self.layout()
        bottom = 0 if layout is None else layout.contentsMargins().bottom()
        return QSize(size.width(), size.height() - bottom)

    # ---- the value

    def value(self) -> RunSettings:
        """The settings of a run, as the parts show them.

        Raises
        ------
        BadInputError
            A typed value cannot be used.
        """
        return self.run_actions.settings()

    def setValue(self, settings: RunSettings) -> None:
        """Show other settings; the device of a prediction is that of `settings.training`."""
        self.form.setValue(settings.training, settings.prediction)
        self.form.set_wanted_outputs(settings.outputs)
        self.choice.set_times(settings.times)

    # ---- layers

    def add_annotation(self) -> Labels | None:
        """Add an annotation layer for the chosen image, ready to be painted in."""
        return self.pairing.add_annotation()

    def _layer_inserted(self, event: Any) -> None:
        self.pairing.inserted(event.value)

    def _forget_message(self) -> None:
        if not self.runner.is_running():
            self.run_bar.set_message("")  # it was about the pair that was chosen before
            self._say_once()

    def _show_error(self, text: str) -> None:
        self.run_bar.set_message(text, error=True)
        self._say_once()

    def _say_once(self) -> None:
        """Hide the notice while the run bar shows the same text, with the buttons of the notice."""
        box, run_bar = self.pairing.notice, self.run_bar
        notice, text = box.value(), run_bar.message.text()
        said = notice is not None and run_bar.is_error() and text == notice.text
        if notice is not None and said and not run_bar.action_buttons():
            run_bar.set_message(text, error=True, actions=notice.answers)
        box.setVisible(notice is not None and not said)

    # ---- the next step

    def _forget_error(self) -> None:
        """Remove an error when paint, classes or held-out slices change: that may be the cure.

        A question, such as whether to remove a class, goes with the paint that it is about.
        """
        slices, table = self.annotator.slices(), self._table_values()
        painted, edited = slices != self._slices, table != self._tables
        self._slices, self._tables = slices, table
        if self.runner.is_running():
            return
        if (painted and self.run_bar.is_kept()) or (edited and self.run_bar.is_error()):
            self.run_bar.set_message("")

    def _table_values(self) -> tuple[Any, ...]:
        return self.class_table.value(), self.slice_table.value()

    def _show_hint(self) -> None:
        """Show what to do next, unless something runs or an error is shown."""
        self._say_once()
        if self.runner.is_running():
            return
        if self.pairing.blocks():
            if not self.run_bar.is_kept():
                self.run_bar.set_message("")
            return
        image, annotation = self.choice.value()
        now = Situation(
            image is not None,
            annotation is not None,
            tuple(self.annotator.slices()),
            self.class_table.value(),
            self.slice_table.value(),
        )
        if now != self._situation:  # many slices take some milliseconds
            self._situation, self._hint = now, next_step(now)
        hint = self._hint
        add = [(hint.button, lambda: self._add_classes(hint.missing))] if hint.missing else []
        if not self.run_bar.is_kept():
            after_run = bool(self.run_actions.next_step)
            offers = self._offers() if after_run or hint.ready else []
            texts = [offer.text for offer in offers]
            buttons = [action for offer in offers for action in offer.actions]
            if after_run:
                texts = texts or [self.run_actions.next_step]
                buttons += self.run_actions.next_actions
            else:
                texts = [" ".join((hint.text, *texts))]
            text = hint.text if add else "\n".join(texts)
            self.run_bar.set_message(text, actions=add or buttons)
        elif add and self.run_bar.is_error() and not self.run_bar.action_buttons():
            # The main button was pressed and says the same as an error: add the cure to it.
            self.run_bar.set_message(self.run_bar.message.text(), error=True, actions=add)

    def _offers(self) -> list[Offer]:
        offers = (feature.offer() for feature in self.features)
        return [offer for offer in offers if offer is not None]

    def _add_classes(self, values: tuple[int, ...]) -> None:
        self.run_bar.set_message("")
        self.class_table.add_all(values)

    # ---- a run

    def _follow_run(self, phase: str) -> None:
        self.form.setEnabled(phase == "ready")
        self.choice.setEnabled(phase == "ready")
        self.scroll_area.follow_run(phase)
        if phase == "training":
            self._say_where_to_look()

    def _sum_up_form(self) -> None:
        self.train_section.set_summary(self.form.summary())

    def _say_where_to_look(self) -> None:
        shown = self.annotator.shown()
        if any(s.ref == shown and s.state == "complete" for s in self.annotator.slices()):
            self.report.note(
                f"{shown} is painted all over, which hides the prediction: move to another slice "
                "to watch the network learn."
            )

    # ---- theme and end

    def _apply_theme(self, _event: Any = None) -> None:
        colors = theme_colors(self._viewer.theme)
        self.setStyleSheet(dock_style(colors))
        self.curve.apply_theme(colors)
        self.slice_table.apply_theme(colors)

    def _unsaved(self) -> list[str]:
        """What would be lost if the window were closed now."""
        return [text for feature in self.features for text in feature.unsaved()]

    def _removed(self) -> None:
        for text in self._unsaved():
            show_info(
                f"{text} It stays in the layer list: select it and choose File ▸ Save Selected "
                "Layers."
            )
        try:
            self.cleanup()
        finally:
            self.runner.discard_view()
            self.deleteLater()  # the menu makes a new dock, which finds layers and session again

    def cleanup(self) -> None:
        """End a run within two seconds, and disconnect from the viewer."""
        if self._cleaned:
            return
        self._cleaned = True
        features, self.features = self.features, ()
        ends: list[Callable[[], Any]] = []
        if self.runner.phase != "saving":
            ends.append(self.runner.cancel)  # it ends while everything is brought to the disk
        ends += [self._window_watch.stop, self.scroll_area.stop]
        for feature in features:
            ends += [feature.cleanup, feature.deleteLater]  # it holds the viewer
        ends += [
            self.shortcuts.clear,
            self._background.cleanup,
            self.pairing.cleanup,
            partial(self.runner.abandon, _PATIENCE),
            self._connections.clear,
            self.annotator.cleanup,
        ]
        with ExitStack() as rest:  # what fails keeps nothing else from its end
            for end in reversed(ends):
                rest.callback(end)
