"""Kill napari at random moments, and measure how many seconds of paint are missing afterwards.

Each round opens a real window, which continues the session of the round before, and paints with
mouse events. The process is ended with ``kill -9`` while it paints, while it trains, or in the
middle of writing. Then the session folder is opened and compared with a log of all strokes::

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/kill_window.py --kills 30

The target is at most 10 s of missing paint, and a session that opens each time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SHAPE = (24, 160, 160)
MOMENTS = ("painting", "training", "writing")
_STARTED = 120.0
"""Seconds that a window gets to open on busy cores."""


@dataclass(frozen=True)
class Kill:
    """One round.

    Attributes
    ----------
    moment
        What the program did when it was killed.
    strokes
        Strokes in all, since the first round.
    painted
        Seconds of painting in this round.
    lost
        Seconds from the first stroke that is missing to the kill; 0 when none is.
    torn
        Voxels with a label that no moment of the painting had.
    opened
        Whether the session could be opened after the kill.
    window
        Whether the next window showed it again; None for the last round.
    """

    moment: str
    strokes: int
    painted: float
    lost: float
    torn: int
    opened: bool
    window: bool | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=10, help="Stop after this time.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--moments", nargs="+", choices=MOMENTS, default=MOMENTS)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        paint(options.child, options.train)
        return
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="unet3d-kill-") as folder:
        kills = []
        for kill in run_kills(Path(folder), options.kills, options.seed, options.moments):
            kills.append(kill)
            print(_row(len(kills), kill), flush=True)
            if time.monotonic() > end:
                break
    for moment in MOMENTS:
        lost = [k.lost for k in kills if k.moment == moment]
        if lost:
            print(f"{moment:9} {len(lost):3} kills, at most {max(lost):.1f} s of paint lost")
    bad = [k for k in kills if k.lost > 10 or k.torn or not k.opened or k.window is False]
    print(f"{len(kills)} kills, {len(bad)} of them lost more than they may")
    sys.exit(bool(bad))


def run_kills(
    folder: Path,
    kills: int,
    seed: int = 0,
    moments: Sequence[str] = MOMENTS,
    longest: float = 9.0,
) -> Iterator[Kill]:
    """Open windows on one session, one after the other, and kill each after 1 to `longest` s."""
    import tifffile

    rng = random.Random(seed)
    noise = np.random.default_rng(seed)
    image = noise.normal(100, 10, SHAPE)
    image[6:18, 40:120, 48:128] += 80
    tifffile.imwrite(folder / "cells.tif", image.astype(np.float32))
    (folder / "home").mkdir()
    before: Kill | None = None
    labels = np.zeros(SHAPE, np.uint8)
    for number in range(kills):
        moment = moments[number % len(moments)]
        child = _start(folder, moment == "training")
        try:
            shown = _wait_for(folder / f"shown-{child.pid}.json", child)
            if before is not None:
                same = shown["voxels"] == int(np.count_nonzero(labels))
                yield Kill(**{**vars(before), "window": same})
            _kill_at(child, folder, moment, rng.uniform(1.0, longest), rng)
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()
        killed = time.time()
        opened = True
        try:
            labels = _read_session(folder)
        except Exception as error:
            print(f"the session does not open: {error}", file=sys.stderr)
            opened = False
        before = _judge(folder, labels, killed, moment, opened)
        if before.lost > 10:  # what the window said of its last strokes
            for stroke in _strokes(folder)[-12:]:
                said = f"{killed - stroke['time']:.1f} s before: {stroke.get('line', '')}"
                print(said, file=sys.stderr)
        _keep_only_what_is_saved(folder, labels)
    if before is not None:
        yield before


def _start(folder: Path, train: bool) -> subprocess.Popen[bytes]:
    home = str(folder / "home")
    environment = os.environ | {
        "XDG_DATA_HOME": home,
        "XDG_CONFIG_HOME": home,
        "NAPARI_CONFIG": "",
        "QT_QPA_PLATFORM": os.environ.get("QT_QPA_PLATFORM", "xcb"),
    }
    words = [sys.executable, __file__, "--child", str(folder), *(["--train"] if train else [])]
    return subprocess.Popen(words, env=environment)


def _wait_for(file: Path, child: subprocess.Popen[bytes]) -> dict[str, Any]:
    end = time.monotonic() + _STARTED
    while time.monotonic() < end:
        if child.poll() is not None:
            raise RuntimeError(f"the window ended by itself ({child.returncode})")
        if file.is_file() and (text := file.read_text()):
            shown: dict[str, Any] = json.loads(text)
            return shown
        time.sleep(0.05)
    raise RuntimeError("the window did not open")


def _kill_at(
    child: subprocess.Popen[bytes],
    folder: Path,
    moment: str,
    seconds: float,
    rng: random.Random,
) -> None:
    """Kill after some seconds; for "writing", when a file of the session is just being written."""
    if moment == "training":
        end = time.monotonic() + _STARTED
        while not (folder / f"training-{child.pid}").exists() and time.monotonic() < end:
            time.sleep(0.05)
    time.sleep(seconds)
    if moment == "writing":
        session = folder / "cells.tif.unet3d-session"
        end = time.monotonic() + 10
        while time.monotonic() < end and not any(_unfinished(session)):
            time.sleep(0.0005)
        time.sleep(rng.uniform(0, 0.01))
    child.send_signal(signal.SIGKILL)


def _unfinished(session: Path) -> Iterator[Path]:
    """Files that are just being written, and commits that are not carried out."""
    for place in (session, session / "journal", session / "annotation.zarr"):
        try:
            yield from (x for x in place.iterdir() if x.name.endswith((".partial", ".commit")))
        except OSError:
            continue


def _read_session(folder: Path) -> np.ndarray:
    """Open a copy, as the next window would: the window itself opens the original."""
    from napari_unet3d.session.folder import SessionFolder

    session = folder / "cells.tif.unet3d-session"
    if not session.exists():  # killed before the first stroke
        return np.zeros(SHAPE, np.uint8)
    copy = folder / "copy.unet3d-session"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(session, copy)
    with SessionFolder.open(copy) as opened:
        return np.asarray(opened.labels())


def _strokes(folder: Path) -> list[dict[str, Any]]:
    """The strokes of the log; the last line may be cut off by the kill."""
    strokes = []
    for line in (folder / "strokes.jsonl").read_text().splitlines():
        try:
            strokes.append(json.loads(line))
        except ValueError:
            break
    return strokes


def _judge(folder: Path, labels: np.ndarray, killed: float, moment: str, opened: bool) -> Kill:
    """Compare what is saved with the log of strokes."""
    log = folder / "strokes.jsonl"
    strokes = _strokes(folder) if log.exists() else []
    truth, owner = np.zeros(labels.size, np.uint8), np.full(labels.size, -1)
    values: dict[int, set[int]] = {}
    for number, stroke in enumerate(strokes):
        where = np.array(stroke["voxels"], int)
        truth[where], owner[where] = stroke["label"], number
        for voxel in stroke["voxels"]:
            values.setdefault(voxel, {0}).add(stroke["label"])
    saved = labels.ravel()
    differ = np.flatnonzero(truth != saved)
    missing = sorted({int(owner[v]) for v in differ if owner[v] >= 0})
    # The stroke that was going on at the kill is in no log yet, but may be saved.
    torn = sum(int(saved[v]) not in values.get(int(v), {0}) for v in differ if owner[v] >= 0)
    since = strokes[missing[0]]["time"] if missing else killed
    rounds = [s["time"] for s in strokes if s["time"] > killed - 600]
    return Kill(
        moment,
        len(strokes),
        killed - min(rounds, default=killed),
        killed - since,
        torn,
        opened,
    )


def _keep_only_what_is_saved(folder: Path, labels: np.ndarray) -> None:
    """Begin the log anew with what the next window will find."""
    voxels = np.flatnonzero(labels.ravel())
    with open(folder / "strokes.jsonl", "w") as log:
        for label in np.unique(labels[labels > 0]):
            mine = voxels[labels.ravel()[voxels] == label]
            entry = {"time": 0.0, "label": int(label), "voxels": mine.tolist()}
            log.write(json.dumps(entry) + "\n")


def _row(number: int, kill: Kill) -> str:
    window = {None: "-", True: "yes", False: "NO"}[kill.window]
    return (
        f"{number:3}  {kill.moment:9} after {kill.painted:5.1f} s  {kill.strokes:4} strokes  "
        f"lost {kill.lost:5.1f} s  torn {kill.torn}  opens {'yes' if kill.opened else 'NO'}  "
        f"in the window {window}"
    )


# ---------------------------------------------------------------- the window that is killed


def paint(folder: Path, train: bool) -> None:
    """Open the image, continue its session, and paint until somebody kills this process."""
    import napari
    import torch  # noqa: F401
    from qtpy.QtWidgets import QApplication

    from napari_unet3d.widgets.launch import add_dock

    viewer = napari.Viewer(title="to be killed")
    viewer.window._qt_window.resize(1000, 800)
    dock = add_dock(viewer)
    dock = getattr(dock, "__wrapped__", dock)
    (keeping,) = (f for f in dock.features if type(f).__name__ == "Keeping")
    app = QApplication.instance()
    assert app is not None

    def spin(seconds: float, until: Any = lambda: False) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            app.processEvents()
            time.sleep(0.005)

    session = folder / "cells.tif.unet3d-session"
    was_there = session.exists()
    viewer.open(str(folder / "cells.tif"), plugin="napari-unet3d")
    spin(30, lambda: dock.choice.value()[1] is not None)
    if was_there:
        spin(30, lambda: keeping.keeper() is not None)
    spin(0.5)
    layer = dock.choice.value()[1]
    _tell(folder / f"shown-{os.getpid()}.json", {"voxels": int(np.count_nonzero(layer.data))})
    if train:
        dock.form.advanced.editors["patch_shape"].setValue((8, 24, 24))
        dock.form.budget.setValue(300)
        keeping.bench.runner.checkpoint_every(2)
    rng = random.Random(os.getpid())
    log = open(folder / "strokes.jsonl", "a")  # noqa: SIM115  # until the kill
    labels = 0
    while True:
        z = rng.randrange(4, 20)
        viewer.dims.set_point(0, z)
        for _ in range(rng.randrange(2, 8)):
            label = rng.choice((1, 2))
            dock.annotator.choose_label(label)
            layer.brush_size = rng.choice((4, 8))
            before, started = layer.data[z].copy(), time.time()
            ends = [[rng.uniform(10, SHAPE[1] - 10) for _ in range(2)] for _ in range(2)]
            _stroke(viewer, app, np.linspace(*ends, 8))
            changed = np.flatnonzero((layer.data[z] != before).ravel()) + z * SHAPE[1] * SHAPE[2]
            entry = {"time": started, "label": label, "voxels": changed.tolist()}
            entry["line"] = keeping.line.value().text
            log.write(json.dumps(entry) + "\n")
            log.flush()
            spin(rng.uniform(0.02, 0.4))
            labels |= label
        if train and labels == 3 and not dock.runner.is_running():
            dock.run_bar.start_button.click()
            spin(30, lambda: dock.runner.phase == "training")
            dock.runner.checkpoint_every(2)  # many checkpoints, so that kills hit them
            _tell(folder / f"training-{os.getpid()}", {})


def _tell(file: Path, content: dict[str, Any]) -> None:
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content))
    part.replace(file)


def _stroke(viewer: Any, app: Any, path: np.ndarray) -> None:
    """Press, drag and release the left button along a path (n, 2)."""
    from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
    from qtpy.QtGui import QMouseEvent

    canvas, camera = viewer.window._qt_viewer.canvas.native, viewer.scene.camera
    left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
    events = [(QEvent.Type.MouseMove, none, none), (QEvent.Type.MouseButtonPress, left, left)]
    events += [(QEvent.Type.MouseMove, none, left)] * (len(path) - 1)
    events += [(QEvent.Type.MouseButtonRelease, left, none)]
    for (kind, button, buttons), (y, x) in zip(events, [path[0], *path, path[-1]], strict=True):
        pixel = QPoint(
            round((x - camera.center[-1]) * camera.zoom + canvas.width() / 2),
            round((y - camera.center[-2]) * camera.zoom + canvas.height() / 2),
        )
        place = QPointF(pixel), QPointF(canvas.mapToGlobal(pixel))
        event = QMouseEvent(kind, *place, button, buttons, Qt.KeyboardModifier.NoModifier)
        app.sendEvent(canvas, event)
        app.processEvents()


if __name__ == "__main__":
    main()
