"""What every test relies on: one thread, nobody's settings touched, nothing left behind.

Qt and napari are imported only by tests that ask for a window (`qtbot`, `make_napari_viewer`),
so that the tests of the core stay fast and run where Qt cannot be loaded.
"""

from __future__ import annotations

import gc
import itertools
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch  # before Qt: on Windows torch fails to load after it

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"
VIEWER_FIXTURES = {"make_napari_viewer", "make_napari_viewer_proxy"}
GUI_FIXTURES = VIEWER_FIXTURES | {"qtbot", "qapp"}
IDLE_POOLS = ("zarr_io", "asyncio_", "fsspecIO", "ThreadPoolExecutor-")
"""Threads that zarr, fsspec and dask keep for the next call; name threads of our own otherwise."""

MANY_OBJECTS = 50_000
"""Objects that Python's garbage collector goes through in 20 ms; torch and napari make 500,000."""

TEST_DEVICE = os.environ.get("UNET3D_TEST_DEVICE", "cpu")
"""Device of the tests that take one. Where it is set, only these tests run."""

torch.set_num_threads(1)

os.environ["NAPARI_CONFIG"] = ""  # neither read nor written
os.environ["NAPARI_ASYNC"] = "0"
os.environ.setdefault("QT_API", "pyqt6")
_user_folders = tempfile.TemporaryDirectory(prefix="napari-unet3d-tests-")
for _name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
    os.environ[_name] = str(Path(_user_folders.name) / _name)


def _has_window_system() -> bool:
    """Whether windows can be drawn; asked after pytest-xvfb had its chance to start Xvfb."""
    if os.environ.get("QT_QPA_PLATFORM", "") in {"offscreen", "minimal"}:
        return False
    return not sys.platform.startswith("linux") or "DISPLAY" in os.environ


def _has_qt(config: pytest.Config) -> bool:
    """Whether pytest-qt runs; `-p no:pytest-qt` leaves it out where Qt cannot be loaded."""
    return bool(config.pluginmanager.hasplugin("pytest-qt"))


def _shares_tests(config: pytest.Config) -> bool:
    """Whether this process gives all tests to workers of pytest-xdist, which have own screens."""
    return config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if not _has_window_system() and not _shares_tests(config):
        os.environ["QT_QPA_PLATFORM"] = "offscreen"


def pytest_unconfigure() -> None:
    _user_folders.cleanup()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    is_widgets = collection_path == ROOT / "tests" / "widgets"
    return True if is_widgets and not _has_qt(config) else None


def pytest_report_header(config: pytest.Config) -> str | None:
    return None if _has_qt(config) else "no Qt: tests/widgets is left out"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    no_qt = pytest.mark.skip(reason="Qt cannot be loaded here")
    no_window = pytest.mark.skip(reason="no X server, and no Xvfb to start one: nothing renders")
    no_shared = pytest.mark.skip(reason=f"{SHARED_DATA} is missing")
    if "UNET3D_TEST_DEVICE" in os.environ:
        chosen = [item for item in items if "device" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected([item for item in items if item not in chosen])
        items[:] = chosen
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & GUI_FIXTURES and not _has_qt(config):
            item.add_marker(no_qt)
        if item.get_closest_marker("needs_window") and not _has_window_system():
            item.add_marker(no_window)
        needs_shared = item.get_closest_marker("needs_shared") or "shared_data" in fixtures
        if needs_shared and not SHARED_DATA.is_dir():
            item.add_marker(no_shared)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the development stacks; a test that asks for it is skipped where it is missing."""
    return SHARED_DATA


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The device that `UNET3D_TEST_DEVICE` names, such as cuda:1 or mps; the CPU by default."""
    return torch.device(TEST_DEVICE)


@pytest.fixture(autouse=True)
def _clean_themes() -> None:
    """Take the place of napari's fixture, which imports napari for every test."""


@pytest.fixture(autouse=True)
def _disable_qt_warnings(request: pytest.FixtureRequest) -> None:
    """Take the place of napari's fixture, which imports Qt for every test."""
    if VIEWER_FIXTURES.intersection(request.fixturenames):
        from napari._qt import qt_main_window

        request.getfixturevalue("_plugins_found_once")
        request.getfixturevalue("monkeypatch").setattr(qt_main_window, "SHOW_QT_WARNING", False)


@pytest.fixture(autouse=True)
def _viewer_without_gl(request: pytest.FixtureRequest) -> None:
    """Let a viewer be made on Qt's offscreen platform, which has no OpenGL to ask."""
    if not VIEWER_FIXTURES.intersection(request.fixturenames) or _has_window_system():
        return
    from napari._vispy import canvas
    from napari._vispy.layers import base, image, labels

    monkeypatch = request.getfixturevalue("monkeypatch")
    monkeypatch.setattr(image, "get_gl_extensions", lambda: "texture_float")
    for module in (canvas, base, image, labels):
        monkeypatch.setattr(module, "get_max_texture_sizes", lambda: (16384, 2048))


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test with a window that leaves a thread or a top-level widget behind."""
    if not GUI_FIXTURES.intersection(request.fixturenames):
        yield
        return
    from qtpy.QtCore import QThreadPool
    from qtpy.QtWidgets import QApplication

    threads = set(threading.enumerate())
    widgets = set(QApplication.topLevelWidgets())
    yield
    if getattr(request.node, "rep_call", None) is None or request.node.rep_call.failed:
        return  # the traceback keeps widgets alive
    deadline = time.monotonic() + 2
    for collected in itertools.count():
        QApplication.processEvents()
        new_threads = set(threading.enumerate()) - threads
        left: list[object] = [t for t in new_threads if not t.name.startswith(IDLE_POOLS)]
        left += [w for w in QApplication.topLevelWidgets() if w not in widgets]
        if QThreadPool.globalInstance().activeThreadCount():
            left.append("a running worker of the global thread pool")
        # On a busy machine, one collection takes longer than the two seconds.
        if not left or (time.monotonic() > deadline and collected >= 5):
            break
        gc.collect()
        time.sleep(0.02)
    assert not left, f"left behind: {left}"


@pytest.fixture(autouse=True)
def _quick_garbage_collection() -> None:
    """Leave what the imports made out of the collections that end runs and windows: 0.3 s each."""
    if len(gc.get_objects()) > MANY_OBJECTS:
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session")
def _plugins_found_once() -> Iterator[None]:
    """Let napari read the manifests of the environment for the first window only: 0.2 s each."""
    from npe2 import PluginManager

    discover, counts = PluginManager.discover, list[int]()

    def discover_once(self: Any, *arguments: Any, **named: Any) -> int:
        if not counts:
            counts.append(discover(self, *arguments, **named))
        return counts[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PluginManager, "discover", discover_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def _quick_disk() -> Iterator[None]:
    """Do not wait for the disk, 10 ms and more for a file: only a loss of power shows that.

    A test of what is synchronized, and when, puts its own function in the place of os.fsync.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # a file that is closed is still an error
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_pixels():
    """Let pixel classifiers learn for a thirtieth of their iterations: most tests only need one.

    With a tenth, they still took five sixths of the time of a tiny training.
    """
    from napari_unet3d.pixels import fit

    with pytest.MonkeyPatch.context() as patch:
        schedule = fit.SCHEDULE
        shorter = fit.Schedule(schedule.iterations // 30, schedule.dropout, trees=4)
        patch.setattr(fit, "SCHEDULE", shorter)
        yield
