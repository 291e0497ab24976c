"""Checks of `gpu.py` for lines that run on a GPU only: settings, copies, random numbers, limits."""

from __future__ import annotations

import statistics
import time
import warnings
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_checks import Bench, Figures, LeftOutError, relative_error, require
from torch.nn import functional

from napari_unet3d.config import AugmentationConfig
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import TrainingProgress, drain
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks import device as devices
from napari_unet3d.networks.device import Precision
from napari_unet3d.networks.resampling import gather_linearly, sample_linearly, to_device
from napari_unet3d.sampling.augmentation import draw_warp
from napari_unet3d.sampling.source import ResidentSource, Source, open_source, resident_bytes
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.learner import Learner
from napari_unet3d.training.listening import Listener

_FULL_PRECISION = 1e-5
"""Relative error of a convolution or a product in fp32. TF32 has 11 bits: about 3e-4."""
_WAITS_ALLOWED = 0.0
"""Waits of the CPU for the GPU in one training step, but for that for the last loss, which PyTorch
does not count: it is an event."""


def device_trial(bench: Bench) -> Figures:
    """A training step in each precision, with and without repeatable convolutions."""
    precisions: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
    figures: Figures = {"picked": bench.precision}
    for precision, repeatable in product(precisions, (False, True)):
        if precision == "fp16" and bench.device.type == "cpu":
            continue
        name = f"{precision}{', repeatable' if repeatable else ''}"
        figures[name] = devices.failure(bench.device, precision, repeatable) or "works"
    if bench.device.type == "cuda":
        figures["capability"] = torch.cuda.get_device_capability(bench.device)
    require(figures["fp32"] == "works", "a training step in fp32 fails", figures)
    require(figures[bench.precision] == "works", "the picked precision fails", figures)
    return figures


def tf32_is_off(bench: Bench) -> Figures:
    """fp32 convolutions and products, beside fp64; and with TF32 allowed, for comparison."""
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(s, generator=generator) for s in ((1, 32, 8, 24, 24), (32, 32, 3, 3, 3)))
    a, b = (torch.randn(256, 256, generator=generator) for _ in range(2))
    truth = functional.conv3d(x.double(), w.double(), padding=1), a.double() @ b.double()
    form = devices.memory_format(bench.device)
    x, w = (t.to(bench.device).contiguous(memory_format=form) for t in (x, w))
    a, b = a.to(bench.device), b.to(bench.device)

    def errors() -> list[float]:
        results = functional.conv3d(x, w, padding=1), a @ b
        return [relative_error(r, t) for r, t in zip(results, truth, strict=True)]

    with devices.computing(bench.device):
        convolution, product_ = errors()
    figures = {"convolution": convolution, "product": product_}
    figures["convolution, torch's default"], figures["product, torch's default"] = errors()
    worst = max(convolution, product_)
    require(worst < _FULL_PRECISION, f"fp32 has an error of {worst:.1e}", figures)
    return figures


def _differing(one: ModelBundle, other: ModelBundle) -> list[str]:
    """Names of the tensors of two models that are not equal to the bit."""
    pairs = {**one.weights, **one.pixels}, {**other.weights, **other.pixels}
    names = pairs[0].keys() | pairs[1].keys()
    return sorted(
        n for n in names if n not in pairs[0] or n not in pairs[1]
        or not torch.equal(pairs[0][n], pairs[1][n])
    )  # fmt: skip


