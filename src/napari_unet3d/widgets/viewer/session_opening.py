"""Opens a session folder and the image that it belongs to, without holding up the window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from napari.layers import Image
from qtpy.QtCore import QObject, Signal

from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.session.opening import (
    Candidate,
    Handover,
    OpenedSession,
    find_match,
    open_session,
)
from napari_unet3d.session.texts import error_text
from napari_unet3d.widgets.viewer.axes import first_axis_of
from napari_unet3d.widgets.viewer.candidates import images_of
from napari_unet3d.widgets.viewer.image_volume import image_volume
from napari_unet3d.widgets.viewer.layers import file_of
from napari_unet3d.widgets.viewer.samples import volume_layer
from napari_unet3d.widgets.viewer.window_record import reader_of

Ask = Callable[[Callable[[], Any], Callable[[Any], None]], None]
_READER = "napari-unet3d"


class SessionOpening(QObject):
    """Opens one session at a time.

    Parameters
    ----------
    viewer
        The napari viewer.
    parent
        The Qt parent.
    ask
        Calls a function in a thread, and another one with its result.
    """

    ready = Signal(object, object)
    """The `OpenedSession`, and the Image layer that it belongs to; the receiver closes it."""
    failed = Signal(object, str)
    """The Path of a session that cannot be opened now, and why."""
    imageWanted = Signal(object, str, object)
    """The Path of a session whose image is missing or has changed, what to do, and the Image layer
    that was taken for it, or None."""

    def __init__(self, viewer: Any, parent: QObject, ask: Ask) -> None:
        super().__init__(parent)
        self._viewer, self._ask = viewer, ask
        self.path: Path | None = None
        """The session that is being opened; None when none is."""
        self._handover = Handover()

    def stop(self) -> None:
        """Open no more; what is being opened is closed again."""
        self._handover.end()

    def open(self, path: Path, image: Image | None = None, *, anyway: bool = False) -> None:
        """Begin to open a session; one of the signals follows.

        Parameters
        ----------
        path
            Its folder.
        image
            The image, if it is known; otherwise it is looked for among the layers, then on the
            disk.
        anyway
            Take this image even where its gray values differ.
        """
        if self.path is not None:
            return
        self.path = path
        images = images_of(self._viewer.layers) if image is None else [image]
        images, volumes = self._candidates(images)
        question = partial(self._open, path, volumes, look=image is None, anyway=anyway)
        self._ask(question, lambda answer: self._opened(answer, images, image, anyway))

    # ---- in the thread

    def _open(
        self, path: Path, volumes: Sequence[Candidate], *, look: bool, anyway: bool
    ) -> object:
        try:
            opened = open_session(path, volumes, look=look, anyway=anyway)
        except Exception as error:  # whatever it is, the user is told
            return error_text(error)
        self._handover.give(opened.folder)
        return opened

    # ---- in the main thread

    def _opened(self, opened: Any, images: list[Image], image: Image | None, anyway: bool) -> None:
        if not isinstance(opened, OpenedSession):
            self._fail(opened)
        elif opened.match is not None:
            self._succeed(opened, images[opened.match])
        elif image is not None:
            name = image.name
            text = f"'{name}' is not the image of the session '{opened.folder.path.name}': "
            self._want_image(opened, text + "; ".join(opened.differences) + ".", image)
        else:
            self._open_image(opened)

    def _open_image(self, opened: OpenedSession) -> None:
        found, record = opened.found, opened.record
        assert found is not None
        volume = found.volume
        if volume is None or found.state != "found":
            self._want_image(opened, found.text, None)
            return
        before = set(self._viewer.layers)
        try:
            if found.path is None:
                self._add(volume)
            else:
                self._read(found.path, reader_of(record))
        except Exception as error:  # napari's and other plugins' readers raise anything
            self._want_image(opened, f"'{found.path}' cannot be opened: {error}", None)
            return
        new = [x for x in images_of(self._viewer.layers) if x not in before]
        if len(new) == 1:
            self._succeed(opened, new[0])
            return
        text = f"None of the layers of '{found.path}' is the image of the session: choose it."
        images, volumes = self._candidates(new)
        self._ask(
            lambda: find_match(opened.folder, volumes),
            lambda answer: self._matched(opened, images, text, answer[0]),
        )

    def _matched(
        self, opened: OpenedSession, images: list[Image], text: str, match: int | None
    ) -> None:
        if match is None:
            self._want_image(opened, text, None)
        else:
            self._succeed(opened, images[match])

    def _add(self, volume: Volume) -> None:
        data, options, _ = volume_layer(volume)
        self._viewer.add_image(data, **options)

    def _read(self, path: Path, reader: str | None) -> None:
        try:
            self._viewer.open(str(path), plugin=reader or _READER, layer_type="image")
        except ValueError:  # that plugin is not installed here
            self._viewer.open(str(path), layer_type="image")

    def _candidates(self, images: Sequence[Image]) -> tuple[list[Image], list[Candidate]]:
        """Images that can be trained on, with their volumes and files."""
        kept, volumes = [], list[Candidate]()
        for image in images:
            try:
                volume = image_volume(image, first_axis_of(image))[0]
            except BadInputError:
                continue
            kept.append(image)
            volumes.append((volume, file_of(image)))
        return kept, volumes

    # ---- the ends

    def _succeed(self, opened: OpenedSession, image: Image) -> None:
        self.path = None
        self._handover.take(opened.folder)
        self.ready.emit(opened, image)

    def _want_image(self, opened: OpenedSession, text: str, image: Image | None) -> None:
        path, self.path = opened.folder.path, None
        self._handover.take(opened.folder)
        opened.folder.close()
        self.imageWanted.emit(path, text, image)

    def _fail(self, text: str) -> None:
        path, self.path = self.path, None
        self.failed.emit(path, text)
