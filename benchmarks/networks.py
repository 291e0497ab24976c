"""MONAI's networks, trained for the same seconds on the same patches as ours."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from protocol import Floats, Labels, Look, Result, need

from napari_unet3d.config import AugmentationConfig, TrainingConfig, Triple
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.volume import Volume
from napari_unet3d.networks import device as devices
from napari_unet3d.sampling.patches import PatchSampler
from napari_unet3d.sampling.source import Source
from napari_unet3d.training.losses import masked_loss

PATCH_VOXELS = 140_000
LOOKING_SHARE = 0.08
"""Share of the training that looks at the watched slice may take."""
LEARNING_RATE = 1e-3
NNUNET_SMALLEST_MAP = 4
NNUNET_MOST_FEATURES = 320


def basicunet(
    volume: Volume, labels: Labels, seconds: float, seed: int, look: Look | None = None
) -> Result:
    """MONAI's BasicUNet with its default features: four poolings by 2, kernels of 3."""
    need("monai")
    from monai.networks.nets import BasicUNet

    def build(classes: int) -> torch.nn.Module:
        return _DepthLast(BasicUNet(3, volume.n_channels, classes))

    # Bottom maps of the last axis may have one or two voxels, the others not; see `_DepthLast`.
    depth = 32 if volume.shape[0] > 24 else 16
    side = [80 if n > 64 else 64 if n > 48 else 48 for n in volume.shape[1:]]
    return _train(build, (depth, side[0], side[1]), volume, labels, seconds, seed, look)