def replays_change_nothing(bench: Bench) -> Figures:
    """Steps that are replayed as CUDA graphs, beside the same steps as usual; and their speed."""
    bench.need("cuda")
    steps = 24
    learners: dict[str, Learner] = {}
    losses: dict[str, list[float]] = {}
    figures: Figures = {}
    for name, repeatable in (("equal", True), ("fast", False)):
        with devices.computing(bench.device, bench.precision, repeatable):
            for replays in (False, True):
                # From the first step on the large patch, which takes the GPU longer.
                plan = bench.trainer(iterations=1000, pixel_classifier=False).plan
                learner = Learner(plan, Listener(TrainingControl()), replays=replays)
                key = f"{name}, {'replayed' if replays else 'as usual'}"
                learners[key], losses[key] = learner, []
                for step in range(2 * steps):
                    if step == steps:
                        bench.wait()
                        begin = time.perf_counter()
                    loss = learner.advance(0.5)
                    assert isinstance(loss, float), loss
                    losses[key].append(loss)
                bench.wait()
                figures[f"{key}, ms a step"] = 1e3 * (time.perf_counter() - begin) / steps
    figures["shapes recorded"] = learners["equal, replayed"].recorded_shapes
    one, other = (learners[f"equal, {kind}"] for kind in ("as usual", "replayed"))
    pairs = zip(one.network.parameters(), other.network.parameters(), strict=True)
    figures["parameters that differ"] = sum(not torch.equal(a, b) for a, b in pairs)
    figures["losses that differ"] = sum(
        a != b for a, b in zip(losses["equal, as usual"], losses["equal, replayed"], strict=True)
    )
    require(figures["shapes recorded"] > 0, "nothing could be recorded", figures)
    same = not figures["parameters that differ"] and not figures["losses that differ"]
    require(same, "replayed steps learn something else", figures)
    return figures


def repeated_training_is_equal(bench: Bench) -> Figures:
    """Two trainings with the same seed and iterations, in channels_last_3d, to the bit."""
    iterations = 2 if bench.small else 12
    one, other = (bench.train(iterations=iterations) for _ in range(2))
    differing = _differing(one, other)
    with devices.computing(bench.device, bench.precision, repeatable=True) as note:
        figures = {"tensors": len(one.weights), "differing": len(differing), "note": note}
    require(not differing, f"{len(differing)} tensors differ, such as '{differing[:1]}'", figures)
    return figures


def resumed_equals_never_stopped(bench: Bench) -> Figures:
    """A training that is stopped and resumed, in each precision; fp16 has a gradient scale."""
    half = 1 if bench.small else 6
    figures: Figures = {}
    precisions = dict.fromkeys(["fp32", bench.precision])
    if bench.device.type == "cuda":
        precisions["fp16"] = None
    for precision in precisions:
        if figures and bench.clock.left() < 0:
            figures[precision] = "not reached"
            continue
        changes: dict[str, Any] = {
            "iterations": 2 * half, "precision": precision, "pixel_classifier": False
        }  # fmt: skip
        whole = bench.train(**changes)
        control = TrainingControl()

        def stop(event: object, control: TrainingControl = control) -> None:
            if isinstance(event, TrainingProgress) and event.iteration >= half:
                control.stop()

        stopped = drain(bench.trainer(**changes).run(control), stop)
        assert stopped is not None
        resumed = bench.train(start_from=stopped, resume=True, **changes)
        figures[precision] = f"{len(_differing(whole, resumed))} tensors differ"
    wrong = [p for p, text in figures.items() if text[0] not in "0n"]
    require(not wrong, f"resumed differs from never stopped in {', '.join(wrong)}", figures)
    return figures


def waits_in_a_step(bench: Bench) -> Figures:
    """Operations that wait for the GPU in a training step, and where they are."""
    bench.need("cuda")
    control = TrainingControl()
    events = bench.trainer(iterations=1000, pixel_classifier=False).run(control)

    def take(count: int) -> None:
        while count:
            count -= isinstance(next(events), TrainingProgress)

    take(40)  # all shapes of patches are recorded by then
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            take(10)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    control.cancel()
    drain(events)
    waits = [w for w in caught if "synchroniz" in str(w.message)]
    places = Counter(f"{Path(w.filename).name}:{w.lineno}" for w in waits)
    figures = {"per step": len(waits) / 10, "places": dict(places.most_common())}
    require(figures["per step"] <= _WAITS_ALLOWED, "the GPU idles while the CPU waits", figures)
    return figures


def warps(bench: Bench) -> Figures:
    """Patches warped on the device, beside the CPU."""
    shape, patch = (24, 40, 40), (8, 24, 24)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, *shape, generator=generator)
    target = torch.randint(0, 3, shape, generator=generator, dtype=torch.uint8)
    rng, config = np.random.default_rng(0), AugmentationConfig(spatial_share=1.0)
    labels, errors = [], []
    for _ in range(4):
        warp = draw_warp(rng, config, patch, (12.0, 20.0, 20.0), (1.0, 1.0, 1.0), 0)
        start, stop = warp.bounds(shape)
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        crop, codes = image[(slice(None), *box)], target[box]
        expected = warp.sample(crop, codes, start, shape)
        sampled = warp.sample(crop.to(bench.device), codes.to(bench.device), start, shape)
        errors.append(relative_error(sampled[0], expected[0]))
        labels.append(float((sampled[1].cpu() == expected[1]).float().mean()))
    figures = {"gray values, relative error": max(errors), "equal labels": min(labels)}
    require(max(errors) < 1e-3 and min(labels) > 0.999, "warps differ from the CPU's", figures)
    return figures


