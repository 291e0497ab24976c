"""The pixel classifier of a training, and how it and the network decide together."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from napari_unet3d.data.boxes import Box, slice_box
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.events import Notice
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.model.evidence import SliceCheck
from napari_unet3d.model.mixture import Calibration, bounded_log
from napari_unet3d.model.mixture_fit import fit_calibration, usual_calibration, weight_on_unseen
from napari_unet3d.networks import device as devices
from napari_unet3d.pixels.classifier import PixelClassifier
from napari_unet3d.pixels.features import feature_count
from napari_unet3d.pixels.fit import PixelSample, fit_pixels, scales_of_trees
from napari_unet3d.prediction.engine import Engine
from napari_unet3d.prediction.expected import check_slice
from napari_unet3d.sampling.patches import PatchSampler
from napari_unet3d.sampling.pixel_samples import sample_pixels
from napari_unet3d.training.plan import TrainingPlan
from napari_unet3d.training.tiles import computed_voxels
from napari_unet3d.training.unseen import UnseenSlices

_PIXELS_ALONE = Calibration(network=0.0, pixels=1.0)
"""The weights of a network that cannot be used: the pixel classifier decides alone."""


class PixelSupport:
    """Supports the network with a classifier of single voxels, which learns in seconds.

    Parameters
    ----------
    plan
        The training.
    sampler
        Knows the labelled voxels.

    Attributes
    ----------
    pixels
        The classifier, on the device; None where the network stands alone.
    calibration
        How the two decide together; see `weigh` and `calibrate`.
    unseen
        Slices that the network does not see at first, and what they tell.
    """

    def __init__(self, plan: TrainingPlan, sampler: PatchSampler) -> None:
        self._plan, self._sampler = plan, sampler
        self.pixels: PixelClassifier | None = None
        self.calibration = Calibration()
        self.unseen = UnseenSlices(plan, sampler)
        self._samples: list[PixelSample] = []
        self._log_probabilities: list[Tensor] = []
        """Of each sample, by a classifier that has not seen it; empty where there was no time."""
        self._is_fitted = True
        """False while the pixel classifier has only the usual weights."""
        self._joined: set[SliceRef] = set()
        """Slices that have changed since the classifier was fitted."""
        if plan.start_from is not None and plan.keeps_head and plan.fits_pixels:
            self._keep(plan.start_from)

    def _keep(self, bundle: ModelBundle) -> None:
        """Go on with a model's classifier, until another one is fitted in its place."""
        classifier = bundle.build_pixels()
        if classifier is not None:
            self.pixels = classifier.to(self._plan.device)
            self.calibration = bundle.calibration
            record = bundle.record
            usual = usual_calibration(record.iterations_before + record.iterations)
            self._is_fitted = bundle.calibration != usual

    @property
    def is_outdated(self) -> bool:
        """Whether slices have changed since the classifier was fitted."""
        return bool(self._joined) and self.pixels is not None

    def adopt(self, plan: TrainingPlan, changed: Collection[SliceRef]) -> None:
        """Take in that some slices have other labels now; the sampler knows them already.

        Their samples are dropped, so that the calibration keeps to what is trained on.
        """
        self._plan = plan
        self.unseen.adopt(plan)
        self._joined.update(changed)
        kept = [i for i, s in enumerate(self._samples) if s.ref not in changed]
        if self._log_probabilities:
            self._log_probabilities = [self._log_probabilities[i] for i in kept]
        self._samples = [self._samples[i] for i in kept]

    def fit(self, left: Callable[[], float], stopped: Callable[[], bool]) -> Notice | None:
        """Fit the classifier to the labelled voxels.

        Parameters
        ----------
        left
            Asked for the seconds that are left.
        stopped
            When True, fitting ends at once.

        Returns
        -------
        Notice or None
            That memory did not suffice, where it did not.
        """
        try:
            self._fit(left, stopped)
            return None
        except Exception as error:
            if not devices.is_out_of_memory(error):
                raise
        # Outside of the except block: the traceback would keep the tensors alive.
        self._joined.clear()  # another try would fail, too
        devices.make_room(self._plan.device)
        instead = "the network stands alone" if self.pixels is None else "it stays as it was"
        return Notice(f"Too little memory to fit the pixel classifier: {instead}.")

    def _fit(self, left: Callable[[], float], stopped: Callable[[], bool]) -> None:
        if left() <= 0:
            return
        # Half of the time is kept for the fit: reading a compressed image may take long.
        enough = left() / 2
        network, seed = self._plan.network, self._plan.config.seed
        scales = scales_of_trees(len(self._plan.slices))
        width = feature_count(network.in_channels, scales)
        kept = [s for s in self._samples if s.features.shape[1] == width]
        joined = frozenset(self._joined) if kept else None
        samples = kept + sample_pixels(
            self._sampler, lambda: left() < enough, stopped, joined, scales
        )
        if not samples or left() <= 0:
            return
        pixels, log_probabilities = fit_pixels(
            samples, network.in_channels, network.n_classes, seed, left
        )
        if self._joined and self.pixels is not None and not log_probabilities:
            return  # it may be half fitted, and the one before is whole
        self.pixels, self._log_probabilities = pixels, log_probabilities
        self._samples = samples
        self._joined.clear()
        self._is_fitted = False

    def weigh(self, iterations: int) -> None:
        """Give the network its usual weight, unless the weights were fitted to this classifier.

        Parameters
        ----------
        iterations
            Iterations that the network has learned in.
        """
        if not self._is_fitted:
            self.calibration = usual_calibration(iterations)

    def leave_it_to_pixels(self) -> None:
        """Give the network no weight where there is a pixel classifier."""
        if self.pixels is not None:
            self.calibration = _PIXELS_ALONE

    @property
    def calibration_boxes(self) -> list[Box]:
        """Boxes that are predicted for the calibration; before the fit, whole slices."""
        most = self._most_parts
        shape = self._plan.volume.shape
        return [s.box for s in self._samples[:most]] or [
            slice_box(shape, s.ref) for s in self._plan.slices[:most]
        ]

    @property
    def _most_parts(self) -> int:
        """Parts that are predicted for the calibration.

        With one slice nothing is fitted, and one part tells whether the network gives numbers.
        """
        refs = {s.ref for s in self._samples or self._plan.slices}
        return self._plan.limits.calibration_parts if len(refs) > 1 else 1

    def check_slices(self) -> tuple[SliceCheck, ...]:
        """How the classifier judges each annotated slice by cross-fitting; may be empty.

        Its probabilities are made as sure and shifted as those of the mixture. The network has no
        part in them, since it has seen these slices.
        """
        parts: dict[SliceRef, list[int]] = {}
        for i in range(len(self._log_probabilities)):
            parts.setdefault(self._samples[i].ref, []).append(i)
        return tuple(
            check_slice(
                str(ref),
                self.calibration.of_pixels_alone(
                    torch.cat([self._log_probabilities[i] for i in some])
                ),
                torch.cat([self._samples[i].target for i in some]),
            )
            for ref, some in sorted(parts.items())
        )

    def calibrate(
        self,
        engine: Engine,
        iterations: int,
        interrupted: Callable[[], bool],
    ) -> None:
        """Fit the calibration on slices of the training, never on held-out ones.

        Where there was no time for cross-fitting, it stays as it is; with one annotated slice, it
        is the usual one, unless the weight of the network is known from unseen slices.

        Parameters
        ----------
        engine
            Predicts with the final network alone.
        iterations
            Iterations that it has learned in.
        interrupted
            Asked between parts of slices: when True, those so far must do.
        """
        if not self._log_probabilities:
            return
        plan = self._plan
        network, parts = self._predict(engine, range(len(self._samples)), interrupted)
        slices = len({self._samples[i].ref for i in parts})
        pixels = torch.cat([self._log_probabilities[i].cpu() for i in parts])
        target = torch.cat([self._samples[i].target.cpu() for i in parts])
        some = self._some(len(target))
        self.calibration = fit_calibration(
            network[some],
            pixels[some],
            target[some],
            iterations=iterations,
            slices=slices,
            shift=plan.config.class_shift and slices > 1,
            unseen=self.unseen.weight,
        )
        self._is_fitted = slices > 1

    def hide_slices(self, expected: float | None) -> None:
        """Hide slices from the network, if something could be learned from it; after `fit`.

        Parameters
        ----------
        expected
            Iterations that the training is expected to have; None where that is unknown.
        """
        if self._log_probabilities:
            self.unseen.hide(expected)

    def judge_unseen(self, engine: Engine, seconds: float, interrupted: Callable[[], bool]) -> None:
        """Find the weight that the network deserves, on the slices that are hidden from it.

        It stands beside a classifier that is fitted without these slices.

        Parameters
        ----------
        engine
            Predicts with the network alone.
        seconds
            Time for the prediction, of which one part is made in any case, and again for the fit.
        interrupted
            When True, the weight stays unknown.
        """
        hidden = self.unseen.hidden
        seen = [s for s in self._samples if s.ref not in hidden]
        chosen = [i for i, s in enumerate(self._samples) if s.ref in hidden]
        if not (seen and chosen):
            return
        end = time.monotonic() + seconds
        network, parts = self._predict(
            engine, chosen, lambda: interrupted() or time.monotonic() > end
        )
        end = time.monotonic() + seconds

        def left() -> float:
            return 0.0 if interrupted() else end - time.monotonic()

        config, seed = self._plan.network, self._plan.config.seed
        judge, _ = fit_pixels(seen, config.in_channels, config.n_classes, seed, left, crosses=False)
        if left() <= 0:
            return
        samples = [self._samples[i] for i in parts]
        pixels = torch.cat([judge.voxel_log_probabilities(s.features).cpu() for s in samples])
        target = torch.cat([s.target.cpu() for s in samples])
        slices = len({s.ref for s in samples})
        some = self._some(len(target))
        self.unseen.weight = weight_on_unseen(network[some], pixels[some], target[some], slices)

    def _predict(
        self, engine: Engine, numbers: Sequence[int], interrupted: Callable[[], bool]
    ) -> tuple[Tensor, list[int]]:
        """Log-probabilities (n, K) of the network on samples, and which samples these are."""
        found: list[Tensor] = []
        voxels = 0
        for number in numbers[: self._most_parts]:
            sample = self._samples[number]
            if found and interrupted():
                break
            voxels += computed_voxels(engine, sample.box)
            if found and voxels > self._plan.limits.calibration_predicted[self._plan.on_gpu]:
                break
            predicted = engine.predict(sample.ref.time, sample.box)
            chosen = sample.chosen.cpu()
            found.append(bounded_log(torch.from_numpy(predicted)).flatten(1)[:, chosen].T)
        return torch.cat(found), list(numbers[: len(found)])

    def _some(self, n: int) -> Tensor:
        """As many of n voxels as there is time for, drawn at random, but the same each time."""
        most = 2 * self._plan.limits.calibration_voxels // self._plan.network.n_classes
        return torch.randperm(n, generator=torch.Generator().manual_seed(0))[:most]
