"""What every method is given, and how its result is scored: stacks, annotation, scores.

Truth and results have 0 for background and 2, 3, … for the classes; an annotation has 0 where
nothing is painted and 1 for background. Only voxels without annotation are scored.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.data.io.reading import read_labels, read_volume
from napari_unet3d.data.samples import tubules
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import mean
from napari_unet3d.prediction.scores import Overlap

SAMPLE = "tubules"
"""Name of the built-in stack, which is used where no folder is given."""
PLANES = "planes"
"""One annotated slice in the middle of each orientation."""
CALIBRATION_BINS = 15
SAMPLED_VOXELS = 2_000_000
"""Voxels. Calibration and retention are computed from no more than these."""
REACHED = 0.9
"""Share of the final IoU whose time is reported."""

DEVELOPMENT = frozenset(
    {
        SAMPLE,
        "fluo_nuclei_bbbc050_emb04",
        "fluo_cells_arabidopsis_ovule",
        "tubes_2p_vessels_large",
        "em_sstem_drosophila_vnc",
        "mri_hippocampus_msd056",
    }
)
"""Stacks on which constants are chosen, one of each domain. All others only confirm: they are
looked at once a candidate, and never to choose a constant."""

Slices = int | str
Labels = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]


class NotRunError(Exception):
    """A method cannot be run here; the text says why. It is no failure."""


def installed(package: str) -> bool:
    """Whether a package is there."""
    return importlib.util.find_spec(package) is not None


def need(package: str) -> None:
    """Raise NotRunError where a package is missing."""
    if not installed(package):
        raise NotRunError(f"{package} is not installed")


@dataclass
class Result:
    """What a method made of a stack.

    Attributes
    ----------
    labels
        (Z, Y, X) uint8: 0 background, 2… classes.
    values
        Label value of each channel of `probabilities`.
    probabilities
        (K, Z, Y, X), float16 or float32; None for a method that has none.
    training_s, prediction_s
        Seconds.
    curve
        Seconds and IoU on the watched slice while training; None when nothing was watched.
    details
        Whatever else is worth keeping, such as the number of iterations.
    """

    labels: Labels
    values: tuple[int, ...]
    probabilities: Floats | None
    training_s: float
    prediction_s: float
    curve: list[tuple[float, float]] | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Look:
    """A slice without annotation that is predicted now and then while a method trains.

    Attributes
    ----------
    ref
        The slice.
    truth
        Its truth, 2D.
    """

    ref: SliceRef
    truth: Labels

    def iou(self, labels: Labels) -> float:
        """Mean IoU of the classes on this slice, given its 2D labels."""
        return mean_iou(class_scores(labels, self.truth)) or 0.0

    def of(self, labels: Labels) -> Labels:
        """This slice of a stack, 2D."""
        plane: Labels = np.take(labels, self.ref.index, axis=self.ref.axis)
        return plane


# --- stacks and annotation ------------------------------------------------------------------


def stack_names(folder: Path | None, names: Sequence[str] = ()) -> list[str]:
    """The names given, or all stacks of a folder that have a truth.

    Raises
    ------
    FileNotFoundError
        A stack is not there, or the folder holds none.
    """
    if folder is None:
        return [SAMPLE]
    if not names:
        names = sorted(path.parent.name for path in folder.glob("*/labels.tif"))
    missing = [name for name in names if not (folder / name / "labels.tif").is_file()]
    if missing or not names:
        what = ", ".join(missing) or "any stack"
        raise FileNotFoundError(f"no labels.tif for {what} in '{folder}'")
    return list(names)


def load_stack(folder: Path | None, name: str) -> tuple[Volume, Labels]:
    """Image and truth of a stack; the built-in tubules without a folder."""
    if folder is None:
        sample = tubules()
        return sample.image, sample.truth
    labels = np.asarray(read_labels(folder / name / "labels.tif").data)
    truth = np.where(labels > 0, labels + 1, 0).astype(np.uint8)
    return read_volume(folder / name / "image.tif"), truth


def stacks(folder: Path | None, names: Sequence[str] = ()) -> dict[str, tuple[Volume, Labels]]:
    """Name → image and truth."""
    return {name: load_stack(folder, name) for name in stack_names(folder, names)}


def annotated_slices(shape: Sequence[int], slices: Slices) -> list[SliceRef]:
    """The slices a biologist annotates: evenly spaced xy slices, or one of each orientation."""

    def spaced(n: int, k: int) -> list[int]:
        at = np.linspace(0, n - 1, 2 * k + 1).round()[1::2].astype(int)
        return sorted({int(i) for i in at})

    if slices == PLANES:
        return [SliceRef(axis, spaced(n, 1)[0]) for axis, n in enumerate(shape)]
    return [SliceRef(0, z) for z in spaced(shape[0], int(slices))]


def annotate(truth: Labels, slices: Slices) -> Labels:
    """The truth on some slices, background painted too: 0 is unlabelled, 1 background."""
    labels = np.zeros_like(truth)
    for ref in annotated_slices(truth.shape, slices):
        where = (slice(None),) * ref.axis + (ref.index,)
        labels[where] = np.maximum(truth[where], 1)
    return labels


def watched_slice(truth: Labels, labels: Labels) -> Look:
    """The xy slice without annotation that holds most classes, far from the annotated ones."""
    complete = np.flatnonzero((labels > 0).all(axis=(1, 2)))
    fixed = np.concatenate([[-1], complete, [len(truth)]])

    def rank(z: int) -> tuple[int, int]:
        return len(np.unique(truth[z])), int(np.abs(fixed - z).min())

    z = max((z for z in range(len(truth)) if z not in complete), key=rank)
    return Look(SliceRef(0, z), truth[z])


# --- scores ---------------------------------------------------------------------------------


def class_scores(
    labels: Labels, truth: Labels, mask: NDArray[np.bool_] | None = None
) -> dict[int, dict[str, float]]:
    """IoU and Dice of each class of the truth, where `mask` is True."""
    overlap = Overlap([int(v) for v in np.unique(truth) if v])
    for z in range(len(truth)):
        overlap.add(labels[z], truth[z], None if mask is None else mask[z])
    return {
        s.value: {"iou": s.iou, "dice": s.dice}
        for s in overlap.scores()
        if s.iou is not None and s.dice is not None
    }


def mean_iou(classes: dict[int, dict[str, float]]) -> float | None:
    """Mean over the classes."""
    return mean([score["iou"] for score in classes.values()])


def calibration_error(confidence: Floats, correct: NDArray[np.bool_]) -> float:
    """Expected calibration error: mean distance of confidence and accuracy, bin by bin.

    Parameters
    ----------
    confidence
        (n,) top probabilities.
    correct
        (n,) whether the class with the top probability is the true one.
    """
    number = np.clip((confidence * CALIBRATION_BINS).astype(int), 0, CALIBRATION_BINS - 1)
    sure = np.bincount(number, confidence, CALIBRATION_BINS)
    right = np.bincount(number, correct, CALIBRATION_BINS)
    return float(np.abs(sure - right).sum() / len(confidence))


def retention_area(uncertainty: Floats, wrong: NDArray[np.bool_]) -> float:
    """Area under the error-retention curve: 0 is best, random order gives the error rate.

    Voxels are kept from the most certain one on; the area is the error rate among those kept,
    averaged over all fractions. Voxels of equal uncertainty are in random order: what counts
    is the expectation.
    """
    _, group, size = np.unique(uncertainty, return_inverse=True, return_counts=True)
    errors = np.bincount(group, wrong) / size
    kept = np.arange(1, len(wrong) + 1)
    return float((np.cumsum(np.repeat(errors, size)) / kept).mean())


def entropy(probabilities: Floats) -> Floats:
    """Entropy of (K, n) probabilities, 0 sure … 1 undecided."""
    p = np.asarray(probabilities, np.float64)
    logarithm = np.log(p, out=np.zeros_like(p), where=p > 0)
    total: Floats = -(p * logarithm).sum(0) / np.log(max(len(p), 2))
    return total


def certainty_scores(result: Result, truth: Labels, mask: NDArray[np.bool_]) -> dict[str, float]:
    """Calibration and error retention, from a sample of the voxels in `mask`."""
    if result.probabilities is None:
        return {}
    voxels = np.flatnonzero(mask)
    if len(voxels) > SAMPLED_VOXELS:
        voxels = np.random.default_rng(0).choice(voxels, SAMPLED_VOXELS, replace=False)
    flat = result.probabilities.reshape(len(result.values), -1)
    probabilities = flat[:, voxels].astype(np.float32)
    found = np.array(result.values, np.uint8)[probabilities.argmax(0)]
    wrong = found != truth.ravel()[voxels]
    return {
        "calibration_error": calibration_error(probabilities.max(0), ~wrong),
        "retention": retention_area(entropy(probabilities), wrong),
        "retention_oracle": retention_area(wrong.astype(np.float32), wrong),
        "error_rate": float(wrong.mean()),
    }


def seconds_to_reach(
    curve: Sequence[tuple[float, float]], final: float, share: float = REACHED
) -> float | None:
    """When a curve first reached a share of its final value; None when it never did."""
    return next((seconds for seconds, iou in curve if iou >= share * final), None)


def score(result: Result, truth: Labels, labels: Labels, look: Look | None) -> dict[str, Any]:
    """All figures of a result, ready for JSON."""
    mask = labels == 0
    classes = class_scores(result.labels, truth, mask)
    figures: dict[str, Any] = {
        "iou": mean_iou(classes),
        "dice": mean([s["dice"] for s in classes.values()]),
        "classes": {str(value): s for value, s in classes.items()},
        "training_s": result.training_s,
        "prediction_s": result.prediction_s,
        **certainty_scores(result, truth, mask),
        **result.details,
    }
    if look is not None and result.curve is not None:
        final = look.iou(look.of(result.labels))
        curve = [*result.curve, (result.training_s, final)]
        figures |= {"curve": curve, "reached_s": seconds_to_reach(curve, final)}
    return figures


def peak_memory() -> int:
    """Most bytes that this process has held so far."""
    try:  # since the last exec; `ru_maxrss` may include what the parent held
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def cpu_name() -> str:
    """What the processor calls itself."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
