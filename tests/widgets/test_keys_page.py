"""The table of keys in docs/how-to/annotate.md is that of the dock."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.needs_window
PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "annotate.md"
CLASS_KEY = re.compile(r"Alt\+[1-9]")
"""The page has one row for the nine keys of the classes."""


def test_the_page_names_every_key_of_the_dock(dock: Any) -> None:
    rows = re.findall(r"^\| `(.+?)`(?: … `Alt\+9`)? \| (.+) \|$", PAGE.read_text("utf-8"), re.M)
    on_page = [(key, text) for key, text in rows if not CLASS_KEY.fullmatch(key)]
    shortcuts = dock.features[0].bench.shortcuts.table()
    in_dock = [(s.shown, s.text) for s in shortcuts if not CLASS_KEY.fullmatch(s.shown)]
    assert sorted(on_page) == sorted(in_dock)
    assert len(rows) == len(on_page) + 1
