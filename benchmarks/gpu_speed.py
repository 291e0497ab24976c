"""Checks of `gpu.py` on speed: training beside its bare convolutions, prediction beside MONAI."""

from __future__ import annotations

import statistics
import time
from math import prod
from typing import Any

import numpy as np
import torch
from gpu_checks import Bench, Figures, LeftOutError, PeakMemory, on_gpu, random_stack, require
from protocol import installed
from torch import Tensor, nn

from napari_unet3d.config import PredictionConfig, TrainingConfig, Triple
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import TrainingProgress, drain
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.model.mixture import Calibration
from napari_unet3d.networks import device as devices
from napari_unet3d.networks import geometry
from napari_unet3d.networks.planning import prediction_bytes, training_bytes
from napari_unet3d.sampling.source import resident_bytes
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.trainer import Trainer

_SHAPES: tuple[Triple, ...] = (
    (16, 64, 64), (16, 128, 128), (32, 128, 128), (32, 256, 256), (64, 256, 256),
    (128, 256, 256), (128, 384, 384), (256, 384, 384), (256, 512, 512),
)  # fmt: skip
"""Patches and tiles (z, y, x), voxels, from small up to what a large GPU holds."""
_DRY_SHAPES: tuple[Triple, ...] = ((8, 16, 16),)
_SHARE = 0.8
"""Share of the free memory up to which shapes are tried; the rest is for the libraries."""
_STEPS = 8
"""Steps of a training that are timed."""
_FIRST_STEPS = 6
"""Steps before them, which load libraries and are recorded as a CUDA graph."""
_FIRST_MIXED_STEPS = 30
"""The same where patches have several shapes, each of which is recorded in its fourth step."""
_LARGE_STACK = 10.0
"""Seconds that 512³ voxels may take on an NVIDIA GPU, from the call to the labels."""
_ROUNDS = 5
"""Timings of which the median counts; the first one, which loads libraries, is left out."""


def _shapes(bench: Bench, training: bool) -> list[Triple]:
    """The shapes that fit on the device, by the plan."""
    network, precision = bench.bundle.network, bench.precision
    needed = training_bytes if training else prediction_bytes
    free, most = devices.free_memory(bench.device), devices.largest_map(bench.device)
    return [
        shape
        for shape in (_DRY_SHAPES if bench.small else _SHAPES)
        if needed(network, shape, precision, on_gpu(bench)) < _SHARE * free
        and geometry.largest_map(network, shape) <= most
    ]


def convolution_peak(bench: Bench) -> Figures:
    """The fastest 3×3×3 convolution of several, forward alone and with its gradients."""
    figures: Figures = {}
    shape = (8, 16, 16) if bench.small else (32, 128, 128)
    form = devices.memory_format(bench.device)
    for channels in (32, 64, 128, 256):
        layer = nn.Conv3d(channels, channels, 3, padding=1, bias=False)
        layer = layer.to(bench.device, memory_format=form)  # type: ignore[call-overload]
        x = torch.randn((1, channels, *shape), device=bench.device)
        x = x.contiguous(memory_format=form).requires_grad_()
        work = 2 * 27 * channels**2 * prod(shape) / 1e12

        def forward(layer: nn.Module = layer, x: Tensor = x) -> Tensor:
            with devices.autocast(bench.device, bench.precision):
                y: Tensor = layer(x)
            return y

        def both(forward: Any = forward) -> None:
            y = forward()
            y.backward(torch.ones_like(y))

        with devices.computing(bench.device, bench.precision):
            seconds = {"forward": _median(bench, forward), "with gradients": _median(bench, both)}
        figures[f"{channels} channels"] = {
            "TFLOP/s forward": work / seconds["forward"],
            "TFLOP/s with gradients": 3 * work / seconds["with gradients"],
        }
    return figures


def _median(bench: Bench, work: Any) -> float:
    """Seconds of a piece of work, the median of several after two that load libraries."""
    seconds = []
    for _ in range(3 if bench.small else _ROUNDS + 2):
        bench.wait()
        begin = time.perf_counter()
        work()
        bench.wait()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[2:])


