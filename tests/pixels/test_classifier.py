"""The classifier of single voxels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from napari_unet3d.pixels.classifier import PixelClassifier
from napari_unet3d.pixels.features import MORE_SCALES, SCALES, filter_bank
from napari_unet3d.pixels.trees import ObliviousTrees


@pytest.mark.parametrize("asked", [None, 20, 25])
def test_log_probabilities_are_those_of_a_distribution(
    asked: int | None, device: torch.device
) -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 24, 40, 36).to(device)
    shape = (24, 40, 36)

    def read(start: tuple[int, ...], stop: tuple[int, ...]) -> Tensor:
        index = [torch.arange(a, b) for a, b in zip(start, stop, strict=True)]
        z, y, x = (i.clamp(0, n - 1) for i, n in zip(index, shape, strict=True))
        return image[:, z[:, None, None], y[:, None], x]

    trees = None if asked is None else _asking(asked)
    classifier = PixelClassifier(1, 3, trees=trees).eval().to(device)
    assert classifier.scales == (MORE_SCALES if asked == 25 else SCALES)
    found = classifier.log_probabilities(read, (0, 0, 0), shape, (1, 1, 1))
    assert found.shape == (3, *shape)
    assert torch.allclose(found.exp().sum(0), torch.ones(shape, device=device), atol=1e-5)
    features = filter_bank(read, (0, 0, 0), shape, (1, 1, 1), MORE_SCALES)
    at_once = classifier.voxel_log_probabilities(features.flatten(1).T).T.reshape(found.shape)
    assert torch.allclose(found, at_once, atol=1e-4)


def _asking(feature: int) -> ObliviousTrees:
    """Trees whose first question is about one feature, and tells two classes apart."""
    trees = ObliviousTrees(3)
    trees.feature[0, 0] = feature
    trees.leaf[1].view(-1, 64)[0, 32:] = 5
    return trees


def test_trees_answer_by_a_scale_that_the_perceptron_does_not_see() -> None:
    classifier = PixelClassifier(1, 3, trees=_asking(25)).eval()
    low, high = torch.zeros(1, 26), torch.zeros(1, 26)
    low[0, 25], high[0, 25] = -1, 1
    assert torch.equal(classifier(low), classifier(high))
    found = [classifier.voxel_log_probabilities(f)[0, 1].exp() for f in (low, high)]
    assert found[1] > found[0] + 0.3


def test_units_are_left_out_group_by_group() -> None:
    torch.manual_seed(0)
    classifier = PixelClassifier(1, 2, dropout=0.25)
    dropout = classifier.layers[2]
    found = dropout(torch.ones(40_000, 64))
    assert found.unique().tolist() == pytest.approx([0, 4 / 3])
    assert float(found.mean()) == pytest.approx(1, abs=0.02)
    assert (found.view(1250, 32, 64).amax(1) == found.view(1250, 32, 64).amin(1)).all()
    assert dropout(torch.ones(7, 64)).shape == (7, 64)
    assert torch.equal(classifier.eval().layers[2](found), found)
