"""The file of a session with what the model itself thinks of its last segmentation.

Which slices it was unsure about, and the IoU that is expected.

A run tells it once, and nothing else that is stored does: the probabilities are not kept. The file
takes 16 bytes a slice and class.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet3d.data.io.journal import write_synced
from napari_unet3d.data.slice_summary import ExpectedIoU, PerAxis, SliceSummary, StackSummary

SUMMARY = "summary.npz"
_LARGEST = 2**28
"""Bytes. 10,000 time points of a stack of 2048³ with two classes need as much."""


def write_summary(folder: Path, summary: StackSummary) -> None:
    """Write what a prediction says about each slice; OSError when that fails."""
    arrays: dict[str, Any] = {}
    times = {}
    for time, found in summary.by_time.items():
        times[time] = {"shape": found.shape, "cell": found.cell}
        arrays[f"{time} cells"] = found.cells
        for axis in range(3):
            arrays[f"{time} amounts {axis}"] = found.amounts[axis]
            arrays[f"{time} unsure {axis}"] = found.unsure[axis]
    expected = [found and asdict(found) for found in summary.expected]
    header = json.dumps({"classes": summary.class_names, "times": times, "expected": expected})
    content = io.BytesIO()
    np.savez(content, header=np.array(header), **arrays)
    write_synced(folder / SUMMARY, content.getvalue())


def read_summary(folder: Path) -> StackSummary | None:
    """Read it; None where there is none, or one that cannot be used: the next run makes another."""
    path = folder / SUMMARY
    try:
        if path.stat().st_size > _LARGEST:
            return None
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            by_time = {
                int(time): _one(file, time, facts) for time, facts in header["times"].items()
            }
            expected = tuple(found and ExpectedIoU(**found) for found in header.get("expected", ()))
        return StackSummary(tuple(map(str, header["classes"])), by_time, expected)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def drop_summary(folder: Path) -> None:
    """Remove it, since it is about an older result; OSError when that fails."""
    (folder / SUMMARY).unlink(missing_ok=True)


def forget_expected(folder: Path) -> None:
    """Remove the expected IoU, which belongs to the model before the current one.

    Which slices that model was unsure about stays, as its segmentation does. Raises OSError when
    that fails.
    """
    summary = read_summary(folder)
    if summary is not None and summary.expected:
        write_summary(folder, replace(summary, expected=()))


def _per_axis(file: Any, name: str) -> PerAxis:
    z, y, x = (np.asarray(file[f"{name} {axis}"], float) for axis in range(3))
    return z, y, x


def _one(file: Any, time: str, facts: Any) -> SliceSummary:
    shape, cell = (tuple(map(int, facts[name])) for name in ("shape", "cell"))
    if len(shape) != 3 or len(cell) != 3 or min(cell) < 1:
        raise ValueError(f"shape {shape}, cell {cell}")
    amounts, unsure = (_per_axis(file, f"{time} {name}") for name in ("amounts", "unsure"))
    cells = np.asarray(file[f"{time} cells"], float)
    columns = {a.shape[1:] for a in (*amounts, *unsure)}
    lengths = [tuple(len(a) for a in arrays) for arrays in (amounts, unsure)]
    if lengths != [shape, shape] or len(columns) != 1 or len(*columns) != 1 or cells.ndim != 3:
        raise ValueError(f"slices {lengths} of a stack of {shape}")
    return SliceSummary(shape, amounts, unsure, cells, cell)
