"""How the U-Net and the pixel classifier decide together."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

_TINY = 1e-6
_Weight = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]
_Shift = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]


def bounded_log(probabilities: Tensor) -> Tensor:
    """Log-probabilities that are finite also where a probability is 0."""
    return (probabilities + _TINY).log_()


class Calibration(BaseModel):
    """Weighted geometric mean of two classifiers' probabilities, with a shift for each class.

    Attributes
    ----------
    network, pixels
        Weight of the U-Net's and of the pixel classifier's log-probabilities. Their sum is the
        inverse of the temperature.
    shift
        Added to the classes' log-probabilities; empty for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    network: _Weight = 1.0
    pixels: _Weight = 0.0
    shift: Annotated[tuple[_Shift, ...], Field(max_length=255)] = ()

    def apply(self, network: Tensor, pixels: Tensor | None) -> Tensor:
        """Probabilities (K, …) from the U-Net's and the pixel classifier's.

        Parameters
        ----------
        network
            (K, …) probabilities of the U-Net.
        pixels
            (K, …) log-probabilities of the pixel classifier, if there is one.
        """
        if self == Calibration():
            return network
        logits = bounded_log(network).mul_(self.network)
        if pixels is not None and self.pixels:
            logits.add_(pixels, alpha=self.pixels)
        if self.shift:
            shape = (-1,) + (1,) * (logits.ndim - 1)
            logits.add_(torch.tensor(self.shift, device=logits.device).view(shape))
        return logits.softmax(0)
