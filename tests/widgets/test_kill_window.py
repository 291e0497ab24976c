"""A window that is killed while one paints loses seconds at most, and the next one goes on.

`python benchmarks/kill_window.py` kills more of them, at other moments too.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark_scripts import imported

pytestmark = pytest.mark.needs_window


def test_killed_while_painting(tmp_path: Path) -> None:
    with imported(["kill_window"]) as scripts:
        (kill,) = scripts.kill_window.run_kills(tmp_path, 1, moments=("painting",), longest=2)
    assert kill.opened
    assert kill.strokes > 0
    assert kill.torn == 0
    assert kill.lost <= 10
