"""Marks along a slider: one for each painted slice, in the shape and color of its state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QEvent, QObject, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QHelpEvent, QMouseEvent, QPainter, QPaintEvent, QPixmap
from qtpy.QtWidgets import QScrollBar, QStyle, QStyleOptionSlider, QToolTip, QWidget

from napari_unet3d.data.marks import SliceState
from napari_unet3d.widgets.parts.colors import Colors
from napari_unet3d.widgets.parts.state_shapes import draw_state, state_color

_MARK = 7
"""Pixels of a mark: it fits the slider of napari, which is 13 pixels high."""
_EDGE = 1
"""Pixels around a mark in the color of the slider, so that it is seen on the handle too."""
_REACH = 4
"""Pixels beside the middle of a mark in which a click means the mark."""
_ORDER: tuple[SliceState, ...] = ("partial", "complete", "empty", "accepted", "held out")
"""Drawn in this order: where marks lie on each other, the rare ones are seen."""


@dataclass(frozen=True)
class SliderMark:
    """A mark of a slider.

    Parameters
    ----------
    position
        Value of the slider; it may lie between two.
    state
        The state of the slice.
    text
        What the tooltip says.
    target
        What `clicked` emits.
    """

    position: float
    state: SliceState
    text: str
    target: Any


class SliderMarks(QWidget):
    """Lies on a slider and draws its marks; a click beside the marks moves the slider as always.

    Parameters
    ----------
    slider
        A horizontal slider. Qt deletes the marks with it.
    """

    clicked = Signal(object)
    """The user clicked on a mark with this target."""

    def __init__(self, slider: QScrollBar) -> None:
        super().__init__(slider)
        self._slider = slider
        self._marks: tuple[SliderMark, ...] = ()
        self._backgrounds: tuple[str, ...] = ("#808080",)
        self._drawn: QPixmap | None = None
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        slider.installEventFilter(self)
        slider.rangeChanged.connect(self._redraw)
        self.setGeometry(slider.rect())
        self.show()

    # ---- the value

    def value(self) -> tuple[SliderMark, ...]:
        """The marks."""
        return self._marks

    def setValue(self, marks: Sequence[SliderMark]) -> None:
        """Show other marks."""
        if tuple(marks) != self._marks:
            self._marks = tuple(marks)
            self._redraw()

    def apply_theme(self, colors: Colors) -> None:
        """Draw in colors that can be seen on the slider of a theme."""
        self._backgrounds = (colors.foreground,)
        self._redraw()

    def detach(self) -> None:
        """Give the slider back."""
        self._slider.removeEventFilter(self)
        self.hide()
        self.deleteLater()

    def x_of(self, position: float) -> float:
        """Pixels from the left of the slider to the middle of its handle at a value."""
        style, option = self._slider.style(), QStyleOptionSlider()
        self._slider.initStyleOption(option)
        assert style is not None
        control, part = QStyle.ComplexControl.CC_ScrollBar, QStyle.SubControl
        groove = style.subControlRect(control, option, part.SC_ScrollBarGroove, self._slider)
        handle = style.subControlRect(control, option, part.SC_ScrollBarSlider, self._slider)
        low, high = self._slider.minimum(), self._slider.maximum()
        share = (position - low) / max(high - low, 1)
        return groove.x() + handle.width() / 2 + share * (groove.width() - handle.width())

    def mark_at(self, x: float) -> SliderMark | None:
        """The mark next to a position in pixels, if it is within reach of the mouse."""
        nearest = min(self._marks, key=lambda m: abs(self.x_of(m.position) - x), default=None)
        near = nearest is not None and abs(self.x_of(nearest.position) - x) <= _REACH
        return nearest if near else None

    # ---- events

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        kind = None if event is None else event.type()
        if kind in (QEvent.Type.Resize, QEvent.Type.Show, QEvent.Type.StyleChange):
            self.setGeometry(self._slider.rect())
            self._redraw()
        elif kind == QEvent.Type.MouseButtonPress and isinstance(event, QMouseEvent):
            if event.button() == Qt.MouseButton.LeftButton and not self._on_handle(event):
                mark = self.mark_at(event.position().x())
                if mark is not None:
                    self.clicked.emit(mark.target)
                    return True
        elif kind == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            mark = self.mark_at(event.pos().x())
            if mark is not None:
                QToolTip.showText(event.globalPos(), mark.text, self._slider)
                return True
        return False

    def paintEvent(self, a0: QPaintEvent | None) -> None:
        if self._drawn is None:
            self._drawn = self._draw()
        painter = QPainter(self)
        painter.drawPixmap(0, 0, self._drawn)
        painter.end()

    def _on_handle(self, event: QMouseEvent) -> bool:
        style, option = self._slider.style(), QStyleOptionSlider()
        self._slider.initStyleOption(option)
        assert style is not None
        hit = style.hitTestComplexControl(
            QStyle.ComplexControl.CC_ScrollBar, option, event.position().toPoint(), self._slider
        )
        return hit == QStyle.SubControl.SC_ScrollBarSlider

    def _redraw(self, *_: int) -> None:
        self._drawn = None
        self.update()

    def _draw(self) -> QPixmap:
        """Draw all marks; of those with one state on one pixel, only one."""
        ratio = self.devicePixelRatioF()
        pixmap = QPixmap(self.size() * ratio)
        pixmap.setDevicePixelRatio(ratio)
        pixmap.fill(Qt.GlobalColor.transparent)
        painter = QPainter(pixmap)
        left, right = self.x_of(0), self.x_of(1)
        places = {(m.state, round(left + m.position * (right - left))) for m in self._marks}
        for state in _ORDER:
            xs = sorted(x for s, x in places if s == state)
            stamp = self._stamp(state, ratio) if xs else pixmap
            size = stamp.deviceIndependentSize()
            top = round((self.height() - size.height()) / 2)
            for x in xs:
                painter.drawPixmap(x - int(size.width()) // 2, top, stamp)
        painter.end()
        return pixmap

    def _stamp(self, state: SliceState, ratio: float) -> QPixmap:
        """Draw the mark of one state, with an edge around it."""
        side = _MARK + 2 * _EDGE
        pixmap = QPixmap(QSize(side, side) * ratio)
        pixmap.setDevicePixelRatio(ratio)
        pixmap.fill(Qt.GlobalColor.transparent)
        painter = QPainter(pixmap)
        draw_state(painter, QRectF(0, 0, side, side), state, self._backgrounds[0])
        box = QRectF(_EDGE, _EDGE, _MARK, _MARK)
        draw_state(painter, box, state, state_color(state, *self._backgrounds))
        painter.end()
        return pixmap
