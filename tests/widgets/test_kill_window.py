"""A window that is killed while one paints loses seconds at most, and the next one goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark_scripts import imported

pytestmark = pytest.mark.needs_window


def test_killed_while_painting_and_while_writing(tmp_path: Path) -> None:
    with imported(["kill_window"]) as scripts:
        kills = list(
            scripts.kill_window.run_kills(tmp_path, 2, moments=("painting", "writing"), longest=4)
        )
    assert len(kills) == 2
    for kill in kills:
        assert kill.opened
        assert kill.strokes > 0
        assert kill.torn == 0
        assert kill.lost <= 10
    assert kills[0].window  # the second window showed what the first one had painted
