"""How long the parts of a training will take, from a measurement of half a second."""

from __future__ import annotations

import time
from math import prod

import torch
from torch import Tensor

from napari_unet3d.config import Triple
from napari_unet3d.data.boxes import Box, slice_box
from napari_unet3d.events import Forecast
from napari_unet3d.networks import device as devices
from napari_unet3d.networks.architecture import Network
from napari_unet3d.networks.planning import largest_cpu_tile, plan_tile
from napari_unet3d.pixels.features import filter_bank
from napari_unet3d.pixels.fit import scales_of_trees
from napari_unet3d.prediction.stack_plan import DENSE_OVERLAP, TileRules
from napari_unet3d.training.learner import Learner
from napari_unet3d.training.looks import Looks
from napari_unet3d.training.plan import TrainingPlan
from napari_unet3d.training.tiles import computed_voxels

STEP_COST = 3.0
"""Predictions of as many voxels that take as long as a training step; measured on CPUs."""
_TIMED_TILE = 150_000
"""Voxels of the tile that is timed: a third of a second on one core, and hardly slower a voxel
than the tiles of a prediction."""
_TIMED_BOX = (24, 64, 64)
"""Voxels (z, y, x) of the box whose features are timed: a sixth of a second on one core."""
_THIN_BOX = (1, 160, 160)
"""Voxels of the box that stands for a slice, one voxel thick: its features take several times as
long a voxel, since their halo is read and smoothed too."""
_LOAD_MEMORY = 0.9
"""Share of the last estimate of the load that is kept at each step: it follows in seconds."""
_FITTING_SECONDS = 1.0
"""Seconds that fitting the calibration takes on two cores."""


