"""The averaged weights of a running training, and looks at what they can do."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from napari_unet3d.config import Triple
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.boxes import Box, plan_blocks, plan_parts, slice_box, spread_order
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.events import HeldOutScores, SlicePreview
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.model.mixture import Calibration, bounded_log
from napari_unet3d.model.mixture_fit import fit_calibration
from napari_unet3d.networks import device as devices
from napari_unet3d.networks.device import Precision
from napari_unet3d.networks.geometry import output_shape
from napari_unet3d.networks.planning import plan_patch, plan_tile
from napari_unet3d.networks.unet import UNet3D, fold_batch_norm
from napari_unet3d.pixels.classifier import PixelClassifier
from napari_unet3d.pixels.fit import PixelSample, fit_pixels
from napari_unet3d.prediction.predictor import (
    CPU_TILE,
    NotFiniteError,
    Predictor,
    label_table,
    output_table,
)
from napari_unet3d.prediction.scores import Overlap
from napari_unet3d.sampling.patches import PatchSampler
from napari_unet3d.sampling.pixel_samples import sample_pixels

_FINAL_TILES, _FINAL_VOXELS = 8, 8_000_000
"""Tiles for the batch-norm statistics of the final model at the most, and their voxels in all
(but one tile at least); a look on the way takes one."""
_LOOK_OVERLAP, _LOOK_VOXELS = 0.25, 600_000
"""Overlap and voxels of the tiles for a look on the way: the training waits for it."""
_CALIBRATION_PARTS, _CALIBRATION_VOXELS = 8, 60_000
_CALIBRATION_PREDICTED = 24_000_000, 120_000_000
"""Voxels of the tiles that may be predicted for it, on a CPU and on a GPU, about."""
_FINAL_SECONDS, _LOOK_SECONDS = 6.0, 1.0
"""Time after which measuring ends, with what was scored by then."""
_TARGET_VOXELS = 1 << 28
"""Voxels (bytes) of the held-out slices whose labels are kept from one look to the next; of
others, only the parts that are scored are read again."""


class Evaluator:
    """A running average of the weights, with batch-norm statistics of its own.

    Looking never changes the training: it draws nothing from it, and has a network of its own.

    Parameters
    ----------
    network
        The network in training, on its device.
    sampler
        Where the volume, the annotation and the shape of the patches come from.
    device, precision
        As in training.
    decay
        Of the running average; 0 keeps the current weights.
    interrupted
        Asked between tiles and parts; looking ends early when it says True.
    patch_depth
        Gives the depth of a training patch, voxels, for slices perpendicular to an axis.
    class_shift
        Whether the calibration may shift the classes.
    """

    def __init__(
        self,
        network: UNet3D,
        sampler: PatchSampler,
        device: torch.device,
        precision: Precision,
        decay: float,
        interrupted: Callable[[], bool],
        patch_depth: Callable[[int], int],
        class_shift: bool = False,
    ) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._folded = self.network
        self._sampler = sampler
        self._device, self._precision, self._decay = device, precision, decay
        self._interrupted = interrupted
        self._patch_depth = patch_depth
        self._class_shift = class_shift
        self.pixels: PixelClassifier | None = None
        self.calibration = Calibration()
        self._samples: list[PixelSample] = []
        self._judged: list[Tensor] = []
        self._labelled: dict[SliceRef, int] = {}
        self._targets: dict[SliceRef, np.ndarray] = {}

    @torch.no_grad()
    def update(self, network: UNet3D, iteration: int) -> None:
        """Take the weights after `iteration` iterations into the average."""
        # At the beginning the window is short: random weights are forgotten quickly.
        decay = min(self._decay, iteration / (iteration + 9))
        averaged: list[Tensor] = list(self.network.parameters())
        current: list[Tensor] = list(network.parameters())
        torch._foreach_lerp_(averaged, current, 1 - decay)

    def estimate_statistics(self, final: bool) -> None:
        """Batch-norm statistics of the averaged weights, over tiles as prediction uses them.

        Smaller or labelled patches give other statistics, and up to 0.04 less IoU.
        """
        norms = [
            m
            for m in self.network.modules()
            if isinstance(m, nn.BatchNorm3d) and m.track_running_stats
        ]
        if not norms:
            return
        volume, config = self._sampler.source.volume, self.network.config
        tile = self._dense_tile() if final else plan_tile(config, volume.shape, _LOOK_VOXELS)
        predictor = self._predictor(tile)
        while True:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # a plain mean over the tiles
                norm.train()
            try:
                self._run_tiles(predictor, final)
            except Exception as error:
                if not devices.is_out_of_memory(error) or not predictor.halve_tile(volume.shape):
                    raise
                continue
            finally:
                self.network.eval()
            if self._precision == "fp32" or all(_has_finite_statistics(norm) for norm in norms):
                break
            self._precision = "fp32"  # fp16 ends at 65504
        self._folded = fold_batch_norm(self.network)

    @torch.no_grad()
    def _run_tiles(self, predictor: Predictor, final: bool) -> None:
        """Run the network over some tiles, spread over the annotated time points."""
        volume = self._sampler.source.volume
        times = sorted({s.ref.time for s in self._sampler.slices})
        whole = Box((0, 0, 0), volume.shape)
        tiles = predictor.tiles(volume.shape, whole)
        places = len(times) * len(tiles)
        most = min(_FINAL_TILES, max(1, _FINAL_VOXELS // prod(predictor.plan(volume.shape))))
        count = min(most if final else 1, places)
        rng = np.random.default_rng(self._sampler.seed)
        for i in range(count):
            if i and self._interrupted():
                break
            low, high = i * places // count, (i + 1) * places // count
            # At random: regular steps through rows of tiles would keep to some columns.
            place = int(rng.integers(low, high)) if final else places // 2
            time_point, tile = divmod(place, len(tiles))
            with devices.autocast(self._device, self._precision):
                self.network(predictor.read(volume, times[time_point], tiles[tile]))

    def keep_pixels(self, bundle: ModelBundle) -> None:
        """Go on with a model's pixel classifier, unless another one is fitted in its place."""
        classifier = bundle.build_pixels()
        assert classifier is not None
        self.pixels, self.calibration = classifier.to(self._device), bundle.calibration

    def learn_pixels(self, left: Callable[[], float], stopped: Callable[[], bool]) -> None:
        """Fit the pixel classifier: the floor under the network's first looks, and its support.

        Until the end both have the same say. It learns while there are seconds `left`, and ends
        at once when `stopped` says True.
        """
        if left() <= 0:
            return
        enough = left() / 2  # reading a compressed image may take long: time to learn is left
        samples = sample_pixels(self._sampler, lambda: left() < enough, stopped)
        if not samples or left() <= 0:
            return
        config = self.network.config
        self.pixels, self._judged = fit_pixels(
            samples, config.in_channels, config.n_classes, self._sampler.seed, left
        )
        nothing = samples[0].features.new_empty((0, samples[0].features.shape[1]))
        self._samples = [replace(s, features=nothing) for s in samples]  # they are large
        self.calibration = Calibration(network=0.5, pixels=0.5)

    def leave_it_to_pixels(self) -> None:
        """Give the network no say where there is a pixel classifier."""
        if self.pixels is not None:
            self.calibration = Calibration(network=0.0, pixels=1.0)

    def calibrate(self, trained: bool) -> None:
        """Calibrate the probabilities of the final network, which needs its statistics.

        The calibration is measured on the slices of the training, never on held-out ones. A
        network that is not `trained` yet has no say where there is a pixel classifier.
        """
        if not trained:
            self.leave_it_to_pixels()
            return
        if not self._judged:
            return
        predictor = self._predictor(self._dense_tile(), overlap=0, calibration=Calibration())
        network: list[Tensor] = []
        voxels = 0
        for sample in self._samples[:_CALIBRATION_PARTS]:
            if network and self._interrupted():
                break
            voxels += self._computed(predictor, sample.box)
            if network and voxels > _CALIBRATION_PREDICTED[self._device.type != "cpu"]:
                break
            predicted = predictor.predict(self._sampler.source.volume, sample.ref.time, sample.box)
            chosen = sample.chosen.cpu()
            network.append(bounded_log(torch.from_numpy(predicted)).flatten(1)[:, chosen].T)
        parts = self._samples[: len(network)]
        target = torch.cat([s.target.cpu() for s in parts])
        pixels = torch.cat([judged.cpu() for judged in self._judged[: len(parts)]])
        # A trial costs voxels × classes, and many classes need many trials.
        most = 2 * _CALIBRATION_VOXELS // self.network.config.n_classes
        generator = torch.Generator().manual_seed(0)
        some = torch.randperm(len(target), generator=generator)[:most]
        self.calibration = fit_calibration(
            torch.cat(network)[some],
            pixels[some],
            target[some],
            shift=self._class_shift and len({s.ref for s in parts}) > 1,
        )

    def preview(self, ref: SliceRef) -> SlicePreview | None:
        """One slice as the network sees it now; None where it gives no numbers."""
        self.estimate_statistics(final=False)
        predictor = self._predictor(self._thin_tile(ref.axis), overlap=_LOOK_OVERLAP)
        box = slice_box(self._shape, ref)
        try:
            probabilities = predictor.predict(self._sampler.source.volume, ref.time, box)
        except NotFiniteError:
            return None
        table = output_table(self._sampler.annotation.classes)
        return SlicePreview(ref, table[probabilities.argmax(0)].squeeze(ref.axis))

    def preview_voxels(self, ref: SliceRef) -> int:
        """Voxels that the network must compute for `preview`."""
        predictor = self._predictor(self._thin_tile(ref.axis), overlap=_LOOK_OVERLAP)
        return self._computed(predictor, slice_box(self._shape, ref))

    def measure_voxels(self) -> int:
        """Voxels that the network must compute before `measure` can end, on the way."""
        axes = {ref.axis for ref in self._sampler.annotation.held_out}
        part = max(prod(self._thin_tile(axis)) for axis in axes)
        return part + prod(plan_tile(self.network.config, self._shape, _LOOK_VOXELS))

    def _computed(self, predictor: Predictor, box: Box) -> int:
        """Voxels that go through the network for a box."""
        return len(predictor.tiles(self._shape, box)) * prod(predictor.plan(self._shape))

    def measure(self, iteration: int, elapsed: float, final: bool) -> HeldOutScores:
        """Scores on the held-out slices; voxels that are not labelled there do not count.

        Slices are scored part by part, spread over all of them, until the time for it is over:
        large slices must not eat up the training. A part without labels costs nothing. The
        final measurement, after `calibrate`, takes longer, and uses the tiles of the dense
        prediction, so that the scores are those of the result. On the way, there are no scores
        when the network gives no numbers.
        """
        if not final:
            self.estimate_statistics(final=False)
        end = time.monotonic() + (_FINAL_SECONDS if final else _LOOK_SECONDS)
        annotation = self._sampler.annotation
        values = [c.value for c in annotation.classes]
        table = label_table(annotation.classes)
        overlap = Overlap(values)
        total = sum(self._labelled_voxels(ref) for ref in annotation.held_out)
        scored = 0
        for ref, box, tile in self._parts(final):
            if scored and (self._interrupted() or time.monotonic() > end):
                break
            target = self._target(ref, box)
            labelled = int(np.count_nonzero(target))
            if not labelled:
                continue
            predictor = self._predictor(tile) if final else self._predictor(tile, _LOOK_OVERLAP)
            try:
                probabilities = predictor.predict(self._sampler.source.volume, ref.time, box)
            except NotFiniteError:
                if final:
                    raise
                overlap, scored = Overlap(values), 0
                break
            overlap.add(
                table[probabilities.argmax(0)], table[np.maximum(target, 1) - 1], target > 0
            )
            scored += labelled
        distance = held_out_distance(annotation, [s.ref for s in self._sampler.slices])
        names = tuple(str(ref) for ref in sorted(annotation.held_out))
        share = min(scored / total, 1.0) if total else 0.0
        return HeldOutScores(iteration, elapsed, overlap.scores(), names, distance, share, final)

    def _labelled_voxels(self, ref: SliceRef) -> int:
        """Labelled voxels of a held-out slice, counted once."""
        if ref not in self._labelled:
            target = self._sampler.annotation.held_out_target(ref)
            self._labelled[ref] = int(np.count_nonzero(target))
            kept = sum(kept.size for kept in self._targets.values())
            if kept + target.size <= _TARGET_VOXELS:
                self._targets[ref] = np.expand_dims(target, ref.axis)
        return self._labelled[ref]

    def _target(self, ref: SliceRef, box: Box) -> np.ndarray:
        """Codes (z, y, x) of the labels in a part of a held-out slice."""
        if ref in self._targets:
            return self._targets[ref][box_in_slice(box, ref)]
        return self._sampler.annotation.held_out_crop(ref.time, box.start, box.stop)

    def _parts(self, final: bool) -> list[tuple[SliceRef, Box, Triple]]:
        """The held-out slices, cut where they are larger than a tile.

        Whatever number of parts is taken from the beginning, they are spread over all slices.
        On the way, each part is the middle of a tile; in the end, it is as large as one, and
        its tiles are blended as in the dense prediction.
        """
        rng = np.random.default_rng(0)
        parts = []
        for number, ref in enumerate(sorted(self._sampler.annotation.held_out)):
            tile = self._dense_tile() if final else self._thin_tile(ref.axis)
            out = output_shape(self.network.config, tile)
            whole = slice_box(self._shape, ref)
            if final:
                grid = plan_blocks(whole.shape, out, prod(out) // out[ref.axis])
            else:
                z, y, x = (
                    n if n <= m else max(1, int(m * (1 - _LOOK_OVERLAP)))
                    for n, m in zip(whole.shape, out, strict=True)
                )
                grid = plan_parts(whole.shape, (z, y, x))
            grid = grid.moved(whole.start)
            for place, index in enumerate(spread_order(grid, rng)):
                parts.append(((place + 0.5) / len(grid), number, (ref, grid[index], tile)))
        return [part for *_, part in sorted(parts, key=lambda entry: entry[:2])]

    def finishing_voxels(self) -> tuple[int, int, int, int]:
        """Voxels of a tile, and those of final statistics, calibration and final scores.

        An estimate: before the pixel classifier has learned, the calibration is expected to take
        whole slices.
        """
        predictor = self._predictor(self._dense_tile(), overlap=0)
        tile = prod(predictor.plan(self._shape))
        whole = prod(-(-n // size) for n, size in zip(self._shape, self._dense_tile(), strict=True))
        statistics = min(_FINAL_TILES, max(1, _FINAL_VOXELS // tile), whole) * tile
        boxes = [s.box for s in self._samples[:_CALIBRATION_PARTS]] or [
            slice_box(self._shape, s.ref) for s in self._sampler.slices[:_CALIBRATION_PARTS]
        ]
        calibration = sum(self._computed(predictor, box) for box in boxes)
        most = _CALIBRATION_PREDICTED[self._device.type != "cpu"] + tile
        held_out = sorted(self._sampler.annotation.held_out)[:_CALIBRATION_PARTS]
        looking = self._predictor(self._dense_tile())
        scores = sum(self._computed(looking, slice_box(self._shape, ref)) for ref in held_out)
        return tile, statistics, min(calibration, most), scores

    def time_voxel(self, voxels: int) -> float | None:
        """Seconds that the network takes for a voxel, measured on a tile of about `voxels`.

        None for a network whose smallest tile is much larger, as the paper's.
        """
        tile = plan_tile(self.network.config, self._shape, voxels)
        if prod(tile) > 2 * voxels:
            return None
        image = torch.zeros((1, self.network.config.in_channels, *tile), device=self._device)
        image = image.contiguous(memory_format=devices.memory_format(self._device))
        begin = time.monotonic()
        with torch.inference_mode(), devices.autocast(self._device, self._precision):
            self._folded(image).sum().item()  # waits for the device
        return (time.monotonic() - begin) / prod(tile)

    @property
    def scoring_seconds(self) -> float:
        """Seconds after which the final measurement ends."""
        return _FINAL_SECONDS

    def stack_voxels(self) -> tuple[int, int]:
        """Voxels of one time point: those that the network computes to segment it, and its own."""
        tile = self._dense_tile()
        out = output_shape(self.network.config, tile)
        overlap = 0.5 if self.network.config.padding == "same" else 0.0
        count = 1
        for n, size in zip(self._shape, out, strict=True):
            count *= 1 + max(0, math.ceil((n - size) / (size * (1 - overlap))))
        return count * prod(tile), prod(self._shape)

    @property
    def _shape(self) -> Triple:
        return self._sampler.source.volume.shape

    def _dense_tile(self) -> Triple:
        """Like the tile of the dense prediction, but the same whatever memory is free."""
        voxels = CPU_TILE if self._device.type == "cpu" else _FINAL_VOXELS
        return plan_tile(self.network.config, self._shape, voxels)

    def _thin_tile(self, axis: int) -> Triple:
        """A tile as thin as a training patch, which is faster for one slice."""
        config = self.network.config
        if config.padding == "valid":
            return self._dense_tile()
        depth = self._patch_depth(axis)
        return plan_patch(config, self._shape, axis, _LOOK_VOXELS, depth)

    def _predictor(
        self, tile: Triple, overlap: float = 0.5, calibration: Calibration | None = None
    ) -> Predictor:
        intensity = self._sampler.source.intensity
        return Predictor(
            self._folded,
            intensity,
            self._device,
            self._precision,
            tile,
            overlap,
            pixels=self.pixels,
            calibration=calibration or self.calibration,
        )


def box_in_slice(box: Box, ref: SliceRef) -> tuple[slice, ...]:
    """Where a part of a slice lies in the slice's own array, one voxel thick."""
    return tuple(
        slice(None) if axis == ref.axis else slice(box.start[axis], box.stop[axis])
        for axis in range(3)
    )


def _has_finite_statistics(norm: nn.BatchNorm3d) -> bool:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return bool(norm.running_mean.isfinite().all() and norm.running_var.isfinite().all())


def held_out_distance(annotation: SparseAnnotation, trained: list[SliceRef]) -> int | None:
    """Slices between a held-out slice and the nearest trained one of the same orientation."""
    distances = [
        abs(ref.index - other.index)
        for ref in annotation.held_out
        for other in trained
        if (ref.axis, ref.time) == (other.axis, other.time)
    ]
    return min(distances, default=None)
