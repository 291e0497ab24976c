"""fp32 that is fp32, and results that repeat, on GPUs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def exact(deterministic: bool = False) -> Iterator[None]:
    """Compute fp32 convolutions and matrix products in fp32, not in TF32.

    A search for the fastest convolutions is left out: it takes long for each new shape of a patch
    or tile.

    Parameters
    ----------
    deterministic
        Whether cuDNN may only use algorithms that give the same bits each time.
    """
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, False
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=deterministic, allow_tf32=False
        ):
            yield
    finally:
        matmul.allow_tf32 = before


def lacks_deterministic_algorithm(error: BaseException) -> bool:
    """Whether cuDNN found no algorithm among those that it was allowed to use."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        part in text for part in ("unable to find an engine", "no deterministic", "not_supported")
    )
