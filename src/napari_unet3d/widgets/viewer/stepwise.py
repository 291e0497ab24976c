"""Does long work in the main thread in short steps, between which the window stays alive."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from qtpy.QtCore import QObject, QTimer

_PAUSE_MS = 5
"""Milliseconds between two steps, so that clicks, keys and redrawing come between them."""


class Stepwise(QObject):
    """Takes one item after the other from an iterator, each in an event of its own.

    Parameters
    ----------
    parent
        The Qt parent.
    steps
        Does one short piece of the work for each item.
    done
        Called once, when the iterator has ended, failed or was stopped; with the error, if any.
    """

    def __init__(
        self,
        parent: QObject,
        steps: Iterator[object],
        done: Callable[[Exception | None], object],
    ) -> None:
        super().__init__(parent)
        self._steps, self._done = steps, done
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_PAUSE_MS)
        self._timer.timeout.connect(self._step)
        self._ended = False
        self._timer.start()

    def stop(self) -> None:
        """Leave out the steps that are left."""
        self._end(None)

    def _step(self) -> None:
        try:
            next(self._steps)
        except StopIteration:
            self._end(None)
        except Exception as error:  # whoever asked tells it
            self._end(error)
        else:
            self._timer.start()

    def _end(self, error: Exception | None) -> None:
        if not self._ended:
            self._ended = True
            self._timer.stop()
            self._done(error)
            self.deleteLater()
