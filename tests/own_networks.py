"""The networks that are written here, whatever else is installed."""

from __future__ import annotations

from napari_unet3d.networks import NETWORKS
from napari_unet3d.networks.monai import MonaiConfig

OWN = tuple(network for network in NETWORKS if network is not MonaiConfig)
