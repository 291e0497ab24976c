"""Devices, memory limits, and what counts as out of memory."""

from pathlib import Path

import pytest
import torch

from napari_unet3d.errors import BadInputError
from napari_unet3d.networks import device as devices
from napari_unet3d.networks.main_memory import left_in_group

CPU = torch.device("cpu")


@pytest.fixture
def limited_group(tmp_path: Path):
    """A control group with a limit of 1000 bytes, 900 used, 300 of them reclaimable."""
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 600\ninactive_file 300\nactive_file 0\n")
    return tmp_path


def test_cached_files_do_not_count_as_used_memory(limited_group):
    assert left_in_group(limited_group) == 400


def test_a_group_without_limit_leaves_everything(limited_group):
    (limited_group / "memory.max").write_text("max\n")
    assert left_in_group(limited_group) > 2**60


def test_free_memory_is_positive_and_below_the_machine(device):
    assert 0 < devices.free_memory(device) < 2**60


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
        (RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB)"), True),
        (RuntimeError("Invalid buffer size: 24.00 GiB"), True),  # Metal
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


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_step_is_tried_on_a_device(precision, device):
    assert devices.failure(device, precision) is None
    assert devices.failure(device, precision, repeatable=True) is None


def test_a_device_that_does_not_work_gives_its_reason():
    why = devices.failure(torch.device("meta"), "fp32")  # it computes shapes, but no numbers
    assert why
    assert "\n" not in why


def test_a_failed_trial_is_tried_again(monkeypatch):
    """A GPU whose memory another program held may be free a minute later."""
    errors = [torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 1 GiB")]

    def trial(*_, **__):
        if errors:
            raise errors.pop()

    devices._try_once.cache_clear()
    monkeypatch.setattr(devices, "train_once", trial)
    assert devices.failure(CPU, "fp32") == "CUDA out of memory"
    assert devices.failure(CPU, "fp32") is None
    devices._try_once.cache_clear()


def test_a_trial_leaves_the_random_numbers_alone():
    devices._try_once.cache_clear()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    assert devices.failure(CPU, "fp32") is None
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("capability", "precision"), [(6, "fp32"), (7, "fp16"), (8, "bf16"), (9, "bf16"), (12, "bf16")]
)
def test_precision_of_an_nvidia_gpu(capability, precision):
    assert devices.fast_precision(capability) == precision


@pytest.mark.parametrize(("threads", "text"), [(1, "1 thread,"), (4, "4 threads,")])
def test_threads_in_words(monkeypatch, threads, text):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert text in devices.describe(CPU)


def test_settings_hold_while_a_network_runs_and_are_restored():
    cudnn = torch.backends.cudnn
    before = cudnn.enabled, cudnn.benchmark, cudnn.deterministic
    assert before[2] is False, "precondition: torch's default"
    with pytest.raises(ZeroDivisionError), devices.computing(CPU, "bf16", repeatable=True) as note:
        assert note is None
        assert (cudnn.enabled, cudnn.benchmark, cudnn.deterministic) == (True, False, True)
        _ = 1 / 0
    assert (cudnn.enabled, cudnn.benchmark, cudnn.deterministic) == before


def test_a_device_without_repeatable_convolutions_goes_on_with_others(monkeypatch):
    def trial(*_, **__):
        if torch.backends.cudnn.deterministic:
            raise RuntimeError("GET was unable to find an engine to execute this computation")

    monkeypatch.setattr(devices, "train_once", trial)
    monkeypatch.setattr(devices, "describe", lambda device: "Some GPU")
    devices._try_once.cache_clear()
    with devices.computing(torch.device("cuda", 0), "bf16", repeatable=True) as note:
        assert not torch.backends.cudnn.deterministic
    assert note is not None
    assert "Some GPU has no repeatable convolutions in bf16" in note
    devices._try_once.cache_clear()


def test_the_largest_map_of_an_apple_gpu_is_smaller():
    assert devices.largest_map(CPU) == 2**31 - 1
    assert devices.largest_map(torch.device("mps")) == 2**30
