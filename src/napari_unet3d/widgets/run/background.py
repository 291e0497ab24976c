"""Calls slow functions in threads, and hands their results over in the main thread."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from qtpy.QtCore import QObject

from napari_unet3d.widgets.run.worker import Worker


class Background(QObject):
    """Runs functions in threads; the caller checks whether a result still matters."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._workers: list[Worker] = []

    def ask(self, question: Callable[[], Any], answer: Callable[[Any], None]) -> None:
        """Call `question` in a thread, then `answer` with its result; not if it raises."""
        worker = Worker(self)
        self._workers.append(worker)

        def done(_: Any = None) -> None:
            if worker in self._workers:
                self._workers.remove(worker)
                worker.deleteLater()

        worker.returned.connect(answer)
        worker.returned.connect(done)
        worker.failed.connect(done)
        worker.start(_once(question))

    def is_busy(self) -> bool:
        """Whether a result is still to come."""
        return bool(self._workers)

    def cleanup(self) -> None:
        """Drop all results that are still to come; each thread ends after its current step."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.abandon(0)


def _once(question: Callable[[], Any]) -> Generator[Any, None, Any]:
    yield from ()  # makes it a generator, which a `Worker` runs
    return question()
