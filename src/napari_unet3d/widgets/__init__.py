"""The napari plugin: the only folder that imports Qt and napari.

Importing this package is cheap; the dock and everything heavy is loaded on first use.
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
        # Windows: a DLL of torch cannot be loaded once Qt's are (torch >= 2.9).
        raise ImportError(
            "PyTorch could not be loaded after Qt. Close napari and start it with the command "
            f"'napari-unet3d', which loads PyTorch first. (The system says: {error})"
        ) from error
    from napari_unet3d.widgets.dock import SegmentationDock

    return SegmentationDock
