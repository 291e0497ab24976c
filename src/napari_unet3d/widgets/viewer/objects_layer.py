"""Layers whose classes become objects, and the layers that show the objects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Labels, Layer

from napari_unet3d.config import ObjectsConfig
from napari_unet3d.data.conventions import MOST_CLASSES
from napari_unet3d.data.slices import count_labels
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.objects.separating import Separation
from napari_unet3d.objects.table import ObjectTable
from napari_unet3d.widgets.parts.objects_form import ClassChoice
from napari_unet3d.widgets.viewer.belonging import image_ids
from napari_unet3d.widgets.viewer.image_volume import voxel_size_of
from napari_unet3d.widgets.viewer.layer_choice import LayerChoice
from napari_unet3d.widgets.viewer.layers import (
    insert_quietly,
    metadata_of,
    read_classes,
    remember,
    role_of,
    unique_name,
)
from napari_unet3d.widgets.viewer.placement import spatial_transform
from napari_unet3d.widgets.viewer.result_layers import begun
from napari_unet3d.widgets.viewer.saving import position_of

_SOURCE = "objects_of"
"""Key of the metadata: name of the segmentation; None once the user has painted on the objects.
Such a layer is never written to."""
_TABLE = "object_table"
"""Key of the metadata: the `ObjectTable` of the objects that a layer shows."""
_READ_VOXELS = 2**28
"""Voxels of a layer of the user that are read to find its classes; that takes a second."""


@dataclass(frozen=True, eq=False)
class CutLabels:
    """Labels that were cut into pieces, which can be joined again with other settings.

    Parameters
    ----------
    layer, volume
        The labels.
    config
        The settings of the last objects.
    separation
        The pieces.
    """

    layer: Labels
    volume: Volume
    config: ObjectsConfig
    separation: Separation

    @property
    def contacts(self) -> int:
        """Parts that touch; counting the objects takes a microsecond for each."""
        return sum(len(parts.contacts) for parts in self.separation.parts)

    def serves(self, layer: Labels, config: ObjectsConfig) -> bool:
        """Whether the pieces are those that these labels and settings would give."""
        joining = {"separation", "min_volume", "min_voxels"}
        return (
            self.layer is layer
            and self.volume.data is layer.data
            and self.volume.voxel_size == voxel_size_of(layer)[0]
            and self.config.model_dump(exclude=joining) == config.model_dump(exclude=joining)
        )


def may_have_objects(layer: Layer) -> bool:
    """Whether the classes of a layer may become objects."""
    return (
        isinstance(layer, Labels)
        and layer.data.ndim in (3, 4)
        and _SOURCE not in metadata_of(layer)
    )


def likeliest(layers: Sequence[Labels]) -> Labels | None:
    """The newest prediction; or else the topmost layer that is no annotation."""
    for roles in (("prediction",), (None, "truth"), ("annotation",)):
        found = [x for x in layers if role_of(x) in roles]
        if found:
            return max(reversed(found), key=begun)
    return None


def known_classes(layer: Labels) -> tuple[ClassChoice, ...]:
    """The classes of a layer of the plugin, as its voxels number them; () when unknown."""
    annotation = role_of(layer) == "annotation"
    classes = tuple(
        ClassChoice(c.value if annotation else c.output_value, c.name, c.color)
        for c in read_classes(layer)
    )
    return _with_background(classes) if classes and not annotation else classes


def classes_in(data: Any) -> tuple[ClassChoice, ...]:
    """The classes that occur in labels of the user; () when they hold more than classes."""
    values: set[int] = set()
    planes = list(np.ndindex(data.shape[:-2]))
    step = max(1, len(planes) * int(np.prod(data.shape[-2:])) // _READ_VOXELS)
    for plane in planes[::step]:
        values |= count_labels(np.asarray(data[plane])).keys()
        if len(values) > MOST_CLASSES:
            return ()
    return _with_background(tuple(ClassChoice(v, f"class {v}") for v in sorted(values)))


def _with_background(classes: tuple[ClassChoice, ...]) -> tuple[ClassChoice, ...]:
    return (*classes, ClassChoice(0, "background"))


def labels_volume(layer: Labels) -> Volume:
    """The labels of a layer with voxel size and position.

    Raises
    ------
    BadInputError
        The voxel size cannot be used.
    """
    size, unit = voxel_size_of(layer)
    return Volume(
        layer.data,
        "TZYX" if layer.data.ndim == 4 else "ZYX",
        size,
        unit,
        layer.name,
        translation=position_of(layer, size),
    )


def measured_image(choice: LayerChoice, labels: Volume) -> Volume | None:
    """The chosen image with its channels, if its gray values can be measured in these labels."""
    try:
        volume, _ = choice.volume()
    except BadInputError:
        return None
    same = (volume.shape, volume.n_times) == (labels.shape, labels.n_times)
    return volume if same else None


def hide_objects_of(viewer: Any, source: Labels) -> None:
    """Hide the objects of a segmentation that is replaced: they are no longer those of its name."""
    for layer in viewer.layers:
        if isinstance(layer, Labels) and _is_ours(layer, source):
            layer.visible = False


def show_objects(viewer: Any, source: Layer, numbers: Any, table: ObjectTable) -> Labels:
    """Show objects above their segmentation.

    Parameters
    ----------
    viewer
        The napari viewer.
    source
        The segmentation, which is hidden; or the image.
    numbers, table
        The objects. The layer that showed earlier ones of a segmentation of this name is used
        again, unless it was painted on.
    """
    layers = (x for x in viewer.layers if isinstance(x, Labels) and _is_ours(x, source))
    layer = next(layers, None)
    if layer is not None:
        layer.data = numbers
        layer.features = table.features()
        layer.visible = True
    else:
        layer = Labels(
            numbers,
            name=unique_name(f"{source.name} objects", (x.name for x in viewer.layers)),
            opacity=0.7,
            features=table.features(),
            **spatial_transform(source, numbers.ndim),
        )
        layer.new_colormap(seed=1)  # neighbors in number, which are neighbors in space, differ
        remember(layer, role="companion", images=metadata_of(source).get("images", ()))
        layer.events.paint.connect(_painted_on)
        insert_quietly(viewer, viewer.layers.index(source) + 1, layer)
        if isinstance(source, Labels):
            source.visible = False  # it would tint the colors of the objects
    remember(layer, **{_SOURCE: source.name, _TABLE: table})
    return layer


def table_of(layer: Layer) -> ObjectTable | None:
    """The table of the objects that a layer shows; None for other layers."""
    table = metadata_of(layer).get(_TABLE)
    return table if isinstance(table, ObjectTable) else None


def newest_objects(layers: Sequence[Layer]) -> tuple[Labels, ObjectTable] | None:
    """The topmost layer of objects, with its table; None without any."""
    found = [(x, t) for x in layers if isinstance(x, Labels) and (t := table_of(x)) is not None]
    return found[-1] if found else None


def layers_with_objects(layers: Iterable[Layer]) -> list[Labels]:
    """The layers of a viewer whose classes may become objects."""
    return [x for x in layers if may_have_objects(x)]


def _is_ours(layer: Labels, source: Layer) -> bool:
    metadata = metadata_of(layer)
    return (
        metadata.get(_SOURCE) == source.name
        and image_ids(layer) == image_ids(source)
        and tuple(layer.data.shape) == tuple(source.data.shape)
    )


def _painted_on(event: Any) -> None:
    """Take note that the user painted on objects: nothing replaces them from now on."""
    remember(event.source, **{_SOURCE: None})
