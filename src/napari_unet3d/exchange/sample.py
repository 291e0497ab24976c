"""A part of a stack that goes along with an exported model, to check it with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_unet3d.config import Triple
from napari_unet3d.data.clipping import Percentiles
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.model import portable
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.model.portable import PortableModel
from napari_unet3d.networks.architecture import Architecture
from napari_unet3d.networks.geometry import receptive_field
from napari_unet3d.networks.layers import SliceNorm, TileNorm
from napari_unet3d.pixels.features import halo

_SIDES: Triple = (24, 96, 96)
"""Voxels (z, y, x) of the part: few enough for an attachment, and enough to show something."""
_NORMS_OF_BLOCKS = (TileNorm, SliceNorm, nn.InstanceNorm3d, nn.GroupNorm)
EPS = 1e-6
"""Added to what is divided by, as the bioimage.io specification does."""


@dataclass(frozen=True, eq=False)
class ExportSample:
    """The middle of a stack, and how its gray values are normalized elsewhere.

    Other programs clip gray values at percentiles, and subtract the mean and divide by the standard
    deviation that the stack had *before*. What that differs by is measured on the stack.

    Attributes
    ----------
    image
        (C, z, y, x) raw gray values.
    name
        Where it comes from.
    gain, offset
        See `PortableModel`.
    """

    image: NDArray[np.generic]
    name: str
    gain: tuple[float, ...]
    offset: tuple[float, ...]

    @classmethod
    def of(cls, volume: Volume, name: str, clip: Sequence[Percentiles]) -> ExportSample:
        """The middle of a volume's first time point.

        Parameters
        ----------
        volume, name
            The stack.
        clip
            Percentiles that gray values of each channel are clipped at.
        """
        start = [max(0, (n - side) // 2) for n, side in zip(volume.shape, _SIDES, strict=True)]
        stop = [min(n, a + side) for n, a, side in zip(volume.shape, start, _SIDES, strict=True)]
        crop = volume.crop(0, (start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
        ours = IntensityNormalization.estimate(volume, clip)
        raw = IntensityNormalization.estimate(volume, (0.0, 100.0))
        pairs = list(zip(raw.mean, raw.std, ours.mean, ours.std, strict=True))
        return cls(
            np.asarray(crop),
            name,
            tuple(raw_std / std for _, raw_std, _, std in pairs),
            tuple((raw_mean - mean) / std for raw_mean, _, mean, std in pairs),
        )

    def normalized(self, percentiles: Percentiles) -> Tensor:
        """(1, C, z, y, x) float32, normalized as other programs do.

        Parameters
        ----------
        percentiles
            Beyond which gray values are clipped.
        """
        x = self.image.astype(np.float32)
        axes = (1, 2, 3)
        # The kind of percentile with which bioimageio.core clips.
        ends = np.percentile(x, percentiles, axis=axes, keepdims=True, method="inverted_cdf")
        low, high = ends.astype(np.float32)
        mean, std = x.mean(axes, keepdims=True), x.std(axes, keepdims=True)
        x = (np.clip(x, low, high) - mean) / (std + EPS)
        return torch.from_numpy(np.ascontiguousarray(x, np.float32))[None]


def build_portable(bundle: ModelBundle, sample: ExportSample) -> PortableModel:
    """The whole decision of a model, on the CPU, in eval mode."""
    model = PortableModel(**portable_arguments(bundle, sample))
    model.load_state_dict(portable.state(bundle.weights, used_pixels(bundle)))
    return model.eval()


def portable_arguments(bundle: ModelBundle, sample: ExportSample) -> dict[str, Any]:
    """Arguments of the `PortableModel` of a model, as JSON has them."""
    values = (0, *(c.output_value for c in bundle.classes))
    names = list(used_pixels(bundle))
    described = portable.arguments(
        bundle.network, bundle.calibration, values, bundle.voxel_size, names
    )
    return described | {"gain": list(sample.gain), "offset": list(sample.offset)}


def check_exportable(bundle: ModelBundle) -> None:
    """Raise `BadInputError` where other programs could not be told how to use a model."""
    if len(set(bundle.intensity.clip)) > 1:
        raise BadInputError(
            f"The channels of this model are clipped at different percentiles "
            f"({sorted(set(bundle.intensity.clip))}), which other programs cannot be told. Train "
            "with the setting clip_percentiles."
        )
    if bundle.network.shows_maps:
        raise BadInputError("This model shows a gate instead of classes: export the whole model.")


def used_pixels(bundle: ModelBundle) -> dict[str, Tensor]:
    """The tensors of the pixel classifier, where it has a part in the decision."""
    return dict(bundle.pixels) if bundle.calibration.pixels else {}


def surroundings(bundle: ModelBundle) -> Triple:
    """Voxels (z, y, x) around a block that its decision depends on."""
    reach = [n // 2 for n in receptive_field(bundle.network)]
    classifier = bundle.build_pixels() if bundle.calibration.pixels else None
    features = (0, 0, 0) if classifier is None else halo(bundle.voxel_size, classifier.scales)
    z, y, x = map(max, reach, features)
    return z, y, x


def depends_on_block(network: Architecture) -> bool:
    """Whether norms take the statistics of the block that is given, in a prediction, too."""
    with torch.device("meta"):
        modules = network.build().modules()
    return any(isinstance(m, _NORMS_OF_BLOCKS) for m in modules)
