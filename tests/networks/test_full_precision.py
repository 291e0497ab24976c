"""fp32 is fp32 whatever another library of the process has chosen, and its choice is restored."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch

from napari_unet3d.networks.full_precision import full_precision

NEW = hasattr(torch.backends, "fp32_precision")
OPERATIONS = [("cudnn", "conv"), ("cudnn", "rnn"), ("cuda", "matmul"), ("mkldnn", "matmul")]


def state() -> dict[str, object]:
    """Every setting that can be read; "mixed" where torch refuses to say."""
    older = {
        "convolutions": lambda: torch.backends.cudnn.allow_tf32,
        "products": torch.get_float32_matmul_precision,
    }
    values: dict[str, object] = dict.fromkeys(older, "mixed")
    for name, read in older.items():
        with suppress(RuntimeError):
            values[name] = read()
    if NEW:
        values["all"] = torch.backends.fp32_precision
        for backend, operation in OPERATIONS:
            setting = getattr(getattr(torch.backends, backend), operation)
            values[f"{backend}.{operation}"] = setting.fp32_precision
    return values


def products_in_tf32() -> None:
    torch.set_float32_matmul_precision("high")


def everything_in_tf32() -> None:
    torch.backends.fp32_precision = "tf32"


def convolutions_in_fp32_the_newer_way() -> None:
    torch.backends.cudnn.conv.fp32_precision = "ieee"


def products_in_tf32_the_newer_way() -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"


CHOICES = [lambda: None, products_in_tf32]
NEWER_CHOICES = [
    everything_in_tf32,
    convolutions_in_fp32_the_newer_way,
    products_in_tf32_the_newer_way,
]


@pytest.fixture
def default_settings():
    """Restore torch's own settings after a test, in the order that it allows."""
    yield
    if NEW:
        torch.backends.fp32_precision = "none"
        torch.backends.cudnn.fp32_precision = "none"
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("default_settings")
@pytest.mark.parametrize("choose", CHOICES + NEWER_CHOICES * NEW)
def test_tf32_is_off_inside_and_as_before_outside(choose):
    choose()
    before = state()
    with full_precision():
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.get_float32_matmul_precision() == "highest"
        assert "tf32" not in state().values()
        # The older flags, which raise in a mixed state, can be nested.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            pass
    assert state() == before


@pytest.mark.usefixtures("default_settings")
@pytest.mark.skipif(not NEW, reason="this torch has only the older settings")
def test_the_older_flags_alone_fail_in_a_mixed_state():
    """Why there is a module for this: torch raises, in the middle of a training."""
    convolutions_in_fp32_the_newer_way()
    with (
        pytest.raises(RuntimeError, match="mix of the legacy and new APIs"),
        torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
    ):
        pass
