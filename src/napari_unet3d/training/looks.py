"""Looks at a running training: previews, scores, and the statistics of the final model."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from math import prod

from napari_unet3d.config import Triple
from napari_unet3d.data.boxes import slice_box
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.events import HeldOutScores, SlicePreview
from napari_unet3d.model.mixture import Calibration, Mixture
from napari_unet3d.networks.architecture import Network
from napari_unet3d.networks.device import Precision
from napari_unet3d.networks.layers import fold_batch_norm
from napari_unet3d.prediction.engine import Engine, NotFiniteError
from napari_unet3d.prediction.output import output_table
from napari_unet3d.prediction.stack_plan import DENSE_OVERLAP
from napari_unet3d.training.learner import Learner
from napari_unet3d.training.measuring import HeldOutSlices
from napari_unet3d.training.plan import TrainingPlan
from napari_unet3d.training.statistics import estimate_statistics, has_statistics
from napari_unet3d.training.support import PixelSupport
from napari_unet3d.training.tiles import computed_voxels, plan_tiles


class Looks:
    """Applies the averaged network of a running training.

    Looking never changes the training: it draws no random number of it.

    Parameters
    ----------
    learner
        The training; only its averaged network is used.
    interrupted
        Asked between tiles and parts: when True, a look ends early.

    Attributes
    ----------
    network
        The averaged network. Its batch-norm statistics are those of the latest look.
    support
        The pixel classifier and the calibration.
    tiles
        The tiles of the looks.
    """

    def __init__(self, learner: Learner, interrupted: Callable[[], bool]) -> None:
        self._learner, self._interrupted = learner, interrupted
        self._source = learner.sampler.source
        self.network: Network = learner.average
        self._folded = self.network
        self._precision: Precision = self._plan.precision
        self.support = PixelSupport(self._plan, learner.sampler)
        self.tiles = plan_tiles(self._plan)
        self._held_out = HeldOutSlices(self._plan, self.tiles, interrupted)

    @property
    def _plan(self) -> TrainingPlan:
        return self._learner.plan

    def adopt(self, changed: Collection[SliceRef]) -> None:
        """Look at the annotation that the learner has adopted.

        Parameters
        ----------
        changed
            Slices whose labelled voxels are others now.
        """
        self.support.adopt(self._plan, changed)
        self._held_out = HeldOutSlices(self._plan, self.tiles, self._interrupted)

    def prepare(self, final: bool) -> None:
        """Make the averaged network ready to predict: its batch-norm statistics and its weight.

        Parameters
        ----------
        final
            Whether the model is finished; statistics of a look on the way come from one tile.
        """
        self.support.weigh(self._learner.learned_iterations)
        if not has_statistics(self.network):
            return
        tile = self.tiles.dense if final else self.tiles.quick
        while not estimate_statistics(
            self._plan, self.engine(tile), self.network, final, self._interrupted
        ):
            if self._precision == "fp32":
                break
            self._precision = "fp32"  # fp16 ends at 65504
        self._folded = fold_batch_norm(self.network)

    def preview(self, ref: SliceRef, final: bool = False) -> SlicePreview | None:
        """Predict one slice; None where the network gives no numbers.

        Parameters
        ----------
        ref
            The slice.
        final
            Whether it is predicted as in the dense prediction, with the statistics and the
            calibration of the finished model.
        """
        if not final:
            self.prepare(final=False)
        box = slice_box(self._plan.volume.shape, ref)
        engine = self.engine(self.tiles.dense) if final else self._thin(ref)
        try:
            probabilities = engine.predict(ref.time, box)
        except NotFiniteError:
            return None
        table = output_table(self._plan.annotation.classes)
        return SlicePreview(ref, table[probabilities.argmax(0)].squeeze(ref.axis))

    def preview_voxels(self, ref: SliceRef) -> int:
        """Voxels that the network computes for the slice of a `preview`."""
        return computed_voxels(self._thin(ref), slice_box(self._plan.volume.shape, ref))

    def preview_pixels(self, ref: SliceRef) -> int:
        """Voxels whose features are computed for a `preview`; 0 without a pixel classifier."""
        box = slice_box(self._plan.volume.shape, ref)
        return 0 if self.support.pixels is None else prod(box.shape)

    def measure(self, iteration: int, elapsed: float, final: bool) -> HeldOutScores:
        """Score the held-out slices; the final scores follow `calibrate`.

        Parameters
        ----------
        iteration, elapsed
            Iterations and seconds of the training until now.
        final
            Whether the model is finished.
        """
        if not final:
            self.prepare(final=False)
        return self._held_out.measure(self.engine, iteration, elapsed, final)

    @property
    def measure_voxels(self) -> int:
        """Voxels that the network computes before `measure` can end, on the way."""
        return self._held_out.first_part_voxels + prod(self.tiles.quick)

    @property
    def measure_pixels(self) -> int:
        """Voxels whose features are computed before `measure` can end, on the way."""
        return 0 if self.support.pixels is None else self._held_out.first_part_pixels

    def calibrate(self) -> None:
        """Calibrate the probabilities of the final network, after `prepare`."""
        iterations = self._learner.learned_iterations
        if iterations:
            self.support.calibrate(self._alone(), iterations, self._interrupted)

    def judge_unseen(self, seconds: float) -> None:
        """Find the weight that the network deserves, on the slices that are hidden from it.

        Where the network gives no numbers, it stays unknown.

        Parameters
        ----------
        seconds
            See `PixelSupport.judge_unseen`.
        """
        self.prepare(final=True)
        with suppress(NotFiniteError):
            self.support.judge_unseen(self._alone(), seconds, self._interrupted)

    def engine(
        self, tile: Triple, overlap: float = DENSE_OVERLAP, calibration: Calibration | None = None
    ) -> Engine:
        """The model as it is now, ready to predict boxes of the stack.

        Parameters
        ----------
        tile
            What the network sees at once (z, y, x), voxels.
        overlap
            What a tile has in common with the next, see `Engine`; that of a dense prediction
            unless given.
        calibration
            Takes the place of the current one.
        """
        mixture = Mixture(
            self._folded,
            self.support.pixels,
            calibration or self.support.calibration,
            self._plan.volume.voxel_size,
        )
        return Engine(mixture, self._source, self._precision, tile_shape=tile, overlap=overlap)

    def _alone(self) -> Engine:
        """The network without the pixel classifier, for boxes that need no overlap."""
        return self.engine(self.tiles.dense, 0.0, Calibration())

    def _thin(self, ref: SliceRef) -> Engine:
        return self.engine(self.tiles.thin(ref.axis))
