"""Starts napari with the plugin docked. PyTorch is loaded before Qt, which Windows needs."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch  # noqa: F401  # before Qt: see above

from napari_unet3d.errors import BadInputError

if TYPE_CHECKING:
    from napari_unet3d.config import ClassInfo
    from napari_unet3d.data.volume import Volume

_BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")
_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
DOCK_NAME = "Annotate & train"


class NoWindowError(BadInputError, ImportError):
    """A package or a display that the window needs is missing; the message names the cure."""


def check_window() -> None:
    """Raise `NoWindowError` where no window can be opened; Qt would end the program instead."""
    missing = [] if find_spec("napari") else ["napari"]
    if not any(map(find_spec, _BINDINGS)):
        missing.append("a Qt binding such as PyQt6")
    if missing:
        raise NoWindowError(
            f"The window needs {' and '.join(missing)}, which is not installed. Install it with\n"
            '    pip install "napari-unet3d[all]"\n'
            "Or use the command line, which needs no window: napari-unet3d --help"
        )
    if sys.platform.startswith("linux") and not any(map(os.environ.get, _DISPLAYS)):
        raise NoWindowError(
            "There is no display to open a window on. Start it from a desktop or with ssh -X, or "
            "use the command line, which needs none: napari-unet3d --help"
        )


def launch(
    volume: Volume | None = None,
    annotation: Any = None,
    prediction: Any = None,
    classes: Sequence[ClassInfo] = (),
    block: bool = True,
    session: Path | None = None,
) -> Any:
    """Open a viewer with the dock, and show the given stack and labels in it.

    Parameters
    ----------
    volume
        The image.
    annotation, prediction
        Labels of the volume's shape: the painted ones, and a segmentation.
    classes
        The classes of both.
    block
        Whether to return only after the window is closed.
    session
        A session folder to be opened, with its image.

    Returns
    -------
    napari.Viewer
        The viewer.

    Raises
    ------
    NoWindowError
        napari is not installed, or there is no display.
    """
    check_window()
    import napari
    from napari.layers import Image, Labels

    from napari_unet3d.widgets import dock  # noqa: F401  # before the garbage is left out
    from napari_unet3d.widgets.viewer.adoption import classes_of
    from napari_unet3d.widgets.viewer.belonging import bind
    from napari_unet3d.widgets.viewer.layers import (
        prediction_layer,
        starting_classes,
        write_classes,
    )
    from napari_unet3d.widgets.viewer.placement import spatial_transform
    from napari_unet3d.widgets.viewer.samples import volume_layer
    from napari_unet3d.widgets.viewer.unsaved import mark_saved
    from napari_unet3d.widgets.viewer.window_session import session_of

    # What the imports made lives as long as the program. Python's garbage collector would visit all
    # of it now and then, and the window would stand still for a quarter of a second.
    gc.collect()
    gc.freeze()
    viewer = napari.Viewer(title="napari-unet3d")
    if volume is not None:
        data, options, _ = volume_layer(volume)
        image = viewer.add_layer(Image(data, **options))
        ndim = 4 if "T" in volume.axes else 3
        transform = spatial_transform(image, ndim)
        if prediction is not None:
            shown = prediction_layer(prediction, f"{volume.name} prediction", classes, transform)
            bind(shown, image)
            viewer.add_layer(shown)
        if annotation is not None:
            layer = Labels(annotation, name=f"{volume.name} annotation", opacity=0.6, **transform)
            # The caller says that these labels are an annotation, so the dock does not ask.
            write_classes(layer, classes or classes_of(layer) or starting_classes())
            mark_saved(layer)  # the caller has them in a file or an array
            bind(layer, image)
            viewer.add_layer(layer)
    add_dock(viewer)
    if session is not None:
        session_of(viewer).request(session)
    if block:
        napari.run()
    return viewer


def add_dock(viewer: Any) -> Any:
    """Open the dock as the Plugins menu does, so that the menu finds it and makes no second one.

    Returns
    -------
    SegmentationDock
        The dock of this viewer, which may have been open before.
    """
    from napari_unet3d.widgets import SegmentationDock

    plugin = "napari-unet3d"
    try:
        docked, dock = viewer.window.add_plugin_dock_widget(plugin, DOCK_NAME)
        docked.show()
        docked.raise_()
    except (KeyError, ValueError):  # not installed as a plugin of this napari
        dock = SegmentationDock(viewer)
        viewer.window.add_dock_widget(dock, name=f"{DOCK_NAME} ({plugin})", area="right")
    return dock
