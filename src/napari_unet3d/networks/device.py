"""Which device there is, what it can do, and how much memory is free."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import platform
import shutil
from pathlib import Path
from typing import Literal

import psutil
import torch

from napari_unet3d.errors import BadInputError
from napari_unet3d.networks import allocator

Precision = Literal["bf16", "fp16", "fp32"]


def pick_device(wish: str = "auto") -> torch.device:
    """The device a wish (auto, cpu, cuda, cuda:N, mps) stands for.

    Raises
    ------
    BadInputError
        The device is not there.
    """
    if wish == "auto":
        for kind, there in (
            ("cuda", torch.cuda.is_available()),
            ("mps", torch.backends.mps.is_available()),
        ):
            if there and _failure(kind) is None:
                return torch.device(kind)
        return torch.device("cpu")
    kind, _, number = wish.partition(":")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise BadInputError(
            f"The device '{wish}' is not there: {unused_gpu() or 'no such GPU was found.'} "
            "Choose 'auto' or 'cpu'."
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise BadInputError(f"The device '{wish}' is not there. Choose 'auto' or 'cpu'.")
    return torch.device(wish)


@functools.cache
def _failure(kind: str) -> str | None:
    """Why a GPU cannot run the network's operations, tried once; None when it can."""
    try:
        x = torch.rand(1, 2, 4, 4, 4, device=kind, requires_grad=True)
        grid = torch.zeros(1, 4, 4, 4, 3, device=kind)
        y = torch.nn.functional.grid_sample(x, grid, align_corners=True)
        y = torch.nn.Conv3d(2, 2, 3, padding=1, device=kind)(y)
        y = torch.nn.functional.max_pool3d(torch.nn.BatchNorm3d(2, device=kind)(y), 2)
        torch.nn.ConvTranspose3d(2, 2, 2, 2, device=kind)(y).sum().backward()
        coarse = torch.nn.functional.avg_pool3d(x.detach(), 2)
        torch.nn.functional.interpolate(coarse, scale_factor=2, mode="trilinear")
    except (RuntimeError, NotImplementedError) as error:
        return str(error).splitlines()[0]
    return None


def unused_gpu() -> str | None:
    """Why a GPU of this machine is not used, with the cure; None when there is nothing to say."""
    for kind, there in (
        ("cuda", torch.cuda.is_available()),
        ("mps", torch.backends.mps.is_available()),
    ):
        if there and (why := _failure(kind)) is not None:
            return f"A GPU is here, but PyTorch {torch.__version__} cannot use it: {why}"
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


_BF16_WITHOUT_AMX = ("AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512")
"""Limits of oneDNN (ONEDNN_MAX_CPU_ISA) that leave its AMX kernels out, but not bf16."""


def _cpu_has_bf16() -> bool:
    """Whether bf16 is fast on this CPU, and right: not with AMX kernels (see `napari_unet3d`)."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    if limit.startswith(("SSE", "AVX")) and limit not in _BF16_WITHOUT_AMX and "AMX" not in limit:
        return False
    try:
        found = torch.cpu.get_capabilities()
        if found.get("amx_bf16") and limit not in _BF16_WITHOUT_AMX:
            return False
        return bool(found.get("avx512_bf16") or found.get("bf16"))
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

    Channels last is the fastest on CPUs and NVIDIA GPUs; on Apple's, normalizations of such maps
    have crashed or have had wrong gradients in several versions of PyTorch (its issues 190645
    and 175189).
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last_3d


def most_values(device: torch.device) -> int:
    """Values that one feature map may have on `device`.

    PyTorch, cuDNN and oneDNN count the values of a map in 32 bits with a sign. Metal limits one
    array to 2³² bytes, which are 2³⁰ values in fp32.
    """
    return 2**30 if device.type == "mps" else 2**31 - 1


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken on `device`."""
    if device.type == "cuda":
        free = int(torch.cuda.mem_get_info(device)[0])
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached
    return _main_memory()


def room_for_images() -> int:
    """Bytes that an image may have to be read as a whole: a quarter of the memory, 4 GiB at most.

    Some limits, such as a job's under cgroup v1, cannot be seen.
    """
    return min(_main_memory() // 4, 4 << 30)


def _main_memory() -> int:
    return min(int(psutil.virtual_memory().available), _container_memory())


def _container_memory() -> int:
    """Bytes left under the limits of the container or job (cgroup v2); psutil ignores them.

    Pages of files that were read count as used there, but are given back when needed.
    """
    root = Path("/sys/fs/cgroup")
    left = 1 << 62
    try:
        own = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip().lstrip("/")
        for group in (root / own, *(root / own).parents):
            if (group / "memory.max").is_file():
                left = min(left, _left_in_group(group))
            if group == root:
                break
    except OSError:
        pass
    return left


def _left_in_group(group: Path) -> int:
    limit = (group / "memory.max").read_text().strip()
    if not limit.isdigit():  # "max": no limit
        return 1 << 62
    used = int((group / "memory.current").read_text())
    lines = (group / "memory.stat").read_text().splitlines()
    statistics = dict(line.split() for line in lines if len(line.split()) == 2)
    return max(int(limit) - used + int(statistics.get("inactive_file", 0)), 0)


def used_memory(device: torch.device) -> int:
    """Bytes that this process holds on `device`."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    return int(psutil.Process().memory_info().rss)


_LACK_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "bad_alloc",  # C++'s own
    "bad allocation",  # the same on Windows
    # cuDNN and cuBLAS say it so, the first when no algorithm's workspace could be had.
    "alloc_failed",
    "unable to find an engine",
    # oneDNN, which does not say why: a smaller map is worth a try in any case.
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
    """What an error says; Python's own lack of memory may say nothing."""
    return str(error) or ("out of memory" if is_out_of_memory(error) else type(error).__name__)


def prepare(device: torch.device) -> None:
    """Make memory quick to reuse on `device`, until `release`."""
    if device.type == "cpu":
        allocator.keep_freed()


def make_room(device: torch.device) -> None:
    """Give back what nothing uses any more, and go on: after a lack of memory."""
    release(device)
    prepare(device)


def release(device: torch.device) -> None:
    """Give the memory that nothing uses any more back to the device."""
    gc.collect()
    if device.type == "cpu":
        allocator.give_back()
        return
    # A device that has failed refuses this, too: what is told must be why it failed.
    with contextlib.suppress(RuntimeError):
        (torch.mps if device.type == "mps" else torch.cuda).empty_cache()
