"""The session folders of a window: which layer is kept in which, made, moved and put aside."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from napari.layers import Image, Labels, Layer
from qtpy.QtCore import QObject, Signal

from napari_unet3d.data.changed_chunks import Chunk, checksums
from napari_unet3d.data.volume import Volume
from napari_unet3d.data.wording import either, joined
from napari_unet3d.session.folder import SessionFolder
from napari_unet3d.session.names import SUFFIX, is_session
from napari_unet3d.session.opening import Handover
from napari_unet3d.session.recent import default_folder, forget_session, remember_session
from napari_unet3d.session.session import RunSettings, Session
from napari_unet3d.session.state import read_state
from napari_unet3d.session.texts import error_text
from napari_unet3d.widgets.parts.connections import Connections
from napari_unet3d.widgets.viewer.belonging import belongs_to
from napari_unet3d.widgets.viewer.candidates import images_of
from napari_unet3d.widgets.viewer.keeper import SESSION_KEY, Contents, Keeper
from napari_unet3d.widgets.viewer.layers import metadata_of, remember
from napari_unet3d.widgets.viewer.session_opening import Ask

_COMMIT_KEY = "session_commit"
"""Entry of the plugin's metadata: number of the last change that was made from the layer."""
_RETRY_SECONDS = 10.0
"""Seconds until a folder that could not be made is tried again."""


