"""`report`, and `train` with a cross-validation and a learning curve."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from blobs import LABELS, TRUTH
from napari_unet3d.config import default_class
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.io.reading import read_volume
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.session.folder import SessionFolder
from napari_unet3d.session.session import NamedModel, Session
from napari_unet3d.session.state import read_state


@pytest.mark.parametrize("name", ["r.html", "r.pdf"])
def test_a_report_on_files(run, work, tmp_path, name):
    output = tmp_path / name
    files = [work / "model.unet3d", work / "image.tif", work / "labels.tif"]
    outcome = run("report", *files, "-o", output)
    assert outcome.code == 0, outcome.err
    assert str(output) in outcome.out
    data = output.read_bytes()
    assert data.startswith(b"%PDF-" if name.endswith("pdf") else b"<!DOCTYPE html>")
    if name.endswith("html"):
        text = data.decode()
        assert "held out" in text
        assert "Mistakes, z=5" in text
        assert text.count("<svg") == 2
    outcome = run("report", *files, "-o", output)
    assert outcome.code == 2, "an older report is not replaced"


def test_a_model_alone_has_a_report(run, work, tmp_path):
    outcome = run("report", work / "model.unet3d", "-o", tmp_path / "r.html")
    assert outcome.code == 0, outcome.err
    assert "the image was not given" in (tmp_path / "r.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["model.unet3d", "-o", "r.docx"], ".html or .pdf"),
        (["image.tif", "-o", "r.html"], "image.tif"),
        (["model.unet3d", "--segmentation", "truth.tif", "-o", "r.html"], "needs its image"),
    ],
)
def test_what_cannot_be_reported(run, work, tmp_path, arguments, text):
    words = [
        str(tmp_path / w) if w.startswith("r.") else str(work / w) if "." in w else w
        for w in arguments
    ]
    outcome = run("report", *words)
    assert outcome.code == 2
    assert text in outcome.err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def session(work, tmp_path):
    """A session of the stack, as the window leaves it: painted, not trained."""
    image = Path(shutil.copy(work / "image.tif", tmp_path))
    classes = (default_class(2, "blob"),)
    annotation = SparseAnnotation(LABELS.copy(), classes, frozenset({SliceRef(0, 5)}))
    path = tmp_path / "image.tif.unet3d-session"
    state = Session(volume=read_volume(image), image_path=image, annotation=annotation)
    SessionFolder.create(path, state).close()
    return path


def test_a_report_on_a_session(run, work, session, tmp_path):
    outcome = run("report", session, "-o", tmp_path / "none.html")
    assert outcome.code == 2
    assert f"has no model yet. Train one: napari-unet3d train {session}" in outcome.err
    assert not (tmp_path / "none.html").exists()
    with SessionFolder.open(session) as folder:
        folder.write_model(NamedModel.load(work / "model.unet3d"))
        folder.write_result("labels", TRUTH[:, ::-1].copy())  # with mistakes
    before = read_state(session).record
    for name in ("r.html", "r.pdf"):
        outcome = run("report", session, "-o", tmp_path / name)
        assert outcome.code == 0, outcome.err
    text = (tmp_path / "r.html").read_text("utf-8")
    for words in (
        "Segmentation report: image.tif",
        ">0.5 × 0.2 × 0.15 µm<",
        ">z=2<",
        ">held out<",
        "blob",
        "Scores on held-out slices",
        "Segmentation, z=5",
        "Mistakes, z=5",
        "25 iterations",
        "Versions",
    ):
        assert words in text, words
    assert text.count("<svg") == 2  # loss and held-out IoU
    pdf = (tmp_path / "r.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert pdf.count(b"/Subtype /Image") == 4  # z=5 is the middle of the stack too
    assert read_state(session).record == before, "a report changes nothing"


def test_a_report_on_a_session_whose_image_was_moved(run, work, session, tmp_path):
    with SessionFolder.open(session) as folder:
        folder.write_model(NamedModel.load(work / "model.unet3d"))
    moved = (tmp_path / "image.tif").rename(tmp_path / "renamed.tif")
    outcome = run("report", session, "-o", tmp_path / "r.html")
    assert outcome.code == 2
    assert "On the command line: report SESSION IMAGE." in " ".join(outcome.err.split())
    assert not (tmp_path / "r.html").exists()
    outcome = run("report", session, moved, "-o", tmp_path / "r.html")
    assert outcome.code == 0, outcome.err
    assert "Mistakes, z=5" in (tmp_path / "r.html").read_text("utf-8")
    outcome = run("report", session, moved, work / "labels.tif", "-o", tmp_path / "s.html")
    assert outcome.code == 2
    assert "has its own annotation and segmentation" in " ".join(outcome.err.split())


def test_train_cross_validates(train, tmp_path):
    options = ["--iterations", "2", "--cross-validate", "2", "--set", "pixel_classifier=false"]
    outcome = train(*options)
    assert outcome.code == 0, outcome.err
    assert "Cross-validation: 2 models" in outcome.out
    evidence = ModelBundle.load(tmp_path / "out.unet3d").record.evidence
    assert evidence.cross_validation is not None
    assert len(evidence.cross_validation.folds) == 2
    assert evidence.learning_curve is None


def test_what_cannot_be_measured_is_said_before_the_training(train, tmp_path):
    for option in (["--cross-validate", "2"], ["--learning-curve"]):
        outcome = train("--iterations", "2", *option, "--hold-out", "z=2,5")
        assert outcome.code == 2
        assert "there is 1" in outcome.err
    assert "iteration" not in outcome.err
    assert not (tmp_path / "out.unet3d").exists()
