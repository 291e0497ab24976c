"""Which device there is, what it can do, and how much memory is free."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import platform
import shutil
from collections.abc import Iterator
from typing import Literal

import psutil
import torch

from napari_unet3d.data.wording import counted
from napari_unet3d.errors import BadInputError
from napari_unet3d.networks import allocator
from napari_unet3d.networks.full_precision import full_precision
from napari_unet3d.networks.main_memory import free_main_memory
from napari_unet3d.networks.trial import train_once

Precision = Literal["bf16", "fp16", "fp32"]

# --- the choice -----------------------------------------------------------------------------


def pick_device(wish: str = "auto") -> torch.device:
    """The device a wish (auto, cpu, cuda, cuda:N, mps) stands for.

    'auto' is the first GPU that can carry out a training step, or else the CPU.

    Raises
    ------
    BadInputError
        The device is not there, or PyTorch cannot use it.
    """
    if wish == "auto":
        return next((d for d in _gpus() if failure(d, "fp32") is None), torch.device("cpu"))
    kind, _, number = wish.partition(":")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise BadInputError(
            f"The device '{wish}' is not there: {unused_gpu() or 'no such GPU was found.'} "
            "Choose 'auto' or 'cpu'."
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise BadInputError(f"The device '{wish}' is not there. Choose 'auto' or 'cpu'.")
    device = torch.device(wish)
    if kind != "cpu" and (why := failure(device, "fp32")) is not None:
        raise BadInputError(
            f"PyTorch {torch.__version__} cannot use the device '{wish}': {why}. Choose 'auto' or "
            "'cpu'."
        )
    return device


def _gpus() -> list[torch.device]:
    """The GPUs that PyTorch sees."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = [torch.device("cuda", number) for number in range(count)]
    return gpus + [torch.device("mps")] * torch.backends.mps.is_available()


def failure(device: torch.device, precision: Precision, repeatable: bool = False) -> str | None:
    """Why a device cannot carry out a training step; None when it can."""
    try:
        _try_once(str(device), precision, repeatable)
    except Exception as error:  # a driver may fail in any way
        return reason(error).splitlines()[0].rstrip(".")
    return None


@functools.cache
def _try_once(device: str, precision: Precision, repeatable: bool) -> None:
    """Carry out a training step. Only a success is kept: a lack of memory may pass."""
    place = torch.device(device)
    cuda = place.type == "cuda"
    with _settings(repeatable):
        train_once(
            place,
            autocast(place, precision),
            memory_format(place),
            scaled=cuda or precision == "fp16",
            fused=cuda,
        )


def unused_gpu() -> str | None:
    """Why a GPU of this machine is not used, and what helps; None when no GPU is left unused."""
    for gpu in _gpus():
        if (why := failure(gpu, "fp32")) is not None:
            return f"A GPU is here, but PyTorch {torch.__version__} cannot use it: {why}."
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
    threads = torch.get_num_threads()
    return f"CPU ({counted(threads, 'thread')}, {platform.machine()})"


# --- precision ------------------------------------------------------------------------------


def pick_precision(device: torch.device, wish: str = "auto") -> Precision:
    """The number format of the convolutions: the wish, or what is fast on `device`.

    'auto' is bf16 where the hardware has it, fp16 on NVIDIA GPUs with tensor cores but without
    bf16 (compute capability 7), and fp32 otherwise, or where a training step in the fast format
    fails or gives no numbers.

    Raises
    ------
    BadInputError
        fp16 on a CPU, where it is hundreds of times slower than fp32.
    """
    if wish == "fp16" and device.type == "cpu":
        raise BadInputError("precision 'fp16' is not usable on a CPU: use 'auto', 'bf16' or 'fp32'")
    if wish in ("bf16", "fp16", "fp32"):
        return wish  # type: ignore[return-value]
    if device.type == "cpu":
        return "bf16" if _cpu_has_bf16() else "fp32"
    if device.type != "cuda":
        return "fp32"
    fast = fast_precision(torch.cuda.get_device_capability(device)[0])
    return fast if failure(device, fast) is None else "fp32"


def fast_precision(capability: int) -> Precision:
    """The format of the tensor cores of an NVIDIA GPU, given its major compute capability.

    GPUs below 7 have no tensor cores, and most of them compute fp16 far slower than fp32.
    """
    if capability >= 8:
        return "bf16"
    return "fp16" if capability == 7 else "fp32"


_BF16_WITHOUT_AMX = ("AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512")
"""Limits of oneDNN (ONEDNN_MAX_CPU_ISA) that leave its AMX kernels out, but not bf16."""


