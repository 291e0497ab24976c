"""The dock "Annotate & train": from the first stroke to the dense segmentation, top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.layers import Labels
from napari.utils.notifications import show_info
from qtpy.QtCore import QSize, QTimer
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_unet3d.widgets.actions import Actions
from napari_unet3d.widgets.annotator import Annotator
from napari_unet3d.widgets.class_removal import ClassRemoval
from napari_unet3d.widgets.parts.devices import find_devices
from napari_unet3d.widgets.parts.class_table import ClassTable
from napari_unet3d.widgets.parts.column_scroll import ColumnScroll
from napari_unet3d.widgets.parts.connections import Connections
from napari_unet3d.widgets.parts.curve import Curve
from napari_unet3d.widgets.parts.run_bar import RunBar
from napari_unet3d.widgets.parts.hint import Situation, next_step
from napari_unet3d.widgets.parts.on_screen import KeepOnScreen
from napari_unet3d.widgets.parts.results import Results
from napari_unet3d.widgets.parts.section import Section
from napari_unet3d.widgets.parts.slice_table import SliceTable
from napari_unet3d.widgets.parts.training_form import TrainingForm
from napari_unet3d.widgets.viewer.lifetime import WindowWatch
from napari_unet3d.widgets.run.background import Background
from napari_unet3d.widgets.viewer.unsaved import UnsavedPaint
from napari_unet3d.widgets.viewer.layer_choice import LayerChoice
from napari_unet3d.widgets.pairing import Pairing
from napari_unet3d.widgets.viewer.theme import dock_style, theme_colors

_PATIENCE = 1.5
"""Seconds that closing the window waits for the training to notice."""


class SegmentationDock(QWidget):
    """Paint, train, watch, save: everything in one narrow dock.

    Parameters
    ----------
    napari_viewer
        The viewer; napari passes it by this name.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        # napari hands a proxy to plugins. Layers taken through it are proxies too, and no longer
        # the same objects as in events and in the layer list.
        viewer: Any = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self._viewer = viewer
        self.choice = LayerChoice()
        self.class_table, self.slice_table = ClassTable(), SliceTable()
        self.form, self.curve, self.results = TrainingForm(), Curve(), Results()
        self.run_bar = RunBar()
        self.annotator = Annotator(viewer, self.class_table, self.slice_table)
        self._removal = ClassRemoval(self.annotator, self.class_table, self.run_bar)
        self.pairing = Pairing(viewer, self, self.choice, self.annotator)
        self.run_actions = Actions(
            viewer,
            self,
            choice=self.choice,
            annotator=self.annotator,
            form=self.form,
            curve=self.curve,
            results=self.results,
            run_bar=self.run_bar,
            pair_problem=self.pairing.problem,
        )
        self.runner = self.run_actions.runner
        self._scroll_timer = self._timer(self._scroll)
        self._scroll_target: Section | None = None
        self._build()
        self._apply_theme()
        # Trying a GPU takes seconds; until it is known, the form offers "Automatic".
        self._background = Background(self)
        self._background.ask(find_devices, lambda found: self.form.set_devices(*found))

        layers = viewer.layers.events
        self._connections = Connections(self)
        self._connections.add(
            (layers.inserted, self._layer_inserted),
            (layers.removed, self.pairing.sync),
            (layers.reordered, self.pairing.sync),
            (layers.renamed, self.pairing.sync),
            (viewer.events.theme, self._apply_theme),
        )
        self.pairing.outdated.connect(self._forget_message)
        self.pairing.changed.connect(self._pair_changed)
        self.pairing.failed.connect(self._say_error)
        self.annotator.changed.connect(self._forget_error)
        self.annotator.changed.connect(self._show_hint)
        self.run_actions.idle.connect(self._show_hint)
        self.runner.phaseChanged.connect(self._follow_run)
        self._unsaved = UnsavedPaint(viewer, self)
        self._window_watch = WindowWatch(
            self, lambda: bool(self._unsaved.layers()), self._unsaved.may_close
        )
        self._window_watch.closed.connect(self.cleanup)
        self._window_watch.removed.connect(self._removed)
        self._cleaned = False

        self._slices = self.annotator.slices()
        self.pairing.sync()
        self.pairing.start()
        self._show_hint()

    def _timer(self, slot: Callable[[], None]) -> QTimer:
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.timeout.connect(slot)
        return timer

    def _build(self) -> None:
        self.annotate_section = Section(
            "1  Classes and slices", _column(self.class_table, self.slice_table)
        )
        self.train_section = Section("2  Training", _column(self.form))
        self.progress_section = Section("3  Progress", _column(self.curve), expanded=False)
        self.results_section = Section("4  Result", _column(self.results), expanded=False)
        sections = _column(
            self.annotate_section,
            self.train_section,
            self.progress_section,
            self.results_section,
        )
        sections.layout().setContentsMargins(4, 0, 4, 0)  # type: ignore[union-attr]
        sections.layout().addStretch(1)  # type: ignore[union-attr]
        self.scroll_area = ColumnScroll(sections)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.choice)
        layout.addWidget(self.scroll_area, 1)
        layout.addWidget(self.pairing.notice)
        layout.addWidget(self.run_bar)
        if (bar := self.scroll_area.verticalScrollBar()) is not None:
            # A section grows as curves and scores appear: keep it in view, unless the user
            # looks elsewhere.
            bar.rangeChanged.connect(self._scroll)
            bar.actionTriggered.connect(self._scrolled_by_user)
        KeepOnScreen(self)
        self.setMinimumWidth(300)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)

    def minimumSizeHint(self) -> QSize:
        """As the layout says, without the margin of `KeepOnScreen`, which must not make it grow."""
        size, layout = super().minimumSizeHint(), self.layout()
        bottom = 0 if layout is None else layout.contentsMargins().bottom()
        return QSize(size.width(), size.height() - bottom)

    def bundle_available(self) -> bool:
        """Whether there is a model to save or to apply."""
        return self.run_actions.bundle is not None

    # ---- layers

    def add_annotation(self) -> Labels | None:
        """Add an annotation layer for the chosen image, ready to be painted in."""
        return self.pairing.add_annotation()

    def _layer_inserted(self, event: Any) -> None:
        self.pairing.inserted(event.value)

    def _forget_message(self) -> None:
        if not self.runner.is_running():
            self.run_bar.set_message("")  # it was about what was chosen before
            self._say_once()

    def _pair_changed(self) -> None:
        self._unsaved.note_file(self.annotator.layer())
        self._show_hint()

    def _say_error(self, text: str) -> None:
        self.run_bar.set_message(text, error=True)
        self._say_once()

    def _say_once(self) -> None:
        """Where an error of the run_bar says what the notice says, it takes over its buttons."""
        box, run_bar = self.pairing.notice, self.run_bar
        notice, text = box.value(), run_bar.message.text()
        said = notice is not None and run_bar.is_error() and text == notice.text
        if notice is not None and said and not run_bar.action_buttons():
            run_bar.set_message(text, error=True, actions=notice.answers)
        box.setVisible(notice is not None and not said)

    # ---- what to do next

    def _forget_error(self) -> None:
        """A change of the paint may be the cure: what was wrong is not said any longer."""
        slices = self.annotator.slices()
        if slices != self._slices:
            self._slices = slices
            if self.run_bar.is_kept() and not self.runner.is_running():
                self.run_bar.set_message("")

    def _show_hint(self) -> None:
        """Say what to do next, unless something went wrong or is going on."""
        self._say_once()
        if self.runner.is_running():
            return
        if self.pairing.blocks():
            if not self.run_bar.is_kept():
                self.run_bar.set_message("")
            return
        image, annotation = self.choice.value()
        hint = next_step(
            Situation(
                image is not None,
                annotation is not None,
                tuple(self.annotator.slices()),
                self.class_table.value(),
                self.slice_table.value(),
            )
        )
        add = [(hint.button, lambda: self._add_classes(hint.missing))] if hint.missing else []
        if not self.run_bar.is_kept():
            text = hint.text if add else self.run_actions.next_step or hint.text
            self.run_bar.set_message(text, actions=add)
        elif add and self.run_bar.is_error() and not self.run_bar.action_buttons():
            # Pressing the main button said the same, as an error: the cure is offered there too.
            self.run_bar.set_message(self.run_bar.message.text(), error=True, actions=add)

    def _add_classes(self, values: tuple[int, ...]) -> None:
        self.run_bar.set_message("")
        self.class_table.add_all(values)

    def _follow_run(self, phase: str) -> None:
        self.form.setEnabled(phase == "ready")
        self.choice.setEnabled(phase == "ready")
        if phase == "training":
            self.progress_section.setExpanded(True)
            self._scroll_to(self.progress_section)
            self._say_where_to_look()
        elif phase == "segmenting":
            self.results_section.setExpanded(True)
            self._scroll_to(self.results_section)

    def _scroll_to(self, section: Section) -> None:
        # Once the layout knows how high the section is now.
        self._scroll_target = section
        self._scroll_timer.start(50)

    def _scroll(self) -> None:
        if self._scroll_target is not None:
            self.scroll_area.ensureWidgetVisible(self._scroll_target, 0, 0)

    def _scrolled_by_user(self) -> None:
        self._scroll_target = None

    def _say_where_to_look(self) -> None:
        shown = self.annotator.shown()
        if any(s.ref == shown and s.state == "complete" for s in self.annotator.slices()):
            self.run_actions.report.note(
                f"{shown} is painted all over, which hides the prediction: move to another slice "
                "to watch the network learn."
            )

    # ---- looks and life

    def _apply_theme(self, _event: Any = None) -> None:
        colors = theme_colors(self._viewer.theme)
        self.setStyleSheet(dock_style(colors))
        self.curve.apply_theme(colors)

    def _removed(self) -> None:
        for layer in self._unsaved.layers():
            show_info(
                f"'{layer.name}' stays in the layer list. It is in no file yet: select it and "
                "choose File ▸ Save Selected Layers."
            )
        self.cleanup()
        self.runner.discard_view()
        self.deleteLater()  # the menu makes a new one; what it needs lies in the layers

    def cleanup(self) -> None:
        """End a run within two seconds and let go of the viewer."""
        if self._cleaned:
            return
        self._cleaned = True
        self._window_watch.stop()
        self._unsaved.stop()
        self._scroll_timer.stop()
        self._background.cleanup()
        self.pairing.cleanup()
        self.runner.abandon(_PATIENCE)
        self._connections.clear()
        self.annotator.cleanup()


def _column(*widgets: QWidget) -> QWidget:
    column = QWidget()
    layout = QVBoxLayout(column)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(8)
    for widget in widgets:
        layout.addWidget(widget)
    return column