def training_step_by_kernels(bench: Bench) -> Figures:
    """Where the time of the planned training step goes: on the GPU by kernel, and beside it."""
    control = TrainingControl()
    events = bench.trainer(iterations=1000, pixel_classifier=False).run(control)
    steps = 2 if bench.small else _STEPS

    def take(count: int) -> None:
        while count:
            count -= isinstance(next(events), TrainingProgress)
        bench.wait()

    take(3 if bench.small else _FIRST_MIXED_STEPS)
    begin = time.perf_counter()
    take(steps)
    plain = (time.perf_counter() - begin) / steps
    figures = _by_kernels(bench, lambda: take(steps), steps)
    control.cancel()
    drain(events)
    return {"ms a step": 1e3 * plain, **figures}


def prediction_by_kernels(bench: Bench) -> Figures:
    """Where the time of a prediction goes, as `training_step_by_kernels`."""
    volume, _ = random_stack(_DRY_SHAPES[0] if bench.small else (128, 512, 512))
    bench.segment(bench.bundle, volume)
    begin = time.perf_counter()
    bench.segment(bench.bundle, volume)
    plain = time.perf_counter() - begin
    figures = _by_kernels(bench, lambda: bench.segment(bench.bundle, volume), 1)
    return {"ms": 1e3 * plain, "voxels/s": prod(volume.shape) / plain, **figures}


