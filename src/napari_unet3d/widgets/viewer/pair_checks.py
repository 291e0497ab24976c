"""Says what is wrong with an image and its annotation, and what the user may not have noticed."""

from __future__ import annotations

from napari.layers import Image, Labels

from napari_unet3d.data.shapes import describe_shape
from napari_unet3d.widgets.viewer.axes import FirstAxis, labels_shape
from napari_unet3d.widgets.viewer.layers import role_of
from napari_unet3d.widgets.viewer.room import result_problem


def fits(annotation: Labels, image: Image, first_axis: FirstAxis) -> bool:
    """Return whether the annotation has the shape of labels for the image."""
    return tuple(annotation.data.shape) == labels_shape(image, first_axis)


def shape_problem(annotation: Labels, image: Image, first_axis: FirstAxis) -> str:
    """Say that the annotation has another shape than the image; "" if it fits."""
    if fits(annotation, image, first_axis):
        return ""
    return (
        f"'{annotation.name}' ({describe_shape(annotation.data.shape)}) does not fit "
        f"'{image.name}' ({describe_shape(labels_shape(image, first_axis))})."
    )


def size_problem(image: Image, annotation: Labels | None, first_axis: FirstAxis) -> str:
    """Say that a segmentation does not fit into the memory; "" if it does."""
    problem = result_problem(labels_shape(image, first_axis), image.name)
    if problem and annotation is not None:
        problem += " What you paint is kept in the session folder, which both commands take."
    return problem


def stray_text(stray: Labels, annotation: Labels) -> str:
    """Say that the user paints in a layer that is not trained on."""
    is_prediction = role_of(stray) == "prediction"
    what = "is a prediction" if is_prediction else "is not the chosen annotation"
    return f"'{stray.name}' {what}: paint there is not trained on. Paint in '{annotation.name}'."
