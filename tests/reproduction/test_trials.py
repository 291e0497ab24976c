"""The protocol of the paper: which slices are annotated, and which are measured."""

from __future__ import annotations

import pytest

from napari_unet3d.networks import available_networks, kind_of
from napari_unet3d.reproduction import paper
from napari_unet3d.reproduction.trials import (
    PAPER_METHODS,
    SCALES,
    by_slices,
    compared,
    fully_automated,
    semi_automated,
    spread_slices,
)

SHAPE = (64, 160, 128)


def test_slices_are_spread_over_all_orientations():
    refs = spread_slices(SHAPE, (1, 2, 3))
    assert [str(r) for r in refs] == ["x=64", "y=40", "y=120", "z=10", "z=32", "z=53"]
    assert len(spread_slices((2, 9, 9), (0, 0, 5))) == 2, "a stack of two slices"


def test_three_folds_of_the_slices_share_nothing():
    trials = semi_automated(SHAPE, PAPER_METHODS, seeds=2)
    assert len(trials) == 3 * 3 * 2
    first = [t for t in trials if t.method.key == "3d" and t.seed == 0]
    measured = [set(t.measured) for t in first]
    assert len(set.union(*measured)) == sum(map(len, measured)) == 18
    for trial in first:
        assert not set(trial.trained) & set(trial.measured)
        assert len(trial.trained) == 12
        assert {r.axis for r in trial.measured} == {0, 1, 2}
    assert len({t.key for t in trials}) == len(trials)


def test_more_and_more_slices_are_measured_on_the_same_others():
    trials = by_slices(SHAPE, PAPER_METHODS[1], seeds=1)
    assert [t.label for t in trials] == ["1, 1, 1", "2, 2, 1", "3, 3, 2", "5, 5, 3"]
    assert [len(t.trained) for t in trials] == [3, 5, 8, 13]
    (measured,) = {t.measured for t in trials}
    assert len(measured) == 6
    assert not any(set(t.trained) & set(measured) for t in trials)


def test_each_stack_is_left_out_once():
    trials = fully_automated(3, PAPER_METHODS[:1], seeds=1)
    assert [t.left_out for t in trials] == [0, 1, 2]


def test_every_network_is_compared_on_the_same_slices():
    trials = compared(SHAPE, seconds=20, seeds=1)
    assert [t.method.settings["network"] for t in trials] == [
        kind_of(n) for n in available_networks()
    ]
    assert len({(t.trained, t.measured) for t in trials}) == 1
    assert {(t.method.settings["seconds"], t.method.settings["iterations"]) for t in trials} == {
        (20, None)
    }
    other_time = compared(SHAPE, seconds=30, seeds=1)
    assert not {t.key for t in trials} & {t.key for t in other_time}, "results of another time"


def test_the_paper_s_scale_is_the_paper_s():
    config = SCALES["paper"]
    assert (config.preset, config.iterations, config.batch_size) == ("paper", 70_000, 1)
    assert (config.optimizer, config.loss, config.dice_share) == ("sgd", "ce_dice", 0.0)
    assert config.augmentation.deformation == 4
    assert config.augmentation.deformation_spacing == 32
    assert not config.pixel_classifier


def test_the_rows_of_the_paper():
    assert tuple(paper.BY_SLICES) == paper.COUNTS
    assert {m.key for m in PAPER_METHODS} == set(paper.SEMI_AUTOMATED) == set(paper.FULLY_AUTOMATED)
    assert paper.SEMI_AUTOMATED["3d_norm"] == pytest.approx(0.863)
