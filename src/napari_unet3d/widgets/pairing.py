"""Chooses, binds and checks the pair of layers: the image and its annotation."""

from __future__ import annotations

import weakref
from typing import Any

from napari.layers import Image, Labels, Layer
from qtpy.QtCore import QObject, QTimer, Signal

from napari_unet3d.data.conventions import DenseReport, dense_classes, from_dense, looks_dense
from napari_unet3d.errors import BadInputError
from napari_unet3d.widgets.annotator import Annotator
from napari_unet3d.widgets.parts.notice import Notice, NoticeBox
from napari_unet3d.widgets.run.background import Background
from napari_unet3d.widgets.viewer.adoption import may_annotate
from napari_unet3d.widgets.viewer.axes import named_axes, stack_ndim
from napari_unet3d.widgets.viewer.belonging import (
    belongs_to,
    bind,
    identify,
    image_id,
    is_free_for,
    owners,
    separate,
)
from napari_unet3d.widgets.viewer.candidates import free_annotation, images_of, own_annotation
from napari_unet3d.widgets.viewer.channels import other_channels
from napari_unet3d.widgets.viewer.following import Following
from napari_unet3d.widgets.viewer.image_facts import ImageFacts
from napari_unet3d.widgets.viewer.layer_choice import LayerChoice
from napari_unet3d.widgets.viewer.layers import new_annotation_layer, role_of, write_classes
from napari_unet3d.widgets.viewer.pair_checks import (
    fits,
    shape_problem,
    size_problem,
    stray_text,
)
from napari_unet3d.widgets.viewer.placement import MOVE, check_lies_on, move_onto


