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
