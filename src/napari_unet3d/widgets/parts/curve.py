"""Plots the training loss, and the IoU on the held-out slices, over time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_unet3d.widgets.parts.colors import Colors

_MOST_POINTS = 1000
"""Points of the loss: more than its pixels, and few enough to be redrawn ten times a second."""
_SMOOTHING = 0.9
"""Weight of the earlier losses in the moving average, which makes a trend visible in the noise."""


@dataclass(frozen=True)
class CurveState:
    """The value of a curve.

    Parameters
    ----------
    loss, iou
        Points (seconds, smoothed loss) and (seconds, IoU).
    average
        The moving average of the loss.
    stride
        Every `stride`-th loss becomes a point.
    seen
        Number of losses so far.
    """

    loss: tuple[tuple[float, float], ...] = ()
    iou: tuple[tuple[float, float], ...] = ()
    average: float | None = None
    stride: int = 1
    seen: int = 0


class Curve(QWidget):
    """Two small plots over the same time axis; the second appears with its first point."""

    def __init__(self) -> None:
        super().__init__()
        import pyqtgraph  # takes a quarter of a second, so not before a dock is opened

        self._loss: list[tuple[float, float]] = []
        self._stride, self._seen = 1, 0
        self._iou: list[tuple[float, float]] = []
        self._average: float | None = None
        self.loss_plot: Any = pyqtgraph.PlotWidget()
        self.iou_plot: Any = pyqtgraph.PlotWidget()
        self._smooth_line = self.loss_plot.plot(symbolSize=6)
        self._iou_line = self.iou_plot.plot(symbol="o", symbolSize=6)
        self.hint = QLabel("The curve appears here after the first iterations.")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.hint)
        for plot, title, name in (
            (self.loss_plot, "Loss", "Curve of the training loss; lower is better"),
            (self.iou_plot, "Held-out IoU", "Curve of the IoU on held-out slices, 0 to 1"),
        ):
            plot.setFixedHeight(110)
            plot.setFocusPolicy(Qt.FocusPolicy.NoFocus)
            plot.setAccessibleName(name)
            plot.setToolTip(name)
            plot.setMenuEnabled(False)
            # pyqtgraph makes its menu without an owner, so that it would outlive the window.
            menu = plot.getPlotItem().ctrlMenu
            menu.setParent(plot, menu.windowFlags())
            plot.setMouseEnabled(x=False, y=False)
            plot.hideButtons()
            plot.setLabel("left", title)
            plot.getAxis("left").setWidth(52)
            plot.getAxis("left").enableAutoSIPrefix(False)
            plot.getAxis("bottom").enableAutoSIPrefix(False)
            layout.addWidget(plot)
        # A number at the edge of the changing range would be cut in half.
        self.loss_plot.getAxis("left").setStyle(hideOverlappingLabels=True)
        self.iou_plot.setYRange(0, 1)
        self.iou_plot.setXLink(self.loss_plot)
        self.clear()

    def clear(self) -> None:
        """Begin a new run."""
        self.set_state(CurveState())

    def state(self) -> CurveState:
        """The present curves, for `set_state`."""
        return CurveState(
            tuple(self._loss), tuple(self._iou), self._average, self._stride, self._seen
        )

    def set_state(self, state: CurveState) -> None:
        """Show the curves of a state."""
        self._loss, self._iou, self._average = list(state.loss), list(state.iou), state.average
        self._stride, self._seen = state.stride, state.seen
        self.draw()

    def add_loss(self, elapsed: float, loss: float) -> None:
        """Add a loss, unless it is NaN or infinite; `draw` shows it."""
        if not math.isfinite(loss):  # the average would never recover
            return
        self._average = (
            loss if self._average is None else _SMOOTHING * self._average + (1 - _SMOOTHING) * loss
        )
        self._seen += 1
        if self._seen % self._stride == 0:
            self._loss.append((elapsed, self._average))
        if len(self._loss) > _MOST_POINTS:  # a long run stays cheap to draw
            self._loss = self._loss[::2]
            self._stride *= 2

    def add_iou(self, elapsed: float, iou: float) -> None:
        """Add a mean IoU on the held-out slices; `draw` shows it."""
        self._iou.append((elapsed, iou))

    def draw(self) -> None:
        """Redraw the curves."""
        self.hint.setVisible(not self._loss)
        self.loss_plot.setVisible(bool(self._loss))
        self.iou_plot.setVisible(bool(self._iou))
        self._smooth_line.setData([x for x, _ in self._loss], [y for _, y in self._loss])
        self._smooth_line.setSymbol("o" if len(self._loss) == 1 else None)  # no line to see yet
        self._iou_line.setData([x for x, _ in self._iou], [y for _, y in self._iou])
        seen = [x for x, _ in (*self._loss[-1:], *self._iou[-1:])]
        self.loss_plot.setXRange(0, max(seen, default=1.0), padding=0.02)
        for plot, below in ((self.loss_plot, not self._iou), (self.iou_plot, True)):
            plot.getAxis("bottom").setStyle(showValues=below)
            plot.getAxis("bottom").setHeight(34 if below else 8)
            plot.setLabel("bottom", "seconds" if below else "")

    def points(self) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        """The points (seconds, smoothed loss) and (seconds, IoU) that are shown."""
        return list(self._loss), list(self._iou)

    def apply_theme(self, colors: Colors) -> None:
        """Draw in the colors of a theme."""
        import pyqtgraph

        for plot in (self.loss_plot, self.iou_plot):
            plot.setBackground(colors.background)
            for side in ("left", "bottom"):
                plot.getAxis(side).setPen(colors.text)
                plot.getAxis(side).setTextPen(colors.text)
        self._smooth_line.setPen(pyqtgraph.mkPen(colors.text, width=2))
        self._iou_line.setPen(pyqtgraph.mkPen(colors.text, width=2))
        for line in (self._smooth_line, self._iou_line):
            line.setSymbolBrush(colors.text)
            line.setSymbolPen(colors.text)
