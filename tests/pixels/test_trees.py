"""Boosted oblivious trees learn, and answer as their own arithmetic says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from napari_unet3d.pixels.trees import DEPTH, TREES, ObliviousTrees, fit_trees


def _never() -> bool:
    return False


def _checkerboard(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Three classes in a checkerboard of two features; five others say nothing."""
    features = torch.rand((n, 7), generator=torch.Generator().manual_seed(seed))
    target = ((features[:, 0] * 4).long() + (features[:, 1] * 4).long()) % 3
    return features, target


def test_they_learn_what_no_single_feature_tells(device: torch.device) -> None:
    features, target = (t.to(device) for t in _checkerboard(4000, 0))
    trees = fit_trees(features, target, 3, 0, _never)
    unseen, truth = (t.to(device) for t in _checkerboard(2000, 1))
    assert (trees(unseen).argmax(1) == truth).float().mean() > 0.9


def test_the_odds_are_those_of_the_sum_of_one_leaf_a_tree() -> None:
    features, target = _checkerboard(500, 0)
    trees = fit_trees(features, target, 3, 0, _never, count=9)
    found = trees(features[:20])
    leaves = trees.leaf.view(3, TREES, 1 << DEPTH)
    assert not leaves[:, 9:].any()
    for voxel, logits in zip(features[:20], found, strict=True):
        expected = trees.prior.clone()
        for tree in range(TREES):
            row = 0
            for level in range(DEPTH):
                question = int(trees.feature[level, tree])
                row = 2 * row + int(voxel[question] > trees.threshold[level, tree])
            expected += leaves[:, tree, row]
        assert torch.allclose(logits - logits[0], expected - expected[0], atol=1e-5)


def test_the_scale_of_a_feature_does_not_matter() -> None:
    features, target = _checkerboard(800, 0)
    scaled = features.clone()
    scaled[:, 0] = scaled[:, 0].exp() * 1000
    plain, other = (fit_trees(x, target, 3, 0, _never) for x in (features, scaled))
    assert torch.allclose(plain(features), other(scaled), atol=1e-5)


def test_what_lies_far_away_is_answered_like_the_nearest() -> None:
    features, target = _checkerboard(800, 0)
    trees = fit_trees(features, target, 3, 0, _never)
    edge = features.amax(0, keepdim=True)
    assert torch.equal(trees(edge), trees(edge + 1000))


def test_without_a_tree_the_shares_of_the_classes_answer() -> None:
    features, target = _checkerboard(900, 0)
    trees = fit_trees(features, target, 4, 0, lambda: True)
    shares = target.bincount(minlength=4) / len(target)
    assert trees(features[:1]).softmax(1)[0].tolist() == pytest.approx(shares.tolist(), abs=2e-4)


@pytest.mark.parametrize("target", [torch.zeros(50).long(), torch.tensor([1])])
def test_one_class_alone_is_the_answer_everywhere(target: Tensor) -> None:
    features = torch.rand(len(target), 7)
    trees = fit_trees(features, target, 2, 0, _never, count=3)
    assert (trees(torch.randn(5, 7)).argmax(1) == target[0]).all()


def test_many_voxels_are_answered_like_few() -> None:
    features, target = _checkerboard(20_000, 0)
    trees = fit_trees(features[:500], target[:500], 3, 0, _never, count=5)
    assert torch.allclose(trees(features)[::777], trees(features[::777]), atol=1e-6)


def test_they_are_the_same_after_storing() -> None:
    features, target = _checkerboard(500, 0)
    trees = fit_trees(features, target, 3, 0, _never, count=5)
    again = ObliviousTrees(3)
    again.load_state_dict(trees.state_dict())
    assert torch.equal(trees(features), again(features))


def test_of_many_voxels_some_are_enough_and_a_rare_class_keeps_its_own() -> None:
    features, target = _checkerboard(130_000, 0)
    target[target == 2] = 0
    target[features[:, 2] > 0.999] = 2  # 0.1 % of the voxels
    trees = fit_trees(features, target, 3, 0, _never, count=8)
    unseen, _ = _checkerboard(20_000, 1)
    rare = unseen[:, 2] > 0.9995
    assert (trees(unseen[rare]).argmax(1) == 2).float().mean() > 0.8
