"""One generator in one thread."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from napari_unet3d.widgets.run.worker import Worker


@pytest.fixture
def worker(qtbot: Any) -> Worker:
    return Worker()


def test_events_and_the_result_arrive_in_the_main_thread(worker: Worker, qtbot: Any) -> None:
    seen: list[Any] = []

    def count() -> Generator[Any, None, str]:
        for i in range(500):
            yield i, threading.current_thread().name
        return "done"

    worker.eventsArrived.connect(
        lambda events: seen.append((threading.current_thread(), len(events), events))
    )
    with qtbot.waitSignal(worker.returned) as signal:
        worker.start(count())
    assert signal.args == ["done"]
    assert all(thread is threading.main_thread() for thread, _, _ in seen)
    assert [i for _, _, events in seen for i, _ in events] == list(range(500))
    assert seen[0][2][0][1] == "unet3d"
    assert len(seen) < 20  # coalesced
    assert not worker.is_running()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads have no niceness there")
def test_the_thread_and_those_it_starts_give_way_to_the_window(worker: Worker, qtbot: Any) -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def ask() -> Generator[Any, None, list[int]]:
        found = [niceness()]
        inner = threading.Thread(target=lambda: found.append(niceness()))
        inner.start()
        inner.join()
        yield
        return found

    before = niceness()
    with qtbot.waitSignal(worker.returned) as signal:
        worker.start(ask())
    assert signal.args == [[min(before + 10, 19)] * 2]
    assert niceness() == before


@pytest.mark.parametrize("error", [RuntimeError("torch's kind"), ValueError("x"), MemoryError()])
def test_any_error_arrives(worker: Worker, qtbot: Any, error: Exception) -> None:
    def fail() -> Generator[int, None, None]:
        yield 1
        raise error

    with qtbot.waitSignal(worker.failed) as signal:
        worker.start(fail())
    assert signal.args == [error]
    assert not worker.is_running()


def test_closing_runs_the_generators_finally(worker: Worker, qtbot: Any) -> None:
    released = threading.Event()

    def endless() -> Generator[int, None, None]:
        try:
            while True:
                time.sleep(0.01)
                yield 1
        finally:
            released.set()

    worker.start(endless())
    with qtbot.waitSignal(worker.returned) as signal:
        worker.close()
    assert signal.args == [None]
    assert released.is_set()


def test_abandoning_waits_no_longer_than_told(worker: Worker, qtbot: Any) -> None:
    go_on = threading.Event()

    def stuck() -> Generator[int, None, None]:
        yield 1
        go_on.wait(5)
        yield 2

    worker.start(stuck())
    time.sleep(0.05)
    started = time.monotonic()
    assert not worker.abandon(0.2)
    assert time.monotonic() - started < 0.5
    go_on.set()
    assert worker.abandon(2)


def test_nothing_is_left_for_the_end_of_the_program(worker: Worker, qtbot: Any) -> None:
    def count() -> Generator[int, None, None]:
        for i in range(1000):
            time.sleep(0.001)
            yield i

    worker.start(count())
    thread = weakref.ref(worker._thread)
    assert worker.abandon(5)
    vars(worker).clear()
    gc.collect()
    assert thread() is None


_PROGRAM = """
import sys, time
from qtpy.QtCore import QCoreApplication
from napari_unet3d.widgets.run.worker import Worker

def write():
    for i in range(30):
        time.sleep(0.02)
        yield i
    with open(sys.argv[1], "w") as file:
        file.write("all of it")
    raise OSError("no space left for more")

app = QCoreApplication([])
worker = Worker()
worker.start(write(), to_its_end=sys.argv[2] == "finish")
"""


@pytest.mark.parametrize("how", ["finish", "cut"])
def test_the_end_of_the_program_waits_for_what_must_be_finished(tmp_path: Path, how: str) -> None:
    path = tmp_path / "file"
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(path), how], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert path.exists() == (how == "finish")
    assert ("no space left" in done.stderr) == (how == "finish")
