"""Asks something that may take a while in a thread, and answers in the main thread."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from qtpy.QtCore import QObject

from napari_unet3d.widgets.run.worker import Worker


class Background(QObject):
    """Questions in threads; whoever asks checks whether the answer still matters."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._workers: list[Worker] = []

    def ask(self, question: Callable[[], Any], answer: Callable[[Any], None]) -> None:
        """Call `answer` with what `question` returns; never if it fails."""
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
        """Whether an answer is still to come."""
        return bool(self._workers)

    def cleanup(self) -> None:
        """Want no answer any more; threads end after what they do now."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.abandon(0)


def _once(question: Callable[[], Any]) -> Generator[Any, None, Any]:
    yield from ()  # makes it a generator, which a `Worker` runs
    return question()
