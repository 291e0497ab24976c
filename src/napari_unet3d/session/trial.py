"""Tries a model on a small part of a slice, before it is chosen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from napari_unet3d.config import PredictionConfig
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.prediction.output import output_table
from napari_unet3d.session.report import pictures
from napari_unet3d.session.report.content import Picture
from napari_unet3d.session.slice_view import Field, SliceView, middle

_SIDE = 192
"""Voxels along the edges of the part, which stands twice in a dock of 300 pixels."""


def try_model(
    bundle: ModelBundle,
    volume: Volume,
    ref: SliceRef,
    field: Field,
    config: PredictionConfig | None = None,
) -> Picture:
    """Show the middle of a part of a slice, and beside it the classes that a model finds there.

    Parameters
    ----------
    bundle, volume
        The model, and an image.
    ref, field
        The slice, and the part of it.
    config
        Device and memory.

    Returns
    -------
    Picture
        The gray values at the left, with colored classes at the right.

    Raises
    ------
    BadInputError
        The model and the image do not go together.
    RunFailedError
        Memory does not suffice, or PyTorch failed.
    """
    view = SliceView(bundle, volume, config, _most_likely)
    (top, bottom), (left, right) = (middle(a, b, _SIDE) for a, b in zip(*field, strict=True))
    _, classes = view.of(ref, ((top, left), (bottom, right)))
    gray = pictures.gray(volume, ref)[top:bottom, left:right]
    labels = output_table(bundle.classes)[classes.astype(np.intp)]
    colored = pictures.with_classes(gray, labels, bundle.classes)
    return Picture(
        np.concatenate([gray, colored], 1),
        f"A part of {ref}, and what the model makes of it:",
        pictures.pixel_ratio(volume.voxel_size, ref),
    )


def _most_likely(probabilities: Tensor) -> NDArray[np.float32]:
    """The number of the most likely class (z, y, x), 0 background."""
    found: NDArray[np.float32] = probabilities.argmax(0).float().cpu().numpy()
    return found
