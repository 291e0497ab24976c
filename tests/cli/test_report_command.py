"""`report`, and `train` with a cross-validation and a learning curve."""

from __future__ import annotations

import pytest

from napari_unet3d.model.bundle import ModelBundle


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
    outcome = train("--iterations", "2", "--cross-validate", "2", "--hold-out", "z=2,5,8")
    assert outcome.code == 2
    assert "iteration" not in outcome.err
    assert not (tmp_path / "out.unet3d").exists()
