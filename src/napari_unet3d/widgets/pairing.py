"""Which image is segmented and which layer is painted in: chooses, binds and checks the pair."""

from __future__ import annotations

import weakref
from typing import Any

from napari.layers import Image, Labels, Layer
from qtpy.QtCore import QObject, QTimer, Signal

from napari_unet3d.data.conventions import DenseReport, dense_classes, from_dense, looks_dense
from napari_unet3d.data.sparse_labels import SparseLabels
from napari_unet3d.data.volume import describe_shape
from napari_unet3d.errors import BadInputError
from napari_unet3d.widgets.annotator import Annotator
from napari_unet3d.widgets.parts.notice import Notice, NoticeBox
from napari_unet3d.widgets.viewer.adoption import may_annotate, can_be_taken_unasked
from napari_unet3d.widgets.viewer.belonging import (
    belongs_to,
    bind,
    identify,
    image_id,
    is_free_for,
    owners,
    separate,
)
from napari_unet3d.widgets.viewer.following import Following
from napari_unet3d.widgets.viewer.image_facts import ImageFacts
from napari_unet3d.widgets.viewer.layer_choice import LayerChoice
from napari_unet3d.widgets.viewer.layers import (
    labels_shape,
    new_annotation_layer,
    role_of,
    stack_ndim,
    write_classes,
)
from napari_unet3d.widgets.viewer.placement import MOVE, check_lies_on, lies_on, move_onto
from napari_unet3d.widgets.viewer.room import result_problem


