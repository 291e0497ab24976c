"""A running average of a network's weights, which is the model of a training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_WINDOW = 9
"""Iterations. Until the average has its decay, it forgets as over iteration / (iteration + 9):
random weights are forgotten quickly."""


@torch.no_grad()
def average_weights(average: nn.Module, current: nn.Module, iteration: int, decay: float) -> None:
    """Take the weights after `iteration` iterations into a running average.

    Parameters
    ----------
    average, current
        Two networks of the same layout; the first one is changed.
    iteration
        Iterations so far, this one included.
    decay
        Decay of the average; 0 keeps the current weights.
    """
    decay = min(decay, iteration / (iteration + _WINDOW))
    averaged: list[Tensor] = list(average.parameters())
    weights: list[Tensor] = list(current.parameters())
    torch._foreach_lerp_(averaged, weights, 1 - decay)
