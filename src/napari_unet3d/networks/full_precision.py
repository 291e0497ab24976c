"""Switches TF32 off, so that fp32 has 24 bits of precision on every device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

_OPERATIONS = (
    ("cudnn", "conv"), ("cudnn", "rnn"), ("cuda", "matmul"),
    ("mkldnn", "conv"), ("mkldnn", "rnn"), ("mkldnn", "matmul"),
)  # fmt: skip


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute fp32 convolutions and matrix products in fp32, not in TF32 or bf16.

    NVIDIA GPUs from the Ampere generation on compute fp32 convolutions in TF32 by default, with
    11 bits. torch 2.9 has a second way to say so (`fp32_precision`, per operation), and raises a
    `RuntimeError` where the older way (`allow_tf32`) meets a state that only the newer one can
    express. Another plugin of the same process may have left such a state, so the newer states
    are cleared before the older switches are used, and restored last.
    """
    parents = _parents()
    before = [read() for read, _ in parents]
    operations = _read_operations()
    convolutions = _older(lambda: torch.backends.cudnn.allow_tf32)
    products = _older(torch.get_float32_matmul_precision)
    for _, write in parents:
        write("none")
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        if convolutions is not None:
            torch.backends.cudnn.allow_tf32 = convolutions
        if products is not None:
            torch.set_float32_matmul_precision(products)
        for (_, write), value in zip(parents, before, strict=True):
            write(value)
        for (backend, operation), value in operations.items():
            setting = getattr(getattr(torch.backends, backend), operation)
            if setting.fp32_precision != value:
                setting.fp32_precision = value


def _older(read: Callable[[], Any]) -> Any:
    """A setting of the older kind; None where the newer kind has made it unreadable."""
    with suppress(RuntimeError):
        return read()
    return None


def _parents() -> list[tuple[Callable[[], str], Callable[[str], None]]]:
    """How to read and write the settings that operations inherit; none before torch 2.9."""
    if not hasattr(torch.backends, "fp32_precision"):
        return []
    places: tuple[Any, ...] = (torch.backends, torch.backends.cudnn)

    def read(place: Any) -> str:
        return str(place.fp32_precision)

    def write(place: Any, value: str) -> None:
        place.fp32_precision = value

    return [(lambda p=p: read(p), lambda v, p=p: write(p, v)) for p in places]  # type: ignore[misc]


def _read_operations() -> dict[tuple[str, str], str]:
    """The newer setting of each operation, inherited or its own; empty before torch 2.9."""
    settings = {}
    for backend, operation in _OPERATIONS:
        setting = getattr(getattr(torch.backends, backend), operation, None)
        value = getattr(setting, "fp32_precision", None)
        if value is not None:
            settings[backend, operation] = str(value)
    return settings
