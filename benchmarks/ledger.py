"""How long the slice ledger holds up the window: at the first look, and after each kind of edit.

Needs no GPU, but as much memory as the largest stack, and a display for `--update`::

    python benchmarks/ledger.py
    python benchmarks/ledger.py --shape 512 2048 2048 --paint crossing
    python benchmarks/ledger.py --update

A napari Labels layer is painted through its own functions, and the ledger follows as in the dock.
The first number of an edit is what napari needs for it, the second what the ledger adds; both are
CPU times, so that other programs matter little. The first look is made in steps of 20 ms, between
which the window works; its longest step is shown. `history` is what napari keeps to undo the
completed slice.

With `--update`, the slice table and the marks along the slider are there too, and the whole way is
timed that an edit takes: from the call that edits until the table is up to date, without the 100 ms
in which strokes are collected. These are the longest times that the event loop stands still, in
CPU time of the main thread; what napari needs to draw is part of them.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import own_folder

from napari_unet3d.data.ledger import SliceLedger, find_painted_slices
from napari_unet3d.data.slices import SliceRef

STEP = 0.02
"""Seconds, as in the dock."""
CASES = (
    ((64, 512, 512), "strokes"),
    ((64, 2048, 2048), "complete"),
    ((4000, 512, 512), "strokes"),
    ((512, 2048, 2048), "crossing"),
)

UPDATE_CASES = (
    ((64, 512, 512), "strokes"),
    ((4000, 512, 512), "strokes"),
    ((512, 2048, 2048), "crossing"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, help="z y x; several stacks without it")
    parser.add_argument("--paint", choices=tuple(PAINTS), default="crossing")
    parser.add_argument("--update", action="store_true", help="time table and slider as well")
    options = parser.parse_args()
    own_folder.use()
    if options.update:
        _updates(tuple(options.shape) if options.shape else None, options.paint)
        return
    cases = CASES if options.shape is None else ((tuple(options.shape), options.paint),)
    print(
        "| stack | paint | slices | first look, s | longest step, ms | kept, MB of MB |"
        " stroke: edit + update, ms | complete xy | complete xz | complete yz | undo | redo |"
        " history, B a voxel |"
    )
    print("|" + "---|" * 13)
    for shape, paint in cases:
        print(_row(shape, paint), flush=True)


def _row(shape: tuple[int, int, int], paint: str) -> str:
    from napari.components import ViewerModel

    from napari_unet3d.data.marks import Marks
    from napari_unet3d.data.state_changes import complete
    from napari_unet3d.widgets.viewer.history import History
    from napari_unet3d.widgets.viewer.navigation import show_slice
    from napari_unet3d.widgets.viewer.undo import UndoWatch

    labels = np.zeros(shape, np.uint8)
    PAINTS[paint](labels)
    viewer = ViewerModel()
    layer = viewer.add_labels(labels)
    layer.brush_size = 20

    tracemalloc.start()
    ledger = SliceLedger(labels)
    ledger.work()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    first = SliceLedger(labels)
    steps: list[float] = []
    while not _timed(lambda: first.work(STEP), steps):
        pass

    watch, layer_history = UndoWatch(layer), History(layer)

    def edit(change: Callable[[], Any], replayed: bool = False) -> str:
        updates: list[float] = []
        atoms: list[Any] = []
        layer.events.paint.disconnect()
        layer.events.paint.connect(lambda event: atoms.append(event.value))
        started = time.thread_time()
        change()
        took = time.thread_time() - started

        def update() -> None:
            for item in atoms:
                watch.painted(ledger, item)
            if replayed:
                watch.replayed(ledger)
            while ledger.is_behind():
                ledger.work(STEP)

        _timed(update, updates)
        return f"{1000 * took:.0f} + {1000 * updates[0]:.0f}"

    n_slices = len(ledger.slices())
    z, y, x = (n // 2 + 1 for n in shape)
    cells = [edit(lambda: _stroke(layer, z, y, x))]
    for axis, index in enumerate((z, y, x)):
        show_slice(viewer, layer, SliceRef(axis, index))
        ref = SliceRef(axis, index)
        cells.append(
            edit(lambda ref=ref: layer_history.edit(complete(layer.data, Marks(), ref)[0]))
        )
    history = _nbytes(layer._undo_history[-1]) / (shape[0] * shape[1])
    cells.append(edit(layer.undo, replayed=True))
    cells.append(edit(layer.redo, replayed=True))
    ledger.work()
    assert ledger.slices() == find_painted_slices(labels)
    return (
        f"| {'×'.join(map(str, shape))} | {paint} | {n_slices} | {sum(steps):.2f} |"
        f" {1000 * max(steps):.0f} | {kept / 1e6:.0f} of {labels.nbytes / 1e6:.0f} |"
        f" {' | '.join(cells)} | {history:.1f} |"
    )


def _updates(shape: tuple[int, int, int] | None, paint: str) -> None:
    """Time edits in the true window, table and slider included."""
    print(
        "| stack | paint | slices | edit | n | in the edit, ms: median / p95 / largest |"
        " longest step of the update, ms: median / p95 / largest |"
    )
    print("|" + "---|" * 7)
    for case in UPDATE_CASES if shape is None else ((shape, paint),):
        _update_rows(*case)


def _update_rows(shape: tuple[int, int, int], paint: str) -> None:
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_unet3d.data.edits import SliceEdit
    from napari_unet3d.data.slices import read_slice
    from napari_unet3d.widgets.dock import SegmentationDock

    viewer = napari.Viewer()
    dock = SegmentationDock(viewer)
    viewer.window.add_dock_widget(dock, name="Annotate & train", area="right")
    image = np.broadcast_to(np.zeros((1, 1, 1), np.uint8), shape)
    viewer.add_image(image, contrast_limits=(0, 255), name="cells")

    def settle(steps: list[float] | None = None) -> None:
        """Run the event loop until all is counted and drawn; note how long each turn takes."""
        quiet = time.perf_counter()
        while time.perf_counter() - quiet < 0.3:
            started = time.thread_time()
            QApplication.processEvents()
            if steps is not None:
                steps.append(time.thread_time() - started)
            if annotator.is_counting():
                quiet = time.perf_counter()
            time.sleep(0.001)

    annotator = dock.annotator
    settle()
    layer = annotator.layer()
    PAINTS[paint](layer.data)
    annotator.rescan()
    settle()
    rng = np.random.default_rng(0)

    def ref() -> SliceRef:
        return SliceRef(0, int(rng.integers(shape[0])))

    def stroke() -> None:
        z = annotator.shown().index
        _stroke(layer, z, int(rng.integers(shape[1])), int(rng.integers(shape[2] - 100)))

    def accept() -> None:
        where = annotator.shown()
        plane = read_slice(layer.data, where)
        after = rng.integers(1, 4, (8, 8)).repeat(shape[1] // 8, 0).repeat(shape[2] // 8, 1)
        edit = SliceEdit.between(where, plane, after.astype(plane.dtype))
        annotator.apply([edit], accepted={where: f"model {rng.random()}"})

    actions: dict[str, Callable[[], Any]] = {
        "stroke": stroke,
        "move to a slice": lambda: annotator.jump(ref()),
        "complete": lambda: annotator.complete(annotator.shown()),
        "hold out": lambda: annotator.hold_out(annotator.shown(), True),
        "accept": accept,
        "undo": annotator.undo,
        "redo": annotator.redo,
    }
    for name, action in actions.items():
        edits: list[float] = []
        longest: list[float] = []
        for _ in range(15):
            if name not in ("move to a slice", "undo", "redo"):
                annotator.jump(ref())
                settle()
            started = time.thread_time()
            action()
            edits.append(time.thread_time() - started)
            steps: list[float] = []
            settle(steps)
            longest.append(max(steps))
        print(
            f"| {'×'.join(map(str, shape))} | {paint} | {len(annotator.slices())} | {name} |"
            f" {len(edits)} | {_spread(edits)} | {_spread(longest)} |",
            flush=True,
        )
    viewer.close()


def _spread(seconds: list[float]) -> str:
    values = (np.median(seconds), np.percentile(seconds, 95), max(seconds))
    return " / ".join(f"{1000 * value:.0f}" for value in values)


def _timed(call: Callable[[], Any], times: list[float]) -> Any:
    started = time.thread_time()
    result = call()
    times.append(time.thread_time() - started)
    return result


def _nbytes(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return value.nbytes
    return sum(map(_nbytes, value)) if isinstance(value, list | tuple) else 0


# --- what is painted ------------------------------------------------------------------------


def _stroke(layer: Any, z: int, y: int, x: int) -> None:
    with layer.block_history():
        for step in range(0, min(100, layer.data.shape[2] - x), 5):
            layer.paint((z, y, x + step), 2, refresh=False)


def _strokes(labels: np.ndarray) -> None:
    """Two strokes on every second xy slice."""
    rng = np.random.default_rng(0)
    height, width = labels.shape[1:]
    for z in range(0, len(labels), 2):
        for value in (1, 2):
            y, x = rng.integers(0, height - 20), rng.integers(0, width - 120)
            labels[z, y : y + 20, x : x + 120] = value


def _complete(labels: np.ndarray) -> None:
    """Three complete xy slices."""
    for z in np.linspace(0, len(labels) - 1, 7).astype(int)[1::2]:
        labels[z] = 1
        labels[z, 100:300, 100:300] = 2


def _crossing(labels: np.ndarray) -> None:
    """Five complete slices of each orientation, and strokes on every second xy slice."""
    _strokes(labels)
    for axis, n in enumerate(labels.shape):
        for index in np.linspace(0, n - 1, 11).astype(int)[1::2]:
            labels[(slice(None),) * axis + (index,)] = 1 + axis


PAINTS = {"strokes": _strokes, "complete": _complete, "crossing": _crossing}

if __name__ == "__main__":
    main()