class Speed:
    """Seconds that this computer takes for a voxel, measured once.

    Parameters
    ----------
    learner
        The training whose network is timed.
    looks
        What follows the training.
    """

    def __init__(self, learner: Learner, looks: Looks) -> None:
        self._learner, self._looks = learner, looks
        self._network: float | None = None
        self._pixels = self._thin_pixels = 0.0
        self._stepped = 0.0
        """Seconds of the network for a voxel, as the last step took."""
        self._load = 1.0
        """Time that the work takes, over that of the measurement: other programs come and go."""
        try:
            self._network = _time_network(learner.average, self._plan, looks)
            if self._plan.fits_pixels and self._network is not None:
                self._pixels = _time_features(self._plan, _TIMED_BOX)
                self._thin_pixels = _time_features(self._plan, _THIN_BOX)
        except Exception as error:
            if not devices.is_out_of_memory(error):
                raise

    @property
    def _plan(self) -> TrainingPlan:
        return self._learner.plan

    def note_step(self, seconds: float) -> None:
        """Take note of the time that a training step took, which tells the load."""
        self._stepped = seconds / (STEP_COST * self._learner.step_voxels)
        if self._network:
            load = self._stepped / self._network
            self._load = _LOAD_MEMORY * self._load + (1 - _LOAD_MEMORY) * load

    def look(self, voxels: int, pixels: int) -> float:
        """Expected seconds of a look, from the last step; 0 before the first one.

        Parameters
        ----------
        voxels
            Voxels that the network computes.
        pixels
            Voxels of thin boxes whose features the pixel classifier needs.
        """
        return self._stepped * voxels + self._load * self._thin_pixels * pixels

    def finishing(self, limit: float) -> float | None:
        """Expected seconds of what follows the training; None while unknown.

        Parameters
        ----------
        limit
            Seconds that each of its two parts may take.
        """
        if self._network is None:
            return None
        network = self._load * self._network
        tile, statistics, calibration, scores = (n * network for n in self._finishing_voxels())
        scores += self._load * self._thin_pixels * self._held_out_pixels()
        if not self._pixels:
            calibration = 0.0
        # Each part takes one tile at least, however short the time is.
        least = tile * (1 + (calibration > 0))
        seconds = max(least, min(limit, statistics + calibration))
        if calibration:
            seconds += _FITTING_SECONDS
        if scores:
            seconds += max(tile, min(limit, self._plan.limits.final_seconds, scores))
        return seconds

    def forecast(self, iteration: int, elapsed: float) -> Forecast | None:
        """Expected seconds of all parts; None where they are not known.

        Parameters
        ----------
        iteration, elapsed
            Iterations and seconds that the training has had.
        """
        training = self._training(iteration, elapsed)
        finishing = self.finishing(self._plan.budget.finishing_seconds)
        if training is None or finishing is None or self._network is None:
            return None
        network, stack = self._stack_voxels(), prod(self._plan.volume.shape)
        segmenting = self._load * (self._network * network + self._pixels * stack)
        return Forecast(training, finishing, segmenting)

    def iterations(self) -> float | None:
        """Iterations that the whole training is expected to have; None while unknown."""
        budget, plan = self._plan.budget, self._plan
        if budget.iterations is not None or budget.seconds is None:
            return budget.iterations
        if not self._network:
            return None
        share = plan.config.small_patch_share
        small, large = (prod(plan.main_patch(p)) for p in (plan.small_patches, plan.patches))
        voxels = plan.batch_size * (share * small + (1 - share) * large)
        return budget.seconds / (STEP_COST * self._network * voxels)

    def _training(self, iteration: int, elapsed: float) -> float | None:
        """Expected seconds until the budget is used."""
        budget, plan = self._plan.budget, self._plan
        if budget.iterations is None:
            assert budget.seconds is not None
            return max(budget.seconds - elapsed, 0.0)
        if self._network is None:
            return None
        left = budget.iterations - iteration
        step = STEP_COST * self._network * plan.batch_size * prod(plan.main_patch())
        return self._load * step * left

    def _finishing_voxels(self) -> tuple[int, int, int, int]:
        """Voxels of a tile, and those of final statistics, calibration and final scores.

        An estimate: before the pixel classifier has learned, the calibration is expected to take
        whole slices.
        """
        plan, limits, looks = self._plan, self._plan.limits, self._looks
        shape, dense = plan.volume.shape, looks.tiles.dense
        tile = prod(dense)
        whole = prod(-(-n // size) for n, size in zip(shape, dense, strict=True))
        most = max(1, limits.statistics_voxels // tile)
        statistics = min(limits.statistics_tiles, most, whole) * tile
        apart, overlapping = looks.engine(dense, 0.0), looks.engine(dense)
        boxes = looks.support.calibration_boxes
        calibration = sum(computed_voxels(apart, box) for box in boxes)
        predicted = limits.calibration_predicted[plan.on_gpu] + tile
        held_out = sorted(plan.annotation.held_out)[: limits.calibration_parts]
        scores = sum(computed_voxels(overlapping, slice_box(shape, ref)) for ref in held_out)
        return tile, statistics, min(calibration, predicted), scores

    def _held_out_pixels(self) -> int:
        """Voxels of the held-out slices."""
        shape = self._plan.volume.shape
        return sum(prod(slice_box(shape, r).shape) for r in self._plan.annotation.held_out)

    def _stack_voxels(self) -> int:
        """Voxels that the network computes to segment one time point."""
        network, shape, tile = self._plan.network, self._plan.volume.shape, self._looks.tiles.dense
        if not self._plan.on_gpu:
            tile = plan_tile(network, shape, largest_cpu_tile(network))
        rules = TileRules(network, shape, DENSE_OVERLAP)
        return len(rules.tiles(Box((0, 0, 0), shape), tile).outputs) * prod(tile)


def _time_network(network: Network, plan: TrainingPlan, looks: Looks) -> float | None:
    """Seconds that the network takes for a voxel.

    None for a network whose smallest tile is much larger than the one that is timed, as the
    paper's.
    """
    tile = looks.tiles.of(_TIMED_TILE)
    if tile is None:
        return None
    image = torch.zeros((1, plan.network.in_channels, *tile), device=plan.device)
    image = image.contiguous(memory_format=devices.memory_format(plan.device))
    begin = time.monotonic()
    with torch.inference_mode(), devices.autocast(plan.device, plan.precision):
        network(image).sum().item()  # waits for the device
    return (time.monotonic() - begin) / prod(tile)


def _time_features(plan: TrainingPlan, box: Triple) -> float:
    """Seconds that the features of a voxel take in a box (z, y, x)."""
    volume, device = plan.volume, plan.device
    z, y, x = (min(n, most) for n, most in zip(volume.shape, box, strict=True))

    def read(start: tuple[int, ...], stop: tuple[int, ...]) -> Tensor:
        shape = (b - a for a, b in zip(start, stop, strict=True))
        return torch.zeros((volume.n_channels, *shape), device=device)

    begin = time.monotonic()
    with torch.no_grad():
        scales = scales_of_trees(len(plan.slices))
        filter_bank(read, (0, 0, 0), (z, y, x), volume.voxel_size, scales).sum().item()
    return (time.monotonic() - begin) / (z * y * x)
