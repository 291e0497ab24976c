"""Kills programs that work in a session folder, and looks at what is left.

    python benchmarks/kill.py                100 times each: painting, training, saving
    python benchmarks/kill.py --kills 10 --only paint

Each program is a process of its own that is ended with SIGKILL at a random moment. Afterwards the
folder must open; paint and marks must be those of one and the same moment; what was put 10 s before
the kill, or earlier, must be there; model, name and scores must belong together; a training must go
on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet3d.cli.tasks.session_work import train_session
from napari_unet3d.cli.terminal import errors
from napari_unet3d.config import PredictionConfig, TrainingConfig, default_class
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import ClassScore, HeldOutScores, drain
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.session.autosave import INTERVAL, AutoSaver
from napari_unet3d.session.folder import SessionFolder
from napari_unet3d.session.job import run_job
from napari_unet3d.session.session import NamedModel, RunSettings, Session

PAINTED = (24, 700, 600)
"""Shape of the stack that is painted: four chunks in each plane."""
TRAINED = (8, 24, 24)
RESULT = (80, 64, 64)
"""Shape of the result that is saved: two chunks."""
CLASSES = (default_class(2, "bar"), default_class(3, "rest"))
LONGEST_START = 60.0
"""Seconds in which a training must have written its first checkpoint."""
MOST_MISSING = 10.0
"""Seconds of paint that may be missing."""
BOX = 160
"""Voxels along y and x of the largest stroke, which crosses chunks."""


@dataclass
class Tally:
    """What came of the kills of one kind."""

    kills: int = 0
    opened: int = 0
    missing: list[float] = field(default_factory=list)
    journals: int = 0
    faults: list[str] = field(default_factory=list)


# --- painting: paint and marks of one moment ------------------------------------------------


@dataclass(frozen=True)
class Action:
    """A stroke in a plane, and the marks after it."""

    box: tuple[tuple[int, int], ...]
    value: int
    held_out: tuple[str, ...]


def action(number: int, seed: int) -> Action:
    """Action `number` of an annotator; the same in every process."""
    rng = np.random.default_rng((seed, number))
    z = int(rng.integers(PAINTED[0]))
    box = [(z, z + 1)]
    for n in PAINTED[1:]:
        start = int(rng.integers(n - 8))
        box.append((start, min(n, start + int(rng.integers(1, BOX)))))
    if rng.random() < 0.1:  # a whole slice
        box[1:] = [(0, n) for n in PAINTED[1:]]
    if rng.random() < 0.05:  # a slice of another orientation, across all planes
        x = int(rng.integers(PAINTED[2]))
        box = [(0, PAINTED[0]), (0, PAINTED[1]), (x, x + 1)]
    marked = rng.random(PAINTED[0]) < 0.3
    held_out = tuple(f"z={i}" for i in np.flatnonzero(marked))
    return Action(tuple(box), int(rng.choice([0, 1, 2, 3])), held_out)


def paint(labels: np.ndarray, act: Action) -> np.ndarray:
    """Carry out an action on labels; return the new labels of its box."""
    where = tuple(slice(a, b) for a, b in act.box)
    labels[where] = act.value
    return labels[where].copy()


def painter(path: Path, seed: int, first: int, interval: float, pipe: Connection) -> None:
    """Paint in a session until somebody ends the process; tell when each action was put."""
    saver = AutoSaver(SessionFolder.open(path), interval=interval)
    labels = saver.folder.labels()
    record = saver.folder.record()
    rng = np.random.default_rng()
    pipe.send((0, time.monotonic()))
    for number in range(first, first + 10**6):
        act = action(number, seed)
        box = paint(labels, act)
        with saver.together():
            saver.put_labels(act.box, box)
            record = record.model_copy(update={"held_out": act.held_out, "more": {"n": number}})
            saver.put_record(record)
        pipe.send((number, time.monotonic()))
        time.sleep(rng.exponential(0.02))


class Painting:
    """Kills annotators, one after the other, in one folder."""

    def __init__(self, folder: Path, seed: int = 0, interval: float = INTERVAL) -> None:
        self.path, self._seed, self._interval = folder / "paint.unet3d-session", seed, interval
        self.labels = np.zeros(PAINTED, np.uint8)
        self.done = 0
        image = np.zeros(PAINTED, np.uint8)
        session = Session(Volume(image), annotation=SparseAnnotation(self.labels.copy(), CLASSES))
        SessionFolder.create(self.path, session).close()

    def kill(self, after: float, tally: Tally) -> None:
        """Let an annotator work for so many seconds, kill him, look at the folder."""
        arguments = (self.path, self._seed, self.done + 1, self._interval)
        with started(painter, *arguments) as (process, pipe):
            assert pipe.recv()[0] == 0
            time.sleep(after)
            process.kill()
            killed = time.monotonic()
            put = dict(received(pipe))
        tally.kills += 1
        tally.journals += len(list((self.path / "journal").glob("*.commit")))
        try:
            folder = SessionFolder.open(self.path)
        except Exception as error:
            tally.faults.append(f"does not open: {error}")
            return
        with folder:
            tally.opened += 1
            self._compare(folder, put, killed, tally)

    def _compare(
        self, folder: SessionFolder, put: dict[int, float], killed: float, tally: Tally
    ) -> None:
        record = folder.record()
        n = int(record.more.get("n", 0))
        for number in range(self.done + 1, n + 1):
            paint(self.labels, action(number, self._seed))
        if not np.array_equal(folder.labels(), self.labels):
            tally.faults.append(f"the paint is not that of action {n}")
        if n and record.held_out != action(n, self._seed).held_out:
            tally.faults.append(f"the marks are not those of action {n}")
        if not folder.crashed:
            tally.faults.append("the crash was not noticed")
        missing = [moment for number, moment in put.items() if number > n]
        tally.missing.append(max(0.0, killed - min(missing, default=killed)))
        if tally.missing[-1] > MOST_MISSING:
            tally.faults.append(f"paint of {tally.missing[-1]:.1f} s is missing")
        self.done = n


# --- saving: models, results and folders ----------------------------------------------------


def tiny_session(volume_shape: tuple[int, int, int] = TRAINED) -> Session:
    """A stack with a bright bar, two painted slices and a third one that is held out."""
    rng = np.random.default_rng(0)
    image = rng.normal(100, 10, volume_shape).astype(np.float32)
    image[:, 8:16] += 60
    labels = np.zeros(volume_shape, np.uint8)
    labels[[1, 3, 6]] = 3
    labels[[1, 3, 6], 8:16] = 2
    training = TrainingConfig(
        preset="fast",
        seconds=None,
        iterations=100_000,
        patch_shape=(8, 24, 24),
        pixel_classifier=False,
        device="cpu",
        small_patch_share=0,
    )
    return Session(
        volume=Volume(image, name="bars"),
        annotation=SparseAnnotation(labels, CLASSES, frozenset({SliceRef(0, 6)})),
        settings=RunSettings(training=training, prediction=PredictionConfig(device="cpu")),
    )


def numbered(bundle: ModelBundle, number: int) -> tuple[NamedModel, HeldOutScores]:
    """A model that knows its number, and scores that tell it, too."""
    record = bundle.record.model_copy(update={"iterations": number})
    scores = HeldOutScores(number, 1.0, (ClassScore(2, 0.5, 0.5, 9),), ("z=6",), 3, final=True)
    return NamedModel(bundle.model_copy(update={"record": record}), f"number {number}"), scores


def saver_of_models(path: Path, model: Path, first: int, pipe: Connection) -> None:
    """Save models, checkpoints and results; close and open the session in between."""
    bundle = ModelBundle.load(model)
    number = first
    pipe.send((0, time.monotonic()))
    while True:
        saver = AutoSaver(SessionFolder.open(path), interval=0.05)
        for _ in range(5):
            named, scores = numbered(bundle, number)
            saver.put_checkpoint(named.bundle)
            saver.put_model(named, scores)
            record = saver.folder.record()
            facts = {"model_name": named.name, "scores": scores, "more": {"n": number}}
            saver.put_record(record.model_copy(update=facts))
            saver.put_result("labels", np.full(RESULT, number % 250, np.uint8), classes=CLASSES)
            time.sleep(0.02)
            number += 1
        saver.close()


class Saving:
    """Kills programs that save models and results."""

    def __init__(self, folder: Path) -> None:
        self.path, self._model = folder / "save.unet3d-session", folder / "model.unet3d"
        session = tiny_session()
        settings = session.settings.training.model_copy(update={"iterations": 1})
        small = Session(
            volume=session.volume,
            annotation=session.annotation,
            settings=session.settings.model_copy(update={"training": settings}),
        )
        bundle = drain(run_job(small))
        assert bundle is not None
        bundle.save(self._model)
        SessionFolder.create(self.path, tiny_session(RESULT)).close()
        self.done = 0

    def kill(self, after: float, tally: Tally) -> None:
        """Let a program save for so many seconds, kill it, look at the folder."""
        with started(saver_of_models, self.path, self._model, self.done + 1) as (process, pipe):
            assert pipe.recv()[0] == 0
            time.sleep(after)
            process.kill()
        tally.kills += 1
        tally.journals += len(list((self.path / "journal").glob("*.commit")))
        try:
            with SessionFolder.open(self.path) as folder:
                session = folder.load()
                checkpoint = folder.checkpoint()
        except Exception as error:
            tally.faults.append(f"does not open: {error}")
            return
        tally.opened += 1
        self._compare(session, checkpoint, tally)

    def _compare(self, session: Session, checkpoint: NamedModel | None, tally: Tally) -> None:
        model = session.model
        if model is not None:
            number = model.bundle.record.iterations
            if model.name not in (f"number {number}", "of this session"):
                tally.faults.append(f"model {number} is called '{model.name}'")
            if session.scores is not None and session.scores.iteration != number:
                tally.faults.append(f"model {number} has scores of {session.scores.iteration}")
            self.done = max(self.done, number)
        elif self.done:
            tally.faults.append("the model is lost")
        if checkpoint is not None:
            self.done = max(self.done, checkpoint.bundle.record.iterations)
        if session.segmentation is not None and len(np.unique(session.segmentation)) != 1:
            tally.faults.append("the result is a mixture of two")


# --- training: goes on from its last checkpoint ---------------------------------------------


def trainer(path: Path, pipe: Connection) -> None:
    """Train in a session until somebody ends the process."""
    errors.set_quiet(True)
    pipe.send((0, time.monotonic()))
    train_session(path, {}, checkpoint_seconds=0.15)


class Training:
    """Kills trainings in one folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "train.unet3d-session"
        SessionFolder.create(self.path, tiny_session()).close()
        self.done = 0

    def kill(self, after: float, tally: Tally) -> None:
        """Let a training run for so many seconds, kill it, look at the folder."""
        checkpoint_file = self.path / "checkpoint.unet3d"
        before = stamp(checkpoint_file)
        with started(trainer, self.path) as (process, pipe):
            assert pipe.recv()[0] == 0
            end = time.monotonic() + LONGEST_START
            early = tally.kills % 4 == 3  # while session and image are opened
            while not early and stamp(checkpoint_file) == before and time.monotonic() < end:
                time.sleep(0.01)
            time.sleep(after)
            process.kill()
        tally.kills += 1
        try:
            with SessionFolder.open(self.path) as folder:
                session = folder.load()
                checkpoint = folder.checkpoint()
        except Exception as error:
            tally.faults.append(f"does not open: {error}")
            return
        tally.opened += 1
        assert session.annotation is not None
        if not session.annotation.held_out:
            tally.faults.append("the held-out slice is lost")
        now = 0 if checkpoint is None else checkpoint.bundle.record.iterations
        if now < self.done:
            tally.faults.append(f"the checkpoint went back from {self.done} to {now}")
        self.done = now


