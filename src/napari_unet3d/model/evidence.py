"""What was measured of a model: counts slice by slice, and how a training went."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClassOnSlice:
    """How one class was segmented on one slice; only labelled voxels that were measured count.

    Attributes
    ----------
    value
        Label value of the class.
    hits
        Voxels of the class that were found (true positives).
    false
        Voxels that were taken for the class (false positives).
    missed
        Voxels of the class that were not found (false negatives).
    distance, distance95
        Mean symmetric surface distance and 95 % Hausdorff distance between the borders, in the
        unit of the stack, see `prediction.surfaces`; None where one of the two has no border, and
        where the slice was not measured whole.
    """

    value: int
    hits: int
    false: int
    missed: int
    distance: float | None = None
    distance95: float | None = None


@dataclass(frozen=True)
class SliceScore:
    """The scores of a slice that was not trained on.

    Attributes
    ----------
    ref
        The slice as text, such as "z=12".
    classes
        One entry a class, in the order of the class table.
    measured, labelled
        Labelled voxels of the slice that were measured, and all of them.
    """

    ref: str
    classes: tuple[ClassOnSlice, ...]
    measured: int
    labelled: int


@dataclass(frozen=True)
class ClassCheck:
    """How the pixel classifier judges voxels of one class that it was not fitted to.

    Attributes
    ----------
    found
        Voxels that were taken for the class.
    hits, voxels
        Voxels of the class: those that were found, and all of them.
    expected_hits, expected_voxels
        The same as the classifier expects it: its probabilities of the class, summed over the
        voxels that were found, and over all of them.
    """

    found: int
    hits: int
    voxels: int
    expected_hits: float
    expected_voxels: float


@dataclass(frozen=True)
class SliceCheck:
    """How the pixel classifier judges an annotated slice by cross-fitting.

    Each voxel is judged by a classifier that was fitted to other slices; in an annotation of one
    slice, to its other half.

    Attributes
    ----------
    ref
        The slice as text.
    classes
        One entry a class, in the order of the class table.
    """

    ref: str
    classes: tuple[ClassCheck, ...]


@dataclass(frozen=True)
class TrainingHistory:
    """How a training went; few points, whatever its length.

    Attributes
    ----------
    loss
        Points (seconds, loss); each is the mean loss of some iterations, at their end.
    iou
        Points (seconds, mean IoU on the held-out slices); all but the last are quick looks.
    """

    loss: tuple[tuple[float, float], ...] = ()
    iou: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Fold:
    """One training of a cross-validation.

    Attributes
    ----------
    held_out
        The slices that it was measured on, as text.
    trained
        Number of slices that it was trained on.
    iterations, seconds
        Of the training.
    """

    held_out: tuple[str, ...]
    trained: int
    iterations: int
    seconds: float


@dataclass(frozen=True)
class CrossValidation:
    """Each annotated slice was held out once, from a training on the others.

    Attributes
    ----------
    folds
        The trainings.
    by_slice
        The scores of each slice, by the model that was not trained on it.
    slices
        Number of annotated slices.
    """

    folds: tuple[Fold, ...]
    by_slice: tuple[SliceScore, ...]
    slices: int


@dataclass(frozen=True)
class LearningRun:
    """One training of a learning curve.

    Attributes
    ----------
    trained
        The slices that it was trained on, as text.
    repeat
        Runs with the same number were measured on the same slices, and each was trained on all
        slices of the one before it and some more.
    iou
        Mean IoU of the classes; None where no class could be measured.
    measured_on
        The slices that it was measured on, as text.
    iterations, seconds
        Of the training.
    """

    trained: tuple[str, ...]
    repeat: int
    iou: float | None
    measured_on: tuple[str, ...]
    iterations: int
    seconds: float


@dataclass(frozen=True)
class LearningCurve:
    """How the IoU grows with the number of annotated slices.

    Attributes
    ----------
    runs
        The trainings.
    on_held_out
        Whether all were measured on the held-out slices; otherwise on slices that were left out
        in turn.
    """

    runs: tuple[LearningRun, ...]
    on_held_out: bool


@dataclass(frozen=True)
class Evidence:
    """What was measured of an annotation by further trainings; None where that was not done."""

    cross_validation: CrossValidation | None = None
    learning_curve: LearningCurve | None = None
