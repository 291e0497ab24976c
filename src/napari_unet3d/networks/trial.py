"""One training step of a tiny network: whether a device can do what training and prediction do."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import nn
from torch.nn import functional

from napari_unet3d.networks.resampling import sample_linearly


class TrialFailedError(Exception):
    """The device computes, but not numbers."""


def train_once(
    device: torch.device,
    autocast: AbstractContextManager[None],
    form: torch.memory_format,
    scaled: bool,
    fused: bool,
) -> None:
    """Carry out one step of each kind of work on `device`; returns when it is done.

    Parameters
    ----------
    device
        The device, with its number where there are several.
    autocast
        The context of the forward pass.
    form
        Order of the feature maps in memory.
    scaled
        Whether the gradients are scaled, as in fp16 and on NVIDIA GPUs.
    fused
        Whether the optimizer updates all weights in one kernel, as on NVIDIA GPUs.

    Raises
    ------
    TrialFailedError
        The loss or the weights are not finite numbers.
    Exception
        Whatever PyTorch raises: the device cannot do one of the operations.
    """
    # Only the CPU draws from torch's shared generator here, so no generator of a GPU is kept.
    with torch.random.fork_rng(devices=[]):
        network = _network().to(device, memory_format=form)  # type: ignore[call-overload]
        x = torch.rand(1, 2, 8, 8, 8)
    image = _augmented(x[0].to(device))[None].contiguous(memory_format=form)
    target = torch.zeros(1, 8, 8, 8, dtype=torch.uint8)
    target[:, 3] = 1
    target = target.to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=fused)
    scaler = torch.amp.GradScaler(device.type, enabled=scaled)
    with autocast:
        logits = network(image)
    mask = target > 0
    loss = functional.cross_entropy(logits.movedim(1, -1)[mask].float(), target[mask].long())
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
    with torch.inference_mode(), autocast:
        probability = network.eval()(image).float().softmax(1)
    _classify_voxels(image[0])
    # One wait for all of it: a GPU reports most failures only then.
    numbers = torch.stack([loss.detach(), norm, probability.sum()])
    if not bool(numbers.isfinite().all()):
        raise TrialFailedError("it computes no numbers (NaN) where a CPU does")


def _network() -> nn.Module:
    """The layers of a U-Net with one pooling, (1, 2, 8, 8, 8) → (1, 2, 8, 8, 8)."""
    return nn.Sequential(
        nn.Conv3d(2, 4, 3, padding=1, bias=False),
        nn.BatchNorm3d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool3d(2),
        nn.Conv3d(4, 4, (1, 3, 3), padding=(0, 1, 1)),
        nn.InstanceNorm3d(4, affine=True),
        nn.ReLU(inplace=True),
        nn.ConvTranspose3d(4, 4, 2, 2, bias=False),
        nn.Conv3d(4, 2, 1),
    )


def _augmented(image: torch.Tensor) -> torch.Tensor:
    """A patch (C, z, y, x) resampled half a voxel aside, with noise."""
    axes = [torch.arange(n, device=image.device) + 0.5 for n in image.shape[1:]]
    patch = sample_linearly(image, torch.stack(torch.meshgrid(axes, indexing="ij")))
    noise = torch.Generator(image.device).manual_seed(0)
    return patch.add_(torch.randn(patch.shape, generator=noise, device=image.device), alpha=0.1)


def _classify_voxels(image: torch.Tensor) -> None:
    """The operations of the pixel classifier: coarse maps, and a linear layer."""
    coarse = functional.avg_pool3d(image[None].float(), 2)
    fine = functional.interpolate(coarse, scale_factor=2, mode="trilinear")[0]
    functional.linear(fine.flatten(1).T, fine.new_ones(2, len(fine))).log_softmax(1)
