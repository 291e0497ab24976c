"""Is it good enough? Mistakes in color, cross-validation, learning curve, report."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Labels

from napari_unet3d.config import ClassInfo
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.errors import BadInputError
from napari_unet3d.model.evidence import CrossValidation, Evidence, LearningCurve
from napari_unet3d.session.quality import (
    class_qualities,
    learning_sentence,
    show_expected,
    summarize_cross_validation,
)
from napari_unet3d.session.quality_runs import cross_validate, learning_curve
from napari_unet3d.session.report.assembly import make_report, write_report
from napari_unet3d.session.session import RunSettings, Session
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.widgets.parts.connections import Connections
from napari_unet3d.widgets.parts.file_dialogs import ask_report
from napari_unet3d.widgets.parts.quality_panel import QualityPanel, QualityState
from napari_unet3d.widgets.viewer.belonging import belongs_to
from napari_unet3d.widgets.viewer.image_volume import voxel_size_of
from napari_unet3d.widgets.viewer.layers import (
    base_name,
    file_of,
    insert_quietly,
    read_accepted,
    read_classes,
    read_held_out,
    unique_name,
)
from napari_unet3d.widgets.viewer.mistakes import (
    map_mistakes,
    mistakes_layer,
    shows_mistakes,
    update_mistakes,
)
from napari_unet3d.widgets.viewer.navigation import show_slice
from napari_unet3d.widgets.viewer.predictions import newest_prediction
from napari_unet3d.widgets.viewer.room import snapshot
from napari_unet3d.widgets.viewer.slice_summaries import read_summary_of
from napari_unet3d.widgets.workbench import Feature, Workbench

_HINT = "Hold out a slice to measure, or cross-validate."
_LEARN = "Another slice or enough? The learning curve tells."


class Quality(Feature):
    """Shows how good the model is, and offers to find out more."""

    place = "result"

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self.panel = QualityPanel()
        self.widget = self.panel
        self._writing = False
        self._measured_on: weakref.ref[Labels] | None = None
        """The annotation that the evidence is about."""
        for signal, slot in (
            (self.panel.errorsRequested, self.toggle_mistakes),
            (self.panel.crossValidationRequested, self.cross_validate),
            (self.panel.learningCurveRequested, self.draw_learning_curve),
            (self.panel.reportRequested, self.write_report),
            (bench.runner.measured, self._measured),
            (bench.runner.phaseChanged, self._refresh),
            (bench.runner.finished, self._run_finished),
            (bench.session.changed, self._refresh),
            (bench.annotator.changed, self._refresh),
            (bench.choice.valueChanged, self._pair_chosen),
        ):
            signal.connect(slot)
        self._connections = Connections(self)
        layers = bench.viewer.layers
        self._connections.add(  # to napari, which outlives the dock
            (layers.events.removed, self._refresh),
            *((x.events.visible, self._refresh) for x in layers if shows_mistakes(x)),
        )
        self._refresh()

    def cleanup(self) -> None:
        self._connections.clear()

    # ---- what the buttons do

    def cross_validate(self) -> None:
        """Hold out each annotated slice once, with a new model each time."""
        self._measure(cross_validate)

    def draw_learning_curve(self) -> None:
        """Train on 1, 2, … of the annotated slices."""
        self._measure(learning_curve)

    def toggle_mistakes(self) -> None:
        """Show the mistakes on the held-out slices, or hide them."""
        layer = self._mistakes()
        if layer is not None and layer.visible:
            layer.visible = False
        else:
            self.show_mistakes(go_there=True)

    def show_mistakes(self, *, go_there: bool = False) -> None:
        """Compare the newest prediction with the held-out slices, in the background.

        Parameters
        ----------
        go_there
            Whether the viewer goes to the first held-out slice, unless it shows one.
        """
        image, annotation = self._pair()
        prediction = self._prediction()
        if image is None or annotation is None or prediction is None:
            return
        painted = SparseAnnotation(
            annotation.data, read_classes(annotation), read_held_out(annotation)
        )
        classes = read_classes(prediction)
        name = f"{base_name(prediction.name)}: mistakes"

        def show(mistakes: dict[SliceRef, np.ndarray]) -> None:
            self._show_layer(image, annotation, mistakes, name, go_there)

        self._in_background(lambda: map_mistakes(prediction.data, painted, classes), show)

    def write_report(self) -> None:
        """Ask for a file, and write the report in the background."""
        image, _ = self._pair()
        name = "segmentation" if image is None else base_name(image.name)
        path = ask_report(self.bench.dock, f"{name} report")
        if path is not None:
            self.write_report_to(path)

    def write_report_to(self, path: Path) -> None:
        """Write the report; `.html` or `.pdf` tells the kind."""
        bench = self.bench
        try:
            session = self._work()
        except Exception as error:  # any error is shown at the button
            bench.report.fail(error)
            return
        made = datetime.now().astimezone()
        self._writing = True
        self._refresh()
        bench.run_bar.set_status("Writing the report …")

        def done(written: Path) -> None:
            bench.run_bar.set_status(f"Saved {written}")

        self._in_background(lambda: write_report(make_report(session, made), path, made), done)

    # ---- measuring

    def _measure(self, work: Callable[..., Generator[Any, None, Any]]) -> None:
        bench = self.bench
        if bench.runner.is_running():
            return
        bench.run_bar.set_message("")
        self.settled.emit()
        try:
            session = self._work()
            if session.volume is None or session.annotation is None:
                raise BadInputError("Choose an image and its annotation to measure on.")
            if problem := bench.pairing.problem():
                raise BadInputError(problem)
        except Exception as error:  # any error is shown at the button
            bench.report.fail(error)
            return
        _, annotation = self._pair()
        self._measured_on = None if annotation is None else weakref.ref(annotation)
        control = TrainingControl()
        bench.report.begin(session.annotation.classes, (), training=False, time_points=0)
        bench.runner.measure(work(session, control), control)

    def _measured(self, result: Any) -> None:
        self.bench.report.keep()  # nothing that it showed before has changed
        evidence = self.bench.session.value().evidence
        if isinstance(result, CrossValidation):
            evidence = replace(evidence, cross_validation=result)
        elif isinstance(result, LearningCurve):
            evidence = replace(evidence, learning_curve=result)
        else:
            self.bench.run_bar.set_status("Cancelled. Everything is as it was.")
            return
        self.bench.session.update(evidence=evidence)
        self.bench.run_bar.set_status("Measured.")

    def _work(self) -> Session:
        """Image, annotation as it is now, model, scores and evidence of the window."""
        bench, session = self.bench, self.bench.session.value()
        image, annotation = self._pair()
        settings = RunSettings(training=bench.form.value())
        session = replace(session, settings=settings, segmentation=None)
        if image is None:
            return session
        volume, _ = bench.choice.volume()
        session = replace(session, volume=volume, image_path=file_of(image))
        if (summary := read_summary_of(image)) is not None:
            session = replace(session, expected=summary.expected)
        prediction = self._prediction()
        if prediction is not None:
            session = replace(session, segmentation=prediction.data)
        if annotation is None:
            return session
        labels, _ = snapshot(annotation.data)
        painted = SparseAnnotation(labels, read_classes(annotation), read_held_out(annotation))
        return replace(session, annotation=painted, accepted=read_accepted(annotation))

    # ---- what is shown

    def _pair(self) -> tuple[Image | None, Labels | None]:
        image, annotation = self.bench.choice.value()
        return image, annotation

    def _prediction(self) -> Labels | None:
        """The newest prediction of the stack that is chosen."""
        image, annotation = self._pair()
        if image is None or annotation is None:
            return None
        return newest_prediction(self.bench.viewer, image, annotation, hidden=True)

    def _mistakes(self) -> Labels | None:
        """The layer of mistakes for the stack that is chosen."""
        image, annotation = self._pair()
        if image is None or annotation is None:
            return None
        shape = tuple(annotation.data.shape)
        layers = (x for x in self.bench.viewer.layers if shows_mistakes(x))
        own = (x for x in layers if belongs_to(x, image))
        return next((x for x in own if tuple(x.data.shape) == shape), None)

    def _show_layer(
        self,
        image: Image,
        annotation: Labels,
        mistakes: dict[SliceRef, np.ndarray],
        name: str,
        go_there: bool,
    ) -> None:
        layers = self.bench.viewer.layers
        if not mistakes or image not in layers or annotation not in layers:
            return
        shape = tuple(int(n) for n in annotation.data.shape)
        old = self._mistakes()
        if old is None:
            taken = (x.name for x in layers)
            new = mistakes_layer(mistakes, shape, unique_name(name, taken), image)
            self._connections.add((new.events.visible, self._refresh))
            insert_quietly(self.bench.viewer, len(layers), new)
        else:
            update_mistakes(old, mistakes)
            old.visible = True
        number = sum(int(np.count_nonzero(plane)) for plane in mistakes.values())
        self.panel.set_count(number, len(mistakes))
        if go_there and self.bench.annotator.shown() not in mistakes:
            show_slice(self.bench.viewer, annotation, min(mistakes))
        self._refresh()

    def _run_finished(self, finished: Any) -> None:
        layer = self._mistakes()
        if finished is not None and layer is not None and layer.visible:
            self.show_mistakes()  # those that are shown are of an older prediction
        self._refresh()

    def _pair_chosen(self, *_: Any) -> None:
        annotation = self._pair()[1]
        known = self._measured_on
        if known is not None and annotation is not None and annotation is not known():
            self._measured_on = None
            self.bench.session.update(evidence=Evidence())
        self._refresh()

    def _refresh(self, *_: Any) -> None:
        bench = self.bench
        image, annotation = self._pair()
        running = bench.runner.is_running()
        held_out = frozenset() if annotation is None else read_held_out(annotation)
        session = bench.session.value()
        self.panel.set_available(
            errors=not running and bool(held_out) and self._prediction() is not None,
            measuring=not running and image is not None and annotation is not None,
            report=not running
            and not self._writing
            and (session.model is not None or annotation is not None),
        )
        layer = self._mistakes()
        self.panel.show_legend(layer is not None and layer.visible)
        classes = () if annotation is None else read_classes(annotation)
        state = _state(session.evidence, classes, self._unit(image), bool(held_out))
        if not held_out and (summary := read_summary_of(image)) is not None:
            told = show_expected(summary.class_names, summary.expected)
            state = replace(state, hint=f"{told} {state.hint}".strip())
        if state != self.panel.value():
            self.panel.setValue(state)

    def _unit(self, image: Image | None) -> str:
        if image is None:
            return ""
        try:
            return voxel_size_of(image)[1]
        except BadInputError:
            return ""

    def _in_background(self, question: Callable[[], Any], answer: Callable[[Any], None]) -> None:
        """Ask in a thread; an error is shown at the button."""

        def asked() -> tuple[Any, Exception | None]:
            try:
                return question(), None
            except Exception as error:
                return None, error

        def answered(result: tuple[Any, Exception | None]) -> None:
            self._writing = False
            self._refresh()
            if (error := result[1]) is None:
                answer(result[0])
            else:
                self.bench.report.fail(error)

        self.bench.background.ask(asked, answered)


def _state(
    evidence: Evidence, classes: tuple[ClassInfo, ...], unit: str, held_out: bool
) -> QualityState:
    result, curve = evidence.cross_validation, evidence.learning_curve
    if result is None and curve is None:
        return QualityState(hint="" if held_out else _HINT)
    return QualityState(
        rows=() if result is None else class_qualities(result.by_slice, classes),
        unit=unit,
        cross_validation="" if result is None else summarize_cross_validation(result),
        learning_curve=_LEARN if curve is None else learning_sentence(curve),
    )