class Pairing(QObject):
    """Mediates between the layers of the viewer and the choice of image and annotation."""

    outdated = Signal()
    """Another pair is chosen, or a layer moved: what was said before may be untrue now."""
    changed = Signal()
    """Another pair is chosen, or what is wrong with it is different."""
    failed = Signal(str)
    """What the user wanted cannot be; why, and the cure."""

    def __init__(
        self, viewer: Any, parent: QObject, choice: LayerChoice, annotator: Annotator
    ) -> None:
        super().__init__(parent)
        self._viewer, self._choice, self._annotator = viewer, choice, annotator
        self.notice = NoticeBox()
        self._following = Following(viewer, self)
        self.facts = ImageFacts(viewer, self, choice)
        self._image: Image | None = None
        self._dense: tuple[Labels, DenseReport] | None = None
        self._stray: weakref.ref[Labels] | None = None
        self._last: dict[str, weakref.ref[Labels]] = {}
        self._shared: tuple[Image, Labels, str] | None = None
        # Deferred, so that all layers of a sample are there before the annotation is chosen.
        self._start_timer = QTimer(self)
        self._start_timer.setSingleShot(True)
        self._start_timer.timeout.connect(self.start)
        choice.valueChanged.connect(self._chosen)
        choice.newAnnotationRequested.connect(self.add_annotation)
        self.facts.changed.connect(self._facts_changed)
        self._following.moved.connect(self._layers_moved)
        self._following.painted.connect(self._painted)

    def blocks(self) -> bool:
        """Whether something must be settled before a training; the notice says what."""
        notice = self.notice.value()
        return notice is not None and notice.blocks

    def problem(self) -> str:
        """Why this image and this annotation cannot be trained on together; "" if they can.

        What is wrong with the image's own values is left to the training, which looks again.
        """
        notice = self.notice.value()
        if notice is None or not notice.blocks or self.facts.problem():
            return ""
        return notice.text

    def cleanup(self) -> None:
        """Let go of the viewer and of threads."""
        self._start_timer.stop()
        self._following.cleanup()
        self.facts.cleanup()
        self._image = self._dense = self._shared = None

    # ---- layers come and go

    def inserted(self, layer: Layer) -> None:
        """A layer was added to the viewer."""
        if isinstance(layer, Image):
            self._start_timer.start(0)
        self.sync()

    def sync(self, _event: Any = None) -> None:
        """Offer the layers that are there now."""
        self._following.sync()
        images = self._images()
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
        self._check()

    def start(self) -> None:
        """Have an annotation layer from the beginning: one that is there, or a new one."""
        image, annotation = self._choice.value()
        if image is None or annotation is not None or self.facts.header_problem():
            return
        if (found := self._own(image) or self._free(image)) is not None:
            self._choice.setValue(image, found)
        elif stack_ndim(image) == 3:  # of a 4D image the user first says what the first axis is
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
        self._annotator.choose_label(self._annotator.classes()[0].value)
        return layer

    def _images(self) -> list[Image]:
        return [
            x for x in self._viewer.layers if isinstance(x, Image) and role_of(x) != "companion"
        ]

    def _fitting(self, image: Image) -> list[Labels]:
        """Layers that may be chosen without asking, as far as their data tell."""
        shape = labels_shape(image, self._choice.first_axis_value())
        return [
            x
            for x in self._viewer.layers
            if may_annotate(x, image) and tuple(x.data.shape) == shape and can_be_taken_unasked(x)
        ]

    def _own(self, image: Image) -> Labels | None:
        """The annotation that belongs to an image: of several, the one chosen last."""
        own = [x for x in self._fitting(image) if belongs_to(x, image)]
        last = self._last.get(image_id(image) or "", lambda: None)()
        return last if last in own else (own[-1] if own else None)

    def _free(self, image: Image) -> Labels | None:
        """An annotation that belongs to no image and can only be meant for this one."""
        axis = self._choice.first_axis_value()
        shape = labels_shape(image, axis)
        fitting, images = self._fitting(image), self._images()
        if any(
            labels_shape(other, axis) == shape and not any(belongs_to(x, other) for x in fitting)
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

    # ---- what the user chooses

    def _chosen(self) -> None:
        self.outdated.emit()
        image, annotation = self._choice.value()
        before = self._annotator.layer()
        if image is not self._image:
            self._image_chosen(image)
            _, offered = self._choice.value()
            annotation = annotation if annotation is offered else None
            if annotation is before:  # left over from the image before
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
        """Show what was chosen in the end, without choosing again."""
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
        self.sync()  # other layers can be its annotation
        self._choice.blockSignals(blocked)

    def _bind(self, image: Image, annotation: Labels) -> None:
        """The user wants to paint in this layer for this image."""
        if tuple(annotation.data.shape) != labels_shape(image, self._choice.first_axis_value()):
            return
        if not belongs_to(annotation, image):
            images = self._images()
            alone = is_free_for(annotation, image, images)  # of this image, which was closed
            names = [] if alone else owners(annotation, images)
            bind(annotation, image, alone=alone)
            if names:
                self._shared = image, annotation, _quoted(names)
        self._last[image_id(image) or ""] = weakref.ref(annotation)

    def _ask_if_dense(self, image: Image | None, layer: Labels | None) -> None:
        self._dense = None
        if image is None or layer is None or role_of(layer) is not None:
            return
        shape = labels_shape(image, self._choice.first_axis_value())
        if tuple(layer.data.shape) == shape and (report := looks_dense(layer.data)) is not None:
            self._dense = layer, report

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

    # ---- what happens to the layers

    def _facts_changed(self) -> None:
        self._check()
        self.changed.emit()

    def _layers_moved(self) -> None:
        if self.facts.refresh():
            self.sync()
            self._start_timer.start(0)  # an image that is right now can have an annotation
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

    def _move(self) -> None:
        image, annotation = self._choice.value()
        if image is not None and annotation is not None:
            move_onto(annotation, image)

    # ---- what is said

    def _check(self) -> None:
        self.notice.setValue(self._find_notice())

    def _find_notice(self) -> Notice | None:
        image, annotation = self._choice.value()
        if image is None:
            return None
        if problem := self.facts.problem():
            return Notice(problem, blocks=True)
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
        return self._of_size(image, annotation)

    def _of_pair(self, image: Image, annotation: Labels) -> Notice | None:
        shape = labels_shape(image, self._choice.first_axis_value())
        if tuple(annotation.data.shape) != shape:
            return Notice(
                f"'{annotation.name}' ({describe_shape(annotation.data.shape)}) does not fit "
                f"'{image.name}' ({describe_shape(shape)}).",
                (("New annotation", self.add_annotation),),
                blocks=True,
            )
        try:
            check_lies_on(annotation, image)
        except BadInputError as error:
            return Notice(str(error), ((MOVE, self._move),), blocks=True)
        stray = None if self._stray is None else self._stray()
        if stray is not None and stray in self._viewer.layers:
            what = (
                "is a prediction"
                if role_of(stray) == "prediction"
                else "is not the chosen annotation"
            )
            return Notice(
                f"'{stray.name}' {what}: paint there is not trained on. Paint in "
                f"'{annotation.name}'.",
                (("Select the annotation", self._paint_here),),
            )
        if self._shared is not None and self._shared[:2] == (image, annotation):
            return Notice(
                f"'{annotation.name}' was painted on {self._shared[2]}. Its paint is now used for "
                f"'{image.name}' too.",
                (("New annotation instead", self.add_annotation), ("OK", self._agree)),
            )
        return None

    def _of_size(self, image: Image, annotation: Labels | None) -> Notice | None:
        problem = result_problem(labels_shape(image, self._choice.first_axis_value()), image.name)
        if not problem:
            return None
        data = None if annotation is None else annotation.data
        if isinstance(data, SparseLabels) and data.path is not None:
            problem += f" What you paint here lies in '{data.path}'."
        return Notice(problem, blocks=True)

    def _agree(self) -> None:
        self._shared = None
        self._check()


def _quoted(names: list[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)
