"""Finds images, and the annotation layer that an image already has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from napari.layers import Image, Labels, Layer

from napari_unet3d.widgets.viewer.adoption import can_be_taken_unasked, may_annotate
from napari_unet3d.widgets.viewer.axes import FirstAxis, labels_shape
from napari_unet3d.widgets.viewer.belonging import belongs_to, is_free_for
from napari_unet3d.widgets.viewer.layers import role_of
from napari_unet3d.widgets.viewer.placement import lies_on


def images_of(layers: Iterable[Layer]) -> list[Image]:
    """The images that can be segmented: not those that the plugin adds beside a prediction."""
    return [x for x in layers if isinstance(x, Image) and role_of(x) != "companion"]


def own_annotation(
    image: Image, layers: Sequence[Layer], first_axis: FirstAxis, last: Layer | None = None
) -> Labels | None:
    """Find the annotation that belongs to an image; of several, `last` or the topmost one.

    Parameters
    ----------
    image
        The image.
    layers
        The layers of the viewer.
    first_axis
        Meaning of the first axis of a 4D image.
    last
        The annotation of this image that was chosen last.
    """
    own = [x for x in _fitting(image, layers, first_axis) if belongs_to(x, image)]
    return next((x for x in own if x is last), own[-1] if own else None)


def free_annotation(image: Image, layers: Sequence[Layer], first_axis: FirstAxis) -> Labels | None:
    """Find an annotation that belongs to no image and can only be meant for this one.

    Where another image of the same shape has no annotation either, it may be meant for that one:
    then None is found.
    """
    shape = labels_shape(image, first_axis)
    fitting, images = _fitting(image, layers, first_axis), images_of(layers)
    if any(
        labels_shape(other, first_axis) == shape and not any(belongs_to(x, other) for x in fitting)
        for other in images
        if other is not image
    ):
        return None
    free = [
        x
        for x in fitting
        if is_free_for(x, image, images) and (role_of(x) == "annotation" or lies_on(x, image))
    ]
    free.sort(key=lambda x: (role_of(x) is None, not lies_on(x, image)))
    return free[0] if free else None


def _fitting(image: Image, layers: Sequence[Layer], first_axis: FirstAxis) -> list[Labels]:
    """Layers of the right shape that may be chosen without asking."""
    shape = labels_shape(image, first_axis)
    return [
        x
        for x in layers
        if may_annotate(x, image) and tuple(x.data.shape) == shape and can_be_taken_unasked(x)
    ]
