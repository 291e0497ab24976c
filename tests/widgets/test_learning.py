"""Learning while painting, in the true window: slices join, and training starts by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_unet3d.data.slices import SliceRef
from napari_unet3d.events import RoundFinished, SlicesJoined
from napari_unet3d.training import rounds
from napari_unet3d.widgets.features.learning import Learning
from napari_unet3d.widgets.viewer import handover

pytestmark = pytest.mark.needs_window
WAIT = 60_000


@pytest.fixture
def events(ready: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The events of the runs; rounds are short, and pauses are a tenth of those of a user."""
    monkeypatch.setattr(rounds, "FEWEST_ITERATIONS", 1)
    monkeypatch.setattr(rounds, "_SAME_RESULT", 0.0)
    monkeypatch.setattr(handover, "_FINISHED_SECONDS", 0.1)
    monkeypatch.setattr(handover, "_PARTIAL_SECONDS", 0.3)
    (learning,) = (f for f in ready.features if isinstance(f, Learning))
    learning._tick.setInterval(50)
    learning._pause.setInterval(150)
    told: list[Any] = []
    ready.runner.eventsArrived.connect(told.extend)
    return told


def joined(events: list[Any]) -> set[str]:
    """Slices that have joined."""
    return {str(ref) for e in events if isinstance(e, SlicesJoined) for ref in e.trained}


def start(dock: Any, hands: Any, qtbot: Any, iterations: int = 100_000) -> None:
    dock.form.advanced.editors["iterations"].setValue(iterations)
    hands.press(dock.run_bar.start_button)
    qtbot.waitUntil(lambda: dock.runner.phase == "training", timeout=WAIT)


def end(dock: Any, hands: Any, qtbot: Any) -> None:
    hands.press(dock.run_bar.cancel_button)
    qtbot.waitUntil(lambda: not dock.runner.is_running(), timeout=WAIT)


def test_slices_painted_while_training_join_it(
    ready: Any, hands: Any, qtbot: Any, events: list[Any]
) -> None:
    viewer, layer = ready._viewer, ready.choice.value()[1]
    start(ready, hands, qtbot)
    viewer.dims.set_point(0, 2 * 8)
    viewer.layers.selection.active = layer
    layer.mode, layer.brush_size, layer.selected_label = "paint", 5, 2
    hands.stroke((8, 8), (12, 12))
    qtbot.waitUntil(lambda: "z=8" in joined(events), timeout=WAIT)

    ready.annotator.complete(SliceRef(0, 1))  # of another slice than that in view
    qtbot.waitUntil(lambda: "z=1" in joined(events), timeout=WAIT)

    ready.annotator.apply([], held_out=frozenset({SliceRef(0, 6)}))
    qtbot.waitUntil(
        lambda: any(isinstance(e, SlicesJoined) and e.held_out for e in events), timeout=WAIT
    )
    assert "z=6 was trained on for" in ready.run_bar.message.text()
    hands.press(ready.run_bar.stop_button)
    qtbot.waitUntil(lambda: not ready.runner.is_running(), timeout=WAIT)
    record = ready.run_actions.bundle.record
    assert record.trained_slices == ("z=1", "z=3", "z=8")
    assert record.held_out_slices == ("z=6",)


def test_nothing_is_read_while_the_mouse_is_down(
    ready: Any, hands: Any, qtbot: Any, events: list[Any]
) -> None:
    layer = ready.choice.value()[1]
    start(ready, hands, qtbot)
    layer.data_setitem((np.array([8] * 3), np.arange(3), np.arange(3)), 1)
    ready.annotator.rescan()
    with layer.block_history():  # as from pressing to releasing the button
        qtbot.wait(600)
        assert not joined(events)
    qtbot.waitUntil(lambda: joined(events) == {"z=8"}, timeout=WAIT)
    end(ready, hands, qtbot)


def test_keep_learning_starts_rests_and_goes_on(
    ready: Any, hands: Any, qtbot: Any, events: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_unet3d.session import continuous

    monkeypatch.setitem(continuous.run_continuously.__kwdefaults__, "first_round", 0.5)
    viewer, layer, box = ready._viewer, ready.choice.value()[1], ready.run_bar.keep_learning
    before = len(viewer.layers)
    layer.undo()  # nothing is painted
    ready.annotator.rescan()
    hands.press(box)
    qtbot.wait(300)
    assert not ready.runner.is_running()
    layer.redo()
    ready.annotator.rescan()
    qtbot.waitUntil(ready.runner.is_running, timeout=WAIT)
    qtbot.waitUntil(lambda: not ready.runner.is_running(), timeout=WAIT)
    assert "More time no longer helps" in ready.run_bar.message.text()
    first = ready.run_actions.bundle
    assert len(viewer.layers) == before + 1

    qtbot.wait(300)
    assert not ready.runner.is_running()  # nothing new was painted
    where = np.nonzero(np.ones((1, 6, 6)))
    layer.data_setitem((where[0] + 8, where[1], where[2]), 1)
    ready.annotator.rescan()
    qtbot.waitUntil(ready.runner.is_running, timeout=WAIT)
    qtbot.waitUntil(lambda: not ready.runner.is_running(), timeout=WAIT)
    second = ready.run_actions.bundle
    assert second.record.iterations > first.record.iterations  # resumed
    assert "z=8" in second.record.trained_slices
    assert len(viewer.layers) == before + 1  # the result takes the place of the last one
    assert "cells prediction" in {x.name for x in viewer.layers}

    layer.data_setitem((where[0] + 9, where[1], where[2]), 1)
    ready.annotator.rescan()
    qtbot.waitUntil(lambda: ready.runner.phase == "training", timeout=WAIT)
    hands.press(ready.run_bar.cancel_button)
    qtbot.waitUntil(lambda: not ready.runner.is_running(), timeout=WAIT)
    assert ready.run_actions.bundle is second
    assert len(viewer.layers) == before + 1
    assert "cells prediction" in {x.name for x in viewer.layers if x.visible}
    qtbot.wait(300)
    assert not ready.runner.is_running()  # until there is new paint
    assert [e.end for e in events if isinstance(e, RoundFinished)].count("result") == 2


def test_the_live_slice_follows_the_slider_in_any_orientation(
    ready: Any, hands: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_unet3d.training.throttle import Throttle

    monkeypatch.setattr(Throttle, "due", lambda self, elapsed: True)
    viewer = ready._viewer
    start(ready, hands, qtbot)
    layer = ready.runner._view.layer
    for order in ((0, 2, 1), (1, 2, 0), (2, 0, 1)):
        viewer.dims.order = order
        axis = order[0]
        for index in (4, 7) if axis == 0 else (15, 22):  # the bar is there
            layer.data[...] = 0  # only what is predicted from now on counts
            viewer.dims.set_current_step(axis, index)
            plane = [slice(None)] * 3
            plane[axis] = index
            qtbot.waitUntil(lambda plane=plane: layer.data[tuple(plane)].any(), timeout=WAIT)
            qtbot.waitUntil(
                lambda order=order, index=index: np.array_equal(
                    layer._slice.image.raw, layer.data.transpose(order)[index]
                ),
                timeout=WAIT,
            )
    end(ready, hands, qtbot)
