"""The classifier of single voxels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from napari_unet3d.pixels.classifier import PixelClassifier
from napari_unet3d.pixels.features import filter_bank


def test_log_probabilities_are_those_of_a_distribution(device: torch.device) -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 24, 40, 36).to(device)
    shape = (24, 40, 36)

    def read(start: tuple[int, ...], stop: tuple[int, ...]) -> Tensor:
        index = [torch.arange(a, b) for a, b in zip(start, stop, strict=True)]
        z, y, x = (i.clamp(0, n - 1) for i, n in zip(index, shape, strict=True))
        return image[:, z[:, None, None], y[:, None], x]

    classifier = PixelClassifier(1, 3).eval().to(device)
    found = classifier.log_probabilities(read, (0, 0, 0), shape, (1, 1, 1))
    assert found.shape == (3, *shape)
    assert torch.allclose(found.exp().sum(0), torch.ones(shape, device=device), atol=1e-5)
    features = filter_bank(read, (0, 0, 0), shape, (1, 1, 1))
    at_once = classifier.voxel_log_probabilities(features.flatten(1).T).T.reshape(found.shape)
    assert torch.allclose(found, at_once, atol=1e-4)


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
