"""The arithmetic of the benchmark: what is annotated, what is scored, what is compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmark_scripts import imported
from napari_unet3d.config import TrainingConfig
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume

NAMES = ("protocol", "variants", "peers", "networks", "report", "accuracy", "overlap")


@pytest.fixture(scope="module")
def benchmark() -> Iterator[SimpleNamespace]:
    with imported(NAMES) as scripts:
        yield scripts


def half_planes(*borders: int, width: int = 12) -> np.ndarray:
    """A truth, one xy slice for each number: class 2 where x is below it."""
    x = np.arange(width)
    rows = [np.where(x < border, 2, 0) for border in borders]
    return np.repeat(np.array(rows, np.uint8)[:, None], 9, axis=1)


def blob_stack(shape: tuple[int, int, int] = (12, 24, 24)) -> tuple[Volume, np.ndarray]:
    """A bright column in noise, and its truth."""
    z, y, x = np.indices(shape)
    truth = np.where((y - 12) ** 2 + (x - 10 - 0.2 * z) ** 2 < 36, 2, 0).astype(np.uint8)
    noise = np.random.default_rng(0).normal(0, 0.1, shape)
    return Volume((truth / 2 + noise).astype(np.float32), voxel_size=(2.0, 1.0, 1.0)), truth


# --- stacks and annotation ------------------------------------------------------------------


@pytest.mark.parametrize(("slices", "at"), [(1, [10]), (3, [3, 10, 17]), (5, [2, 6, 10, 14, 18])])
def test_xy_slices_are_evenly_spaced(benchmark: Any, slices: int, at: list[int]) -> None:
    truth = np.zeros((21, 8, 9), np.uint8)
    truth[:, 2:4] = 3
    labels = benchmark.protocol.annotate(truth, slices)
    assert np.flatnonzero(labels.any(axis=(1, 2))).tolist() == at
    assert (labels[at] == np.maximum(truth[at], 1)).all()


def test_planes_are_the_middle_one_of_each_orientation(benchmark: Any) -> None:
    truth = np.full((5, 7, 9), 2, np.uint8)
    labels = benchmark.protocol.annotate(truth, "planes")
    expected = np.zeros(truth.shape, bool)
    expected[2] = expected[:, 3] = expected[:, :, 4] = True
    assert ((labels > 0) == expected).all()
    refs = benchmark.protocol.annotated_slices(truth.shape, "planes")
    assert refs == [SliceRef(0, 2), SliceRef(1, 3), SliceRef(2, 4)]


def test_the_watched_slice_is_far_from_the_annotated_ones_and_has_all_classes(
    benchmark: Any,
) -> None:
    truth = half_planes(*[0] * 6, *[5] * 15)
    labels = benchmark.protocol.annotate(truth, 1)
    look = benchmark.protocol.watched_slice(truth, labels)
    assert look.ref == SliceRef(0, 15)
    assert look.iou(look.of(truth)) == 1


def test_stacks_are_the_folders_with_a_truth(benchmark: Any, tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "labels.tif").touch()
    (tmp_path / "c").mkdir()
    names = benchmark.protocol.stack_names
    assert names(tmp_path) == ["a", "b"]
    assert names(tmp_path, ["b"]) == ["b"]
    assert names(None) == ["tubules"]
    with pytest.raises(FileNotFoundError, match=r"labels\.tif for c"):
        names(tmp_path, ["c"])


# --- scores ---------------------------------------------------------------------------------


def test_annotated_voxels_do_not_count(benchmark: Any) -> None:
    truth = half_planes(4, 4, 4)
    labels = benchmark.protocol.annotate(truth, 1)
    found = truth.copy()
    found[1] = 0  # the annotated slice: not scored
    found[0, :, :2] = 0
    scores = benchmark.protocol.class_scores(found, truth, labels == 0)
    assert scores == {2: {"iou": pytest.approx(6 / 8), "dice": pytest.approx(12 / 14)}}
    assert benchmark.protocol.mean_iou(scores) == pytest.approx(0.75)


def test_calibration_error_of_a_known_case(benchmark: Any) -> None:
    # 0.9 sure and 7 of 10 right; 0.6 sure and 3 of 5 right.
    confidence = np.repeat([0.9, 0.6], [10, 5]).astype(np.float32)
    correct = np.array([1] * 7 + [0] * 3 + [1] * 3 + [0] * 2, bool)
    error = benchmark.protocol.calibration_error(confidence, correct)
    assert error == pytest.approx(10 / 15 * 0.2, abs=1e-6)
    sure = benchmark.protocol.calibration_error(np.ones(4, np.float32), np.ones(4, bool))
    assert sure == 0


def test_retention_is_best_for_the_oracle_and_worst_reversed(benchmark: Any) -> None:
    area = benchmark.protocol.retention_area
    wrong = np.array([False] * 6 + [True] * 2)
    oracle = area(wrong.astype(float), wrong)
    assert oracle == pytest.approx((1 / 7 + 2 / 8) / 8)
    reverse = area(-wrong.astype(float), wrong)
    assert reverse == pytest.approx((1 + 1 + sum(2 / n for n in range(3, 9))) / 8)
    assert area(np.zeros(8), wrong) == pytest.approx(wrong.mean())  # all alike: random order
    assert oracle < wrong.mean() < reverse


def test_entropy_is_0_when_sure_and_1_when_undecided(benchmark: Any) -> None:
    probabilities = np.array([[1, 0.25], [0, 0.25], [0, 0.25], [0, 0.25]], np.float16)
    np.testing.assert_allclose(benchmark.protocol.entropy(probabilities), [0, 1], atol=1e-6)


def test_a_class_that_is_not_annotated_counts_as_wrong(benchmark: Any) -> None:
    truth = np.array([[[0, 2, 3, 0]]], np.uint8)
    probabilities = np.array([[0.9, 0.2, 0.4, 0.9], [0.1, 0.8, 0.6, 0.1]], np.float32)
    labels = np.array([[[0, 2, 2, 0]]], np.uint8)
    result = benchmark.protocol.Result(labels, (0, 2), probabilities[:, None, None], 1, 1)
    figures = benchmark.protocol.score(result, truth, np.zeros_like(truth), None)
    assert figures["error_rate"] == 0.25
    assert figures["retention"] == figures["retention_oracle"] == pytest.approx(1 / 16)
    assert figures["iou"] == pytest.approx((0.5 + 0) / 2)
    assert "reached_s" not in figures


def test_time_to_reach_a_share_of_the_final_iou(benchmark: Any) -> None:
    curve = [(1.0, 0.2), (5.0, 0.75), (9.0, 0.7)]
    assert benchmark.protocol.seconds_to_reach(curve, 0.8) == 5.0
    assert benchmark.protocol.seconds_to_reach(curve, 0.9) is None


# --- other methods --------------------------------------------------------------------------


def test_interpolation_moves_a_border_evenly(benchmark: Any) -> None:
    labels = np.zeros((7, 9, 12), np.uint8)
    labels[[1, 5]] = np.maximum(half_planes(2, 10), 1)
    found = benchmark.peers.interpolation(Volume(labels), labels, 0, 0).labels
    np.testing.assert_array_equal(found, half_planes(2, 2, 4, 6, 8, 10, 10))


def test_what_is_missing_on_a_slice_ends_halfway(benchmark: Any) -> None:
    labels = np.zeros((9, 9, 12), np.uint8)
    labels[[0, 8]] = 1
    labels[0, 2:7, 3:8] = 2
    found = benchmark.peers.interpolation(Volume(labels), labels, 0, 0).labels
    sizes = [int((plane == 2).sum()) for plane in found]
    assert sizes[0] == 25
    assert sizes[3] > 0 == sizes[5]
    assert sizes == sorted(sizes, reverse=True)


def test_interpolation_combines_orientations(benchmark: Any) -> None:
    truth = np.zeros((11, 11, 11), np.uint8)
    truth[3:8, 3:8, 3:8] = 2
    labels = benchmark.protocol.annotate(truth, "planes")
    found = benchmark.peers.interpolation(Volume(truth), labels, 0, 0).labels
    assert found[4:7, 4:7, 4:7].all()
    assert not found[0, 0].any()
    labels[5] = labels[:, 5] = labels[:, :, 5] = 0
    labels[2, 3, 4] = 1
    with pytest.raises(benchmark.protocol.NotRunError, match="no slice is annotated"):
        benchmark.peers.interpolation(Volume(truth), labels, 0, 0)


def test_a_large_stack_is_walked_in_blocks_of_its_finest_axes(benchmark: Any) -> None:
    coarsening = benchmark.peers.coarsening
    assert coarsening((20, 100, 100), (5.0, 1.0, 1.0), 200_000) == (1, 1, 1)
    assert coarsening((20, 100, 100), (5.0, 1.0, 1.0), 60_000) == (1, 2, 2)
    assert coarsening((51, 51, 51), (1.0, 1.0, 1.0), 60_000) == (2, 2, 2)


@pytest.mark.parametrize("values", [1_200_000, 8_000])
def test_random_walker_finds_a_column(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, values: int
) -> None:
    monkeypatch.setattr(benchmark.peers, "WALKER_VALUES", values)
    volume, truth = blob_stack((11, 23, 25))
    labels = benchmark.protocol.annotate(truth, 3)
    result = benchmark.peers.walker(volume, labels, 0, 0)
    assert result.values == (0, 2)
    assert result.details["coarsened"] == ([1, 1, 1] if values > 10_000 else [1, 2, 2])
    np.testing.assert_allclose(result.probabilities.astype(float).sum(0), 1, atol=2e-3)
    scores = benchmark.protocol.class_scores(result.labels, truth, labels == 0)
    assert scores[2]["iou"] > 0.7
    with pytest.raises(benchmark.protocol.NotRunError, match="one class"):
        benchmark.peers.walker(volume, np.minimum(labels, 1), 0, 0)


def test_random_forest_finds_a_column(benchmark: Any) -> None:
    pytest.importorskip("sklearn")
    volume, truth = blob_stack()
    labels = benchmark.protocol.annotate(truth, 1)
    result = benchmark.peers.forest(volume, labels, 0, 0)
    figures = benchmark.protocol.score(result, truth, labels, None)
    assert figures["iou"] > 0.8
    assert figures["retention_oracle"] <= figures["retention"] < figures["error_rate"]


def test_nnunet_s_rule_pools_the_finest_axes_first(benchmark: Any) -> None:
    strides, kernels = benchmark.networks.plan_nnunet((20, 80, 80), (4.5, 1.0, 1.0))
    assert strides == [(1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)]
    assert kernels == [(1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)]
    assert len(benchmark.networks.plan_nnunet((8, 8, 8), (1.0, 1.0, 1.0))[0]) == 3
    patch = benchmark.networks.physical_patch((20, 512, 512), (5.0, 1.0, 1.0), 140_000)
    assert patch[1] == patch[2] == pytest.approx(5 * patch[0], rel=0.1)
    assert 100_000 < np.prod(patch) <= 140_000
    small = benchmark.networks.physical_patch((31, 61, 57), (1.0, 1.0, 1.0), 140_000)
    assert small == (31, 61, 57)


def test_depth_comes_back_where_it_was(benchmark: Any) -> None:
    torch = pytest.importorskip("torch")
    image = torch.rand(1, 1, 2, 3, 4)
    turned = benchmark.networks._DepthLast(torch.nn.Identity())
    assert torch.equal(turned(image), image)


@pytest.mark.parametrize("name", ["basicunet", "dynunet"])
def test_networks_of_monai_give_a_result(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pytest.importorskip("monai")
    monkeypatch.setattr(benchmark.networks, "PATCH_VOXELS", 4_000)
    volume, truth = blob_stack((8, 24, 24))
    labels = benchmark.protocol.annotate(truth, 1)
    look = benchmark.protocol.watched_slice(truth, labels)
    result = getattr(benchmark.networks, name)(volume, labels, 0.01, 0, look)
    assert result.probabilities.shape == (2, *truth.shape)
    np.testing.assert_allclose(result.probabilities.astype(float).sum(0), 1, atol=2e-3)
    assert result.details["iterations"] >= 1 == len(result.curve)


# --- tables and comparison ------------------------------------------------------------------


def runs(method: str, *ious: float, seconds: float | None = 60.0) -> list[dict[str, Any]]:
    """Runs of one stack, one a seed."""
    key = {"stack": "s", "slices": "3", "seconds": seconds, "method": method}
    classes = {"2": {"iou": 0.5, "dice": 0.6}}
    return [key | {"seed": i, "iou": iou, "classes": classes} for i, iou in enumerate(ious)]


def test_table_has_methods_side_by_side(benchmark: Any) -> None:
    found = runs("unet", 0.80, 0.84) + runs("forest", 0.75, seconds=None)
    found += [runs("walker", 0, seconds=None)[0] | {"iou": None, "not_run": "no solution"}]
    lines = benchmark.report.table(found).splitlines()
    assert lines[0] == (
        "| stack | slices | s | unet | forest | walker | unet − forest | walker − forest |"
    )
    assert lines[2] == "| s | 3 | 60 | **0.820 ± 0.020** | 0.750 | not run | +0.070 | — |"
    assert benchmark.report.failures(found) == ["s, 3 slices, walker, seed 0: not run: no solution"]
    assert "2: 0.500 / 0.600" in benchmark.report.details(found)


def test_mean_and_wins_over_several_cases(benchmark: Any) -> None:
    found = runs("unet", 0.8) + runs("unet", 0.7, seconds=30.0) + runs("forest", 0.75, seconds=None)
    lines = benchmark.report.table(found).splitlines()
    assert lines[-2] == "| mean |  |  | 0.750 | 0.750 | +0.000 |"
    assert lines[-1] == "| wins |  |  | 1 | 1 | 1 of 2 ahead |"


@pytest.mark.parametrize(
    ("old", "new", "flag"),
    [
        ((0.80, 0.82), (0.83, 0.84), True),
        ((0.80, 0.84), (0.83, 0.84), False),  # within the spread
        ((0.80,), (0.805,), False),  # one seed: within what repeated runs differ by
        ((0.80,), (0.78,), True),
    ],
)
def test_changes_are_flagged_beyond_the_spread(
    benchmark: Any, old: tuple[float, ...], new: tuple[float, ...], flag: bool
) -> None:
    (found,) = benchmark.report.differences(runs("unet", *old), runs("unet", *new))
    assert found["flag"] is flag
    assert found["change"] == pytest.approx(np.mean(new) - np.mean(old))
    text = benchmark.report.comparison(runs("unet", *old), runs("unet", *new))
    assert ("▲" in text or "▼" in text) is flag


def test_nothing_to_compare_is_said(benchmark: Any) -> None:
    text = benchmark.report.comparison(runs("unet", 0.8), runs("unet", 0.8, seconds=30.0))
    assert "no run of the same" in text


def test_plot_is_drawn(benchmark: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = runs("unet", 0.8, 0.82) + runs("unet", 0.7, seconds=30.0)
    benchmark.report.plot(found + runs("forest", 0.75, seconds=None), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


# --- the script -----------------------------------------------------------------------------


def test_methods_without_a_budget_run_once(benchmark: Any) -> None:
    line = "--slices 1 planes --seconds 30 60 --seeds 2 --methods unet forest walker --set seed=7"
    arguments = benchmark.accuracy._parser().parse_args(line.split())
    assert dict(arguments.settings) == {"seed": 7}
    jobs = list(benchmark.accuracy.plan(arguments, ["s"]))
    count = {m: sum(job.method == m for job in jobs) for m in arguments.methods}
    assert count == {"unet": 8, "forest": 4, "walker": 2}
    assert {job.seconds for job in jobs if job.method != "unet"} == {None}


@pytest.mark.parametrize("line", ["--slices 0", "--slices xy", "--set preset", "--methods x"])
def test_wrong_arguments_are_refused(
    benchmark: Any, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        benchmark.accuracy._parser().parse_args(line.split())
    assert "error: argument" in capsys.readouterr().err


def test_ours_is_trained_watched_and_scored(benchmark: Any) -> None:
    volume, truth = blob_stack()
    labels = benchmark.protocol.annotate(truth, 1)
    look = benchmark.protocol.watched_slice(truth, labels)
    changes = {"iterations": 2, "preset": "fast", "device": "cpu", "precision": "fp32"}
    changes |= {"pixel_classifier": False}  # it makes no error on this stack
    TrainingConfig(**changes)
    result = benchmark.accuracy.segment(volume, labels, 60.0, 0, look, **changes)
    figures = benchmark.protocol.score(result, truth, labels, look)
    assert figures["iterations"] == 2
    assert figures["curve"][-1][0] == result.training_s
    assert 0 < figures["calibration_error"] < 1


def test_a_failure_is_recorded(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no such thing")

    method = benchmark.accuracy.Method(fail)
    monkeypatch.setitem(benchmark.accuracy.METHODS, "forest", method)
    stack = blob_stack()
    monkeypatch.setattr(benchmark.accuracy, "load_case", lambda *_: stack)
    job = benchmark.accuracy.Job(None, "tubules", 1, None, 0, "forest", {}, False)
    outcome = benchmark.accuracy.work(job)
    assert outcome["error"].endswith("ValueError: no such thing")
    (line,) = benchmark.report.failures([job.key() | outcome])
    assert line == "tubules, 1 slices, forest, seed 0: failed: ValueError: no such thing"


# --- tiles ----------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", [0.0, 0.125, 0.25, 0.5])
@pytest.mark.parametrize("length", [20, 64, 100, 320])
def test_tiles_joined_with_weights_cover_every_voxel_once(
    benchmark: Any, overlap: float, length: int
) -> None:
    size = min(64, length)
    starts = benchmark.overlap.place((length,) * 3, (size,) * 3, overlap, (4, 4, 4))[0]
    assert starts[0] == 0
    assert starts[-1] + size >= length
    for joined in ("fade", "cut"):
        total = np.zeros(starts[-1] + size)
        for start, weights in zip(
            starts, benchmark.overlap.weigh(starts, size, joined), strict=True
        ):
            total[start : start + size] += weights
        if overlap < 0.5:  # beyond, three tiles may share a voxel, and weights are normalized
            np.testing.assert_allclose(total, 1)
        assert total.min() > 0
