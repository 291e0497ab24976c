"""The whole decision of a model as one module: gray values in, probabilities and labels out.

It is what other programs get. It takes images of any size, since it mirrors what the network lacks
at the borders, as a prediction of this program does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from napari_unet3d.config import VoxelSize
from napari_unet3d.model.mixture import Calibration, Mixture, read_repeating_edges
from napari_unet3d.networks import read_network
from napari_unet3d.networks.architecture import Architecture
from napari_unet3d.networks.geometry import next_fitting, shrink
from napari_unet3d.pixels.classifier import PixelClassifier
from napari_unet3d.pixels.trees import ObliviousTrees


class PortableModel(nn.Module):
    """Network, pixel classifier and calibration of a model, described by plain values.

    Parameters
    ----------
    network
        Configuration of the network, as JSON has it.
    calibration
        How the two learners decide together, likewise.
    values
        Number of background and of each class in the labels.
    voxel_size
        (z, y, x) of the images, in any unit.
    pixels, trees
        Whether there is a pixel classifier, and whether it has trees.
    gain, offset
        For each channel, what the gray values are multiplied by, and what is added then. They make
        up for the statistics of another program, which are those of unclipped gray values.
    """

    values: Tensor
    gain: Tensor
    offset: Tensor

    def __init__(
        self,
        network: Mapping[str, Any],
        calibration: Mapping[str, Any],
        values: Sequence[int],
        voxel_size: Sequence[float],
        pixels: bool = False,
        trees: bool = False,
        gain: Sequence[float] = (1.0,),
        offset: Sequence[float] = (0.0,),
    ) -> None:
        super().__init__()
        self.config: Architecture = read_network(network)
        channels, classes = self.config.in_channels, self.config.n_classes
        z, y, x = voxel_size
        grown = ObliviousTrees(classes) if trees else None
        self.mixture = Mixture(
            self.config.build(),
            PixelClassifier(channels, classes, trees=grown) if pixels else None,
            Calibration.model_validate(calibration),
            (z, y, x),
        )
        self.register_buffer("values", torch.tensor(list(values)), persistent=False)
        for name, numbers in (("gain", gain), ("offset", offset)):
            tensor = torch.tensor(list(numbers)).view(-1, 1, 1, 1)
            self.register_buffer(name, tensor, persistent=False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Decide for each voxel.

        Parameters
        ----------
        image
            (N, C, Z, Y, X) normalized gray values.

        Returns
        -------
        probabilities, labels
            (N, K, Z, Y, X), and (N, 1, Z, Y, X) numbers of the classes, both float32.
        """
        normalized = image * self.gain + self.offset
        probabilities = torch.stack([self._decide(each) for each in normalized])
        labels = self.values[probabilities.argmax(1, keepdim=True)]
        return probabilities, labels.float()

    def _decide(self, image: Tensor) -> Tensor:
        """Probabilities (K, z, y, x) of an image (C, z, y, x)."""
        z, y, x = image.shape[1:]
        network = _network_alone(self.mixture, image)
        pixels = None
        if self.mixture.pixels is not None and self.mixture.needs_pixels:
            read = partial(read_repeating_edges, image)
            pixels = self.mixture.pixels.log_probabilities(
                read, (0, 0, 0), (z, y, x), self.mixture.voxel_size
            )
        return self.mixture.combine(network, pixels)


def _network_alone(mixture: Mixture, image: Tensor) -> Tensor:
    """Probabilities (K, z, y, x) of the network, with the image mirrored at its borders."""
    config: Architecture = mixture.network.config
    cut = shrink(config)
    shape = image.shape[1:]
    z, y, x = (n + m for n, m in zip(shape, cut, strict=True))
    tile = next_fitting(config, (z, y, x))
    for axis, (n, m, size) in enumerate(zip(shape, cut, tile, strict=True), 1):
        index = _mirrored(-(m // 2), size - m // 2, n).to(image.device)
        image = image.index_select(axis, index)
    probabilities: Tensor = mixture.network(image[None])[0].float().softmax(0)
    return probabilities[:, : shape[0], : shape[1], : shape[2]]


def _mirrored(start: int, stop: int, n: int) -> Tensor:
    """Indices of an axis of `n` voxels, reflected at its first and its last voxel."""
    if n == 1:
        return torch.zeros(stop - start, dtype=torch.int64)
    index = torch.arange(start, stop) % (2 * (n - 1))
    return torch.minimum(index, 2 * (n - 1) - index)


def arguments(
    network: Architecture,
    calibration: Calibration,
    values: Sequence[int],
    voxel_size: VoxelSize,
    names: Sequence[str],
) -> dict[str, Any]:
    """The arguments of `PortableModel` as JSON has them.

    Parameters
    ----------
    network, calibration, values, voxel_size
        As in `PortableModel`.
    names
        Names of the tensors of the pixel classifier; empty without one.
    """
    return {
        "network": network.model_dump(mode="json"),
        "calibration": calibration.model_dump(mode="json"),
        "values": [int(v) for v in values],
        "voxel_size": [float(v) for v in voxel_size],
        "pixels": bool(names),
        "trees": any(name.startswith("trees.") for name in names),
    }


def state(weights: Mapping[str, Tensor], pixels: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a `PortableModel` by name, from those of a model."""
    return {f"mixture.network.{n}": t for n, t in weights.items()} | {
        f"mixture.pixels.{n}": t for n, t in pixels.items()
    }
