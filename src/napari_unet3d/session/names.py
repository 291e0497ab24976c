"""Names by which a session folder is known; quick to import."""

from __future__ import annotations

from pathlib import Path

STATE_FILE = "session.json"
SUFFIX = ".unet3d-session"
"""End of the names of session folders."""


def is_session(path: Path) -> bool:
    """Whether a path is a session folder, or is meant as one; it may still be damaged."""
    return path.name.endswith(SUFFIX) or (path / STATE_FILE).is_file()