class Pairing(QObject):
    """Mediates between the layers of the viewer, the choice of the pair and the annotator.

    Parameters
    ----------
    viewer
        The napari viewer.
    parent
        The Qt parent.
    choice
        Shows the pair, and lets the user choose another one.
    annotator
        Works on the annotation of the pair.
    background
        Reads images and files in threads; whoever made it cleans it up.
    """

    outdated = Signal()
    """Another pair is chosen, or a layer moved: earlier messages may no longer be true."""
    changed = Signal()
    """Another pair is chosen, or its problem is another one."""
    acceptRequested = Signal()
    """The user painted in a prediction, and wants to copy its slice in view instead."""
    failed = Signal(str)
    """A wish of the user cannot be fulfilled; the reason and the cure."""

    def __init__(
        self,
        viewer: Any,
        parent: QObject,
        choice: LayerChoice,
        annotator: Annotator,
        background: Background,
    ) -> None:
        super().__init__(parent)
        self._viewer, self._choice, self._annotator = viewer, choice, annotator
        self.notice = NoticeBox()
        self._following = Following(viewer, self)
        self.facts = ImageFacts(viewer, self, choice, background.ask)
        self._image: Image | None = None
        self._dense: tuple[Labels, DenseReport] | None = None
        """A chosen layer that looks like a dense segmentation, until the user says what 0 is."""
        self._stray: weakref.ref[Labels] | None = None
        """A layer of the plugin that was painted in, and is not the chosen annotation."""
        self._last: dict[str, weakref.ref[Labels]] = {}
        """By identifier of an image: the annotation that was chosen for it last."""
        self._shared: tuple[Image, Labels, str] | None = None
        """The chosen pair, and the image that its annotation was painted on; until agreed to."""
        # Deferred until all layers of a sample are added, and one of them may be the annotation.
        self._start_timer = QTimer(self)
        self._start_timer.setSingleShot(True)
        for signal, slot in (
            (self._start_timer.timeout, self.start),
            (choice.valueChanged, self._chosen),
            (choice.newAnnotationRequested, self.add_annotation),
            (self.facts.changed, self._facts_changed),
            (self._following.moved, self._layers_moved),
            (self._following.painted, self._painted),
        ):
            signal.connect(slot)

    def blocks(self) -> bool:
        """Return whether the notice names something that must be settled before a training."""
        notice = self.notice.value()
        return notice is not None and notice.blocks

    def problem(self) -> str:
        """Say why this image and this annotation cannot be trained on together; "" if they can.

        Problems of the image alone are left to the training, which checks it again.
        """
        notice = self.notice.value()
        if notice is None or not notice.blocks or self.facts.problem():
            return ""
        return notice.text

    def cleanup(self) -> None:
        """Disconnect from the layers, and forget them."""
        self._start_timer.stop()
        self._following.cleanup()
        self.facts.cleanup()
        self._image = self._dense = self._shared = None

    # ---- layers come and go

    def inserted(self, layer: Layer) -> None:
        """Take note of a layer that was added to the viewer."""
        if isinstance(layer, Image):
            self._start_timer.start(0)
        self.sync()

    def sync(self, _event: Any = None) -> None:
        """Offer the layers that the viewer holds now."""
        self._following.sync()
        images = images_of(self._viewer.layers)
        separate(images)
        image, _ = self._choice.value()
        image = image if image in images else (images[0] if images else None)
        annotations = [x for x in self._viewer.layers if may_annotate(x, image)]
        remarks = {
            x.name: f" — of {_quoted(owners(x, images))}"
            for x in annotations
            if image is not None and owners(x, images) and not belongs_to(x, image)
        }
        self._choice.set_layers(images, annotations, remarks)
        chosen, _ = self._choice.value()
        others = [] if chosen is None else other_channels(chosen, self._viewer.layers)
        self._choice.set_channels(others)
        self._check()

    def start(self) -> None:
        """Choose an annotation for the image: an existing layer, or a new one."""
        image, annotation = self._choice.value()
        if image is None or annotation is not None or self.facts.header_problem():
            return
        layers, axis = self._viewer.layers, self._choice.first_axis_value()
        existing = self._own(image) or free_annotation(image, layers, axis)
        if existing is not None:
            self._choice.setValue(image, existing)
        elif stack_ndim(image) == 3 or named_axes(image):  # else the user first names them
            self.add_annotation()

    def add_annotation(self) -> Labels | None:
        """Add an annotation layer for the chosen image, ready to be painted in."""
        image, _ = self._choice.value()
        if image is None:
            return None
        if problem := self.facts.header_problem():
            self.failed.emit(problem)
            return None
        try:
            layer = new_annotation_layer(
                image, self._choice.first_axis_value(), (x.name for x in self._viewer.layers)
            )
        except (MemoryError, OSError) as error:
            self.failed.emit(
                f"There is no room for an annotation of '{image.name}' ({error}). Close other "
                "layers, or crop the image."
            )
            return None
        return self._add(image, layer)

    def _add(self, image: Image, layer: Labels) -> Labels:
        identify(image)
        bind(layer, image)
        self._viewer.add_layer(layer)
        self._choice.setValue(image, layer)
        # Without the brush: a click into the new window must not paint a dot.
        self._annotator.choose_label(self._annotator.classes()[0].value, brush=False)
        return layer

    def _own(self, image: Image) -> Labels | None:
        last = self._last.get(image_id(image) or "", lambda: None)()
        axis = self._choice.first_axis_value()
        return own_annotation(image, self._viewer.layers, axis, last)

    # ---- the user chooses

    def _chosen(self) -> None:
        self.outdated.emit()
        image, annotation = self._choice.value()
        before = self._annotator.layer()
        if image is not self._image:
            self._image_chosen(image)
            _, offered = self._choice.value()
            annotation = annotation if annotation is offered else None
            if annotation is before:  # it belongs to the previous image
                annotation = None
            if annotation is None and image is not None and not self.facts.header_problem():
                annotation = self._own(image)
                self._start_timer.start(0)
        try:
            if annotation is not before:
                self._ask_if_dense(image, annotation)
            if self._dense is None:
                self._annotator.set_layer(annotation)
        except BadInputError as error:
            self._settle(image)
            self.failed.emit(str(error))
            return
        if self._dense is None and image is not None and annotation is not None:
            self._bind(image, annotation)
        self._settle(image)
        self.changed.emit()

    def _settle(self, image: Image | None) -> None:
        """Show the pair that is in use now, without choosing again."""
        blocked = self._choice.blockSignals(True)
        try:
            self.sync()
            self._choice.setValue(image, self._annotator.layer())
        finally:
            self._choice.blockSignals(blocked)
        self._check()

    def _image_chosen(self, image: Image | None) -> None:
        self._image, self._dense, self._stray, self._shared = image, None, None, None
        if image is not None:
            identify(image)
        self.facts.set_image(image)
        blocked = self._choice.blockSignals(True)
        self.sync()  # which layers can be its annotation depends on the image
        self._choice.blockSignals(blocked)

    def _bind(self, image: Image, annotation: Labels) -> None:
        """Record that the user wants to paint in this layer for this image."""
        if not fits(annotation, image, self._choice.first_axis_value()):
            return
        if not belongs_to(annotation, image):
            images = images_of(self._viewer.layers)
            alone = is_free_for(annotation, image, images)  # its image was closed and opened again
            names = [] if alone else owners(annotation, images)
            bind(annotation, image, alone=alone)
            if names:
                self._shared = image, annotation, _quoted(names)
        self._last[image_id(image) or ""] = weakref.ref(annotation)

    def _ask_if_dense(self, image: Image | None, layer: Labels | None) -> None:
        self._dense = None
        if image is None or layer is None or role_of(layer) is not None:
            return
        if fits(layer, image, self._choice.first_axis_value()):
            report = looks_dense(layer.data)
            self._dense = None if report is None else (layer, report)

    def _convert(self, layer: Labels) -> None:
        self._dense = None
        image, _ = self._choice.value()
        if image is None:
            return
        new = new_annotation_layer(
            image, self._choice.first_axis_value(), (x.name for x in self._viewer.layers)
        )
        try:
            classes = dense_classes(layer.data)
            new.data = from_dense(layer.data)
        except BadInputError as error:
            self._check()
            self.failed.emit(str(error))
            return
        write_classes(new, classes)
        self._add(image, new)

    def _use_as_it_is(self, layer: Labels) -> None:
        self._dense = None
        image, _ = self._choice.value()
        if image is None:
            return
        try:
            self._annotator.set_layer(layer)
        except BadInputError as error:
            self._check()
            self.failed.emit(str(error))
            return
        self._bind(image, layer)
        self._settle(image)
        self.changed.emit()

    # ---- the layers change

    def _facts_changed(self) -> None:
        self._check()
        self.changed.emit()

    def _layers_moved(self) -> None:
        if self.facts.refresh():
            self.sync()
            self._start_timer.start(0)  # an image without problems gets an annotation
        before = self.notice.value()
        self._check()
        after = self.notice.value()
        if (before and before.text) != (after and after.text):
            self.outdated.emit()
        self.changed.emit()

    def _painted(self, layer: Labels) -> None:
        if layer is self._annotator.layer():
            stray = None
        elif role_of(layer) is not None:
            stray = weakref.ref(layer)
        else:
            return
        if stray is not None or self._stray is not None:
            self._stray = stray
            self._check()
            self.changed.emit()

    def _paint_here(self) -> None:
        self._stray = None
        if (layer := self._annotator.layer()) is not None:
            self._annotator.choose_label(int(layer.selected_label))
        self._check()
        self.changed.emit()

    def _accept(self) -> None:
        self._paint_here()
        self.acceptRequested.emit()

    def _move(self) -> None:
        image, annotation = self._choice.value()
        if image is not None and annotation is not None:
            move_onto(annotation, image)

    # ---- the notice

    def _check(self) -> None:
        self.notice.setValue(self._find_notice())

    def _find_notice(self) -> Notice | None:
        image, annotation = self._choice.value()
        if image is None:
            return None
        if (notice := self.facts.notice()) is not None:
            return notice
        if self._dense is not None and self._dense[0] in self._viewer.layers:
            layer, report = self._dense
            return Notice(
                f"'{layer.name}': {report.text}",
                (
                    ("0 is background: convert a copy", lambda: self._convert(layer)),
                    ("0 is unlabelled: use as it is", lambda: self._use_as_it_is(layer)),
                ),
            )
        if annotation is not None and (notice := self._of_pair(image, annotation)) is not None:
            return notice
        problem = size_problem(image, annotation, self._choice.first_axis_value())
        return Notice(problem, blocks=True) if problem else None

    def _of_pair(self, image: Image, annotation: Labels) -> Notice | None:
        if problem := shape_problem(annotation, image, self._choice.first_axis_value()):
            return Notice(problem, (("New annotation", self.add_annotation),), blocks=True)
        try:
            check_lies_on(annotation, image)
        except BadInputError as error:
            return Notice(str(error), ((MOVE, self._move),), blocks=True)
        stray = None if self._stray is None else self._stray()
        if stray is not None and stray in self._viewer.layers:
            answers = [("Select the annotation", self._paint_here)]
            if role_of(stray) == "prediction":
                answers.append(("Accept this slice", self._accept))
            return Notice(stray_text(stray, annotation), tuple(answers))
        if self._shared is not None and self._shared[:2] == (image, annotation):
            return Notice(
                f"'{annotation.name}' was painted on {self._shared[2]}. Its paint is now used for "
                f"'{image.name}' too.",
                (("New annotation instead", self.add_annotation), ("OK", self._agree)),
            )
        return None

    def _agree(self) -> None:
        self._shared = None
        self._check()


def _quoted(names: list[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)
