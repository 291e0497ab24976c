"""The networks, their shapes and plans, and the device they run on.

A new network is one file in this folder and one line in `NetworkConfig`.
"""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import PlainValidator, SerializeAsAny

from napari_unet3d.errors import BadInputError
from napari_unet3d.networks.architecture import Architecture
from napari_unet3d.networks.unet import UNetConfig

NetworkConfig = UNetConfig  # | AnotherConfig
"""Configuration of any network; its `kind` tells which. Every network is listed here."""

NETWORKS: tuple[type[NetworkConfig], ...] = get_args(NetworkConfig) or (NetworkConfig,)


def kind_of(network: type[Architecture]) -> str:
    """Word by which the user chooses a network."""
    return str(network.model_fields["kind"].default)


def network_of_kind(kind: object) -> type[NetworkConfig]:
    """Find the class of the networks of a kind.

    Raises
    ------
    BadInputError
        There is no such kind.
    """
    for network in NETWORKS:
        if kind_of(network) == kind:
            return network
    kinds = ", ".join(f"'{kind_of(network)}'" for network in NETWORKS)
    raise BadInputError(f"There is no network of the kind {kind!r}. Choose one of {kinds}.")


def _validated(value: Any) -> Any:
    if isinstance(value, NETWORKS):
        return value
    if not isinstance(value, dict) or "kind" not in value:
        raise ValueError("the description of a network must be a JSON object with a 'kind'")
    return network_of_kind(value["kind"]).model_validate(value)


AnyNetwork = Annotated[NetworkConfig, SerializeAsAny(), PlainValidator(_validated)]
"""A pydantic field that holds the configuration of any network, told apart by `kind`."""
