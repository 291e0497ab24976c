"""Network and pixel classifier together, as a module."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bundles import random_bundle
from napari_unet3d.config import PredictionConfig
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.volume import Volume
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.model.mixture import Calibration, Mixture
from napari_unet3d.networks.unet import UNetConfig
from napari_unet3d.pixels.classifier import PixelClassifier
from napari_unet3d.prediction.predictor import predict

SAME = UNetConfig(
    widths=(4, 8),
    strides=((1, 2, 2),),
    kernels=((3, 3, 3),) * 2,
    padding="same",
    normalization="batch",
)
VALID = SAME.model_copy(update={"padding": "valid"})
SHAPE = (8, 24, 32)
BOTH = Calibration(network=0.6, pixels=0.7, shift=(0.0, 0.3, -0.2))


def _bundle(network: UNetConfig, calibration: Calibration = BOTH) -> ModelBundle:
    """A random model of two classes with a random pixel classifier, of voxels that are flat."""
    torch.manual_seed(1)
    pixels = PixelClassifier(1, 3).state_dict()
    return random_bundle(
        network, (2, 3), pixels=pixels, calibration=calibration, voxel_size=(3.0, 1.0, 1.0)
    )


def _image(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).normal(100, 10, shape).astype(np.float32)


@pytest.mark.parametrize("calibration", [BOTH, Calibration()], ids=["both", "network alone"])
def test_it_gives_what_the_dense_prediction_of_a_single_tile_gives(
    calibration: Calibration,
) -> None:
    bundle = _bundle(SAME, calibration)
    volume = Volume(_image(), voxel_size=bundle.voxel_size)
    expected = np.zeros((3, *SHAPE), np.float32)
    settings = PredictionConfig(device="cpu", precision="fp32", tile_shape=SHAPE)
    list(
        predict(bundle, volume, np.zeros(SHAPE, np.uint8), probabilities=expected, config=settings)
    )
    gray = IntensityNormalization.estimate(volume).apply(volume.crop(0, (0, 0, 0), SHAPE))
    with torch.inference_mode():
        probabilities = bundle.build_mixture(folded=True)(torch.from_numpy(gray)[None])
    assert probabilities.shape == (1, 3, *SHAPE)
    # The order of the channels in memory may change the rounding of the convolutions.
    np.testing.assert_allclose(probabilities[0].numpy(), expected, rtol=0, atol=1e-6)


def test_an_unpadded_network_and_its_pixel_classifier_look_at_the_same_voxels() -> None:
    bundle = _bundle(VALID)
    image = torch.from_numpy(_image((16, 40, 44)))[None, None] / 100
    mixture = bundle.build_mixture(folded=False)
    alone = mixture.with_calibration(Calibration(network=0.0, pixels=1.0))(image)
    z, y, x = ((n - m) // 2 for n, m in zip(image.shape[2:], alone.shape[2:], strict=True))
    assert min(z, y, x) > 0, "the network must be unpadded for this test"
    padded = Mixture(_Blind(), mixture.pixels, Calibration(network=0.0, pixels=1.0), (3, 1, 1))
    whole = padded(image)
    _, _, d, h, w = alone.shape
    cut = whole[..., z : z + d, y : y + h, x : x + w]
    assert torch.allclose(alone, cut, atol=1e-5)


class _Blind(torch.nn.Module):
    """A padded network that sees nothing."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.new_zeros((len(image), 3, *image.shape[2:]))


def test_folded_or_not_it_gives_the_same() -> None:
    bundle, image = _bundle(SAME), torch.from_numpy(_image())[None, None] / 100
    folded, plain = (bundle.build_mixture(folded=folded)(image) for folded in (True, False))
    assert torch.allclose(folded, plain, atol=1e-5)
    names = [type(m).__name__ for m in bundle.build_mixture(folded=True).modules()]
    assert "BatchNorm3d" not in names


def test_with_another_calibration_it_shares_its_learners() -> None:
    mixture = _bundle(SAME).build_mixture(folded=True)
    other = mixture.with_calibration(Calibration())
    assert other.network is mixture.network
    assert other.pixels is mixture.pixels
    assert other.voxel_size == mixture.voxel_size
    assert mixture.calibration == BOTH
    assert mixture.needs_pixels and not mixture.is_network_alone
    assert other.is_network_alone and not other.needs_pixels


def test_without_a_calibration_the_network_is_left_as_it_is() -> None:
    probabilities = torch.rand(2, 5).softmax(0)
    assert torch.equal(Mixture(_Blind()).combine(probabilities, None), probabilities)


def test_pixels_alone_are_as_sure_as_a_mixture_whose_parts_agree() -> None:
    probabilities = (2 * torch.randn(3, 50, generator=torch.Generator().manual_seed(0))).softmax(0)
    mixture = Mixture(SAME.build(), PixelClassifier(1, 3), BOTH)
    together = mixture.combine(probabilities, probabilities.log())
    torch.testing.assert_close(
        BOTH.of_pixels_alone(probabilities.log().T).T, together, atol=1e-4, rtol=0
    )
    plain = Calibration(network=0.5, pixels=0.5).of_pixels_alone(probabilities.log().T)
    torch.testing.assert_close(plain.T, probabilities)
