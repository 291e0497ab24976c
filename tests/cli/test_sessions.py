"""`train`, `predict`, `objects` and `info` with a session folder."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blobs import IMAGE, LABELS, TRUTH, VOXEL, write
from napari_unet3d.config import PredictionConfig, TrainingConfig, default_class
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.io.reading import read_volume
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.sparse_labels import SparseLabels
from napari_unet3d.errors import RunFailedError
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.prediction.engine import Engine
from napari_unet3d.session import room
from napari_unet3d.session.folder import SessionFolder
from napari_unet3d.session.opening import open_session
from napari_unet3d.session.quality import show_expected
from napari_unet3d.session.session import RunSettings, Session
from napari_unet3d.session.summary_file import read_summary

NAME = "image.tif.unet3d-session"
SETTINGS = RunSettings(
    training=TrainingConfig(
        preset="fast",
        device="cpu",
        patch_shape=(8, 24, 24),
        learning_rate=0.01,
        seconds=None,
        iterations=3,
    ),
    prediction=PredictionConfig(device="cpu"),
    outputs=("uncertainty",),
)


@pytest.fixture
def session(work: Path, tmp_path: Path) -> Path:
    """A session as the window leaves it: painted, with a held-out slice, not trained."""
    return make_session(work, tmp_path, SliceRef(0, 5))


def make_session(work: Path, tmp_path: Path, *held_out: SliceRef) -> Path:
    image = Path(shutil.copy(work / "image.tif", tmp_path))
    annotation = SparseAnnotation(LABELS.copy(), (default_class(2, "blob"),), frozenset(held_out))
    volume = read_volume(image)
    state = Session(volume=volume, image_path=image, annotation=annotation, settings=SETTINGS)
    SessionFolder.create(tmp_path / NAME, state).close()
    return tmp_path / NAME


def opened(path: Path) -> Session:
    with SessionFolder.open(path) as folder:
        return folder.load()


def test_train_and_predict_go_on_and_the_window_finds_it(
    run: Callable[..., Any], session: Path, work: Path
) -> None:
    outcome = run("predict", session)
    assert outcome.code == 2
    assert f"has no model yet. Train one: napari-unet3d train {session}" in outcome.err
    outcome = run("train", session)
    assert outcome.code == 0, outcome.err
    assert f"Model: {session / 'model.unet3d'} (3 iterations)" in outcome.out
    assert "z=5" in outcome.out
    found = opened(session)
    assert found.model is not None
    assert found.scores is not None
    assert found.model.name == "trained on 'image.tif'"
    assert [c.name for c in found.model.bundle.classes] == ["blob"]
    assert found.model.bundle.record.held_out_slices == ("z=5",)
    assert found.scores.final
    assert found.segmentation is None
    outcome = run("predict", session, "--json")
    assert outcome.code == 0, outcome.err
    results = json.loads(outcome.out)["results"]
    assert results == {
        name: str(session / "results" / f"{name}.zarr") for name in ("labels", "uncertainty")
    }
    found = opened(session)
    assert found.segmentation.shape == TRUTH.shape
    assert set(np.unique(found.segmentation)) <= {0, 2}
    with SessionFolder.open(session) as folder:
        assert folder.results()["uncertainty"].voxel_size == pytest.approx(VOXEL)
    np.testing.assert_array_equal(found.annotation.labels, LABELS)


def test_what_is_expected_is_of_the_segmentation_and_model_in_the_session(
    run: Callable[..., Any], work: Path, tmp_path: Path
) -> None:
    session = make_session(work, tmp_path)  # no held-out slice tells more
    assert run("train", session).code == 0
    assert run("predict", session).code == 0
    summary = read_summary(session)
    assert summary is not None
    assert summary.class_names == ("blob",)
    assert [found is not None for found in summary.expected] == [True]
    text = show_expected(["blob"], summary.expected)
    assert run("report", session, "-o", tmp_path / "r.html").code == 0
    assert text in unescape((tmp_path / "r.html").read_text("utf-8"))
    assert run("train", session).code == 0
    later = read_summary(session)
    assert later is not None
    assert later.expected == ()
    assert np.array_equal(later.by_time[0].cells, summary.by_time[0].cells)
    assert run("report", session, "-o", tmp_path / "r2.html").code == 0
    assert text not in unescape((tmp_path / "r2.html").read_text("utf-8"))


def test_what_is_known_of_a_segmentation_stays_where_another_one_fails(
    run: Callable[..., Any], work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(work, tmp_path)
    assert run("train", session).code == 0
    assert run("predict", session).code == 0
    before = read_summary(session)

    def fail(*_: Any) -> None:
        raise RunFailedError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "probabilities", fail)
        assert run("predict", session).code == 1
    after = read_summary(session)
    assert before is not None and after is not None
    assert after.expected == before.expected != ()


def test_objects_go_into_the_session(run: Callable[..., Any], session: Path, work: Path) -> None:
    outcome = run("objects", session)
    assert outcome.code == 2
    assert f"has no segmentation yet. Make one: napari-unet3d predict {session}" in outcome.err
    with SessionFolder.open(session) as folder:
        folder.write_result("labels", TRUTH)
    outcome = run("objects", session, "--min-voxels", "30", "--json")
    assert outcome.code == 0, outcome.err
    printed = json.loads(outcome.out)
    assert printed["objects"] == str(session / "results" / "objects.zarr")
    assert printed["count"] > 1
    with open(printed["table"], encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == printed["count"]
    assert {row["class"] for row in rows} == {"blob"}
    assert "mean gray value" in rows[0]
    opened = open_session(session, [], look=True)
    opened.folder.close()
    found = opened.objects
    assert found is not None
    assert not opened.notes
    assert found.config.min_voxels == 30
    assert np.unique(found.numbers).size == 1 + len(found.table)
    assert found.table.csv() == Path(printed["table"]).read_bytes().decode()
    shutil.move(session.with_name("image.tif"), session.with_name("away.tif"))
    outcome = run("objects", session, "--method", "connected")  # the other settings stay
    assert outcome.code == 0, outcome.err
    assert "Gray values are not measured" in outcome.err
    with SessionFolder.open(session) as folder:
        again = folder.objects()
    assert again is not None
    assert (again.config.method, again.config.min_voxels) == ("connected", 30)
    assert again.table.gray.shape[1] == 0
    outcome = run("objects", session, "--min-voxels", "99999999")
    assert outcome.code == 2
    assert "nothing was written" in outcome.err
    with SessionFolder.open(session) as folder:
        kept = folder.objects()
    assert kept is not None
    assert kept.table.csv() == again.table.csv()
    text = run("info", session).out
    assert f"objects: {session / 'results' / 'objects.csv'}" in text
    (session / "results" / "objects.csv").unlink()
    opened = open_session(session, [], look=False)
    opened.folder.close()
    assert opened.objects is None
    assert "Find the objects again" in opened.notes[0]


def test_options_take_the_place_of_settings(run: Callable[..., Any], session: Path) -> None:
    options = ["--iterations", "2", "--seed", "7", "--set", "learning_rate=0.02", "--json"]
    outcome = run("train", *options, session)
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["iterations"] == 2
    config = ModelBundle.load(session / "model.unet3d").record.training_config
    assert (config.seed, config.learning_rate, config.preset) == (7, 0.02, "fast")
    assert opened(session).settings == SETTINGS
    outcome = run("predict", session, "--also", "probabilities", "--overlap", "0.25")
    assert outcome.code == 0, outcome.err
    with SessionFolder.open(session) as folder:
        assert set(folder.results()) == {"labels", "probabilities"}
    outcome = run("train", session, "--resume", "--iterations", "5")
    assert outcome.code == 0, outcome.err
    assert ModelBundle.load(session / "model.unet3d").record.iterations == 5


def test_seconds_take_the_place_of_iterations(run: Callable[..., Any], session: Path) -> None:
    assert run("train", session, "--seconds", "0.5").code == 0
    config = ModelBundle.load(session / "model.unet3d").record.training_config
    assert (config.seconds, config.iterations) == (0.5, None)


def test_a_training_that_was_cut_off_goes_on(
    run: Callable[..., Any], session: Path, work: Path
) -> None:
    with SessionFolder.open(session) as folder:
        bundle = ModelBundle.load(work / "model.unet3d")  # after 25 iterations
        folder.write_checkpoint(bundle.model_copy(update={"classes": (default_class(2, "blob"),)}))
    outcome = run("info", session)
    assert f"a training was cut off; to continue: napari-unet3d train {session}" in outcome.out
    outcome = run("train", session, "--iterations", "27")
    assert outcome.code == 0, outcome.err
    assert "cut off after 25 iterations: it goes on from there" in outcome.err
    assert ModelBundle.load(session / "model.unet3d").record.iterations == 27
    assert not (session / "checkpoint.unet3d").exists()
    with SessionFolder.open(session) as folder:
        folder.write_checkpoint(bundle)
    assert run("train", session, "--new").code == 0
    assert ModelBundle.load(session / "model.unet3d").record.iterations == 3


def test_a_series_in_chunks_goes_on_after_a_kill(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = write(tmp_path / "series.ome.tif", np.stack([IMAGE, IMAGE[:, ::-1]]), "TZYX")
    labels = SparseLabels.create((2, *LABELS.shape))
    labels[1] = LABELS[:, ::-1]
    classes = (default_class(2, "blob"),)
    annotation = SparseAnnotation(labels, classes, frozenset({SliceRef(0, 5, 1)}))
    volume = read_volume(image)
    state = Session(volume=volume, image_path=image, annotation=annotation, settings=SETTINGS)
    killed = tmp_path / "killed.unet3d-session"
    with SessionFolder.create(tmp_path / NAME, state) as folder:
        shutil.copytree(folder.path, killed)  # as a kill in this moment would leave it
    (killed / "lock").unlink()
    monkeypatch.setattr(room, "free_main_memory", lambda: 1000)  # as if the stack were huge
    assert isinstance(opened(killed).annotation.labels, SparseLabels)
    outcome = run("train", killed)
    assert outcome.code == 0, outcome.err
    assert "t=1 z=5" in outcome.out
    outcome = run("predict", killed, "--times", "1")
    assert outcome.code == 0, outcome.err
    with SessionFolder.open(killed) as folder:
        result = folder.results()["labels"]
        found = folder.load()
    assert (result.axes, result.data.shape) == ("TZYX", (2, *LABELS.shape))
    assert not np.asarray(result.data[0]).any()
    assert found.model is not None
    assert found.model.bundle.record.trained_slices == ("t=1 z=2", "t=1 z=8")
    np.testing.assert_array_equal(found.annotation.labels[1], LABELS[:, ::-1])


def test_fine_tuning(run: Callable[..., Any], session: Path, work: Path) -> None:
    assert run("train", session, "--from", work / "model.unet3d").code == 0
    assert ModelBundle.load(session / "model.unet3d").record.iterations_before == 25


def test_checkpoints_go_into_the_session(run: Callable[..., Any], session: Path) -> None:
    outcome = run("train", session, "--iterations", "6", "--checkpoint-every", "0.01")
    assert outcome.code == 0, outcome.err
    assert f"continue it with napari-unet3d train {session}" in " ".join(outcome.err.split())
    assert not (session / "checkpoint.unet3d").exists()


def test_info(run: Callable[..., Any], session: Path) -> None:
    outcome = run("info", session)
    assert outcome.code == 0, outcome.err
    for words in (
        "image: image.tif (ZYX 10 × 32 × 36, uint16), found",
        "voxel (z × y × x): 0.5 × 0.2 × 0.15 µm",
        "classes: blob (2)",
        "slices with paint: z=2, z=5, z=8",
        "held out: z=5",
        "model: none",
    ):
        assert words in outcome.out
    with SessionFolder.open(session, holder="a window"):
        found = json.loads(run("info", session, "--json").out)
    assert found["open_in"].startswith("a window (process ")
    assert found["slices"] == ["z=2", "z=5", "z=8"]
    assert not found["crashed"]
    (session / "session.json").write_text("{")
    assert run("info", session).code == 2


@pytest.mark.parametrize("command", ["train", "predict"])
def test_a_session_that_is_open_is_refused(
    run: Callable[..., Any], session: Path, command: str
) -> None:
    with SessionFolder.open(session, holder="napari"):
        outcome = run(command, session)
    assert outcome.code == 2
    text = " ".join(outcome.err.split())
    assert "is open in napari (process" in text
    assert "Close it there first" in text


def test_an_image_that_is_gone_is_told(run: Callable[..., Any], session: Path) -> None:
    session.with_name("image.tif").unlink()
    for command in ("train", "predict"):
        outcome = run(command, session)
        assert outcome.code == 2
        assert "Say where it is now, or put it back" in " ".join(outcome.err.split())
    assert "missing" in run("info", session).out


def test_a_moved_image_is_named_on_the_command_line(
    run: Callable[..., Any], session: Path, tmp_path: Path
) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    moved = session.with_name("image.tif").rename(place / "renamed.tif")
    outcome = run("train", session)
    assert outcome.code == 2
    assert "On the command line: --image FILE." in " ".join(outcome.err.split())
    assert run("train", session, "--image", moved, "--iterations", "1").code == 0
    assert opened(session).image_path == moved  # from now on it is known
    write(moved, 2 * IMAGE)  # another one of the same shape
    outcome = run("predict", session)
    assert outcome.code == 2
    assert "is not the image that was annotated" in " ".join(outcome.err.split())
    outcome = run("predict", session, "--image", moved)
    assert outcome.code == 0, outcome.err
    text = " ".join(outcome.err.split())
    assert "its gray values are others now" in text
    assert "It is used as you said." in text


def test_cross_validation_and_learning_curve_go_into_the_session(
    run: Callable[..., Any], session: Path
) -> None:
    with SessionFolder.open(session) as folder:  # three slices to learn from
        folder.set_record(folder.record().model_copy(update={"held_out": ()}))
        folder.commit()
    quick = ["--iterations", "1", "--set", "pixel_classifier=false"]
    outcome = run("train", session, *quick, "--cross-validate", "2")
    assert outcome.code == 0, outcome.err
    assert "Cross-validation: 2 models" in outcome.out
    outcome = run("train", session, *quick, "--learning-curve", "--json")
    assert outcome.code == 0, outcome.err
    printed = json.loads(outcome.out)
    assert printed["learning_curve"]["runs"]
    assert printed["cross_validation"], "what was measured before stays"
    found = opened(session)
    assert found.model is not None
    assert found.model.name == "trained on 'image.tif'"
    for evidence in (found.evidence, found.model.bundle.record.evidence):
        assert evidence.cross_validation is not None
        assert len(evidence.cross_validation.folds) == 2
        assert evidence.learning_curve is not None
    text = run("info", session).out
    assert "Cross-validation: 2 models" in text
    assert "Learning curve: " in text


def test_what_cannot_be_measured_is_said_before_the_training(
    run: Callable[..., Any], session: Path
) -> None:
    with SessionFolder.open(session) as folder:
        folder.set_record(folder.record().model_copy(update={"held_out": ("z=2", "z=5")}))
        folder.commit()
    for option in (["--cross-validate", "2"], ["--learning-curve"]):
        outcome = run("train", session, *option)
        assert outcome.code == 2
        assert "besides the held-out ones; there is 1" in " ".join(outcome.err.split())
    assert opened(session).model is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--resume"], "has no model to go on with"),
        (["train", "--resume", "--new"], "not two of them"),
        (["train", "--seconds", "1", "--iterations", "1"], "not both"),
        (["train", "--set", "nothing=1"], "write name=value with one of"),
        (["train", "--seconds", "-1"], "seconds = -1.0: it must be above 0"),
        (["predict", "--overlap", "0.9"], "no model yet"),
        (["predict", "--tile", "1,2"], "give three numbers"),
    ],
)
def test_what_cannot_be_done(
    run: Callable[..., Any], session: Path, words: list[str], message: str
) -> None:
    outcome = run(words[0], session, *words[1:])
    assert outcome.code == 2
    assert message in " ".join(outcome.err.split())


def test_an_unknown_output(run: Callable[..., Any], session: Path) -> None:
    assert run("train", session, "--iterations", "1").code == 0
    outcome = run("predict", session, "--also", "objects3d")
    assert outcome.code == 2
    assert "--also objects3d: there is no such output. Use one of" in outcome.err


@pytest.mark.parametrize("command", ["train", "predict", "objects", "info"])
def test_help_can_be_typed_as_it_is_written(run: Callable[..., Any], command: str) -> None:
    outcome = run(command, "SESSION", "--help")
    assert outcome.code == 0
    assert f"napari-unet3d {command} [OPTIONS]" in outcome.out
    assert "*.unet3d-session" in outcome.out
    outcome = run(command, "SESSION")
    assert outcome.code == 2
    assert "stands for the folder of a session" in outcome.err
    outcome = run(command, "nowhere.unet3d-session")
    assert outcome.code == 2
    assert "there is no such folder" in " ".join(outcome.err.split())


def test_files_are_still_files(run: Callable[..., Any], work: Path) -> None:
    outcome = run("train", work / "image.tif")
    assert outcome.code == 2
    assert "Missing argument 'ANNOTATION'" in outcome.err
    outcome = run("predict", work / "model.unet3d", work / "image.tif")
    assert "Missing option '--output'" in outcome.err
