"""The report on a piece of work: what it must say, as HTML and as PDF."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from bundles import random_bundle
from napari_unet3d.config import TrainingConfig, default_class
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.slice_summary import ExpectedIoU
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.model.evidence import (
    ClassOnSlice,
    CrossValidation,
    Evidence,
    Fold,
    LearningCurve,
    LearningRun,
    SliceScore,
    TrainingHistory,
)
from napari_unet3d.model.record import HeldOutRecord, TrainingRecord
from napari_unet3d.networks.unet import UNetConfig
from napari_unet3d.session.report.assembly import make_report, write_report
from napari_unet3d.session.report.content import (
    Chart,
    Paragraph,
    PictureRow,
    Report,
    Section,
    Series,
    Table,
)
from napari_unet3d.session.report.drawing import _ticks
from napari_unet3d.session.report.html import to_html
from napari_unet3d.session.report.pdf import to_pdf
from napari_unet3d.session.session import NamedModel, Session

MADE = datetime(2026, 11, 26, 14, 30, tzinfo=UTC)
NETWORK = UNetConfig(
    widths=(4, 8), strides=((2, 2, 2),), kernels=((3, 3, 3),) * 2, padding="same", n_classes=2
)
SHAPE = (8, 20, 24)
VOID = ("meta", "img")


def on_slice(ref: str, hits: int) -> SliceScore:
    return SliceScore(ref, (ClassOnSlice(2, hits, 10, 10, 0.7, 2.1),), 90, 100)


def trained(**changes: object) -> NamedModel:
    record = TrainingRecord(
        version="1.2.3",
        config=TrainingConfig(seconds=77.0),
        iterations=512,
        seconds=77,
        device="Test GPU",
        precision="bf16",
        patch_shape=(8, 16, 16),
        trained_slices=("z=1", "z=6"),
        held_out_slices=("z=3", "z=5"),
        held_out_distance=1,
        held_out_scored=0.9,
        held_out=(HeldOutRecord(value=2, iou=0.8, dice=0.889, voxels=160),),
        held_out_by_slice=(on_slice("z=3", 70), on_slice("z=5", 90)),
        history=TrainingHistory(((1.0, 2.0), (60.0, 0.3)), ((20.0, 0.5), (77.0, 0.8))),
    ).model_copy(update=changes)
    bundle = random_bundle(NETWORK, record=record, voxel_size=(2.0, 0.5, 0.5), unit="µm")
    classes = (default_class(2, "nucleus <A&B>"),)
    return NamedModel.trained_on("cells", bundle.model_copy(update={"classes": classes}))


@pytest.fixture(scope="module")
def session() -> Session:
    """Everything that a report can tell."""
    labels = np.zeros(SHAPE, np.uint8)
    for z in (1, 3, 5):
        labels[z] = 1
        labels[z, 4:12, 4:15] = 2
    labels[6, :5] = 1
    segmentation = np.zeros(SHAPE, np.uint8)
    segmentation[:, 5:13, 4:15] = 2
    image = np.random.default_rng(0).normal(100, 10, SHAPE).astype(np.float32)
    folds = (Fold(("z=1",), 1, 80, 12.0), Fold(("z=6",), 1, 90, 12.0))
    runs = tuple(
        LearningRun(("z=1", "z=6")[:n], repeat, iou, ("z=3",), 40, 10.0)
        for n, iou in ((1, 0.5), (2, 0.7))
        for repeat in range(3)
    )
    return Session(
        volume=Volume(image, voxel_size=(2.0, 0.5, 0.5), unit="µm", name="cells"),
        image_path=Path("/home/me/secret/cells.tif"),
        annotation=SparseAnnotation(
            labels,
            (default_class(2, "nucleus <A&B>"),),
            frozenset({SliceRef(0, 3), SliceRef(0, 5)}),
        ),
        model=trained(),
        segmentation=segmentation,
        accepted={SliceRef(0, 1): "model of Monday"},
        evidence=Evidence(
            CrossValidation(folds, (on_slice("z=1", 40), on_slice("z=6", 50)), 2),
            LearningCurve(runs, on_held_out=True),
        ),
    )


class Page(HTMLParser):
    """Reads a page, and checks that its elements are closed in the order in which they opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}
        self.words: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.count[tag] = self.count.get(tag, 0) + 1
        self.links += [v for k, v in attributes if k in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)