def interpolation(bench: Bench) -> Figures:
    """The eight look-ups that Apple GPUs need, beside torch's grid_sample on the CPU."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 9, 10, 11, generator=generator)
    where = torch.rand(3, 8, 8, 8, generator=generator) * 14 - 2
    expected = sample_linearly(image, where)
    image, where = image.to(bench.device), where.to(bench.device)
    figures: Figures = {"look-ups": relative_error(gather_linearly(image, where), expected)}
    figures["as used"] = relative_error(sample_linearly(image, where), expected)
    try:
        grid = torch.zeros(1, 2, 2, 2, 3, device=bench.device)
        functional.grid_sample(image[None], grid, align_corners=True)
        figures["grid_sample in 3D"] = "works"
    except (RuntimeError, NotImplementedError) as error:
        figures["grid_sample in 3D"] = str(error).splitlines()[0]
    require(max(figures["look-ups"], figures["as used"]) < 1e-4, "wrong gray values", figures)
    return figures


def clamp_of_integers(bench: Bench) -> Figures:
    """int64 `clamp_` with numbers, as warps use it, and with tensors, as they did."""
    values = torch.arange(-5, 15, device=bench.device)
    expected = values.cpu().clamp(0, 8)
    require(torch.equal(values.clone().clamp_(0, 8).cpu(), expected), "wrong with numbers", {})
    low, high = (torch.tensor(n, device=bench.device) for n in (0, 8))
    try:
        equal = torch.equal(values.clone().clamp_(min=low, max=high).cpu(), expected)
        return {"with tensors": "works" if equal else "wrong"}
    except (RuntimeError, NotImplementedError) as error:
        return {"with tensors": str(error).splitlines()[0]}


def memory_figures(bench: Bench) -> Figures:
    """Free and used memory before, with and after a tensor of 256 MiB."""
    size = (16 if bench.small else 256) << 20
    devices.release(bench.device)
    before = devices.free_memory(bench.device), devices.used_memory(bench.device)
    held = torch.ones(size, dtype=torch.uint8, device=bench.device)
    bench.wait()
    during = devices.free_memory(bench.device), devices.used_memory(bench.device)
    del held
    devices.release(bench.device)
    after = devices.free_memory(bench.device), devices.used_memory(bench.device)
    figures: Figures = {"tensor": size}
    for name, (free, used) in {"before": before, "with it": during, "after": after}.items():
        figures |= {f"free {name}": free, f"used {name}": used}
    if bench.device.type == "cuda":
        figures["total"] = torch.cuda.mem_get_info(bench.device)[1]
    if bench.device.type == "mps":
        figures["recommended"] = torch.mps.recommended_max_memory()
    if bench.device.type != "cpu":  # other programs take and give main memory meanwhile
        seen = before[0] - during[0] > size // 2 and during[1] - before[1] > size // 2
        require(seen, "the tensor is not seen in the figures", figures)
    return figures


def shortage_is_recognized(bench: Bench) -> Figures:
    """The error of a tensor that fits nowhere."""
    try:
        torch.empty(1 << 45, device=bench.device)
    except Exception as error:
        figures = {"type": type(error).__name__, "text": devices.reason(error).splitlines()[0]}
        require(devices.is_out_of_memory(error), "not taken for a lack of memory", figures)
        return figures
    raise LeftOutError("the system promises 128 TiB")


def random_numbers(bench: Bench) -> Figures:
    """Whether a trial and a training leave the device's global random numbers alone."""

    def states() -> list[torch.Tensor]:
        states = [torch.get_rng_state()]
        if bench.device.type == "cuda":
            states.append(torch.cuda.get_rng_state(bench.device))
        if bench.device.type == "mps":
            states.append(torch.mps.get_rng_state())
        return states

    devices.pick_device(str(bench.device))
    before = states()
    bench.train(iterations=1)
    after = states()
    kept = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    return {"cpu kept": kept[0], "device kept": kept[-1]}


