"""Finds problems and the voxel size of an image when it is chosen."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from napari.layers import Image
from qtpy.QtCore import QObject, Signal

from napari_unet3d.data.io.file_metadata import Geometry
from napari_unet3d.data.io.reading import read_geometry
from napari_unet3d.errors import BadInputError
from napari_unet3d.widgets.parts.notice import Notice
from napari_unet3d.widgets.parts.voxel_size import Size
from napari_unet3d.widgets.viewer.axes import (
    REOPEN,
    FirstAxis,
    labels_shape,
    named_axes,
    order_problem,
    reopen,
    stack_ndim,
    take_axes,
)
from napari_unet3d.widgets.viewer.image_volume import image_volume, mixed_units, voxel_size_of
from napari_unet3d.widgets.viewer.layer_choice import LayerChoice
from napari_unet3d.widgets.viewer.layers import metadata_of, remember
from napari_unet3d.widgets.viewer.navigation import same_place

_CHECKED_AT_ONCE = 2**28
"""Voxels. Images in memory up to this size are searched for NaN when they are chosen, which takes
a second in a thread. Larger images, and images on disk, are searched when a training starts."""

Ask = Callable[[Callable[[], Any], Callable[[Any], None]], None]
"""Calls the first function in a thread, and the second one with its result in the main thread."""


class ImageFacts(QObject):
    """Follows the chosen image: finds its problems, and shows its voxel size in the dock.

    Parameters
    ----------
    viewer
        The napari viewer.
    parent
        The Qt parent.
    choice
        Shows the voxel size, and a note on it.
    ask
        Runs slow functions in a thread.
    """

    changed = Signal()
    """Emitted when the problem of the image changes."""

    def __init__(self, viewer: Any, parent: QObject, choice: LayerChoice, ask: Ask) -> None:
        super().__init__(parent)
        self._viewer, self._choice, self._ask = viewer, choice, ask
        self._image: Image | None = None
        self._data: Any = None
        self._axes = ""
        self._value_problem = self._file_note = ""
        choice.voxel_size.valueChanged.connect(self._edited)

    def set_image(self, image: Image | None) -> None:
        """Follow another image."""
        self._image, self._file_note = image, ""
        self._look()
        if image is not None and (path := file_that_tells_more(image)) is not None:
            self._read_file(image, path)

    def refresh(self) -> bool:
        """Look again at an image that may have changed; return whether its data or axes did."""
        image = self._image
        if image is not None and (image.data is not self._data or named_axes(image) != self._axes):
            self._look()
            return True
        self._show_voxel_size()
        return False

    def header_problem(self) -> str:
        """The problem that can be found without reading the voxels; "" if there is none."""
        if self._image is None:
            return ""
        return header_problem(self._image, self._choice.first_axis_value())

    def problem(self) -> str:
        """The problem that is known so far; "" if there is none."""
        return self.header_problem() or self._value_problem

    def notice(self) -> Notice | None:
        """The problem with its cure; None if there is none."""
        image, problem = self._image, self.problem()
        if image is None or not problem:
            return None
        can_reopen = bool(order_problem(image)) and image.source.path is not None
        answers = ((REOPEN, lambda: self._reopen(image)),) if can_reopen else ()
        return Notice(problem, answers, blocks=True)

    def _reopen(self, image: Image) -> None:
        try:
            reopen(self._viewer, image)
        except Exception as error:  # napari and the reader raise anything
            self._value_problem = f"'{image.name}' cannot be opened by channels: {error}"
            self.changed.emit()

    def cleanup(self) -> None:
        """Forget the image."""
        self._image = self._data = None

    # ---- inside

    def _look(self) -> None:
        image, axis = self._image, self._choice.first_axis_value()
        self._data = None if image is None else image.data
        self._axes = "" if image is None else named_axes(image)
        self._value_problem = ""
        self._show_voxel_size()
        if image is None or self.header_problem():
            return
        if (check := value_check(image, axis)) is not None:
            of, data = weakref.ref(image), image.data
            self._ask(check, lambda text: self._values_checked(of, data, text))

    def _values_checked(self, of: weakref.ref[Image], data: Any, problem: str) -> None:
        if problem and of() is self._image and data is self._data:
            self._value_problem = problem
            self.changed.emit()

    def _read_file(self, image: Image, path: str) -> None:
        of = weakref.ref(image)

        def take(geometry: Geometry | None) -> None:
            image = of()
            if image is None or image not in self._viewer.layers:
                return
            axes_note = take_axes(image, geometry)
            with same_place(self._viewer, image):
                size_note = take_voxel_size(image, geometry)
            if image is self._image and (note := f"{axes_note} {size_note}".strip()):
                self._file_note = note
                self._show_voxel_size()
            if size_note:
                self._viewer.reset_view()

        self._ask(lambda: read_geometry(path), take)

    def _edited(self, size: Size, unit: str) -> None:
        if self._image is not None:
            self._file_note = ""
            remember(self._image, voxel_size_read=True)  # the file must not overwrite it
            with same_place(self._viewer, self._image):
                set_voxel_size(self._image, size, unit)

    def _show_voxel_size(self) -> None:
        image, edit = self._image, self._choice.voxel_size
        try:
            if image is not None and image.ndim >= 3:
                edit.setValue(*voxel_size_of(image))
                self._choice.set_note(mixed_units(image) or self._file_note)
                return
        except BadInputError:  # `problem` reports it
            pass
        edit.setValue((1.0, 1.0, 1.0), "pixel")
        self._choice.set_note("")


def header_problem(image: Image, first_axis: FirstAxis) -> str:
    """Find a problem of an image without reading its voxels; "" if there is none."""
    try:
        image_volume(image, first_axis)[0].check_header()
    except BadInputError as error:
        return str(error)
    return ""


def value_check(image: Image, first_axis: FirstAxis) -> Callable[[], str] | None:
    """Make a function that finds NaN, infinite and constant values; None for a large image.

    The function is for a thread. It holds the array, not the layer.
    """
    volume, _ = image_volume(image, first_axis)
    data = volume.data
    if not isinstance(data, np.ndarray) or isinstance(data, np.memmap):
        return None
    if data.size > _CHECKED_AT_ONCE:
        return None

    def check() -> str:
        try:
            volume.check()
        except BadInputError as error:
            return str(error)
        return ""

    return check


def file_that_tells_more(image: Image) -> str | None:
    """The file of an image whose axes or voxel size napari's reader may have lost; else None."""
    path = image.source.path
    lost_size = not metadata_of(image).get("voxel_size_read") and _has_no_size(image)
    if path is None or not (lost_size or (stack_ndim(image) > 3 and not named_axes(image))):
        return None
    return str(path)


