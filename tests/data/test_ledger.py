"""The slice ledger stays what a full look at the labels would say, whatever is painted."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import zarr

from napari_unet3d.data.ledger import SliceLedger, find_painted_slices
from napari_unet3d.data.paint_counts import PaintCounts, count_codes
from napari_unet3d.data.painted_slices import PaintedSlice
from napari_unet3d.data.slices import SliceRef, count_labels
from napari_unet3d.errors import BadInputError

SHAPE = (9, 11, 10)


def by_definition(labels: np.ndarray) -> list[PaintedSlice]:
    """Find the painted slices as the documentation says, voxel by voxel."""
    rows = []
    volumes = labels if labels.ndim == 4 else labels[None]
    for time, volume in enumerate(volumes):
        if np.count_nonzero(volume) > volume.size / 2:
            claims = [((0, z), volume[z]) for z in range(len(volume)) if volume[z].any()]
        else:
            claims = list(_claims(volume))
        for (axis, index), values in claims:
            present, sizes = np.unique(values[values != 0], return_counts=True)
            plane = np.take(volume, index, axis)
            rows.append(
                PaintedSlice(
                    SliceRef(axis, index, time),
                    dict(zip(present.tolist(), sizes.tolist(), strict=True)),
                    "complete" if plane.all() else "partial",
                    plane.size,
                )
            )
    return sorted(rows, key=lambda row: (row.ref.time, row.ref))


def _claims(volume: np.ndarray) -> Any:
    free = volume.copy()
    taken = [np.zeros(n, bool) for n in free.shape]
    while free.any():
        counts = [(free != 0).sum(tuple({0, 1, 2} - {a})) for a in range(3)]
        for axis in range(3):
            around = np.pad((counts[axis] > 0) | taken[axis], 1)
            candidates = np.where(around[:-2] | around[2:], 0, counts[axis])
            if candidates.any():
                break
        else:
            axis = int(np.argmax([c.max() for c in counts]))
            candidates = counts[axis]
        index = int(candidates.argmax())
        at = (slice(None),) * axis + (index,)
        yield (axis, index), free[at].copy()
        free[at] = 0
        taken[axis][index] = True


class Painter:
    """Paints at random, and tells the ledger as napari would."""

    def __init__(self, labels: Any, seed: int) -> None:
        self.labels, self.rng = labels, np.random.default_rng(seed)
        # Small blocks, so that reading takes many steps in a small stack too.
        self.ledger = SliceLedger(labels, block_bytes=200)
        self.done: list[tuple[Any, ...]] = []

    def step(self) -> str:
        kinds = [self.stroke, self.plane, self.scattered, self.undo, self.foreign]
        kind = kinds[self.rng.choice(len(kinds), p=[0.4, 0.15, 0.15, 0.2, 0.1])]
        kind()
        return kind.__name__

    def value(self) -> int:
        return int(self.rng.choice([0, 0, 1, 1, 2, 3, 9, 20]))

    def box(self, whole: bool) -> tuple[slice, ...]:
        """A box in a slice of a random orientation, or in 3D."""
        box = []
        for n in self.labels.shape:
            start = int(self.rng.integers(n))
            stop = int(self.rng.integers(start, n)) + 1
            box.append(slice(0, n) if whole else slice(start, stop))
        axis = -3 + int(self.rng.integers(3))
        if whole or self.rng.random() < 0.8:
            index = int(self.rng.integers(self.labels.shape[axis]))
            box[axis] = slice(index, index + 1)
        if len(box) == 4 and self.rng.random() < 0.8:
            box[0] = slice(box[0].start, box[0].start + 1)
        return tuple(box)

    def paint(self, box: tuple[slice, ...], wanted: np.ndarray | None) -> None:
        old, new = np.asarray(self.labels[box]).copy(), self.value()
        mask = old != new
        if wanted is not None:
            mask &= wanted
        if not mask.any():
            return
        if mask.all() and self.rng.random() < 0.5:
            change = box, old, new, None
        else:
            change = box, old[mask], new, mask
        self.ledger.change(*change)
        self.write(*change)
        self.done.append(change)

    def write(self, box: Any, _old: Any, new: Any, mask: Any) -> None:
        region = np.asarray(self.labels[box]).copy()
        if mask is None:
            region[...] = new
        else:
            region[mask] = new
        self.labels[box] = region

    def stroke(self) -> None:
        box = self.box(whole=False)
        shape = tuple(s.stop - s.start for s in box)
        self.paint(box, self.rng.random(shape) < 0.7)

    def plane(self) -> None:
        self.paint(self.box(whole=True), None)

    def scattered(self) -> None:
        n = int(self.rng.integers(1, 30))
        indices = tuple(self.rng.integers(0, size, n) for size in self.labels.shape)
        data = np.asarray(self.labels[...])
        old, new = data[indices].copy(), self.value()
        self.ledger.change_at(indices, old, new)
        data[indices] = new
        self.labels[...] = data

    def undo(self) -> None:
        # Others may have painted there since: what is undone is read again.
        if self.done:
            box, old, new, mask = self.done.pop()
            self.ledger.change(box, new, old, mask)
            self.write(box, new, old, mask)
            self.ledger.doubt(box)

    def foreign(self) -> None:
        self.labels[self.box(whole=False)] = self.value()
        self.ledger.doubt()


KINDS = {
    "uint8": lambda: np.zeros(SHAPE, np.uint8),
    "int16": lambda: np.zeros(SHAPE, np.int16),
    "time series": lambda: np.zeros((3, *SHAPE), np.uint8),
    "zarr": lambda: zarr.array(np.zeros(SHAPE, np.uint8), chunks=(4, 5, 4)),
    "flat": lambda: np.zeros((1, 12, 14), np.uint8),
}


@pytest.mark.parametrize(
    ("kind", "seed", "n_steps"),
    [(kind, seed, 60) for kind in KINDS if kind != "zarr" for seed in range(3)] + [("zarr", 0, 30)],
)
def test_after_every_change_it_says_what_a_full_look_says(kind, seed, n_steps):
    painter = Painter(KINDS[kind](), seed)
    orientations, steps = set(), set()
    for _ in range(n_steps):
        steps.add(painter.step())
        if painter.rng.random() < 0.5:  # a little work, then the next stroke comes in between
            painter.ledger.work(0)
            continue
        assert painter.ledger.work()
        expected = by_definition(np.asarray(painter.labels[...]))
        assert painter.ledger.slices() == expected
        assert find_painted_slices(painter.labels) == expected
        orientations |= {row.ref.axis for row in expected}
    assert len(steps) == 5
    assert kind == "flat" or orientations == {0, 1, 2}


def test_values_that_are_no_annotation_are_counted_too():
    labels = np.zeros(SHAPE, np.int32)
    labels[3, 2:5] = -7
    labels[3, 5] = 1000
    labels[:, 4, 4] = 300
    labels[6, 1] = 255
    rows = find_painted_slices(labels)
    assert rows == by_definition(labels)
    assert {v for row in rows for v in row.counts} == {-7, 255, 300, 1000}


def test_work_can_be_done_bit_by_bit():
    labels = np.zeros(SHAPE, np.uint8)
    labels[2], labels[:, 5] = 1, 2
    ledger = SliceLedger(labels)
    assert ledger.share_read() == 0
    assert ledger.slices() == []
    calls = 0
    while not ledger.work(0):
        calls += 1
        assert calls < 100
    assert calls > 0
    assert ledger.share_read() == 1
    assert ledger.slices() == by_definition(labels)


def test_what_is_doubted_is_still_said_until_it_was_read():
    labels = np.zeros(SHAPE, np.uint8)
    labels[2] = 1
    ledger = SliceLedger(labels)
    ledger.work()
    before = ledger.slices()
    labels[5] = 1
    ledger.doubt()
    assert ledger.slices() == before
    assert ledger.share_read() == 1
    ledger.work()
    assert ledger.slices() == by_definition(labels) != before


def test_a_change_is_not_read_again():
    """Where changes are told, only new xz and yz slices are read: zarr would decode all chunks."""

    class Counted:
        def __init__(self, data: np.ndarray) -> None:
            self.data, self.shape, self.dtype, self.read = data, data.shape, data.dtype, 0

        def __getitem__(self, box: Any) -> np.ndarray:
            self.read += self.data[box].size
            return self.data[box]

    labels = np.zeros((20, 30, 40), np.uint8)
    labels[3], labels[:, 7] = 1, 1
    counted = Counted(labels)
    ledger = SliceLedger(counted)
    ledger.work()
    assert counted.read >= labels.size
    counted.read = 0
    for box in (np.s_[3:4, 5:9, 5:9], np.s_[9:10, :, :], np.s_[2:9, 7:8, 3:6]):
        ledger.change(box, labels[box].copy(), 2)
        labels[box] = 2
        ledger.work()
        assert ledger.slices() == by_definition(labels)
    assert counted.read == 0


def test_many_slices_across_are_paint_in_3d():
    labels = np.zeros((4, 270, 4), np.uint8)
    labels[:, :256:2, 0] = 1
    ledger = SliceLedger(labels)
    ledger.work()
    assert [row.ref for row in ledger.slices()] == [SliceRef(1, y) for y in range(0, 256, 2)]
    ledger.change(np.s_[:, 260:261, :], 0, 2)
    labels[:, 260] = 2
    ledger.work()
    assert [row.ref for row in ledger.slices()] == [SliceRef(0, z) for z in range(4)]
    assert all(row.counts == {1: 128, 2: 4} for row in ledger.slices())


def test_many_complete_slices_of_a_big_stack_keep_their_orientation():
    labels = np.zeros((260, 512, 512), np.uint8)
    labels[::4] = 1  # more voxels than were ever listed one by one
    labels[:, 100] = 2
    assert np.count_nonzero(labels) > 2**24
    rows = find_painted_slices(labels)
    assert [row.ref for row in rows if row.ref.axis] == [SliceRef(1, 100)]
    assert len(rows) == 66
    assert all(row.state == "complete" for row in rows)


def test_what_it_keeps_is_small():
    labels = np.zeros((128, 512, 512), np.uint8)
    labels[::2, 100:400, 100:400] = 1
    labels[:, 50] = labels[:, :, 50] = 1
    tracemalloc.start()
    try:
        ledger = SliceLedger(labels)
        ledger.work()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(ledger.slices()) == 66
    assert kept < labels.nbytes / 20


def test_counting_does_not_inflate_a_plane():
    plane = np.ones((2048, 2048), np.uint8)
    tracemalloc.start()
    try:
        assert count_labels(plane) == {1: plane.size}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < plane.nbytes


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint64", "int64"])
def test_count_labels_of_several_parts(dtype):
    rng = np.random.default_rng(0)
    high = 250 if dtype == "uint8" else 30_000
    values = rng.integers(0, high, 2**18 + 5).astype(dtype)
    if dtype == "int64":
        values[:3], values[-1] = -5, 2**40
    present, sizes = np.unique(values, return_counts=True)
    expected = dict(zip(present.tolist(), sizes.tolist(), strict=True))
    assert expected.pop(0) > 0
    assert count_labels(values) == expected


def test_count_codes():
    rng = np.random.default_rng(0)
    for high in (3, 200):
        lines = rng.integers(0, high, (5, 70_000)).astype(np.uint8)
        counts = count_codes(lines)
        assert counts.shape == (5, high)
        for line, row in zip(lines, counts, strict=True):
            expected = np.bincount(line, minlength=high)
            assert row[0] == 0
            np.testing.assert_array_equal(row[1:], expected[1:])


def test_planes_that_are_the_same_are_no_news():
    counts = PaintCounts((2, 3, 4))
    by_zy, by_zx, by_value = np.ones((1, 3)), np.ones((1, 4)), np.array([[0, 5]])
    assert counts.set_planes(1, by_zy, by_zx, by_value)
    assert not counts.set_planes(1, by_zy, by_zx, by_value)
    assert not counts.set_planes(0, 0 * by_zy, 0 * by_zx, np.zeros((1, 1)))


def test_labels_that_are_no_integers():
    with pytest.raises(BadInputError, match="labels are integers"):
        SliceLedger(np.zeros(SHAPE, np.float32))


# --- read by another thread -----------------------------------------------------------------


def finish(ledger: SliceLedger) -> None:
    """Read in turn as the window does: another thread reads, this one lists."""
    while True:
        while not ledger.work(0.001, reading=False):
            pass
        reading = ledger.reading()
        if reading is None:
            return
        assert reading.read()
        ledger.take_reading(reading)


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_what_another_thread_reads_is_the_same(dtype: str) -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((9, 30, 31), dtype)
    ledger = SliceLedger(labels, block_bytes=2000)
    finish(ledger)
    assert ledger.slices() == []
    for _ in range(12):
        axis = int(rng.integers(3))
        where = (slice(None),) * axis + (int(rng.integers(labels.shape[axis])),)
        labels[where] = rng.integers(0, 4)  # somebody else, who tells nothing
        ledger.doubt()
        finish(ledger)
        assert ledger.slices() == find_painted_slices(labels)
        assert ledger.share_read() == 1 and not ledger.is_behind()


def test_paint_while_another_thread_reads_is_counted_once() -> None:
    """The thread may read before, during or after a change: its result is not taken."""
    labels = np.zeros((4, 20, 20), np.uint8)
    labels[1, 2:5, 2:5] = 2
    for before in (False, True):
        ledger = SliceLedger(labels)
        reading = ledger.reading()
        assert reading is not None
        if before:
            assert reading.read()
        box = (slice(1, 2), slice(8, 9), slice(3, 12))
        ledger.change(box, labels[box].copy(), 3)
        labels[box] = 3
        if not before:
            assert reading.read()
        assert not ledger.take_reading(reading)
        finish(ledger)
        assert ledger.slices() == find_painted_slices(labels)
        labels[box] = 0


def test_only_the_planes_that_changed_spoil_a_reading() -> None:
    labels = np.zeros((64, 8, 2**18), np.uint8)  # two readings
    ledger = SliceLedger(labels)
    reading = ledger.reading()
    assert reading is not None and reading.blocks[-1].last < 64
    assert reading.read()
    labels[63, 0, :5] = 2
    ledger.change((slice(63, 64), slice(0, 1), slice(0, 5)), 0, 2)
    assert ledger.take_reading(reading)
    other = ledger.reading()
    assert other is not None and other.read()
    ledger.doubt()
    assert not ledger.take_reading(other)
    assert not ledger.take_reading(reading)
    finish(ledger)
    assert [str(row.ref) for row in ledger.slices()] == ["z=63"]


def test_what_cannot_be_read_is_no_reading() -> None:
    class Broken(np.ndarray):
        def __getitem__(self, key: object) -> np.ndarray:
            raise OSError("gone")

    ledger = SliceLedger(np.zeros((4, 5, 6), np.uint8).view(Broken))
    reading = ledger.reading()
    assert reading is not None and not reading.read()
