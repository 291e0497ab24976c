"""From a bundle into a network and its optimizer, and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks.architecture import Network

_WEIGHTS, _OPTIMIZER = "weights/", "optimizer/"
_MOMENTS = {"step", "exp_avg", "exp_avg_sq"}
"""What AdamW keeps of each parameter."""


def check_start(
    bundle: ModelBundle, volume: Volume, annotation: SparseAnnotation, resume: bool
) -> None:
    """Raise `BadInputError` when a training cannot go on from a bundle."""
    if bundle.network.in_channels != volume.n_channels:
        raise BadInputError(
            f"the model was trained on {bundle.network.in_channels} channel(s), the image has "
            f"{volume.n_channels}: choose an image with the same channels, or start afresh"
        )
    if not resume:
        return
    if not bundle.state:
        raise BadInputError(
            "the model was saved without its optimizer, so it cannot be resumed: fine-tune it"
        )
    _check_state(bundle.state, bundle)
    trained = [c.value for c in bundle.classes]
    painted = [c.value for c in annotation.classes]
    if trained != painted:
        trained, painted = ([c.output_value for c in x.classes] for x in (bundle, annotation))
        raise BadInputError(
            f"the model was trained with the classes {trained}, painted are {painted}: a resumed "
            "training needs the same; fine-tune instead"
        )


def _check_state(state: Mapping[str, Tensor], bundle: ModelBundle) -> None:
    """Raise `BadInputError` unless the optimizer's state is complete, or has not begun."""
    begun = any(n.startswith(_OPTIMIZER) for n in state)
    with torch.device("meta"):
        network = bundle.network.build()
    weights = _below(state, _WEIGHTS)
    damaged = [
        n
        for n, t in network.state_dict().items()
        if n not in weights or weights[n].shape != t.shape
    ]
    if begun:
        damaged += [
            n
            for n, p in network.named_parameters()
            if not _is_whole(_below(state, f"{_OPTIMIZER}{n}/"), p.shape)
        ]
    if damaged:
        raise BadInputError(
            f"The model cannot be resumed: its optimizer state is damaged ('{damaged[0]}'). "
            "Fine-tune it instead, or resume another copy."
        )


def _is_whole(moments: Mapping[str, Tensor], shape: torch.Size) -> bool:
    """Whether these are moments that AdamW can have of a parameter."""
    return (
        set(moments) == _MOMENTS
        and all(moments[n].shape == shape for n in _MOMENTS - {"step"})
        and moments["step"].numel() == 1
        and bool((moments["step"] >= 0).all() and (moments["exp_avg_sq"] >= 0).all())
    )


def load_weights(network: Network, weights: Mapping[str, Tensor], head: bool = True) -> None:
    """Load the weights; without the head, which is for other classes, when `head` is False."""
    prefix = network.config.head
    found = {n: t for n, t in weights.items() if head or not n.startswith(prefix)}
    network.load_state_dict(found, strict=head)


def training_state(network: Network, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The unaveraged weights and the optimizer's moments, by name.

    The running statistics of the network's batch norms are begun anew.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d) and module.track_running_stats:
            # Nothing uses them, and one step that was not finite would have spoilt them.
            module.reset_running_stats()
    state = {_WEIGHTS + name: t for name, t in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            state[f"{_OPTIMIZER}{name}/{key}"] = torch.as_tensor(value)
    return on_cpu(state)


def load_training_state(
    network: Network, optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]
) -> None:
    """The reverse of `training_state`."""
    load_weights(network, _below(state, _WEIGHTS))
    for name, parameter in network.named_parameters():
        moments = _below(state, f"{_OPTIMIZER}{name}/")
        optimizer.state[parameter] = {
            # Like the parameter, so that the update stays one pass over the memory.
            key: torch.empty_like(parameter).copy_(t) if t.shape == parameter.shape else t.clone()
            for key, t in moments.items()
        }


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in the main memory."""
    return {n: t.detach().to("cpu", copy=True).contiguous() for n, t in tensors.items()}


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
