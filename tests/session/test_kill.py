"""Programs that are killed at random moments leave sessions that open.

By default a program is killed while it paints. `UNET3D_KILLS=100` kills each kind so often;
`python benchmarks/kill.py` does that, too, and prints a table.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmark_scripts import imported

KILLS = int(os.environ.get("UNET3D_KILLS", "0"))

pytestmark = [
    pytest.mark.timeout(0 if KILLS else 120),
    pytest.mark.skipif(
        "forkserver" not in multiprocessing.get_all_start_methods(),
        reason="each process would import PyTorch",
    ),
]

only_on_request = pytest.mark.skipif(not KILLS, reason="takes long; UNET3D_KILLS=5 runs it")


@pytest.fixture(scope="module")
def script() -> Iterator[SimpleNamespace]:
    with imported(["kill"]) as scripts:
        yield scripts.kill


def kill(script: SimpleNamespace, work: object, times: int, longest: float) -> SimpleNamespace:
    """Kill a program so often, and return what came of it."""
    tally = script.Tally()
    rng = np.random.default_rng()
    times = KILLS or times
    for _ in range(times):
        work.kill(rng.uniform(0.01, longest), tally)
    assert tally.faults == []
    assert tally.opened == times
    return tally


def test_killed_while_painting(script: SimpleNamespace, tmp_path: Path) -> None:
    work = script.Painting(tmp_path, interval=0.1)
    tally = kill(script, work, 3, 0.6)
    assert work.done > 0
    assert max(tally.missing) < 10


@only_on_request
def test_killed_while_saving(script: SimpleNamespace, tmp_path: Path) -> None:
    work = script.Saving(tmp_path)
    kill(script, work, 3, 0.6)
    assert work.done > 0


@only_on_request
def test_killed_while_training(script: SimpleNamespace, tmp_path: Path) -> None:
    work = script.Training(tmp_path)
    kill(script, work, 2, 0.5)
    assert work.done > 0
