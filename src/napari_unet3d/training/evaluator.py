"""The averaged weights of a running training, and looks at what they can do."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from napari_unet3d.config import Triple
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.patches import PatchSampler
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.model import device as devices
from napari_unet3d.model.device import Precision
from napari_unet3d.model.planning import halve, plan_patch
from napari_unet3d.model.unet import UNet3D
from napari_unet3d.prediction.predictor import Predictor, label_table
from napari_unet3d.prediction.scores import Overlap
from napari_unet3d.prediction.tiling import Box
from napari_unet3d.training.events import HeldOutScores, SlicePreview

_FINAL_TILES = 8
"""Tiles for the batch-norm statistics of the final model; a look on the way takes one."""
_SLICE_TILE = 4_000_000


class Evaluator:
    """A running average of the weights, with batch-norm statistics of its own.

    Looking never changes the training: it uses other batches and a network of its own.

    Parameters
    ----------
    network
        The network in training, on its device.
    sampler
        Where plain patches and the volume come from.
    device, precision
        As in training.
    decay
        Of the running average; 0 keeps the current weights.
    interrupted
        Asked between batches and slices; looking ends early when it says True.
    """

    def __init__(
        self,
        network: UNet3D,
        sampler: PatchSampler,
        device: torch.device,
        precision: Precision,
        decay: float,
        interrupted: Callable[[], bool],
    ) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._sampler = sampler
        self._device, self._precision, self._decay = device, precision, decay
        self._interrupted = interrupted

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
        predictor = self._predictor(None)
        while True:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # a plain mean over the tiles
                norm.train()
            try:
                self._see(predictor, _FINAL_TILES if final else 1)
                break
            except Exception as error:
                smaller = halve(self.network.config, predictor.plan(self._sampler.volume.shape))
                if smaller is None or not devices.is_out_of_memory(error):
                    raise
                predictor.tile_shape = smaller
            finally:
                self.network.eval()

    @torch.no_grad()
    def _see(self, predictor: Predictor, most: int) -> None:
        """Run the network over up to `most` tiles, spread over the annotated time points."""
        volume = self._sampler.volume
        times = sorted({s.ref.time for s in self._sampler.slices})
        whole = Box((0, 0, 0), volume.shape)
        places = [(t, tile) for t in times for tile in predictor.tiles(volume.shape, whole)]
        for i in range(min(most, len(places))):
            if i and self._interrupted():
                break
            at, tile = places[(2 * i + 1) * len(places) // (2 * min(most, len(places)))]
            with devices.autocast(self._device, self._precision):
                self.network(predictor.read(volume, at, tile))

    def preview(self, ref: SliceRef) -> SlicePreview:
        """One slice as the network sees it now."""
        self.estimate_statistics(final=False)
        return SlicePreview(ref, self._segment(ref, thin=True))

    def measure(self, iteration: int, elapsed: float, final: bool) -> HeldOutScores:
        """Scores on the held-out slices; voxels that are not labelled there do not count.

        The final measurement predicts with the tiles of the dense prediction, so that the
        scores are those of the result.
        """
        self.estimate_statistics(final)
        annotation = self._sampler.annotation
        table = label_table(annotation.classes)
        overlap = Overlap([c.value for c in annotation.classes])
        refs = sorted(annotation.held_out)
        for ref in refs:
            if self._interrupted():
                break
            target = annotation.held_out_target(ref)
            truth = table[np.maximum(target, 1) - 1]
            overlap.add(self._segment(ref, thin=not final), truth, target > 0)
        distance = held_out_distance(annotation, [s.ref for s in self._sampler.slices])
        names = tuple(str(ref) for ref in refs)
        return HeldOutScores(iteration, elapsed, overlap.scores(), names, distance)

    def _segment(self, ref: SliceRef, thin: bool) -> np.ndarray:
        """Label values (rows, columns) of one slice; `thin` tiles are faster."""
        volume, config = self._sampler.volume, self.network.config
        tile = None
        if thin and config.padding == "same":
            depth = self._sampler.shapes[ref.axis][ref.axis]
            tile = plan_patch(config, volume.shape, ref.axis, _SLICE_TILE, depth)
        found = self._predictor(tile).slice(volume, ref.time, ref.axis, ref.index)
        labels: np.ndarray = label_table(self._sampler.annotation.classes)[found.argmax(0)]
        return labels

    def _predictor(self, tile: Triple | None) -> Predictor:
        intensity = self._sampler.intensity
        return Predictor(self.network, intensity, self._device, self._precision, tile)


def held_out_distance(annotation: SparseAnnotation, trained: list[SliceRef]) -> int | None:
    """Slices between a held-out slice and the nearest trained one of the same orientation."""
    distances = [
        abs(ref.index - other.index)
        for ref in annotation.held_out
        for other in trained
        if (ref.axis, ref.time) == (other.axis, other.time)
    ]
    return min(distances, default=None)
