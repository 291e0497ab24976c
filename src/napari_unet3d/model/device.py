"""Which device there is, what it can do, and how much memory is free."""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import shutil
from typing import Literal

import psutil
import torch

from napari_unet3d.errors import BadInputError

Precision = Literal["bf16", "fp16", "fp32"]


def pick_device(wish: str = "auto") -> torch.device:
    """The device a wish (auto, cpu, cuda, cuda:N, mps) stands for.

    Raises
    ------
    BadInputError
        The device is not there.
    """
    if wish == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    device = torch.device(wish)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadInputError(
            f"device {wish!r} is not there: {unused_gpu() or 'no such GPU was found.'} "
            "Use --device auto or cpu."
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise BadInputError(f"device {wish!r} is not there. Use --device auto or cpu.")
    return device


def unused_gpu() -> str | None:
    """Why a GPU of this machine is not used, with the cure; None when there is nothing to say."""
    if torch.cuda.is_available() or not _nvidia_gpu_present():
        return None
    if torch.version.cuda is None:
        return (
            f"An NVIDIA GPU is here, but this PyTorch ({torch.__version__}) is a build without "
            "CUDA: install the CUDA build that PyTorch's install selector names."
        )
    return (
        f"An NVIDIA GPU is here, but PyTorch {torch.__version__} (CUDA {torch.version.cuda}) "
        "cannot use it: update the NVIDIA driver, or install a PyTorch for this driver."
    )


def _nvidia_gpu_present() -> bool:
    return shutil.which("nvidia-smi") is not None or os.path.exists("/dev/nvidia0")


def describe(device: torch.device) -> str:
    """The device in words a user recognizes."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type == "mps":
        return "Apple GPU"
    return f"CPU ({torch.get_num_threads()} threads, {platform.machine()})"


def pick_precision(device: torch.device, wish: str = "auto") -> Precision:
    """The number format of the convolutions: the wish, or what is fast on `device`.

    bf16 where the hardware has it, fp16 on older GPUs, fp32 otherwise. fp16 on a CPU is
    hundreds of times slower than fp32, so it is refused there.
    """
    if wish == "fp16" and device.type == "cpu":
        raise BadInputError("precision 'fp16' is not usable on a CPU: use 'auto', 'bf16' or 'fp32'")
    if wish in ("bf16", "fp16", "fp32"):
        return wish  # type: ignore[return-value]
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    if device.type == "cpu" and _cpu_has_bf16():
        return "bf16"
    return "fp32"


def _cpu_has_bf16() -> bool:
    try:
        found = torch.cpu.get_capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("bf16"))
    except AttributeError:  # torch < 2.9 has only the private query
        query = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(query and query())


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[None]:
    """The context in which forward passes run."""
    if precision == "fp32":
        return contextlib.nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken on `device`."""
    if device.type == "cuda":
        free = int(torch.cuda.mem_get_info(device)[0])
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached
    return min(int(psutil.virtual_memory().available), _container_memory())


def _container_memory() -> int:
    """Bytes left under the container's or job's limit (cgroup v2), which psutil does not see."""
    try:
        with (
            open("/sys/fs/cgroup/memory.max") as limit,
            open("/sys/fs/cgroup/memory.current") as now,
        ):
            return max(int(limit.read()) - int(now.read()), 0)
    except (OSError, ValueError):
        return 1 << 62


def used_memory(device: torch.device) -> int:
    """Bytes that this process holds on `device`."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    return int(psutil.Process().memory_info().rss)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is a lack of memory, on a GPU or in the main memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        part in text for part in ("out of memory", "can't allocate memory", "not enough memory")
    )


def release(device: torch.device) -> None:
    """Give the memory that nothing uses any more back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
