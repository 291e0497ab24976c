"""The optimizers. A new one is one function and one line in `OPTIMIZERS`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from napari_unet3d.config import TrainingConfig


@dataclass(frozen=True)
class OptimizerKind:
    """How weights learn.

    Attributes
    ----------
    make
        Makes the optimizer of some parameters, from the settings; the flag says whether it updates
        all weights in one kernel, as on NVIDIA GPUs.
    moments
        Names of the tensors that it keeps of each parameter, of the parameter's shape, and of
        others.
    learning_rate
        Peak learning rate unless the settings have one; None for that of the preset.
    weight_decay
        Weight decay unless the settings have one.
    fused
        Whether it may update all weights in one kernel, and then skips a step that is not finite.
    """

    make: Callable[[Iterable[nn.Parameter], TrainingConfig, bool], Optimizer]
    moments: Mapping[str, bool]
    learning_rate: float | None = None
    weight_decay: float = 0.0
    fused: bool = False


def _adamw(parameters: Iterable[nn.Parameter], config: TrainingConfig, fused: bool) -> Optimizer:
    """AdamW (Loshchilov and Hutter 2019)."""
    decay = _weight_decay(config, OPTIMIZERS["adamw"])
    return torch.optim.AdamW(parameters, lr=1.0, weight_decay=decay, fused=fused)


def _sgd(parameters: Iterable[nn.Parameter], config: TrainingConfig, fused: bool) -> Optimizer:
    """Stochastic gradient descent with Nesterov's momentum (Sutskever et al. 2013)."""
    # Not fused: where the first step is skipped, PyTorch's fused kernel keeps momentum that was
    # never set, and it fails where only a part of the network has learned.
    return torch.optim.SGD(
        parameters,
        lr=1.0,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        weight_decay=_weight_decay(config, OPTIMIZERS["sgd"]),
    )


def _weight_decay(config: TrainingConfig, kind: OptimizerKind) -> float:
    return kind.weight_decay if config.weight_decay is None else config.weight_decay


OPTIMIZERS: dict[str, OptimizerKind] = {
    "adamw": OptimizerKind(
        _adamw,
        {"step": False, "exp_avg": True, "exp_avg_sq": True},
        weight_decay=1e-2,
        fused=True,
    ),
    # nnU-Net's rate and decay (Isensee et al. 2021, Supplementary Note 2); the paper's are not
    # published.
    "sgd": OptimizerKind(_sgd, {"momentum_buffer": True}, learning_rate=0.01, weight_decay=3e-5),
}
