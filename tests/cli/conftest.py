"""The files and the command line of test_cli.py."""

from __future__ import annotations

from test_cli import run, train, work

__all__ = ["run", "train", "work"]