class _DepthLast(torch.nn.Module):
    """A network that is given its z axis last.

    Torch's weight gradient of 3×3×3 convolutions in bf16 is wrong on the CPU where a map is
    two voxels long along its first axis, as BasicUNet's is after pooling a shallow patch.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        turned = image.movedim(2, -1).contiguous(memory_format=torch.channels_last_3d)
        found: torch.Tensor = self.network(turned)
        return found.movedim(-1, 2)


def dynunet(
    volume: Volume, labels: Labels, seconds: float, seed: int, look: Look | None = None
) -> Result:
    """MONAI's DynUNet, with strides and kernels planned by nnU-Net's rule.

    Without deep supervision: there is no time for an auxiliary loss to pay.
    """
    need("monai")
    from monai.networks.nets import DynUNet

    patch = physical_patch(volume.shape, volume.voxel_size, PATCH_VOXELS)
    strides, kernels = plan_nnunet(patch, volume.voxel_size)
    steps = [math.prod(s[axis] for s in strides) for axis in range(3)]
    z, y, x = (-(-n // s) * s for n, s in zip(patch, steps, strict=True))

    def build(classes: int) -> torch.nn.Module:
        features = [min(32 * 2**i, NNUNET_MOST_FEATURES) for i in range(len(strides))]
        return DynUNet(3, volume.n_channels, classes, kernels, strides, strides[1:], features)

    result = _train(build, (z, y, x), volume, labels, seconds, seed, look)
    result.details |= {"strides": strides, "kernels": kernels}
    return result


def physical_patch(shape: Triple, voxel_size: tuple[float, float, float], voxels: int) -> Triple:
    """Patch of about so many voxels and the same physical length along all axes, in a stack."""
    side, patch = 0.0, (1, 1, 1)
    finest = min(voxel_size)
    while patch != tuple(shape):
        side += 4 * finest
        z, y, x = (
            min(n, max(NNUNET_SMALLEST_MAP, round(side / s)))
            for n, s in zip(shape, voxel_size, strict=True)
        )
        if z * y * x > voxels and side > 4 * finest:
            break
        patch = z, y, x
    return patch


def plan_nnunet(
    patch: Triple, voxel_size: tuple[float, float, float]
) -> tuple[list[Triple], list[Triple]]:
    """Stride and kernel of each level by the rule of nnU-Net (Isensee et al. 2021).

    An axis is pooled while its spacing is within a factor of 2 of the finest and its map keeps
    4 voxels; its kernel is 3 from the first level on whose spacing is within that factor.
    """
    spacing, size = list(voxel_size), [float(n) for n in patch]
    kernel = [1, 1, 1]
    strides: list[Triple] = [(1, 1, 1)]
    kernels: list[Triple] = []
    while True:
        near = [s < 2 * min(spacing) for s in spacing]
        kernel = [3 if is_near else k for k, is_near in zip(kernel, near, strict=True)]
        kernels.append((kernel[0], kernel[1], kernel[2]))
        long = [n >= 2 * NNUNET_SMALLEST_MAP for n in size]
        if not any(long) or len(kernels) == 6:
            break
        finest = min(s for s, fits in zip(spacing, long, strict=True) if fits)
        stride = [
            2 if fits and s < 2 * finest else 1 for s, fits in zip(spacing, long, strict=True)
        ]
        spacing = [s * k for s, k in zip(spacing, stride, strict=True)]
        size = [math.ceil(n / k) for n, k in zip(size, stride, strict=True)]
        strides.append((stride[0], stride[1], stride[2]))
    while len(strides) < 3:  # the least that DynUNet takes
        strides.append((1, 1, 1))
        kernels.append(kernels[-1])
    return strides, kernels


def _train(
    build: Callable[[int], torch.nn.Module],
    patch: Triple,
    volume: Volume,
    labels: Labels,
    seconds: float,
    seed: int,
    look: Look | None,
) -> Result:
    """Train a network for so many seconds and predict the stack with MONAI's sliding window.

    Patches lie around labelled voxels as ours do, with flips and gray-value changes. The loss is
    half Dice and half cross-entropy over the labelled voxels only. AdamW with a rate of 0.001
    that falls to 0 as a cosine, gradients clipped at 12, one patch a step: on a CPU more steps
    are worth more than larger batches. Dense prediction overlaps by half, Gaussian weights.
    """
    from monai.inferers import sliding_window_inference

    device = devices.pick_device()
    precision = devices.pick_precision(device)
    annotation = SparseAnnotation.from_labels(labels)
    annotation.check(volume)
    intensity = IntensityNormalization.estimate(volume)
    sampler = PatchSampler(Source(volume, intensity, device), annotation, seed=seed)
    shapes = dict.fromkeys(range(3), patch)
    augmentation = AugmentationConfig(spatial_share=0)
    torch.manual_seed(seed)
    network = build(len(annotation.classes) + 1).to(
        device,
        memory_format=torch.channels_last_3d,  # type: ignore[call-overload]
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    image = torch.from_numpy(intensity.apply(volume.crop(0, (0, 0, 0), volume.shape)))[None]
    values = (0, *(c.value for c in annotation.classes))

    @torch.no_grad()
    def predict(crop: torch.Tensor) -> Floats:
        def probabilities(window: torch.Tensor) -> torch.Tensor:
            with devices.autocast(device, precision):
                found: torch.Tensor = network(window)
            return found.float().softmax(1)

        network.eval()
        found = sliding_window_inference(
            crop,
            patch,
            1,
            probabilities,
            overlap=0.5,
            mode="gaussian",
            padding_mode="replicate",
            sw_device=device,
            device="cpu",
        )
        network.train()
        array: Floats = found[0].numpy()
        return array

    def look_at(one: Look) -> float:
        """IoU on a slice, from a slab around it that is as thick as a patch."""
        axis, n = one.ref.axis, volume.shape[one.ref.axis]
        start = max(0, min(one.ref.index - patch[axis] // 2, n - patch[axis]))
        slab = predict(image.narrow(axis + 2, start, min(patch[axis], n)))
        chosen = slab.argmax(0).take(one.ref.index - start, axis)
        return one.iou(np.array(values, np.uint8)[chosen])

    curve: list[tuple[float, float]] = []
    begin = time.perf_counter()
    step, looking = 0, 0.0
    network.train()
    while (elapsed := time.perf_counter() - begin) < seconds:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * elapsed / seconds))
        patches, target = sampler.batch(step, 1, shapes, augmentation)
        with devices.autocast(device, precision):
            logits = network(patches.contiguous(memory_format=torch.channels_last_3d))
        loss = masked_loss(logits, target, TrainingConfig(dice_share=0.5))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12.0, error_if_nonfinite=False)
        optimizer.step()
        step += 1
        since = time.perf_counter() - begin
        if look is not None and looking <= LOOKING_SHARE * since:
            curve.append((since, look_at(look)))
            looking += time.perf_counter() - begin - since
    trained = time.perf_counter()
    found = predict(image)
    labels_found = np.array(values, np.uint8)[found.argmax(0)]
    return Result(
        labels_found,
        values,
        found.astype(np.float16),
        trained - begin,
        time.perf_counter() - trained,
        curve if look is not None else None,
        {
            "iterations": step,
            "patch": patch,
            "parameters": sum(p.numel() for p in network.parameters()),
        },
    )