def words(report: Report) -> str:
    return " ".join(" ".join(Page(to_html(report)).words).split())


# --- what it says ---------------------------------------------------------------------------


def test_it_tells_everything(session):
    text = words(make_report(session, MADE))
    for part in (
        "Segmentation report: cells",
        "2026-11-26 14:30 UTC",
        "8 × 20 × 24",
        "2 × 0.5 × 0.5 µm",
        "float32",
        "held out 100 %",
        "accepted 100 %",
        "z=1: accepted from a prediction (model of Monday)",
        "partial",
        "nucleus <A&B>",
        "Test GPU",
        "512 iterations",
        "changed",  # the budget is not the default
        "0.80 [0.",  # pooled: 160 of 200
        "0.900 ",  # the Dice of z=5
        "0.70 [0.70–0.70]",  # the distances
        "90 % of the labelled voxels",
        "2 models",
        "Still rising by 0.20 a slice",
        "1.2.3",
        "torch",
        "numpy",
        "expect lower ones on another stack",
    ):
        assert part in text, part
    assert "/home/me" not in text, "a report is passed on: it names the file, not the folders"


def test_the_methods_paragraph_can_be_copied(session):
    methods = make_report(session, MADE).sections[0]
    paragraph = methods.blocks[0]
    assert isinstance(paragraph, Paragraph) and paragraph.quoted
    assert paragraph.text.startswith("The stack 'cells' (8 × 20 × 24 voxels of 2 × 0.5 × 0.5 µm;")
    assert "4 slices were annotated by hand" in paragraph.text
    assert "2 of them were held out" in paragraph.text
    assert "On 2 held-out slices (90 % of their labelled voxels measured)" in paragraph.text
    assert "2-fold cross-validation" in paragraph.text


def test_it_shows_each_held_out_slice_and_the_middle(session):
    (pictures,) = (s for s in make_report(session, MADE).sections if s.title == "Pictures")
    rows = [b for b in pictures.blocks if isinstance(b, PictureRow)]
    captions = [[p.caption for p in row.pictures] for row in rows]
    assert [len(row) for row in captions] == [4, 4, 2]
    assert captions[1][3] == "Mistakes, z=5"
    wrong = rows[0].pictures[3].pixels
    missed, false = wrong[4, 8], wrong[12, 8]
    assert missed[2] > missed[0], "blue"
    assert false[0] > false[2], "orange"


def test_a_model_alone_says_what_is_not_known():
    model = trained(
        held_out=(), held_out_by_slice=(), held_out_slices=(), history=TrainingHistory()
    )
    text = words(make_report(Session(model=model), MADE))
    assert text.lower().count("not measured") >= 5
    assert "the image was not given" in text
    assert "Its accuracy is not known" in text


def test_an_annotation_alone_has_a_report(session):
    text = words(make_report(replace(session, model=None, segmentation=None), MADE))
    assert "No model was trained" in text
    assert "2 models" in text, "the cross-validation needs no model"


def test_a_model_of_an_older_version_has_scores_without_intervals(session):
    model = trained(held_out_by_slice=())
    text = words(make_report(replace(session, model=model), MADE))
    assert "Intervals and distances: not measured" in text
    assert "0.80" in text


def test_slices_are_predicted_where_no_segmentation_is_given(session):
    alone = make_report(replace(session, segmentation=None), MADE)
    (pictures,) = (s for s in alone.sections if s.title == "Pictures")
    rows = [b for b in pictures.blocks if isinstance(b, PictureRow)]
    assert [len(row.pictures) for row in rows] == [4, 4, 2]