def _cpu_has_bf16() -> bool:
    """Whether bf16 is fast on this CPU, and right: not with AMX kernels (see `napari_unet3d`)."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    if limit.startswith(("SSE", "AVX")) and limit not in _BF16_WITHOUT_AMX and "AMX" not in limit:
        return False
    try:
        capabilities = torch.cpu.get_capabilities()
        if capabilities.get("amx_bf16") and limit not in _BF16_WITHOUT_AMX:
            return False
        return bool(capabilities.get("avx512_bf16") or capabilities.get("bf16"))
    except AttributeError:  # torch < 2.9 has only the private query
        query = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(query and query())


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[None]:
    """The context in which forward passes run."""
    if precision == "fp32":
        return contextlib.nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype)


def memory_format(device: torch.device) -> torch.memory_format:
    """The order of a network's feature maps in memory.

    Channels last is the fastest on CPUs and NVIDIA GPUs. On Apple GPUs, normalizations of such
    maps have crashed or had wrong gradients in several versions of PyTorch (its issues 190645
    and 175189).
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last_3d


# --- settings of PyTorch --------------------------------------------------------------------


@contextlib.contextmanager
def computing(
    device: torch.device, precision: Precision = "fp32", repeatable: bool = False
) -> Iterator[str | None]:
    """Set PyTorch up for a training or a prediction, and restore its settings in the end.

    fp32 is fp32 meanwhile (no TF32), and cuDNN does not search for the fastest convolution,
    which takes long for each new shape of a patch or tile.

    Parameters
    ----------
    device, precision
        As the network runs.
    repeatable
        Whether equal inputs must give equal results to the bit. Where the device has no such
        convolutions for `precision`, the work goes on with those that it has.

    Yields
    ------
    str or None
        A sentence for the user, where `repeatable` cannot be kept.
    """
    note = None
    if repeatable and device.type == "cuda" and (why := failure(device, precision, True)):
        repeatable = False
        note = (
            f"Repeating this run will not give exactly the same numbers: {describe(device)} has no "
            f"repeatable convolutions in {precision} ({why})."
        )
    with _settings(repeatable):
        yield note


@contextlib.contextmanager
def _settings(repeatable: bool) -> Iterator[None]:
    cudnn = torch.backends.cudnn
    before = cudnn.enabled, cudnn.benchmark, cudnn.deterministic
    cudnn.enabled, cudnn.benchmark, cudnn.deterministic = True, False, repeatable
    try:
        with full_precision():
            yield
    finally:
        cudnn.enabled, cudnn.benchmark, cudnn.deterministic = before


# --- memory ---------------------------------------------------------------------------------


def largest_map(device: torch.device) -> int:
    """Values that one feature map may have on `device`.

    PyTorch, cuDNN and oneDNN count them in 32 bits; Metal's buffers end at 4 GiB, which are 2³⁰
    values in fp32.
    """
    return 2**30 if device.type == "mps" else 2**31 - 1


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken on `device`, those that PyTorch keeps for reuse included."""
    if device.type == "cuda":
        free = int(torch.cuda.mem_get_info(device)[0])
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + kept
    if device.type == "mps":
        # An Apple GPU shares the main memory, and is slow beyond the size that Metal recommends.
        kept = torch.mps.driver_allocated_memory() - torch.mps.current_allocated_memory()
        left = torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
        return max(0, min(left, free_main_memory() + kept))
    return free_main_memory()


def room_for_images() -> int:
    """Bytes that an image may have to be read as a whole: a quarter of the memory, up to 4 GiB."""
    return min(free_main_memory() // 4, 4 << 30)


def used_memory(device: torch.device) -> int:
    """Bytes that this process holds on `device`."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    if device.type == "mps":
        return int(torch.mps.driver_allocated_memory())
    return int(psutil.Process().memory_info().rss)


_LACK_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "bad_alloc",  # C++
    "bad allocation",  # C++ on Windows
    "alloc_failed",  # cuDNN, cuBLAS
    "allocation_failed",  # cuDNN 9
    "unable to find an engine",  # cuDNN, when no algorithm's workspace fits
    "invalid buffer size",  # Metal, for a map above its limit
    # oneDNN gives no reason: a smaller map is worth a try in any case.
    "could not create a primitive",
    "could not execute a primitive",
    "could not create a memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is a lack of memory, on a GPU or in the main memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(part in text for part in _LACK_OF_MEMORY)


def reason(error: BaseException) -> str:
    """The text of an error, or its kind: Python's own lack of memory may have no text."""
    return str(error) or ("out of memory" if is_out_of_memory(error) else type(error).__name__)


def prepare(device: torch.device) -> None:
    """Make memory quick to reuse on `device`, until `release`."""
    if device.type == "cpu":
        allocator.keep_freed()


def make_room(device: torch.device) -> None:
    """Give unused memory back after a lack of memory, and go on."""
    release(device)
    prepare(device)


def release(device: torch.device) -> None:
    """Give unused memory back to the device."""
    gc.collect()
    if device.type == "cpu":
        allocator.give_back()
        return
    # A device that has failed refuses this, too: its first error is the one to report.
    with contextlib.suppress(RuntimeError):
        (torch.mps if device.type == "mps" else torch.cuda).empty_cache()
