"""How long the window stands still while Python's garbage collector visits everything.

    xvfb-run -a python benchmarks/garbage.py launch
    xvfb-run -a python benchmarks/garbage.py plain

`launch` starts napari as `napari-unet3d` does, `plain` as napari does, and opens the dock. Prints
the CPU milliseconds of full collections, and how many objects each of them visits.
"""

from __future__ import annotations

import argparse
import gc
import time
from typing import Any

import own_folder

from napari_unet3d.data.samples import tubules


def opened(how: str) -> Any:
    """Open napari with the dock and a stack; returns the viewer."""
    from napari_unet3d.widgets.launch import add_dock, launch

    if how == "launch":
        viewer = launch(block=False)
    else:
        import napari

        viewer = napari.Viewer()
        add_dock(viewer)
    viewer.add_image(tubules().image.data)
    return viewer


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("how", choices=("launch", "plain"))
    how = parser.parse_args().how
    own_folder.use()
    from qtpy.QtWidgets import QApplication

    viewer = opened(how)
    end = time.monotonic() + 3
    while time.monotonic() < end:
        QApplication.processEvents()
    taken = []
    for _ in range(5):
        begin = time.thread_time()
        gc.collect()
        taken.append(round(1e3 * (time.thread_time() - begin)))
    print(f"{how}: {taken} ms, {len(gc.get_objects()):,} objects")
    viewer.close()


if __name__ == "__main__":
    main()