class Folders(QObject):
    """Holds a keeper for each annotation layer that is saved.

    Parameters
    ----------
    viewer
        The napari viewer.
    parent
        The Qt parent.
    ask
        Calls a function in a thread, and another one with its result.
    """

    changed = Signal()
    """Something was saved, or cannot be saved."""
    attached = Signal(object)
    """The Labels layer that has a keeper now."""
    told = Signal(str)
    """What the user should know of a session that was moved."""

    def __init__(self, viewer: Any, parent: QObject, ask: Ask) -> None:
        super().__init__(parent)
        self._viewer, self._ask = viewer, ask
        self._keepers: dict[Labels, Keeper] = {}
        self._busy: set[Labels] = set()
        """Layers whose folder is just being made, opened or moved."""
        self._problems: dict[Labels, tuple[str, float]] = {}
        """Why a layer has no folder, and when that was found."""
        self._places: dict[Labels, Path] = {}
        self._contents: dict[Labels, tuple[Path, Contents]] = {}
        """Work whose folder cannot be written to, for the new folder; and the old folder."""
        self._handover = Handover()
        self._connections = Connections(self)
        self._connections.add((viewer.layers.events.removed, self._removed))

    # ---- questions

    def keeper(self, layer: Labels | None) -> Keeper | None:
        """The keeper of a layer; None when it has none."""
        return None if layer is None else self._keepers.get(layer)

    def keepers(self) -> list[Keeper]:
        """All keepers."""
        return list(self._keepers.values())

    def is_busy(self, layer: Labels) -> bool:
        """Whether the folder of a layer is just being made or moved."""
        return layer in self._busy

    def problem(self, layer: Labels) -> str:
        """Why a layer has no folder although it should; "" when nothing is wrong."""
        return self._problems.get(layer, ("", 0.0))[0]

    def why_unsaved(self, layer: Labels) -> str | None:
        """Why a layer is not on the disk; "" when it is, None when it has no folder.

        It is brought to the disk first, which may take two seconds.
        """
        keeper = self._keepers.get(layer)
        if keeper is None:
            return self.problem(layer) or None
        if keeper.problem() or not keeper.save_now():
            return keeper.problem() or "The disk is slow: it is still being saved."
        return ""

    def image_of(self, layer: Labels) -> Image | None:
        """The open image that a layer belongs to."""
        images = images_of(self._viewer.layers)
        return next((image for image in images if belongs_to(layer, image)), None)

    def has_image(self, image: Image) -> bool:
        """Whether an annotation of this image is kept."""
        return any(belongs_to(layer, image) for layer in self._keepers)

    # ---- folders

    def reserve(self, layer: Labels) -> None:
        """Make no folder for a layer, since `attach` gives it one."""
        self._busy.add(layer)

    def tell(self, layer: Labels, problem: str) -> None:
        """Take note of why a layer cannot be saved."""
        self._problems[layer] = problem, time.monotonic()
        self.changed.emit()

    def make(self, layer: Labels, volume: Volume, path: Path | None, settings: RunSettings) -> None:
        """Make a folder for a layer, beside its image or where the user wants it."""
        problem, since = self._problems.get(layer, ("", 0.0))
        if layer in self._busy or (problem and time.monotonic() - since < _RETRY_SECONDS):
            return
        place = self._places.get(layer)
        session = Session(volume=volume, image_path=path, settings=settings)
        if layer in self._contents:
            record = self._contents[layer][1].record
            session = replace(session, evidence=record.evidence, more=record.more)
        image: Path | str = volume.name if path is None else path
        self._begin(layer)
        self._ask(
            partial(self._guarded, partial(_create, image, place, session)),
            partial(self._made, layer, volume),
        )

    def _made(self, layer: Labels, volume: Volume, folder: Any) -> None:
        if not self._end(layer, folder):
            return
        keeper = self.attach(folder, layer, {})
        keeper.saver.put_image(volume)
        old, contents = self._contents.pop(layer, (keeper.path, None))
        if contents is None:
            return
        keeper.take_over(contents)
        if contents.lost:
            self.told.emit(
                f"The session is kept in '{keeper.path}' now. Not brought along: "
                f"{joined(contents.lost)}, which {either(len(contents.lost), 'is', 'are')} only in "
                f"'{old}'."
            )

    def attach(
        self,
        folder: SessionFolder,
        layer: Labels,
        saved: Mapping[Chunk, int],
        contents: Contents | None = None,
    ) -> Keeper:
        """Save a layer in an open folder from now on.

        Parameters
        ----------
        folder, layer
            Of the same shape.
        saved
            Checksums of the chunks that are in the folder.
        contents
            What is in the folder beside the annotation, which need not be written again.
        """
        dims = self._viewer.dims
        keeper = Keeper(
            folder,
            layer,
            saved,
            lambda: (tuple(dims.point), tuple(dims.order), dims.ndisplay),
            self,
        )
        if contents is not None:
            keeper.note(contents)
        self._keepers[layer] = keeper
        self._busy.discard(layer)
        self._problems.pop(layer, None)
        keeper.changed.connect(self.changed)
        keeper.outgrown.connect(partial(self._let_go, layer))
        self.attached.emit(layer)
        return keeper

    def reattach(self, layer: Labels) -> None:
        """Go on with the folder of a layer that an earlier dock of this window has closed."""
        memory = metadata_of(layer)
        path = memory.get(SESSION_KEY)
        if not isinstance(path, str) or layer in self._busy or layer in self._keepers:
            return
        if any(str(keeper.path) == path for keeper in self.keepers()):  # a duplicated layer
            remember(layer, **{SESSION_KEY: None})
            return
        self._begin(layer)
        self._ask(
            partial(self._guarded, partial(_reopen, Path(path), memory.get(_COMMIT_KEY))),
            partial(self._reattached, layer),
        )

    def _reattached(self, layer: Labels, answer: Any) -> None:
        folder, saved = answer if isinstance(answer, tuple) else (answer, {})
        if folder is None:  # it is gone, or others have worked in it: the next stroke makes another
            self._busy.discard(layer)
            remember(layer, **{SESSION_KEY: None})
        elif self._end(layer, folder):
            self.attach(folder, layer, saved)

    def keep_in(self, layer: Labels, place: Path) -> None:
        """Move the folder of a layer, or make it there when it is to be made."""
        self._places[layer] = place
        keeper = self._keepers.get(layer)
        if keeper is None or layer in self._busy:
            return
        if keeper.problem():  # what is in memory goes into a new folder
            self._contents[layer] = keeper.path, keeper.contents()
            self._let_go(layer)
            self._problems.pop(layer, None)
            return
        saved, contents = keeper.checksums(), keeper.contents()
        source, target = keeper.path, _unused(place / keeper.path.name)
        self._let_go(layer)
        self._begin(layer)
        self._ask(
            partial(self._guarded, partial(_move, source, target)),
            partial(self._moved, layer, saved, contents),
        )

    def _moved(
        self, layer: Labels, saved: Mapping[Chunk, int], contents: Contents, folder: Any
    ) -> None:
        if self._end(layer, folder):
            self.attach(folder, layer, saved, contents)

    def put_aside(self, layer: Labels) -> Path:
        """Close the folder of a layer and give it another name; return its path."""
        keeper = self._keepers[layer]
        path = keeper.path
        self._let_go(layer)
        name = path.name.removesuffix(SUFFIX)
        aside = _unused(path.with_name(f"{name} {time.strftime('%Y-%m-%d %H.%M')}{SUFFIX}"))
        try:
            path.rename(aside)
        except OSError:  # the new one gets another name instead
            return path
        forget_session(path)
        remember_session(aside)
        return aside

    # ---- the end

    def cleanup(self) -> None:
        """Bring everything to the disk, and let all folders go."""
        self._handover.end()
        self._connections.clear()
        with contextlib.ExitStack() as rest:  # one that fails keeps no other from its folder
            for layer in reversed(list(self._keepers)):
                rest.callback(self._let_go, layer)
        self._problems.clear()
        self._places.clear()
        self._contents.clear()
        self._busy.clear()

    def _removed(self, event: Any) -> None:
        layer: Layer = event.value
        if isinstance(layer, Labels) and layer in self._keepers:
            self._let_go(layer)
        self._problems.pop(layer, None)
        self._places.pop(layer, None)
        self._contents.pop(layer, None)

    def _let_go(self, layer: Labels) -> None:
        keeper = self._keepers.pop(layer, None)
        if keeper is None:
            return
        keeper.close()
        with contextlib.suppress(Exception):  # a folder that vanished has no state
            remember(layer, **{_COMMIT_KEY: keeper.folder.state.commit})
        keeper.deleteLater()
        self.changed.emit()

    def _begin(self, layer: Labels) -> None:
        self._busy.add(layer)
        self.changed.emit()

    def _end(self, layer: Labels, folder: Any) -> bool:
        """Take what `_guarded` returned; return whether the layer can be attached to it."""
        self._busy.discard(layer)
        if isinstance(folder, str):
            self.tell(layer, folder)
            return False
        self._handover.take(folder)
        if layer not in self._viewer.layers or layer in self._keepers:
            folder.close()
            return False
        return True

    def _guarded(self, make: Callable[[], Any]) -> Any:
        """Call a function in a thread; return its folder, or a text when it fails."""
        try:
            made = make()
        except Exception as error:  # the user is told, whatever it is
            return error_text(error)
        folder = made[0] if isinstance(made, tuple) else made
        if folder is not None:
            self._handover.give(folder)
        return made


def _create(image: Path | str, place: Path | None, session: Session) -> SessionFolder:
    path = default_folder(image, new=True)
    if place is not None:
        path = _unused(place / path.name)
    folder = SessionFolder.create(path, session)
    remember_session(folder.path)
    return folder


def _reopen(path: Path, commit: Any) -> tuple[SessionFolder | None, dict[Chunk, int]]:
    """Open a folder again, and read what is in it; None when others have worked in it."""
    if not is_session(path) or read_state(path).commit != commit:
        return None, {}
    folder = SessionFolder.open(path)
    return folder, checksums(folder.annotation, folder.annotation.chunks)


def _move(source: Path, target: Path) -> SessionFolder:
    try:
        shutil.move(source, target)
    except OSError:
        shutil.rmtree(target, ignore_errors=True)
        if not is_session(source):
            raise
        return SessionFolder.open(source)
    forget_session(source)
    remember_session(target)
    return SessionFolder.open(target)


def _unused(path: Path) -> Path:
    """Return this path, or one with a number before its suffix when it is taken."""
    name, number = path.name.removesuffix(SUFFIX), 2
    while path.exists():
        path = path.with_name(f"{name} {number}{SUFFIX}")
        number += 1
    return path