def test_nothing_has_no_report():
    with pytest.raises(BadInputError, match="nothing to report"):
        make_report(Session(), MADE)


# --- files ----------------------------------------------------------------------------------


def test_the_page_is_complete_and_needs_no_other_file(session):
    page = Page(to_html(make_report(session, MADE)))
    assert page.open == []
    assert page.count["h1"] == 1
    assert page.count["img"] == 10
    assert page.count["svg"] == 3
    assert all(link.startswith("data:image/png;base64,") for link in page.links)


def test_only_the_line_with_the_time_differs(session):
    later = datetime(2027, 1, 2, 3, 4, tzinfo=UTC)
    first, second = (to_html(make_report(session, made)).split("\n") for made in (MADE, later))
    different = [a for a, b in zip(first, second, strict=True) if a != b]
    assert len(different) == 1 and "2026-11-26" in different[0]
    report = make_report(session, MADE)
    assert to_pdf(report, MADE) == to_pdf(report, MADE)


def test_the_pdf_has_pages_and_pictures(session):
    data = to_pdf(make_report(session, MADE), MADE)
    assert data.startswith(b"%PDF-") and data.rstrip().endswith(b"%%EOF")
    assert 3 <= len(re.findall(rb"/Type /Page\b", data)) <= 8
    assert len(re.findall(rb"/Subtype /Image", data)) == 10


def test_letters_that_the_pdf_lacks_are_said():
    report = Report("核", "made", (Section("s", (Paragraph("Ω"),)),))
    plain = Report("µ × ± – “a”", "made", (Section("s", (Paragraph("é…"),)),))
    assert len(to_pdf(report, MADE)) > len(to_pdf(plain, MADE))
    assert "核" in to_html(report)


def test_the_name_tells_the_kind(tmp_path):
    report = Report("t", "m", (Section("s", (Table(("a", "b"), (("1", "2"),)),)),))
    page, pdf = tmp_path / "r.html", tmp_path / "r.PDF"
    assert write_report(report, page, MADE).read_text("utf-8").startswith("<!DOCTYPE html>")
    assert write_report(report, pdf, MADE).read_bytes().startswith(b"%PDF-")
    with pytest.raises(BadInputError, match=r"\.html or \.pdf"):
        write_report(report, tmp_path / "r.doc", MADE)
    with pytest.raises(BadInputError):
        write_report(report, page, MADE, overwrite=False)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 3, [0, 1, 2, 3]),
        (0.31, 0.74, [0.3, 0.4, 0.5, 0.6, 0.7, 0.8]),
        (0, 3600, [0, 1000, 2000, 3000, 4000]),
    ],
)
def test_axes_have_round_numbers(low, high, ticks):
    assert _ticks(low, high) == pytest.approx(ticks)


def test_a_chart_of_one_point_is_drawn():
    chart = Chart("t", "x", "y", (Series("", ((0.0, 0.5),)),))
    page = Page(to_html(Report("t", "m", (Section("s", (chart,)),))))
    assert page.count["circle"] == 1


def test_without_held_out_slices_it_tells_what_is_expected(session: Session) -> None:
    model = trained(held_out=(), held_out_slices=(), held_out_by_slice=())
    alone = replace(session, model=model, scores=None, expected=(ExpectedIoU(0.8, 0.7, 0.9, 2),))
    html = to_html(make_report(alone, MADE))
    assert "Expected IoU: 0.80 (0.70 to 0.90), from 2 annotated slices." in html
    assert "accuracy is not known" not in html
    html = to_html(make_report(replace(alone, expected=()), MADE))
    assert "Expected IoU" not in html
    assert "accuracy is not known" in html
    measured = replace(session, expected=alone.expected)
    assert "Expected IoU" not in to_html(make_report(measured, MADE))
