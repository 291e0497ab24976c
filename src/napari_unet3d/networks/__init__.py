"""The networks, their shapes and plans, and the device they run on.

A new network is one file in this folder and one line in `NetworkConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import PlainValidator, SerializeAsAny, ValidationError
from pydantic.fields import FieldInfo

from napari_unet3d.data.refusals import reason
from napari_unet3d.errors import BadInputError
from napari_unet3d.networks.architecture import Architecture
from napari_unet3d.networks.attention import AttentionUNetConfig
from napari_unet3d.networks.cascade import CascadeConfig
from napari_unet3d.networks.monai import MonaiConfig
from napari_unet3d.networks.multiskip import MultiSkipConfig
from napari_unet3d.networks.nested import NestedUNetConfig
from napari_unet3d.networks.residual import ResidualUNetConfig
from napari_unet3d.networks.slices import SliceUNetConfig
from napari_unet3d.networks.unet import UNetConfig
from napari_unet3d.networks.universal import UniversalUNetConfig

NetworkConfig = (
    UNetConfig
    | SliceUNetConfig
    | ResidualUNetConfig
    | AttentionUNetConfig
    | MultiSkipConfig
    | NestedUNetConfig
    | CascadeConfig
    | UniversalUNetConfig
    | MonaiConfig
)
"""Configuration of any network; its `kind` tells which. Every network is listed here."""

NETWORKS: tuple[type[NetworkConfig], ...] = get_args(NetworkConfig) or (NetworkConfig,)


def kind_of(network: type[Architecture]) -> str:
    """Word by which the user chooses a network."""
    return str(network.model_fields["kind"].default)


def available_networks() -> tuple[type[NetworkConfig], ...]:
    """The networks whose libraries are installed."""
    return tuple(network for network in NETWORKS if network.is_available())


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


def with_settings(network: NetworkConfig, settings: Mapping[str, Any]) -> NetworkConfig:
    """A network with other settings.

    Parameters
    ----------
    network
        The network, as it was planned.
    settings
        Values by the names of its settings.

    Raises
    ------
    BadInputError
        A setting is unknown, cannot be chosen, or does not go with the others.
    """
    kind = kind_of(type(network))
    for name in settings:
        if name not in own_settings(type(network)):
            names = ", ".join(own_settings(type(network)))
            raise BadInputError(f"The network '{kind}' has no setting '{name}'. It has: {names}.")
    try:
        return type(network).model_validate(network.model_dump() | dict(settings))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        given = "" if not where else f" '{where}' cannot be {first['input']!r}:"
        raise BadInputError(f"Settings of the network '{kind}':{given} {reason(first)}.") from error


def own_settings(network: type[Architecture]) -> dict[str, FieldInfo]:
    """The settings of a network that a user may choose: the others follow from the stack."""
    hidden = {*Architecture.model_fields, *network.not_chosen}
    return {n: f for n, f in network.model_fields.items() if n not in hidden}


def read_network(value: Any) -> NetworkConfig:
    """A network from its description, as JSON has it.

    Raises
    ------
    BadInputError
        The kind is unknown.
    ValueError
        It is no description.
    """
    network: NetworkConfig = _validated(value)
    return network


def _validated(value: Any) -> Any:
    if isinstance(value, NETWORKS):
        return value
    if not isinstance(value, dict) or "kind" not in value:
        raise ValueError("the description of a network must be a JSON object with a 'kind'")
    return network_of_kind(value["kind"]).model_validate(value)


AnyNetwork = Annotated[NetworkConfig, SerializeAsAny(), PlainValidator(_validated)]
"""A pydantic field that holds the configuration of any network, told apart by `kind`."""