def _by_kernels(bench: Bench, work: Any, times: int) -> Figures:
    """Milliseconds and calls of the dearest kernels, a time."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if bench.device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profile:
        work()
        bench.wait()
    on_gpu = bench.device.type == "cuda"
    rows = [
        (e.self_device_time_total if on_gpu else e.self_cpu_time_total, e.count, e.key)
        for e in profile.key_averages()
        if not on_gpu or e.device_type == torch.autograd.DeviceType.CUDA
    ]
    rows.sort(reverse=True)
    return {
        "ms in kernels": sum(row[0] for row in rows) / times / 1e3,
        "kernels": sum(row[1] for row in rows) / times,
        "dearest": {
            key[:70]: f"{micro / times / 1e3:.2f} ms, {count / times:.0f}"
            for micro, count, key in rows[:16]
        },
    }


def convolutions_alone(bench: Bench, shape: Triple) -> float:
    """Seconds of the convolutions of a training step, each timed alone with random maps."""
    network = bench.bundle.build().train().requires_grad_(True)
    form = devices.memory_format(bench.device)
    network = network.to(bench.device, memory_format=form)  # type: ignore[call-overload]
    inputs: list[tuple[nn.Module, torch.Size]] = []

    def keep(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs.append((module, args[0].shape))

    kinds = nn.Conv3d | nn.ConvTranspose3d
    handles = [m.register_forward_pre_hook(keep) for m in network.modules() if isinstance(m, kinds)]
    channels = bench.bundle.network.in_channels
    with torch.no_grad(), devices.autocast(bench.device, bench.precision):
        network(torch.zeros((1, channels, *shape), device=bench.device))
    for handle in handles:
        handle.remove()
    seconds = 0.0
    for number, (module, size) in enumerate(inputs):
        x = torch.randn(size, device=bench.device).contiguous(memory_format=form)
        x.requires_grad_(number > 0)  # the image itself needs no gradient
        rounds = []
        for _ in range(2 if bench.small else _ROUNDS):
            bench.wait()
            begin = time.perf_counter()
            with devices.autocast(bench.device, bench.precision):
                y = module(x)
            y.backward(torch.ones_like(y))
            bench.wait()
            rounds.append(time.perf_counter() - begin)
        seconds += statistics.median(rounds[1:])
    return seconds


def _train_on(bench: Bench, shape: Triple) -> Figures:
    stack = random_stack(tuple(n + 8 for n in shape))  # type: ignore[arg-type]
    config = TrainingConfig(
        device=str(bench.device), iterations=10_000, patch_shape=shape, batch_size=1,
        pixel_classifier=False,
    )  # fmt: skip
    control, peak = TrainingControl(), PeakMemory(bench.device)
    steps = 2 if bench.small else _STEPS
    times: list[float] = []

    def follow(event: object) -> None:
        if isinstance(event, TrainingProgress):
            times.append(time.perf_counter())
            peak.sample()
            if len(times) > steps + _FIRST_STEPS:
                control.cancel()

    drain(Trainer(*stack, config, start_from=bench.bundle).run(control), follow)
    step = (times[-1] - times[_FIRST_STEPS]) / (len(times) - 1 - _FIRST_STEPS)
    planned = training_bytes(bench.bundle.network, shape, bench.precision, on_gpu(bench))
    planned += 5 * _weight_bytes(bench) + resident_bytes(stack[0])  # with gradients, moments, …
    return {
        "patches/s": 1 / step,
        "voxels/s": prod(shape) / step,
        "labelled voxels/s": prod(shape) / min(shape) / step,
        "peak bytes": peak.sample(),
        "peak over plan": peak.sample() / planned,
    }


def _weight_bytes(bench: Bench) -> int:
    return 4 * sum(t.numel() for t in bench.bundle.weights.values())


def training_speed(bench: Bench) -> Figures:
    """Training steps for each patch, and their share that bare convolutions would take."""
    figures: Figures = {}
    for shape in _shapes(bench, training=True):
        if figures and bench.clock.left() < 5:
            figures[_name(shape)] = "not reached"
            continue
        row = _attempt(lambda shape=shape: _train_on(bench, shape))  # type: ignore[misc]
        if "patches/s" in row:
            with devices.computing(bench.device, bench.precision):
                alone = _attempt(lambda shape=shape: {"s": convolutions_alone(bench, shape)})  # type: ignore[misc]
            if "s" in alone:
                row["share of the convolutions"] = alone["s"] * row["patches/s"]
        figures[_name(shape)] = row
    worked = any(isinstance(row, dict) and "patches/s" in row for row in figures.values())
    require(worked, "no patch was trained on", figures)
    return figures


def prediction_speed(bench: Bench) -> Figures:
    """Prediction of a stack for each tile."""
    shapes = _shapes(bench, training=False)
    volume, _ = random_stack(_DRY_SHAPES[0] if bench.small else (128, 512, 512))
    figures: Figures = {}
    for shape in shapes:
        if figures and bench.clock.left() < 5:
            figures[_name(shape)] = "not reached"
            continue
        figures[_name(shape)] = _attempt(lambda shape=shape: _predict(bench, volume, shape))  # type: ignore[misc]
    return figures


def _predict(bench: Bench, volume: Any, tile: Triple) -> Figures:
    peak = PeakMemory(bench.device)
    begin = time.perf_counter()
    bench.segment(bench.bundle, volume, peak.sample, tile_shape=tile)
    seconds = time.perf_counter() - begin
    planned = prediction_bytes(bench.bundle.network, tile, bench.precision, on_gpu(bench))
    sums = 4 * (bench.bundle.network.n_classes + 1) * prod(volume.shape)
    planned += _weight_bytes(bench) + resident_bytes(volume) + sums
    return {
        "voxels/s": prod(volume.shape) / seconds,
        "peak bytes": peak.sample(),
        "peak over plan": peak.sample() / planned,
    }


def prediction_beside_monai(bench: Bench) -> Figures:
    """Prediction beside MONAI's sliding window: same network, tile, overlap and precision.

    Both begin with the model in memory and the gray values as they are in a file, and end with
    labels in the main memory. What is left when a stack of an eighth is subtracted is the speed
    without what is done once.
    """
    if not installed("monai"):
        raise LeftOutError("MONAI is not installed (pip install monai)")
    from monai.inferers import sliding_window_inference

    tile = _DRY_SHAPES[0] if bench.small else (64, 128, 128)
    small: Triple = _DRY_SHAPES[0] if bench.small else (128, 192, 192)
    large: Triple = (8, 16, 32) if bench.small else (128, 640, 640)
    form = devices.memory_format(bench.device)
    share, seen = PredictionConfig().overlap, geometry.receptive_field(bench.bundle.network)
    overlap = [share * min(a, n) / n for a, n in zip(seen, tile, strict=True)]

    @torch.inference_mode()
    def theirs(volume: Volume) -> None:
        network = bench.bundle.build()
        network = network.to(bench.device, memory_format=form)  # type: ignore[call-overload]
        intensity = IntensityNormalization.estimate(volume)
        image = intensity.apply(volume.crop(0, (0, 0, 0), volume.shape))
        given = torch.from_numpy(image).to(bench.device)[None]
        with devices.autocast(bench.device, bench.precision):
            window = sliding_window_inference(
                given, tile, 1, network, overlap=overlap, mode="gaussian"
            )
        assert isinstance(window, Tensor)
        window.argmax(1).to(torch.uint8).cpu()

    def ours(volume: Volume) -> None:
        bench.segment(bench.bundle, volume, tile_shape=tile)

    figures: Figures = {}
    medians: dict[tuple[str, Triple], float] = {}
    for shape in (small, large):
        volume, _ = random_stack(shape)
        for name, run in {"ours": ours, "monai": theirs}.items():
            seconds = []
            for _ in range(3):
                begin = time.perf_counter()
                run(volume)
                bench.wait()
                seconds.append(time.perf_counter() - begin)
            medians[name, shape] = statistics.median(seconds[1:])
            figures[f"{name}, {_name(shape)}, s"] = medians[name, shape]
    more = prod(large) - prod(small)
    for name in ("ours", "monai"):
        per_voxel = max(medians[name, large] - medians[name, small], 1e-9) / more
        figures[f"{name}, voxels/s"] = prod(large) / medians[name, large]
        figures[f"{name}, voxels/s without what is done once"] = 1 / per_voxel
    figures["time over monai"] = medians["ours", large] / medians["monai", large]
    return figures


def a_large_stack(bench: Bench) -> Figures:
    """A stack of 512³ voxels with the default settings, network and pixel classifier together."""
    changes: dict[str, Any] = {"iterations": 2 if bench.small else 60}
    bundle = bench.train(**changes, pixel_classifier=not bench.small)
    volume, _ = random_stack((24, 32, 32) if bench.small else (512, 512, 512))
    peak = PeakMemory(bench.device)
    seconds = []
    for _ in range(2):  # the first one loads libraries
        begin = time.perf_counter()
        labels = bench.segment(bundle, volume, peak.sample)
        seconds.append(time.perf_counter() - begin)
    mixture = bundle.build_mixture(folded=True)
    figures: Figures = {
        "s": min(seconds), "s, first": seconds[0], "voxels/s": prod(volume.shape) / min(seconds),
        "peak bytes": peak.sample(), "pixel classifier": mixture.needs_pixels,
        "labels": np.unique(labels).tolist(),
    }  # fmt: skip
    figures |= {f"network alone, {k}": v for k, v in _network_alone(bench, bundle, volume).items()}
    if bench.device.type == "cuda":
        require(min(seconds) <= _LARGE_STACK, f"more than {_LARGE_STACK:g} s", figures)
    return figures


def _network_alone(bench: Bench, bundle: ModelBundle, volume: Volume) -> Figures:
    """The same stack without the pixel classifier."""
    alone = bundle.model_copy(update={"pixels": {}, "calibration": Calibration()})
    begin = time.perf_counter()
    bench.segment(alone, volume)
    return {"s": time.perf_counter() - begin}


def _attempt(measure: Any) -> Figures:
    """What a shape gives; or, where it fails, why: the larger ones may not fit."""
    try:
        figures: Figures = measure()
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {devices.reason(error)}"[:200]}
    return figures


def _name(shape: Triple) -> str:
    return "×".join(map(str, shape))
