"""The session folder: all of one piece of work on disk, whole at any moment.

What lies in it::

    session.json         the state: image, classes, held-out and accepted slices, settings, names
    annotation.zarr/0    the paint: OME-Zarr, uint8, chunks of 1 × 512 × 512; empty ones are absent
    journal/             the last changes of both, until they are carried out
    model.unet3d         the current model
    checkpoint.unet3d    the model of a training that was cut off
    summary.npz          which slices the model was unsure about, and the expected IoU
    results/*.zarr       segmentation, other outputs and numbered objects, OME-Zarr
    results/objects.csv  the table of the objects
    image.zarr           the image, where it is in no file
    lock                 who has the folder open

Paint and marks must agree: a held-out slice whose mark is lost would be trained on, and its score
would be worth nothing. So both change in one commit of the journal, and a commit happens wholly or
not at all. A model is a large file of its own: it is written first, under its final name, and the
commit after it gives it its name and scores. If that commit is missing, the checksum of the file
tells that the name and the scores are those of another model, and they are dropped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from napari_unet3d.config import ClassInfo, ObjectsConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.io.fingerprint import Fingerprint
from napari_unet3d.data.io.folder_lock import FolderLock
from napari_unet3d.data.io.paths import user_path
from napari_unet3d.data.shapes import describe_shape
from napari_unet3d.data.slices import parse_slices
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import HeldOutScores
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.objects.table import ObjectTable
from napari_unet3d.session import layout, session_image, stored_results
from napari_unet3d.session.disk_problems import explain
from napari_unet3d.session.held_folder import HeldFolder
from napari_unet3d.session.new_folder import now, write_new_folder
from napari_unet3d.session.room import annotation_fits
from napari_unet3d.session.session import NamedModel, Session
from napari_unet3d.session.session_channels import moved, with_channels
from napari_unet3d.session.session_image import FoundImage
from napari_unet3d.session.state import StoredModel, StoredObjects, StoredResult, read_state
from napari_unet3d.session.stored_results import KnownObjects

_COPIED_AT_ONCE = 2**26
"""Bytes. A small image that is in no file is copied when the folder is made, in less than a second;
a larger one by `write_image`, in the background."""
_NO_NAME = "of this session"
"""Name of a model that was written when the program was killed, or put there by somebody."""


class SessionFolder(HeldFolder):
    """A session folder that this program holds, and all that is in it.

    Made by `create` and `open`. `AutoSaver` writes into it from threads of its own.
    """

    @classmethod
    def create(cls, path: Path, session: Session, *, holder: str = "napari") -> Self:
        """Make the folder of a session, and hold it.

        Parameters
        ----------
        path
            The folder, which must not be there yet, or be empty; its name should end in
            ".unet3d-session". It appears when it is complete.
        session
            Its image is needed; annotation, model and segmentation are written if there are some.
            Reading and writing a large annotation takes seconds.
        holder
            Name of the program, for messages.

        Raises
        ------
        BadInputError
            The folder cannot be made, or the session has no image.
        RunFailedError
            The disk is full, or a model could not be written.
        """
        path = user_path(path).absolute()
        write_new_folder(path, session)
        folder = cls.open(path, holder=holder)
        try:
            volume = session.volume
            assert volume is not None
            if session.model is not None:
                folder.write_model(session.model, session.scores)
            if session.segmentation is not None:
                classes = () if session.model is None else session.model.bundle.classes
                folder.write_result("labels", session.segmentation, classes=classes)
            n_bytes = int(np.prod(volume.data.shape, dtype=np.int64)) * volume.dtype.itemsize
            if session.image_path is None and n_bytes <= _COPIED_AT_ONCE:
                folder.write_image(volume)
        except BaseException:
            folder.close()
            raise
        return folder

    @classmethod
    def open(cls, path: Path, *, wait: bool = False, holder: str = "napari") -> Self:
        """Open a session folder and hold it; finish what a killed program left.

        Parameters
        ----------
        path
            The folder.
        wait
            Wait while another program holds the folder, instead of raising.
        holder
            Name of this program, which messages in others give.

        Raises
        ------
        BadInputError
            It is no session, damaged, of a newer version, or read-only; or another program holds
            it, which the text names. Nothing was changed.
        """
        path = user_path(path).absolute()
        read_state(path)  # says what is wrong before anything is touched
        try:
            lock = FolderLock(path, holder, wait=wait)
        except OSError as error:
            raise BadInputError(
                f"'{path}' cannot be written to ({error.strerror or error}). Copy the folder to a "
                "place where you may write, and open the copy."
            ) from error
        try:
            layout.clear_unfinished(path)
            folder = cls(path, lock)
        except OSError as error:
            lock.release()
            raise BadInputError(explain(error, path)) from error
        except BaseException:
            lock.release()
            raise
        return folder

    # ---- what is in it

    def model(self) -> NamedModel | None:
        """The current model; None without one.

        Raises
        ------
        BadInputError
            Its file cannot be read.
        """
        path = self.path / layout.MODEL
        if not path.is_file():
            return None
        bundle, stored = ModelBundle.load(path), self._state.model
        return NamedModel(bundle, stored.name if stored and self._is_stored() else _NO_NAME, path)

    def checkpoint(self) -> NamedModel | None:
        """The model of a training that was cut off; None without one.

        Raises
        ------
        BadInputError
            Its file cannot be read.
        """
        path = self.path / layout.CHECKPOINT
        if not path.is_file():
            return None
        return NamedModel(ModelBundle.load(path), "of a training that was cut off", path)

    def results(self) -> dict[str, Volume]:
        """The results by name; their voxels are read when they are needed."""
        found = {}
        for name in self._state.results:
            with contextlib.suppress(BadInputError):
                found[name] = layout.read_result(self.path, name)
        return found

    def find_image(self) -> FoundImage:
        """Look for the image, and compare it with the one that was annotated.

        Its further channels are not opened.
        """
        return session_image.find_image(self.path, self._state)

    def compare(self, volume: Volume, path: Path | None = None) -> tuple[str, ...]:
        """Say in what an image differs from the annotated one; () when it is the same."""
        return session_image.compare(self._state, volume, path)

    def load(self, volume: Volume | None = None, path: Path | None = None) -> Session:
        """Open all that is in the folder.

        Parameters
        ----------
        volume
            The image, where the caller has it, or the user said that it fits; it is looked for
            when None. The session takes note of it.
        path
            File of this image.

        Returns
        -------
        Session
            Its annotation can be painted on: a numpy array where that fits into the memory, else
            `SparseLabels` in memory. Writing to it does not change the folder: use `fold`.

        Raises
        ------
        BadInputError
            The image or one of its channels is missing, was changed, or has another shape; or a
            file is damaged. The text says what to do.
        """
        if volume is None:
            found = self.find_image()
            if found.volume is None or found.state != "found":
                raise BadInputError(found.text)
            volume, path = found.volume, found.path
        if layout.labels_shape(volume) != self._chunks.shape:
            raise BadInputError(
                f"'{volume.name}' ({describe_shape(volume.data.shape)}) does not fit the session, "
                f"whose annotation has {describe_shape(self._chunks.shape)} voxels. Open the image "
                "that was annotated."
            )
        elsewhere = path is not None and path.absolute() != self.record().image_path
        if elsewhere or self.compare(volume):
            self.note_image(volume, path)
        record = self.record()
        volume = with_channels(volume, record.channels)
        model = self.model()
        named = self._is_stored()
        results = self.results()
        labels = results["labels"].data if "labels" in results else None
        if labels is not None and annotation_fits(labels.shape):
            labels = np.asarray(labels)
        held_out = frozenset(ref for text in record.held_out for ref in parse_slices(text))
        return Session(
            volume=volume,
            image_path=record.image_path,
            annotation=SparseAnnotation(self.labels(), record.classes, held_out),
            annotation_path=self.path / layout.ANNOTATION,
            settings=record.settings,
            model=model,
            scores=record.scores if named else None,
            evidence=record.evidence,
            segmentation=labels,
            accepted={parse_slices(ref)[0]: source for ref, source in record.accepted.items()},
            more=record.more,
        )

    def labels(self) -> Any:
        """A copy of the paint that can be painted on: numpy, or `SparseLabels` if it is large.

        Raises
        ------
        BadInputError
            A chunk is damaged; the text names its file.
        """
        with self._guard:
            if annotation_fits(self._chunks.shape):
                return self._chunks.to_array()
            return self._chunks.to_sparse_labels()

    # ---- large files

    def write_model(self, model: NamedModel, scores: HeldOutScores | None = None) -> None:
        """Write the current model.

        Parameters
        ----------
        model
            The model, and what messages call it.
        scores
            Its scores on the held-out slices, which take the place of those of the older model.

        Raises
        ------
        BadInputError, RunFailedError, OSError
            It could not be written; an older one is still there.
        """
        self._lock.check()
        model.bundle.save(self.path / layout.MODEL)
        self.note_model(model.name, scores)

    def note_model(self, name: str, scores: HeldOutScores | None = None) -> None:
        """Take note of a model that was written into the folder."""
        stored = StoredModel(name=name, checksum=layout.checksum_of(self.path / layout.MODEL))
        facts = {"model_name": name, "model_path": None, "scores": scores}
        with self._guard:
            record = self._state.record.model_copy(update=facts)
            self._commit_state(model=stored, record=record)

    def write_checkpoint(self, bundle: ModelBundle) -> None:
        """Write the model of a running training; raises as `write_model`."""
        self._lock.check()
        bundle.save(self.path / layout.CHECKPOINT)

    def drop_checkpoint(self) -> None:
        """Remove the checkpoint, since its training is over; OSError when that fails."""
        (self.path / layout.CHECKPOINT).unlink(missing_ok=True)

    def write_result(
        self,
        name: str,
        array: Any,
        *,
        classes: Sequence[ClassInfo] = (),
        channel_names: Sequence[str] = (),
    ) -> None:
        """Write a result, such as the segmentation; it replaces an older one of this name.

        Parameters
        ----------
        name
            "labels", or another name of `prediction.outputs`, or any other.
        array
            (T, C, Z, Y, X), where the image has no time or the result no channels without these.
            It is read piece by piece and must not change meanwhile.
        classes, channel_names
            As in `create_output`.

        Raises
        ------
        BadInputError, RunFailedError, OSError
            It could not be written; an older one is still there.
        """
        self._lock.check()
        make = partial(stored_results.new_result, self.path, self.record(), name)
        make = partial(make, classes=classes, channel_names=channel_names)
        stored_results.copy_into(make, array)
        self.note_results([name])

    def note_results(self, names: Sequence[str]) -> None:
        """Take note of results that were written into "results"."""
        with self._guard:
            model = None if self._state.model is None else self._state.model.name
            entry = StoredResult(saved=now(), model=model)
            self._commit_state(results={**self._state.results, **dict.fromkeys(names, entry)})

    def objects(self) -> KnownObjects | None:
        """The numbered objects and their table; None without any; raises as `read_objects`."""
        return stored_results.read_objects(self.path, self._state)

    def write_objects(self, objects: KnownObjects) -> None:
        """Write numbered objects, which take the place of older ones; raises as `write_result`."""
        self._lock.check()
        make = partial(stored_results.new_objects, self.path, self.record())
        stored_results.copy_into(make, objects.numbers)
        self.note_objects(objects.table, objects.config)

    def note_objects(self, table: ObjectTable, config: ObjectsConfig) -> None:
        """Write the table of objects whose numbers were written, and take note of both."""
        checksum = stored_results.write_table(self.path, table)
        with self._guard:
            model = None if self._state.model is None else self._state.model.name
            settings = config.model_dump(mode="json")
            entry = StoredObjects(saved=now(), model=model, table=checksum, settings=settings)
            self._commit_state(objects=entry)

    def write_image(self, volume: Volume) -> None:
        """Write a copy of an image that is in no file; raises as `write_model`."""
        self._lock.check()
        session_image.copy_image(volume, self.path)
        self._commit_state(image_copy=True)

    def wants_image(self, volume: Volume) -> bool:
        """Whether a copy of the image should be written: it is in no file, and not too large."""
        state = self._state
        if state.image_copy or state.record.image_path is not None:
            return False
        return session_image.may_copy(volume, self.path)

    def note_image(self, volume: Volume, path: Path | None) -> None:
        """Take note of an image that was moved, or of which the user says that it is the one."""
        fingerprint = Fingerprint.of(volume, path)
        with self._guard:
            before = self.record()
            path = before.image_path if path is None else path.absolute()
            channels = tuple(moved(c, before.image_path, path) for c in before.channels)
            facts = {"image_path": path, "channels": channels}
            if self._record is not None:
                self._record = self._record.model_copy(update=facts)
            record = self._state.record.model_copy(update=facts)
            self._commit_state(record=record, fingerprint=fingerprint)

    def _is_stored(self) -> bool:
        """Whether the file of the model is the one that the state tells of."""
        if self._state.model is None:
            return False
        try:
            return layout.checksum_of(self.path / layout.MODEL) == self._state.model.checksum
        except OSError:
            return False
