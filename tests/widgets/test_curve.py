"""The plots, without a viewer."""

from __future__ import annotations

from typing import Any

import pytest

from napari_unet3d.widgets.parts.curve import Curve


@pytest.fixture
def curve(qtbot: Any) -> Any:
    curve = Curve()
    qtbot.addWidget(curve)
    curve.show()
    return curve


def test_plots_appear_with_their_first_point(curve: Curve) -> None:
    assert curve.hint.isVisible()
    assert not curve.loss_plot.isVisible()
    curve.add_loss(1, 0.9)
    curve.draw()
    assert curve.loss_plot.isVisible()
    assert not curve.iou_plot.isVisible()
    curve.add_iou(2, 0.5)
    curve.draw()
    assert curve.iou_plot.isVisible()
    curve.clear()
    assert curve.points() == ([], [])
    assert curve.hint.isVisible()


def test_a_long_run_stays_cheap_to_draw(curve: Curve) -> None:
    for i in range(20_000):
        curve.add_loss(i, 1.0)
    loss, _ = curve.points()
    assert 400 < len(loss) <= 1000
    assert loss[0][0] < 100
    assert loss[-1][0] > 19_900


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_does_not_spoil_the_curve(curve: Curve, loss: float) -> None:
    curve.add_loss(1, 0.5)
    curve.add_loss(2, loss)
    curve.add_loss(3, 0.5)
    curve.draw()
    assert curve.points()[0] == [(1, 0.5), (3, pytest.approx(0.5))]


def test_a_curve_can_be_shown_again(curve: Curve) -> None:
    for i in range(3000):
        curve.add_loss(i, 1.0)
    curve.add_iou(5, 0.25)
    state, points = curve.state(), curve.points()
    curve.clear()
    curve.add_loss(1, 9.0)
    curve.set_state(state)
    assert curve.points() == points
    assert curve.iou_plot.isVisible()


def test_a_single_loss_is_visible(curve: Curve) -> None:
    line = curve._smooth_line
    curve.add_loss(1, 0.5)
    curve.draw()
    assert line.opts["symbol"] == "o"
    curve.add_loss(2, 0.4)
    curve.draw()
    assert line.opts["symbol"] is None


def test_no_menu_outlives_the_plots(qtbot: Any) -> None:
    from qtpy.QtCore import QCoreApplication, QEvent
    from qtpy.QtWidgets import QApplication, QMenu

    def menus() -> int:
        return sum(isinstance(widget, QMenu) for widget in QApplication.allWidgets())

    before = menus()
    curve = Curve()
    assert menus() > before
    curve.deleteLater()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    assert menus() == before
