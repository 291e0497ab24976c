"""The tiles that a running training is looked at with."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from napari_unet3d.config import Triple
from napari_unet3d.data.boxes import Box
from napari_unet3d.networks import NetworkConfig
from napari_unet3d.networks.geometry import is_padded, total_stride
from napari_unet3d.networks.planning import plan_patch, plan_tile
from napari_unet3d.prediction.engine import Engine
from napari_unet3d.training.limits import LookLimits
from napari_unet3d.training.plan import TrainingPlan


@dataclass(frozen=True)
class LookTiles:
    """Shapes (z, y, x) of tiles, in voxels of the network's input.

    Attributes
    ----------
    network
        Configuration of the network.
    stack_shape
        (Z, Y, X) of the stack, voxels.
    dense
        Like the tile of the dense prediction, but the same whatever memory is free.
    quick
        The tile of a look on the way.
    depths
        Voxels of a training patch across annotated slices perpendicular to axis 0, 1 and 2.
    limits
        How large tiles may be.
    """

    network: NetworkConfig
    stack_shape: Triple
    dense: Triple
    quick: Triple
    depths: Triple
    limits: LookLimits

    def thin(self, axis: int) -> Triple:
        """A tile for a slice perpendicular to `axis`: thin, so it is fast.

        It is deeper than a training patch by the stride of the network, since tiles start at
        multiples of it: the slice lies as far from the padding as in training.
        """
        if not is_padded(self.network):
            return self.dense
        depth = self.depths[axis] + total_stride(self.network)[axis]
        voxels = self.limits.look_voxels
        return plan_patch(self.network, self.stack_shape, axis, voxels, depth)

    def of(self, voxels: int) -> Triple | None:
        """A tile of about so many voxels; None where the smallest one is much larger."""
        tile = plan_tile(self.network, self.stack_shape, voxels)
        return None if prod(tile) > 2 * voxels else tile


def plan_tiles(plan: TrainingPlan) -> LookTiles:
    """The tiles for looks at a training."""
    network, shape, limits = plan.network, plan.volume.shape, plan.limits
    z, y, x = (plan.patches[axis][axis] for axis in range(3))
    dense = limits.statistics_voxels if plan.on_gpu else limits.cpu_tile
    return LookTiles(
        network=network,
        stack_shape=shape,
        dense=plan_tile(network, shape, dense),
        quick=plan_tile(network, shape, limits.look_voxels),
        depths=(z, y, x),
        limits=limits,
    )


def computed_voxels(engine: Engine, box: Box) -> int:
    """Voxels that go through the network when an engine predicts a box."""
    return len(engine.tiles(box)) * prod(engine.plan())
