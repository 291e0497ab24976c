"""What the axes of an image layer are: napari's names of them tell, and the file does."""

from __future__ import annotations

from typing import Any, Literal

from napari.layers import Image, Layer

from napari_unet3d.data.io.file_metadata import FILE_AXES, Geometry
from napari_unet3d.data.io.ngff import axis_letters

FirstAxis = Literal["time", "channels"]
_FIRST: dict[str, FirstAxis] = {"TZYX": "time", "CZYX": "channels"}
"""What the first of four axes means; in any other order they cannot be shown with an annotation."""


def stack_ndim(image: Image) -> int:
    """Number of axes of an image, without leading axes of length 1, and without RGB."""
    shape = shape_of(image)
    leading = 0
    while len(shape) - leading > 3 and shape[leading] == 1:
        leading += 1
    return len(shape) - leading


def labels_shape(layer: Image, first_axis: FirstAxis) -> tuple[int, ...]:
    """Shape of the labels of an image: without leading axes of length 1, and without channels."""
    shape = shape_of(layer)[-stack_ndim(layer) :]
    return shape[1:] if len(shape) == 4 and first_axis == "channels" else shape


def shape_of(layer: Image) -> tuple[int, ...]:
    """Shape of an image, of its finest level, without RGB."""
    data = layer.data[0] if layer.multiscale else layer.data
    shape = tuple(int(size) for size in data.shape)
    return shape[:-1] if layer.rgb else shape


def named_axes(image: Image) -> str:
    """The axes of an image of four or more as its axis labels name them, such as "TZYX".

    Leading axes of length 1 are left out. "" where a label is another one than t, c, z, y, x or
    their usual names, as napari's own labels are.
    """
    ndim = stack_ndim(image)
    letters = axis_letters(image.axis_labels[-ndim:]) if ndim > 3 else None
    return letters if letters and len(set(letters)) == ndim else ""


def first_axis_of(image: Image) -> FirstAxis:
    """What the first axis of a 4D image is; time where nothing tells."""
    return _FIRST.get(named_axes(image), "time")


def name_first_axis(image: Image, meaning: FirstAxis) -> None:
    """Name the axes of a 4D image, as the user wants them."""
    if stack_ndim(image) == 4:
        image.axis_labels = (
            *image.axis_labels[:-4],
            *(letters[0].lower() for letters in ("T" if meaning == "time" else "C", *"ZYX")),
        )


def take_axes(image: Image, geometry: Geometry | None) -> str:
    """Name the axes of an image of four or more as its file does, where nothing names them yet.

    napari's own reader keeps the order of the file, and not the names.

    Returns
    -------
    str
        A note for the user; "" when the image stays as it was.
    """
    if geometry is None or stack_ndim(image) < 4 or named_axes(image):
        return ""
    letters, shape = geometry.file_axes, shape_of(image)
    lengths = dict(zip(geometry.axes, geometry.shape, strict=True))
    if not set(letters) <= set(FILE_AXES) or set(letters) != set(lengths):
        return ""  # the file does not name them either
    if [n for n in shape if n != 1] != [lengths[a] for a in letters if lengths[a] != 1]:
        return ""
    labels, rest = list(image.axis_labels), list(letters)
    for axis, n in enumerate(shape):
        if n == lengths.get(rest[0] if rest else "", 0):
            labels[axis] = rest.pop(0).lower()
    image.axis_labels = tuple(labels)
    meaning = _FIRST.get(named_axes(image))
    return f"The first axis is {meaning}, as the file says." if meaning else ""


def assumed_text(image: Image) -> str:
    """Say what the first axis of a 4D image is taken for where nothing names it; else ""."""
    if stack_ndim(image) != 4 or named_axes(image):
        return ""
    n = labels_shape(image, "time")[0]
    return f"Nothing names it: taken for time ({n} time points). Change it if it is channels."


def order_problem(image: Layer) -> str:
    """Say that the axes of an image are in an order that cannot be used, and the cure; or ""."""
    if not isinstance(image, Image):
        return ""
    letters = named_axes(image)
    if not letters or letters in _FIRST:
        return ""
    order = ", ".join(letters.lower())
    what = f"'{image.name}' has the axes {order}, and they are shown in this order"
    if image.source.path is None:
        return f"{what}. Add each channel as a layer of its own, with the axes z, y, x."
    return f"{what}. Press '{REOPEN}': each channel becomes a layer, with the axes z, y, x."


REOPEN = "Open it again by channels"
"""Text of the button that opens a file with the reader of the plugin; messages name it."""


def reopen(viewer: Any, image: Image) -> None:
    """Open the file of an image with the reader of the plugin, in place of the layer.

    Raises
    ------
    BadInputError
        As `read_volume`; the layer stays.
    """
    viewer.open(str(image.source.path), plugin="napari-unet3d", layer_type="image")
    viewer.layers.remove(image)