def stamp(path: Path) -> int:
    """When a file was written; 0 while it is not there."""
    return path.stat().st_mtime_ns if path.exists() else 0


# --- processes ------------------------------------------------------------------------------


@contextmanager
def started(target: Callable[..., None], *arguments: Any) -> Iterator[tuple[Any, Connection]]:
    """Run a function in a process that is killed at the end of the block."""
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([__name__, "napari_unet3d.cli.tasks.session_work"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(*arguments, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()
        process.close()
        ours.close()


def received(pipe: Connection) -> Iterator[tuple[int, float]]:
    """What a process sent before it was killed."""
    try:
        while True:
            yield pipe.recv()
    except (EOFError, OSError):
        return


def main() -> None:
    """Kill, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--only", choices=("paint", "train", "save"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    kinds: dict[str, tuple[Callable[[Path], Any], float]] = {
        "paint": (Painting, 5.0),
        "train": (Training, 1.0),
        "save": (Saving, 1.5),
    }
    print(
        "| killed while | kills | opened | commits in the journal | strokes, iterations, models "
        "| longest missing, s | faults |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, (kind, longest) in kinds.items():
        if options.only not in (None, name):
            continue
        tally = Tally()
        with tempfile.TemporaryDirectory() as folder:
            work = kind(Path(folder))
            for _ in range(options.kills):
                work.kill(rng.uniform(0.02, longest), tally)
        missing = f"{max(tally.missing):.2f}" if tally.missing else ""
        print(
            f"| {name} | {tally.kills} | {tally.opened} | {tally.journals} | {work.done} "
            f"| {missing} | {len(tally.faults)} |",
            flush=True,
        )
        for fault in tally.faults[:10]:
            print(f"  {fault}")


if __name__ == "__main__":
    main()
