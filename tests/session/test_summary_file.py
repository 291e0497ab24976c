"""What a session keeps of the uncertainty of each slice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_unet3d.data.slice_summary import ExpectedIoU, SliceSummary, StackSummary
from napari_unet3d.session.summary_file import SUMMARY, drop_summary, read_summary, write_summary


def summary(seed: int) -> SliceSummary:
    rng = np.random.default_rng(seed)
    shape = 4, 6, 5
    amounts, unsure = (tuple(rng.random((n, 3)) for n in shape) for _ in range(2))
    return SliceSummary(shape, amounts, unsure, rng.random((1, 1, 2)), (8, 8, 8))  # type: ignore[arg-type]


def test_a_summary_comes_back_as_it_was(tmp_path: Path) -> None:
    expected = ExpectedIoU(0.8, 0.7, 0.9, 3), None
    stack = StackSummary(("wall", "lumen Ω"), {0: summary(0), 7: summary(1)}, expected)
    write_summary(tmp_path, stack)
    found = read_summary(tmp_path)
    assert found is not None and found.class_names == stack.class_names
    assert found.expected == expected
    assert set(found.by_time) == {0, 7}
    for time, one in stack.by_time.items():
        other = found.by_time[time]
        assert other.shape == one.shape and other.cell == one.cell
        before, after = ((*x.amounts, *x.unsure, x.cells) for x in (one, other))
        for mine, theirs in zip(before, after, strict=True):
            assert np.array_equal(mine, theirs)
    drop_summary(tmp_path)
    drop_summary(tmp_path)
    assert read_summary(tmp_path) is None


@pytest.mark.parametrize("kind", ["cut", "text", "pickle", "other shape"])
def test_a_damaged_summary_is_as_good_as_none(tmp_path: Path, kind: str) -> None:
    path = tmp_path / SUMMARY
    one = summary(0)
    write_summary(tmp_path, StackSummary(("a", "b"), {0: one}))
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "text":
        path.write_text("nothing")
    elif kind == "pickle":
        np.savez(path, header=np.array({"classes": []}, dtype=object))
    else:
        wrong = SliceSummary((9, 9, 9), one.amounts, one.unsure, one.cells, one.cell)
        write_summary(tmp_path, StackSummary(("a", "b"), {0: wrong}))
    assert read_summary(tmp_path) is None