def take_voxel_size(image: Image, geometry: Geometry | None) -> str:
    """Give an image the voxel size of its file, where it has none and the shapes are the same.

    Returns
    -------
    str
        A note for the user; "" when the image stays as it was.
    """
    if geometry is None or not _has_no_size(image) or not _same_stack(image, geometry):
        return ""
    if geometry.unit == "pixel" and geometry.voxel_size == (1.0, 1.0, 1.0):
        return ""  # the file has no voxel size
    remember(image, voxel_size_read=True)
    set_voxel_size(image, geometry.voxel_size, geometry.unit)
    size = " × ".join(f"{n:.4g}" for n in geometry.voxel_size)
    return f"Voxel size {size} {geometry.unit} taken from the file."


def set_voxel_size(image: Image, size: Size, unit: str) -> None:
    """Set scale and units of z, y, x; flips, rotation and position stay as they are."""
    if image.ndim < 3:
        return
    old = np.asarray(image.scale, float)
    scale = [*old[:-3], *(np.where(old[-3:] < 0, -1.0, 1.0) * size)]
    name = "um" if unit == "µm" else unit
    image.units = (*map(str, image.units[:-3]), *(name,) * 3)
    if not np.array_equal(scale, old):
        image.scale = np.asarray(scale)


def _has_no_size(image: Image) -> bool:
    pixels = all(str(unit) == "pixel" for unit in image.units[-3:])
    return image.ndim >= 3 and pixels and bool(np.all(np.asarray(image.scale[-3:]) == 1))


def _same_stack(image: Image, geometry: Geometry) -> bool:
    """Return whether the layer shows all of the file, or one of its channels or time points."""
    shape = labels_shape(image, "time")
    others: tuple[Any, ...] = geometry.shape[:-3]
    return shape[-3:] == tuple(geometry.shape[-3:]) and shape[:-3] in (
        (),
        tuple(others),
        *((n,) for n in others),
    )
