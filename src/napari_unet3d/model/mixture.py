"""How the network and the pixel classifier decide together."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from napari_unet3d.config import VoxelSize
from napari_unet3d.networks.architecture import Network
from napari_unet3d.networks.mirroring import Mirrored
from napari_unet3d.pixels.classifier import PixelClassifier

_SMALLEST_PROBABILITY = 1e-6
"""Added to each probability of the network before its logarithm, which is then finite. It bounds
the log-probabilities at -13.8; those of the pixel classifier are bounded at -14."""

_Weight = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]
_Shift = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]


def bounded_log(probabilities: Tensor) -> Tensor:
    """Logarithm of probabilities, finite also where a probability is 0."""
    return (probabilities + _SMALLEST_PROBABILITY).log_()


class Calibration(BaseModel):
    """Weights of the two learners, and a shift for each class.

    The probabilities of the mixture are proportional to
    ``network_probability ** network * pixel_probability ** pixels * exp(shift)``.

    Attributes
    ----------
    network, pixels
        Weight of the network's and of the pixel classifier's log-probabilities. Their sum is the
        inverse of the temperature: probabilities become less certain where it is below 1.
    shift
        Added to the log-probabilities of background and each class; empty for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    network: _Weight = 1.0
    pixels: _Weight = 0.0
    shift: Annotated[tuple[_Shift, ...], Field(max_length=255)] = ()

    def of_pixels_alone(self, log_probabilities: Tensor) -> Tensor:
        """Probabilities (n, K) of the pixel classifier, with the temperature and the shifts.

        Parameters
        ----------
        log_probabilities
            (n, K), its own.
        """
        shift = torch.tensor(self.shift or 0.0, device=log_probabilities.device)
        return (log_probabilities * (self.network + self.pixels) + shift).softmax(1)


class Mixture(nn.Module):
    """A network and a pixel classifier that decide together.

    Several mixtures may share one network: neither the network nor the classifier is copied.

    Parameters
    ----------
    network
        Any network: (N, C, Z, Y, X) gray values → logits (N, K, Z', Y', X').
    pixels
        The pixel classifier; None for a network that stands alone.
    calibration
        Weights of the two; the default leaves the network's probabilities as they are.
    voxel_size
        Voxel size (z, y, x) of the images that `forward` is given, in any unit: the pixel
        classifier smooths less along an axis of large voxels.
    """

    def __init__(
        self,
        network: Network,
        pixels: PixelClassifier | None = None,
        calibration: Calibration | None = None,
        voxel_size: VoxelSize = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        self.network = network
        self.pixels = pixels
        self.calibration = calibration or Calibration()
        self.voxel_size = voxel_size

    def with_calibration(self, calibration: Calibration) -> Mixture:
        """The same learners, weighted differently."""
        return Mixture(self.network, self.pixels, calibration, self.voxel_size)

    def with_network(self, network: Network) -> Mixture:
        """The same pixel classifier and calibration beside another network."""
        return Mixture(network, self.pixels, self.calibration, self.voxel_size).eval()

    def mirrored(self) -> Mixture:
        """The same learners, where the network sees each tile and its mirror images."""
        return self.with_network(Mirrored(self.network))

    @property
    def is_network_alone(self) -> bool:
        """Whether `combine` returns the network's probabilities as they are."""
        return self.calibration == Calibration()

    @property
    def needs_pixels(self) -> bool:
        """Whether `combine` needs the log-probabilities of the pixel classifier."""
        return self.pixels is not None and self.calibration.pixels > 0

    def combine(self, network: Tensor, pixels: Tensor | None) -> Tensor:
        """Probabilities of the mixture.

        Parameters
        ----------
        network
            (K, …) probabilities of the network.
        pixels
            (K, …) log-probabilities of the pixel classifier; None unless `needs_pixels`.

        Returns
        -------
        Tensor
            (K, …) probabilities; `network` itself where the network stands alone.
        """
        if self.is_network_alone:
            return network
        logits = bounded_log(network).mul_(self.calibration.network)
        if pixels is not None and self.calibration.pixels:
            logits.add_(pixels, alpha=self.calibration.pixels)
        if self.calibration.shift:
            shape = (-1,) + (1,) * (logits.ndim - 1)
            shift = torch.tensor(self.calibration.shift, device=logits.device)
            logits.add_(shift.view(shape))
        return logits.softmax(0)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Probabilities of a whole image that fits into memory.

        Parameters
        ----------
        image
            (1, C, Z, Y, X) normalized gray values.

        Returns
        -------
        Tensor
            (1, K, Z', Y', X') probabilities; those of an unpadded network are of the center of
            the image. Outside the image, the pixel classifier sees its edge voxels repeated.
        """
        probabilities: Tensor = self.network(image)[0].float().softmax(0)
        pixels = None
        if self.pixels is not None and self.needs_pixels:
            out = probabilities.shape[1:]
            z, y, x = ((n - m) // 2 for n, m in zip(image.shape[2:], out, strict=True))
            stop = z + out[0], y + out[1], x + out[2]

            def read(start: tuple[int, ...], stop: tuple[int, ...]) -> Tensor:
                return read_repeating_edges(image[0], start, stop)

            pixels = self.pixels.log_probabilities(read, (z, y, x), stop, self.voxel_size)
        return self.combine(probabilities, pixels)[None]


def read_repeating_edges(image: Tensor, start: tuple[int, ...], stop: tuple[int, ...]) -> Tensor:
    """A box (C, z, y, x) of an image, where the edge voxels are repeated outside of it."""
    for axis, (low, high) in enumerate(zip(start, stop, strict=True), 1):
        index = torch.arange(low, high, device=image.device).clamp(0, image.shape[axis] - 1)
        image = image.index_select(axis, index)
    return image