def copies(bench: Bench) -> Figures:
    """Bytes a second from the main memory to the GPU, as the source copies them and pageable."""
    bench.need("cuda")
    array = np.zeros(1 << 24, np.float32)

    def rate(copy: Any) -> float:
        seconds = []
        for _ in range(6):
            bench.wait()
            begin = time.perf_counter()
            copy()
            bench.wait()
            seconds.append(time.perf_counter() - begin)
        return array.nbytes / statistics.median(seconds[1:])

    return {
        "pinned": rate(lambda: to_device(array, bench.device)),
        "pageable": rate(lambda: torch.from_numpy(array).to(bench.device)),
    }


def _check_normalization(bench: Bench, kind: type) -> None:
    """Raise unless gray values of a type are those that the CPU computes, to the bit."""
    rng = np.random.default_rng(0)
    volume = Volume((rng.normal(0, 1, (5, 40, 50)) * 3000).astype(kind), name=kind.__name__)
    intensity = IntensityNormalization.estimate(volume)
    expected = torch.from_numpy(intensity.apply(volume.crop(0, (0, 0, 0), volume.shape)))
    found = Source(volume, intensity, bench.device).crop(0, (0, 0, 0), volume.shape).cpu()
    error = {"type": kind.__name__, "relative error": relative_error(found, expected)}
    require(torch.equal(found, expected), "gray values differ from the CPU's", error)


def resident_source(bench: Bench) -> Figures:
    """The stack kept on the device, beside the same stack read box by box."""
    volume, _ = bench.sample
    intensity = IntensityNormalization.estimate(volume)
    plain = Source(volume, intensity, bench.device)
    resident = ResidentSource(volume, intensity, bench.device, resident_bytes(volume))
    z, y, x = volume.shape
    for kind in (np.uint8, np.int8, np.uint16, np.int16, np.float32):
        _check_normalization(bench, kind)
    boxes = [((0, 0, 0), (z, y, x)), ((-5, -7, -9), (z + 3, y // 2, x + 9))]
    for (start, stop), beyond in product(boxes, ("mirror", "nearest")):
        pair = [s.read(0, start, stop, beyond) for s in (plain, resident)]  # type: ignore[arg-type]
        require(torch.equal(*pair), f"the box {start} … {stop} differs", {})
    figures: Figures = {"chosen": type(open_source(volume, intensity, bench.device)).__name__}
    for name, source in {"plain": plain, "resident": resident}.items():
        begin = time.perf_counter()
        for _ in range(10):
            source.crop(0, (0, 0, 0), (min(z, 16), y, x))
        bench.wait()
        figures[f"{name}, s a box"] = (time.perf_counter() - begin) / 10
    return figures


def largest_map(bench: Bench) -> Figures:
    """A convolution whose maps have as many values as the plan allows."""
    if bench.device.type == "cpu":
        raise LeftOutError("needs a GPU")
    most, channels, side = devices.largest_map(bench.device), 32, 512
    depth = most // (channels * side * side)
    dtype = torch.float16 if bench.precision == "fp16" else torch.bfloat16
    if bench.device.type == "mps":
        dtype = torch.float16
    needed = 3 * 2 * channels * depth * side * side
    if devices.free_memory(bench.device) < 1.3 * needed:
        raise LeftOutError(f"needs {1.3 * needed / 1e9:.0f} GB")
    form = devices.memory_format(bench.device)
    network = torch.nn.Conv3d(channels, channels, 3, padding=1, bias=False)
    torch.nn.init.constant_(network.weight, 1 / (27 * channels))
    network = network.to(bench.device, dtype, memory_format=form)  # type: ignore[call-overload]
    x = torch.empty(
        (1, channels, depth, side, side), dtype=dtype, device=bench.device, memory_format=form
    ).fill_(1)
    with torch.inference_mode(), devices.computing(bench.device):
        y = network(x)
        far = y[0, :, -2, side // 2, side // 2].float().cpu()
        near = y[0, :, 1, 1, 1].float().cpu()
    figures = {"values": x.numel(), "near": float(near.mean()), "far": float(far.mean())}
    right = bool(((near - 1).abs() < 0.02).all() and ((far - 1).abs() < 0.02).all())
    require(right, "the convolution is wrong", figures)
    return figures
