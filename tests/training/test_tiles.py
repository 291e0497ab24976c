"""The tiles that a running training is looked at with."""

from __future__ import annotations

import pytest

from napari_unet3d.data.boxes import slice_box
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.networks.geometry import total_stride
from napari_unet3d.networks.planning import plan_patches, plan_tile
from napari_unet3d.networks.unet import UNetConfig
from napari_unet3d.prediction.stack_plan import DENSE_OVERLAP, TileRules
from napari_unet3d.training.limits import LookLimits
from napari_unet3d.training.tiles import LookTiles

SHAPE = (96, 200, 200)


@pytest.mark.parametrize("voxel_size", [(1.0, 1.0, 1.0), (4.0, 1.0, 1.0)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_lies_as_far_from_the_padding_as_in_training(voxel_size, axis):
    """Wherever it is: tiles begin at multiples of the stride, patches anywhere."""
    network = UNetConfig.plan(
        "balanced", voxel_size, SHAPE, in_channels=1, n_classes=2, accelerator=False
    )
    patches = plan_patches(network, SHAPE, False, 1 << 40, "fp32")
    z, y, x = (patches[a][a] for a in range(3))
    limits = LookLimits()
    tile = plan_tile(network, SHAPE, limits.look_voxels)
    tiles = LookTiles(network, SHAPE, tile, tile, (z, y, x), limits)
    rules = TileRules(network, SHAPE, DENSE_OVERLAP, adjoining=False)
    assert total_stride(network)[axis] > 1
    within = patches[axis][axis]
    for index in range(within, SHAPE[axis] - within):
        box = slice_box(SHAPE, SliceRef(axis, index))
        for output in rules.tiles(box, tiles.thin(axis)).outputs:
            before, after = index - output.start[axis], output.stop[axis] - 1 - index
            assert min(before, after) >= within // 2 - 1
