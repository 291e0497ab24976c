"""What a model makes of one slice, computed when somebody looks at it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet3d.config import PredictionConfig
from napari_unet3d.data.boxes import slice_box
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import RunFailedError
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks import device as devices
from napari_unet3d.networks.geometry import is_padded
from napari_unet3d.networks.planning import plan_patch
from napari_unet3d.prediction.engine import Engine
from napari_unet3d.prediction.matching import check_volume
from napari_unet3d.prediction.outputs import Uncertainty
from napari_unet3d.sampling.source import Source

_TILE_VOXELS = 1 << 19
"""Voxels of a tile that is thin across the slice: the network needs a tenth of a second for it."""
_LEAST_DEPTH = 24
"""Voxels of such a tile across the slice, at least: in a thinner one, the padding of the network
reaches the slice."""
_MOST_SIDE = 1024
"""Voxels along the edges of the part that is computed at once; more takes many seconds."""
_OVERLAP = 0.08
"""What a tile has in common with the next, as a share of what the network sees: half of that of a
dense prediction, since seams matter less here than time."""

Field = tuple[tuple[int, int], tuple[int, int]]
"""First row and column of a part of a slice, and one past the last row and column."""


class SliceView:
    """A model and an image; shows what follows from the probabilities on parts of slices.

    It is used by one thread at a time.

    Parameters
    ----------
    bundle
        The model.
    volume
        The image, in memory or not.
    config
        Device and memory.
    show
        What is shown of probabilities (K, z, y, x): values (z, y, x). The entropy unless given.

    Raises
    ------
    BadInputError
        The model and the image do not go together.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        volume: Volume,
        config: PredictionConfig | None = None,
        show: Callable[[Tensor], NDArray[np.float32]] | None = None,
    ) -> None:
        check_volume(bundle, volume, (0,))
        config = config or PredictionConfig()
        self._bundle, self._volume, self._memory = bundle, volume, config.memory
        self._device = devices.pick_device(config.device)
        self._precision = devices.pick_precision(self._device, config.precision)
        self._show = show or entropy
        self._source: Source | None = None
        self._engines: dict[int, Engine] = {}

    def of(self, ref: SliceRef, field: Field) -> tuple[tuple[int, int], NDArray[np.float32]]:
        """The values of a part of a slice.

        Parameters
        ----------
        ref
            The slice.
        field
            The part; of a large one, the middle is computed.

        Returns
        -------
        start, values
            Row and column of the first voxel, and (h, w) values.

        Raises
        ------
        RunFailedError
            Memory does not suffice, or PyTorch failed.
        """
        spans = [middle(a, b, _MOST_SIDE) for a, b in zip(*field, strict=True)]
        whole = slice_box(self._volume.shape, ref)
        start, stop = list(whole.start), list(whole.stop)
        for (first, end), axis in zip(spans, [a for a in range(3) if a != ref.axis], strict=True):
            start[axis], stop[axis] = first, end
        box = type(whole)((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
        try:
            with devices.computing(self._device, self._precision):
                probabilities = self._engine(ref.axis).predict(ref.time, box)
        except (RuntimeError, MemoryError) as error:
            raise RunFailedError(f"prediction failed: {devices.reason(error)}") from error
        values = self._show(torch.from_numpy(probabilities))
        return (spans[0][0], spans[1][0]), np.squeeze(values, ref.axis)

    def _engine(self, axis: int) -> Engine:
        """The model with tiles that are thin along an axis, which is quick for one slice."""
        if self._source is None:
            devices.prepare(self._device)
            clip = self._bundle.intensity.clip
            intensity = IntensityNormalization.estimate(self._volume, clip)
            self._source = Source(self._volume, intensity, self._device)
        if axis not in self._engines:
            tile, network = None, self._bundle.network
            if is_padded(network):
                depth = max(_LEAST_DEPTH, min(self._bundle.record.patch_shape))
                tile = plan_patch(network, self._volume.shape, axis, _TILE_VOXELS, depth)
            layout = devices.memory_format(self._device)
            mixture = self._bundle.build_mixture(folded=True).to(self._device, memory_format=layout)  # type: ignore[call-overload]
            self._engines[axis] = Engine(
                mixture,
                self._source,
                self._precision,
                tile_shape=tile,
                overlap=_OVERLAP,
                memory=self._memory,
            )
        return self._engines[axis]


def entropy(probabilities: Tensor) -> NDArray[np.float32]:
    """The uncertainty of voxels (z, y, x), 0 sure … 1 undecided."""
    values: NDArray[np.float32] = Uncertainty().block(probabilities, ())
    return values


def first_class(probabilities: Tensor) -> NDArray[np.float32]:
    """The probability of the first class (z, y, x)."""
    values: NDArray[np.float32] = probabilities[1].cpu().numpy()
    return values


def middle(first: int, end: int, most: int) -> tuple[int, int]:
    """The span, or the `most` indices in the middle of it where it is longer."""
    more = max(0, end - first - most)
    return first + more // 2, end - (more - more // 2)
