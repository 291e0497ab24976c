"""Train in a session folder, and segment its image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from napari_unet3d.cli import settings
from napari_unet3d.cli.tasks.checkpoints import CheckpointFile
from napari_unet3d.cli.tasks.evidence import add_evidence, check_evidence
from napari_unet3d.cli.tasks.follow import TrainingRun
from napari_unet3d.cli.tasks.models import save_model
from napari_unet3d.cli.tasks.predicting import segment
from napari_unet3d.cli.tasks.results import say_how_to_go_on
from napari_unet3d.cli.tasks.training import check_model_space
from napari_unet3d.cli.terminal import errors
from napari_unet3d.data.slice_summary import StackSummary
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import SlicesSummarized
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.prediction.outputs import chosen_outputs, optional_outputs
from napari_unet3d.session import layout
from napari_unet3d.session.folder import SessionFolder
from napari_unet3d.session.session import NamedModel, Session, trained_on
from napari_unet3d.session.session_image import read_image
from napari_unet3d.session.summary_file import (
    SUMMARY,
    drop_summary,
    forget_expected,
    write_summary,
)
from napari_unet3d.session.texts import show_iterations

HOLDER = "napari-unet3d on the command line"
"""What a window says of the program that holds the session."""


def train_session(
    path: Path,
    given: Mapping[str, Any],
    others: Sequence[str] = (),
    *,
    start_from: Path | None = None,
    resume: bool = False,
    new: bool = False,
    checkpoint_seconds: float | None = settings.CHECKPOINT_SECONDS,
    image: Path | None = None,
    folds: int | None = None,
    learning_curve: bool = False,
) -> tuple[Path, ModelBundle]:
    """Train a model on the annotation of a session, and write it into the session.

    Parameters
    ----------
    path
        The session folder.
    given, others
        Settings that take the place of those of the session: by name, and as "name=value".
    start_from
        A model to fine-tune.
    resume
        Go on with the model of the session.
    new
        Start a new network, also where the session has the checkpoint of a training.
    checkpoint_seconds
        Seconds between two checkpoints; None for no checkpoints.
    image
        Where the image is now; None where the session knows it.
    folds, learning_curve
        Measurements that follow the training, as in `train_files`. Their results go into the
        session and into the record of the model.

    Returns
    -------
    Path, ModelBundle
        Where the model was written, and the model.

    Raises
    ------
    BadInputError
        The session cannot be opened, its image is not there, or a setting cannot be used. Nothing
        was trained.
    RunFailedError
        The training failed, or the model could not be saved.
    """
    with SessionFolder.open(path, holder=HOLDER) as folder:
        session = load(folder, image)
        session = _started(folder, session, start_from, resume=resume, new=new)
        config = settings.changed(session.settings.training, given, others)
        session = replace(
            session, settings=session.settings.model_copy(update={"training": config})
        )
        assert session.volume is not None
        check_evidence(session, folds, learning_curve=learning_curve)
        model = folder.path / layout.MODEL
        name = trained_on(session.volume.name)
        checkpoint = CheckpointFile(
            folder.path / layout.CHECKPOINT, f"napari-unet3d train {folder.path}"
        )
        with TrainingRun(checkpoint, checkpoint_seconds) as run:

            def save(bundle: ModelBundle) -> ModelBundle:
                save_model(bundle, model)
                folder.note_model(name, run.scores)
                _write_summary_file(partial(forget_expected, folder.path))
                return bundle

            trained = run.follow_and_rescue(
                session, save, save, model, lambda n: check_model_space(model, n)
            )
        folder.drop_checkpoint()
        say_how_to_go_on(trained, model, in_session=True)
        if folds is not None or learning_curve:
            trained = add_evidence(session, trained, folds, learning_curve=learning_curve)
            save(trained)
            folder.set_record(
                folder.record().model_copy(update={"evidence": trained.record.evidence})
            )
            folder.commit()
        return model, trained


def predict_session(
    path: Path,
    given: Mapping[str, Any],
    *,
    times: Sequence[int] | None = None,
    outputs: Sequence[str] | None = None,
    image: Path | None = None,
) -> dict[str, Path]:
    """Segment the image of a session with its model, and write the results into the session.

    Parameters
    ----------
    path
        The session folder.
    given
        Settings that take the place of those of the session, by name.
    times
        Time points to segment; those of the session when None.
    outputs
        Names of the outputs beside the labels; those of the session when None.
    image
        Where the image is now; None where the session knows it.

    Returns
    -------
    dict
        What was written, by name.

    Raises
    ------
    BadInputError
        The session cannot be opened, has no model, or its image is not there.
    RunFailedError
        The segmentation failed, or could not be written.
    """
    with SessionFolder.open(path, holder=HOLDER) as folder:
        session = load(folder, image)
        check_trained(session, folder.path)
        run = session.settings
        config = settings.changed(run.prediction, given)
        wanted = _known_outputs(run.outputs if outputs is None else outputs, outputs is not None)
        changes = {
            "prediction": config,
            "outputs": wanted,
            "times": run.times if times is None else tuple(times),
        }
        session = replace(session, settings=run.model_copy(update=changes))
        assert session.volume is not None
        session.volume.check()
        (folder.path / layout.RESULTS).mkdir(exist_ok=True)
        names = [output.name for output in chosen_outputs(wanted)]
        paths = {name: layout.result_path(folder.path, name) for name in names}
        summary: StackSummary | None = None

        def note(event: Any) -> None:
            nonlocal summary
            if isinstance(event, SlicesSummarized):
                summary = event.summary
                drop_summary(folder.path)  # the result that it is about is replaced next

        segment(session, paths, overwrite=True, each=note)
        folder.note_results(names)
        if summary is not None:
            _write_summary_file(partial(write_summary, folder.path, summary))
        if folder.state.objects is not None:
            errors.note(
                "The objects in the session are those of the earlier segmentation. Find them "
                f"again: napari-unet3d objects {folder.path}"
            )
        return paths


def load(folder: SessionFolder, image: Path | None = None, *, how: str = "--image FILE") -> Session:
    """Open all that is in a session folder, and tell what the user should know of it.

    Parameters
    ----------
    folder
        The folder.
    image
        Where the image is now. Naming it says that it is the right one, also where its gray values
        differ; that is told. None where the session knows the image.
    how
        How `image` is written on the command line.

    Raises
    ------
    BadInputError
        The image is missing or has changed, or a file is damaged.
    """
    if folder.crashed:
        errors.note("The program that had this session last was cut off: what it saved is here.")
    if image is None:
        found = folder.find_image()
        if found.volume is None or found.state != "found":
            raise BadInputError(f"{found.text} On the command line: {how}.")
        session = folder.load(found.volume, found.path)
    else:
        volume, differences = read_image(image, folder.state)
        session = folder.load(volume, image)
        if differences:
            errors.note(
                f"'{image}' is not the image that was annotated: {'; '.join(differences)}. It is "
                "used as you said."
            )
    assert session.volume is not None
    for note in session.volume.notes:
        errors.note(note)
    return session


def check_trained(session: Session, path: Path) -> None:
    """Raise BadInputError where a session has no model."""
    if session.model is None:
        raise BadInputError(f"'{path}' has no model yet. Train one: napari-unet3d train {path}")


def _started(
    folder: SessionFolder,
    session: Session,
    start_from: Path | None,
    *,
    resume: bool,
    new: bool,
) -> Session:
    """Choose what the training starts from."""
    if start_from is not None:
        return replace(session, start_from=NamedModel.load(start_from), resume=False)
    if resume:
        if session.model is None:
            raise BadInputError(
                f"--resume: '{folder.path}' has no model to go on with. Leave the option out."
            )
        return replace(session, start_from=session.model, resume=True)
    checkpoint = None if new else folder.checkpoint()
    if checkpoint is None:
        return session
    errors.print(
        "The last training was cut off after "
        f"{show_iterations(checkpoint.bundle.record.iterations)}: it goes on from there (--new "
        "starts again)."
    )
    return replace(session, start_from=checkpoint, resume=True)


def _write_summary_file(write: Callable[[], None]) -> None:
    """Write `SUMMARY`. A failure is only told, since model and results are saved by then."""
    try:
        write()
    except OSError as error:
        errors.note(f"'{SUMMARY}' could not be written: {error}. All else is saved.")


def _known_outputs(names: Sequence[str], asked: bool) -> tuple[str, ...]:
    """Check names of outputs; those of a session that other versions knew are left out."""
    known = [output.name for output in optional_outputs()]
    if asked and (unknown := [name for name in names if name not in known]):
        raise BadInputError(
            f"--also {unknown[0]}: there is no such output. Use one of {', '.join(known)}."
        )
    return tuple(name for name in names if name in known)
