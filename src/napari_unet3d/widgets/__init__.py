"""The napari plugin: the only folder that imports Qt and napari.

At the top, `launch` opens the window, `dock` builds the dock, and the mediators connect its parts:
`annotator` (paint and tables), `pairing` (image and annotation), `class_removal`, `actions` (runs)
and `file_actions` (saving and loading).

- ``parts/``: editors and displays of one typed value. Qt only, no napari.
- ``run/``: a run in its thread, its report and its layers.
- ``viewer/``: layers and the napari viewer.

Importing this package is cheap: torch, napari and the dock are loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_unet3d.widgets.dock import SegmentationDock

__all__ = ["SegmentationDock"]


def __getattr__(name: str) -> Any:
    if name != "SegmentationDock":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import torch  # noqa: F401
    except OSError as error:
        # On Windows, torch >= 2.9 cannot load a DLL after Qt has loaded its own.
        raise ImportError(
            "PyTorch could not be loaded after Qt. Close napari and start it with the command "
            f"'napari-unet3d', which loads PyTorch first. (The system says: {error})"
        ) from error
    from napari_unet3d.widgets.dock import SegmentationDock

    return SegmentationDock
