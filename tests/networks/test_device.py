"""Devices, memory limits, and what counts as out of memory."""

from pathlib import Path

import pytest
import torch

from napari_unet3d.errors import BadInputError
from napari_unet3d.networks import device as devices


@pytest.fixture
def limited_group(tmp_path: Path):
    """A control group with a limit of 1000 bytes, 900 used, 300 of them reclaimable."""
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 600\ninactive_file 300\nactive_file 0\n")
    return tmp_path


def test_cached_files_do_not_count_as_used_memory(limited_group):
    assert devices._left_in_group(limited_group) == 400


def test_a_group_without_limit_leaves_everything(limited_group):
    (limited_group / "memory.max").write_text("max\n")
    assert devices._left_in_group(limited_group) > 2**60


def test_free_memory_is_positive_and_below_the_machine():
    assert 0 < devices.free_memory(torch.device("cpu")) < 2**60


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (RuntimeError("could not create a primitive"), True),  # oneDNN
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("bad allocation"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error, expected):
    assert devices.is_out_of_memory(error) is expected


@pytest.mark.parametrize("wish", ["cuda:7", "cuda:999999999999999999999", "mps"])
def test_a_device_that_is_not_there_is_named_with_the_cure(wish):
    with pytest.raises(BadInputError, match=rf"'{wish}' is not there.*'auto' or 'cpu'"):
        devices.pick_device(wish)


@pytest.mark.parametrize(
    ("limit", "amx", "expected"),
    [
        ("AVX512_CORE_BF16", True, "bf16"),  # what the package sets
        ("avx512_core_bf16", False, "bf16"),
        ("DEFAULT", True, "fp32"),  # AMX kernels of torch 2.13 train with wrong gradients
        ("AVX512_CORE_AMX", True, "fp32"),
        ("DEFAULT", False, "bf16"),
        ("AVX2", True, "fp32"),  # no bf16 there
    ],
)
def test_bf16_only_where_it_is_right(monkeypatch, limit, amx, expected):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    capabilities = {"avx512_bf16": True, "amx_bf16": amx}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert devices.pick_precision(torch.device("cpu")) == expected


def test_the_package_leaves_amx_out():
    import os

    import napari_unet3d  # noqa: F401

    assert os.environ["ONEDNN_MAX_CPU_ISA"]


def test_the_operations_of_the_network_are_tried_on_a_device():
    assert devices._failure("cpu") is None
    assert devices._failure("meta:9:9") is not None  # no such device: the reason is returned
