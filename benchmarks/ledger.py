"""How long the slice ledger holds up the window: at the first look, and after each kind of edit.

Needs no window and no GPU, but as much memory as the largest stack::

    python benchmarks/ledger.py
    python benchmarks/ledger.py --shape 512 2048 2048 --paint crossing

A napari Labels layer is painted through its own functions, and the ledger follows as in the dock.
The first number of an edit is what napari needs for it, the second what the ledger adds; both are
CPU times, so that other programs matter little. The first look is made in steps of 20 ms, between
which the window works; its longest step is shown. `history` is what napari keeps to undo the
completed slice.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, help="z y x; several stacks without it")
    parser.add_argument("--paint", choices=tuple(PAINTS), default="crossing")
    options = parser.parse_args()
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

    from napari_unet3d.widgets.viewer.navigation import show_slice
    from napari_unet3d.widgets.viewer.undo import UndoWatch, complete_slice

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

    watch = UndoWatch(layer)

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
        cells.append(edit(lambda ref=ref: complete_slice(layer, ref, displayed=True)))
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
