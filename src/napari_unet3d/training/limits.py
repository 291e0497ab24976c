"""How much the looks at a running training, and its end, may compute."""

from __future__ import annotations

from dataclasses import dataclass

from napari_unet3d.prediction.engine import CPU_TILE


@dataclass(frozen=True)
class LookLimits:
    """Limits of previews, scores, statistics and calibration, with what they were measured on.

    Attributes
    ----------
    statistics_tiles, statistics_voxels
        Batch-norm statistics of the final model come from at most so many tiles and voxels, but
        from one tile at least; those of a look on the way come from one tile.
    cpu_tile
        Voxels of a tile of the final measurement on a CPU; those of the dense prediction may be
        larger, since they cover more than a slice. On a GPU they are `statistics_voxels`.
    look_voxels
        Voxels of a tile of a look on the way: a quarter of a second on two cores, for which the
        training waits.
    look_seconds, final_seconds
        Seconds after which a measurement of the held-out slices ends, on the way and in the end,
        with the scores of the voxels that were reached by then.
    calibration_parts
        Parts of annotated slices that the calibration is fitted on.
    calibration_voxels
        Labelled voxels that the calibration is fitted on, for two classes. A trial costs voxels
        × classes: more classes get fewer voxels.
    calibration_predicted
        Voxels that the network may compute for the calibration, on a CPU and on a GPU: seconds
        on either.
    kept_labels
        Bytes, one a voxel, of the held-out slices whose labels are kept from one look to the
        next; of other slices, only the parts that are scored are read again.
    """

    statistics_tiles: int = 8
    statistics_voxels: int = 8_000_000
    cpu_tile: int = CPU_TILE
    look_voxels: int = 600_000
    look_seconds: float = 1.0
    final_seconds: float = 6.0
    calibration_parts: int = 8
    calibration_voxels: int = 60_000
    calibration_predicted: tuple[int, int] = (24_000_000, 120_000_000)
    kept_labels: int = 1 << 28
