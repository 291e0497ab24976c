"""After a run: what is said, what comes next, and a cancel that frees the window."""

from __future__ import annotations

import re
import threading
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from napari_unet3d.events import ClassScore, HeldOutScores
from napari_unet3d.training.trainer import Trainer

pytestmark = pytest.mark.needs_window
WAIT = 60_000


def wait_ready(dock: Any, qtbot: Any) -> None:
    qtbot.waitUntil(lambda: not dock.runner.is_running(), timeout=WAIT)


def run(dock: Any, hands: Any, qtbot: Any) -> None:
    hands.press(dock.run_bar.start_button)
    wait_ready(dock, qtbot)
    assert not dock.run_bar.is_error(), dock.run_bar.message.text()


def paint(dock: Any, z: int) -> None:
    where = np.zeros(dock.choice.value()[1].data.shape, bool)
    where[z, :3, :3] = True
    dock.choice.value()[1].data_setitem(np.nonzero(where), 1)
    dock.annotator.rescan()


def test_one_bar_runs_from_0_to_100(
    ready: Any, hands: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars: list[tuple[float, str]] = []
    messages: list[str] = []
    lines: list[str] = []
    progress, message = ready.run_bar.set_progress, ready.run_bar.set_message
    show = ready.run_bar.set_status
    monkeypatch.setattr(
        ready.run_bar,
        "set_status",
        lambda text, **more: (lines.append(text), show(text, **more)),
    )
    monkeypatch.setattr(
        ready.run_bar, "set_progress", lambda *given: (bars.append(given), progress(*given))
    )
    monkeypatch.setattr(
        ready.run_bar,
        "set_message",
        lambda text, **more: (messages.append(text), message(text, **more)),
    )
    run(ready, hands, qtbot)
    fractions = [fraction for fraction, _ in bars]
    assert len(fractions) > 5
    assert None not in fractions
    assert all(0 <= a <= b < 1 for a, b in pairwise(fractions))
    phases = list(dict.fromkeys(text for _, text in bars))
    assert phases[0] == "Checking the input"
    assert phases[-1] == "Segmenting the stack"
    order = ["Checking", "Preparing", "Fitting the pixel classifier", "Measuring", "Segmenting"]
    found = [next(i for i, text in enumerate(phases) if text.startswith(word)) for word in order]
    assert found == sorted(found)
    assert not any(text.startswith(tuple(phases)) for text in lines)  # the bar says it already
    assert any("in all: " in m and "to measure and segment" in m for m in messages)
    assert ready.run_bar.status.text().startswith("Done in ")


def test_after_a_run_one_looks_paints_and_goes_on(ready: Any, hands: Any, qtbot: Any) -> None:
    run_bar, form = ready.run_bar, ready.form
    assert run_bar.start_button.text() == "Train && se&gment"
    run(ready, hands, qtbot)
    assert form.starting_point() == "last"
    assert run_bar.start_button.text() == "Continue training && se&gment"
    text = run_bar.message.text()
    assert text.startswith("Next: ") and "Paint it, then press Continue training." in text
    assert run_bar.status.isVisible()
    paint(ready, 8)
    assert run_bar.message.text().startswith("Ready to train")
    assert not run_bar.status.isVisible()
    first = ready.run_actions.bundle
    run(ready, hands, qtbot)
    second = ready.run_actions.bundle
    assert second is not first
    assert second.record.iterations_before == first.record.iterations

    form.start_from.setCurrentIndex(form.start_from.findData("nothing"))
    form.start_from.activated.emit(form.start_from.currentIndex())  # as the mouse does
    assert run_bar.start_button.text() == "Train && se&gment"
    assert not run_bar.status.isVisible()  # the user has gone on
    run(ready, hands, qtbot)
    assert ready.run_actions.bundle.record.iterations_before == 0
    assert form.starting_point() == "last"  # the proposal of each run


def test_another_annotation_starts_anew_unless_the_user_wishes(
    ready: Any, hands: Any, qtbot: Any, stack: np.ndarray
) -> None:
    run(ready, hands, qtbot)
    image, annotation = ready.choice.value()
    other = ready._viewer.add_image(stack[::-1].copy(), name="other")
    ready.choice.setValue(other, None)
    if ready.choice.value()[1] is None:
        ready.add_annotation()
    assert ready.choice.value()[1] is not annotation
    assert ready.form.starting_point() == "nothing"
    ready.choice.setValue(image, annotation)
    assert ready.form.starting_point() == "last"


def test_no_message_names_a_button_that_says_something_else(
    ready: Any, hands: Any, qtbot: Any
) -> None:
    ready.form.advanced.editors["iterations"].setValue(100_000)
    hands.press(ready.run_bar.start_button)
    qtbot.waitUntil(lambda: ready.runner.phase == "training", timeout=WAIT)
    ready._viewer.layers.remove(ready.choice.value()[1])
    hands.press(ready.run_bar.stop_button)
    wait_ready(ready, qtbot)
    assert ready.run_bar.start_button.text() == "Train && se&gment"
    assert "Continue training" not in ready.run_bar.message.text()


def test_a_starved_run_says_so(ready: Any, hands: Any, qtbot: Any) -> None:
    ready.form.advanced.editors["iterations"].setValue(None)
    ready.form.budget.setValue(1)
    run(ready, hands, qtbot)
    assert ready.run_actions.bundle.record.iterations < 100
    text = ready.run_bar.message.text()
    assert re.search(r"iterations? in \d+ s: few", text)
    assert "pixel classifier" in text
    assert "Ready" not in text
    before = ready.run_actions.bundle.record
    hands.press(ready.run_bar.action_buttons()["Train 5 min more ▸"])
    qtbot.waitUntil(lambda: bool(ready.curve.points()[0]), timeout=WAIT)
    hands.press(ready.run_bar.stop_button)
    wait_ready(ready, qtbot)
    after = ready.run_actions.bundle.record
    assert after.config["seconds"] == before.seconds + 300
    assert after.iterations > before.iterations  # resumed, with its optimizer
    assert after.iterations_before == before.iterations_before


def test_what_happened_is_not_said_for_ever(ready: Any, hands: Any, qtbot: Any) -> None:
    ready.form.advanced.editors["iterations"].setValue(100_000)
    for go_on in (
        lambda: paint(ready, 8),
        ready.form.outputs["probabilities"].click,
        ready.run_bar._passing.timeout.emit,  # ten seconds later
    ):
        hands.press(ready.run_bar.start_button)
        qtbot.waitUntil(lambda: ready.runner.phase == "training", timeout=WAIT)
        assert not ready.run_bar._passing.isActive()  # what is going on is said as long as it does
        hands.press(ready.run_bar.cancel_button)
        wait_ready(ready, qtbot)
        assert "Cancelled" in ready.run_bar.status.text()
        assert ready.run_bar._passing.isActive()
        go_on()
        assert not ready.run_bar.status.isVisible()
        assert ready.run_bar.status.text() == ""


def test_cancel_frees_the_window_while_a_file_is_read(
    ready: Any, hands: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reading cannot be cut off: it ends in the background, and the window is free."""
    release = threading.Event()
    read: list[str] = []

    def slow(*given: Any, **more: Any) -> Trainer:
        release.wait(60)
        trainer = Trainer(*given, **more)
        read.append("to its end")
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr("napari_unet3d.session.job.Trainer", slow)
        hands.press(ready.run_bar.start_button)
        assert ready.runner.phase == "checking"
        hands.press(ready.run_bar.cancel_button)
        wait_ready(ready, qtbot)
    assert not read
    assert [t for t in threading.enumerate() if t.name == "unet3d"]
    assert "Everything is as it was" in ready.run_bar.status.text()
    assert "background" in ready.run_bar.status.text()
    assert ready.run_bar.start_button.isVisible()
    run(ready, hands, qtbot)  # beside it
    model = ready.run_actions.bundle
    release.set()
    qtbot.waitUntil(
        lambda: not [t for t in threading.enumerate() if t.name == "unet3d"], timeout=WAIT
    )
    qtbot.wait(200)
    assert read
    assert ready.run_actions.bundle is model
    assert not ready.run_bar.is_error()
    assert sum(x.name.startswith("cells prediction") for x in ready._viewer.layers) == 1


def test_the_dock_has_one_value(ready: Any, qtbot: Any) -> None:
    settings = ready.value()
    assert settings.outputs == ()
    assert settings.times is None
    changed = settings.model_copy(
        update={
            "training": settings.training.model_copy(update={"preset": "fast", "iterations": 7}),
            "outputs": ("uncertainty",),
        }
    )
    with qtbot.waitSignal(ready.valueChanged):
        ready.setValue(changed)
    assert ready.value() == changed


def test_after_stop_one_may_still_cancel(ready: Any, hands: Any, qtbot: Any) -> None:
    ready.form.advanced.editors["iterations"].setValue(100_000)
    hands.press(ready.run_bar.start_button)
    qtbot.waitUntil(lambda: ready.runner.phase == "training", timeout=WAIT)
    hands.press(ready.run_bar.stop_button)
    assert not ready.run_bar.stop_button.isEnabled()
    assert ready.run_bar.cancel_button.isEnabled()
    hands.press(ready.run_bar.cancel_button)
    wait_ready(ready, qtbot)
    assert "Cancelled" in ready.run_bar.status.text()
    assert not (ready.run_actions.bundle is not None)


def test_the_share_that_was_measured_is_shown(ready: Any) -> None:
    ready.report.begin(ready.class_table.value(), [], training=True, time_points=1)
    scores = HeldOutScores(3, 1.0, (ClassScore(2, 0.5, 0.6, 900),), ("z=6",), 3, 0.374)
    ready.runner.eventsArrived.emit([scores])
    text = ready.results.text.text()
    assert "37 %" in text
    assert text.startswith("A quick look")
    final = HeldOutScores(3, 1.0, scores.classes, ("z=6",), 3, 1.0, final=True)
    ready.runner.eventsArrived.emit([final])
    assert "Measured on 100 % of" in ready.results.text.text()
    assert "quick" not in ready.results.text.text()
    almost = HeldOutScores(3, 1.0, scores.classes, ("z=6",), 3, 0.9999, final=True)
    ready.runner.eventsArrived.emit([almost])
    assert "99 %" in ready.results.text.text()
