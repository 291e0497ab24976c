"""Start napari with the plugin docked. PyTorch is loaded before Qt, which Windows needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch  # noqa: F401  # before Qt: see above

if TYPE_CHECKING:
    from napari_unet3d.config import ClassInfo
    from napari_unet3d.data.volume import Volume

DOCK_NAME = "Annotate & train"


def launch(
    volume: Volume | None = None,
    annotation: Any = None,
    prediction: Any = None,
    classes: Sequence[ClassInfo] = (),
    block: bool = True,
) -> Any:
    """Open a viewer with the dock, showing what is given.

    Parameters
    ----------
    volume
        The image.
    annotation, prediction
        Labels of the volume's shape: what was painted, and what was segmented.
    classes
        The class table of both.
    block
        Return only when the window is closed.

    Returns
    -------
    napari.Viewer
        The viewer.
    """
    import napari
    from napari.layers import Image, Labels

    from napari_unet3d.widgets import SegmentationDock
    from napari_unet3d.widgets.layers import prediction_layer, spatial_transform, write_classes
    from napari_unet3d.widgets.samples import volume_layer

    viewer = napari.Viewer(title="napari-unet3d")
    if volume is not None:
        data, options, _ = volume_layer(volume)
        image = viewer.add_layer(Image(data, **options))
        ndim = 4 if "T" in volume.axes else 3
        transform = spatial_transform(image, ndim)
        if prediction is not None:
            viewer.add_layer(
                prediction_layer(prediction, f"{volume.name} prediction", classes, transform)
            )
        if annotation is not None:
            layer = Labels(annotation, name=f"{volume.name} annotation", opacity=0.6, **transform)
            if classes:
                write_classes(layer, classes)
            viewer.add_layer(layer)
    dock = SegmentationDock(viewer)
    viewer.window.add_dock_widget(dock, name=DOCK_NAME, area="right")
    if block:
        napari.run()
    return viewer
