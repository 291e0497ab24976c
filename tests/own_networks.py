"""The networks that are written here, whatever else is installed."""

from __future__ import annotations

import torch

from napari_unet3d.networks import NETWORKS, NetworkConfig
from napari_unet3d.networks.architecture import Network
from napari_unet3d.networks.geometry import next_fitting
from napari_unet3d.networks.layers import fold_batch_norm
from napari_unet3d.networks.monai import MonaiConfig
from napari_unet3d.networks.planning import normalizable

OWN = tuple(network for network in NETWORKS if network is not MonaiConfig)


def folded_with_tiles(
    network: type[NetworkConfig], **changes: object
) -> tuple[Network, list[torch.Tensor]]:
    """A network with random weights and statistics, folded for prediction, and three inputs."""
    config = network.plan(
        "balanced", (1, 1, 1), (24, 32, 32), in_channels=1, n_classes=3, accelerator=False
    )
    config = config.model_copy(update=changes)
    torch.manual_seed(0)
    module = config.build()
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm3d) and part.track_running_stats:
            part.running_mean.normal_(std=0.1)
            part.running_var.uniform_(0.5, 1.5)
    z, y, x = normalizable(config, next_fitting(config, (16, 32, 32)))
    return fold_batch_norm(module.eval()), [torch.randn(1, 1, z, y, x) for _ in range(3)]
