"""A data folder of its own for a benchmark that opens windows.

Without it, the window would open the session that the last benchmark left for an image of the same
name, with its paint and its results.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile


def use() -> None:
    """Keep sessions in an empty folder, which is removed at the end of the program."""
    folder = tempfile.mkdtemp(prefix="napari-unet3d-benchmark-")
    os.environ["XDG_DATA_HOME"] = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
