"""Linear interpolation, with and without torch's own 3D grid_sample."""

from __future__ import annotations

import pytest
import torch

from napari_unet3d.networks.resampling import gather_linearly, sample_linearly


def image(shape=(5, 6, 7), channels=2):
    return torch.randn(channels, *shape, generator=torch.Generator().manual_seed(0))


def indices(shape, beyond=2.0, count=(4, 5, 6)):
    """Random voxel indices, some of them up to `beyond` voxels outside."""
    generator = torch.Generator().manual_seed(1)
    where = torch.rand(3, *count, generator=generator)
    size = torch.tensor(shape).view(3, 1, 1, 1)
    return where * (size - 1 + 2 * beyond) - beyond


@pytest.mark.parametrize("sample", [sample_linearly, gather_linearly])
def test_whole_indices_give_the_voxels_themselves(sample):
    stack = image()
    axes = [torch.arange(n, dtype=torch.float32) for n in stack.shape[1:]]
    where = torch.stack(torch.meshgrid(axes, indexing="ij"))
    torch.testing.assert_close(sample(stack, where), stack, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sample", [sample_linearly, gather_linearly])
def test_half_way_between_two_voxels_lies_their_mean(sample):
    stack = image()
    where = torch.tensor([1.0, 2.0, 3.5]).view(3, 1, 1, 1)
    expected = (stack[:, 1, 2, 3] + stack[:, 1, 2, 4]) / 2
    torch.testing.assert_close(sample(stack, where)[:, 0, 0, 0], expected)


@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 6, 7), (1, 1, 1), (2, 1, 3)], ids=str)
def test_eight_gathers_equal_grid_sample(shape, device):
    stack, where = image(shape), indices(shape)
    gathered = gather_linearly(stack.to(device), where.to(device)).cpu()
    torch.testing.assert_close(gathered, sample_linearly(stack, where), rtol=1e-4, atol=1e-5)
