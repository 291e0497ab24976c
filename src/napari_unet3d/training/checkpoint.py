"""From a bundle into a network and its optimizer, and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.volume import Volume
from napari_unet3d.data.wording import counted
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks.architecture import Network
from napari_unet3d.training.optimizers import OPTIMIZERS

_WEIGHTS, _OPTIMIZER = "weights/", "optimizer/"
"""Prefixes of the tensors of a state: the unaveraged weights, and the optimizer's moments."""
_SCALE = "scaler/scale"
"""Name of the scale of fp16 gradients; only trainings in fp16 have it, since format version 4."""
_NOT_NEGATIVE = {"step", "exp_avg_sq"}
"""Moments that are sums of squares, or counters."""


def check_start(
    bundle: ModelBundle, volume: Volume, annotation: SparseAnnotation, resume: bool
) -> None:
    """Raise `BadInputError` when a training cannot go on from a bundle.

    Parameters
    ----------
    bundle
        The model that is trained further.
    volume, annotation
        What it is trained on.
    resume
        Whether the training goes on exactly where it was stopped.
    """
    if bundle.network.in_channels != volume.n_channels:
        raise BadInputError(
            f"The model was trained on {counted(bundle.network.in_channels, 'channel')}, the image "
            f"has {volume.n_channels}: choose an image with the same channels, or start anew."
        )
    if not resume:
        return
    if not bundle.state:
        raise BadInputError(
            "The model was saved without its optimizer, so it cannot be resumed: fine-tune it."
        )
    _check_state(bundle.state, bundle)
    trained = [c.value for c in bundle.classes]
    painted = [c.value for c in annotation.classes]
    if trained != painted:
        trained, painted = ([c.output_value for c in x.classes] for x in (bundle, annotation))
        raise BadInputError(
            f"The model was trained with the classes {trained}, the annotation has {painted}. A "
            "resumed training needs the same classes: fine-tune instead."
        )


def _check_state(state: Mapping[str, Tensor], bundle: ModelBundle) -> None:
    """Raise `BadInputError` unless the state is complete; moments may not have begun."""
    begun = any(n.startswith(_OPTIMIZER) for n in state)
    with torch.device("meta"):
        network = bundle.network.build()
    weights = _below(state, _WEIGHTS)
    moments = OPTIMIZERS[bundle.record.training_config.optimizer].moments
    damaged = [
        n
        for n, t in network.state_dict().items()
        if n not in weights or weights[n].shape != t.shape
    ]
    if begun:
        damaged += [
            n
            for n, p in network.named_parameters()
            # A part of a network that has not learned yet, or does not learn, has no moments.
            if (found := _below(state, f"{_OPTIMIZER}{n}/"))
            and not _is_whole(found, moments, p.shape)
        ]
    if _SCALE in state and not (state[_SCALE].numel() == 1 and bool(state[_SCALE] > 0)):
        damaged.append(_SCALE)
    if damaged:
        raise BadInputError(
            f"The model cannot be resumed: its optimizer state is damaged ('{damaged[0]}'). "
            "Fine-tune it instead, or resume another copy."
        )


def _is_whole(found: Mapping[str, Tensor], moments: Mapping[str, bool], shape: torch.Size) -> bool:
    """Whether an optimizer can have these moments of a parameter of this shape."""
    return set(found) == set(moments) and all(
        (tensor.shape == shape if moments[name] else tensor.numel() == 1)
        and (name not in _NOT_NEGATIVE or bool((tensor >= 0).all()))
        for name, tensor in found.items()
    )


def load_weights(network: Network, weights: Mapping[str, Tensor], head: bool = True) -> None:
    """Load weights into a network.

    Parameters
    ----------
    network
        Takes the weights.
    weights
        Its tensors by name.
    head
        False leaves the head as it is, for other classes than those of the weights.

    Raises
    ------
    RunFailedError
        Weights beside the head depend on the number of classes, which is a fault of the network.
    """
    prefix = network.config.head_prefixes
    loaded = {n: t for n, t in weights.items() if head or not n.startswith(prefix)}
    own = network.state_dict()
    for name, tensor in loaded.items():
        if name in own and own[name].shape != tensor.shape:
            raise RunFailedError(
                f"The weights '{name}' of the network '{network.config.kind}' have the shape "
                f"{tuple(tensor.shape)}, and the network takes {tuple(own[name].shape)}. Only "
                f"parameters whose names begin with {' or '.join(map(repr, prefix))} may depend on "
                "the classes."
            )
    network.load_state_dict(loaded, strict=head)


def training_state(
    network: Network, optimizer: torch.optim.Optimizer, scale: float | None = None
) -> dict[str, Tensor]:
    """All that resuming needs besides the averaged weights, in the main memory.

    Parameters
    ----------
    network
        The network in training, with its unaveraged weights. The running statistics of its batch
        norms begin anew.
    optimizer
        Its optimizer.
    scale
        Scale of fp16 gradients; None in another precision.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d) and module.track_running_stats:
            # Nothing uses them, and one step that was not finite would have spoiled them.
            module.reset_running_stats()
    state = {_WEIGHTS + name: t for name, t in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if value is not None:  # SGD without momentum keeps nothing
                state[f"{_OPTIMIZER}{name}/{key}"] = torch.as_tensor(value)
    if scale is not None:
        state[_SCALE] = torch.tensor(scale)
    return on_cpu(state)


def load_training_state(
    network: Network, optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]
) -> None:
    """Load the weights and moments of a state; the reverse of `training_state`."""
    load_weights(network, _below(state, _WEIGHTS))
    # Only a fused AdamW counts its steps on the device of the parameters.
    fused = bool(optimizer.defaults.get("fused"))
    for name, parameter in network.named_parameters():
        counter = parameter.device if fused else torch.device("cpu")
        optimizer.state[parameter] = {
            # Moments lie in memory as the parameter does: an update is one pass then.
            key: t.to(counter, copy=True) if key == "step" else torch.empty_like(parameter).copy_(t)
            for key, t in _below(state, f"{_OPTIMIZER}{name}/").items()
        }


def stored_scale(state: Mapping[str, Tensor]) -> float | None:
    """Scale of fp16 gradients of a state; None where it has none."""
    return float(state[_SCALE]) if _SCALE in state else None


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of tensors in the main memory."""
    return {n: t.detach().to("cpu", copy=True).contiguous() for n, t in tensors.items()}


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, which is removed."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
