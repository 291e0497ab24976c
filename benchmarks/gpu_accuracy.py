"""Checks of `gpu.py` on results: the tests, accuracy after seconds, agreement of precisions."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_checks import Bench, Check, Figures, LeftOutError, relative_error, require
from protocol import annotate, class_scores, installed, load_stack, mean_iou, stack_names
from torch import Tensor

from napari_unet3d.config import TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.events import TrainingProgress, drain
from napari_unet3d.networks import device as devices
from napari_unet3d.networks.device import Precision
from napari_unet3d.sampling.source import Source
from napari_unet3d.training.losses import masked_loss
from napari_unet3d.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[1]
_BUDGETS = (5.0, 15.0, 60.0)
"""Seconds of training: from a quick first result to the default budget."""
_SLICES = 3
"""Annotated xy slices of each stack, one of the numbers that `accuracy.py` measures."""
_LARGEST_ERROR = {"fp32": 5e-3, "bf16": 0.3, "fp16": 0.1}
"""Relative error of all gradients together. On a CPU, fp32 has 3e-6 to 3e-4 and bf16 0.1 to 0.2,
of which the direction of a step keeps a cosine of 0.98 and more."""


def tests_on_the_device(bench: Bench) -> Figures:
    """The tests that take a device (`UNET3D_TEST_DEVICE`), run on it by pytest."""
    if not installed("pytest") or not (ROOT / "tests").is_dir():
        raise LeftOutError("needs pytest and the folder of the tests")
    left = bench.clock.left()
    if left < 20:
        raise LeftOutError(f"only {left:.0f} s were left")
    folders = [
        str(ROOT / "tests" / name) for name in ("on_device", "networks", "sampling", "pixels")
    ]
    environment = os.environ | {"UNET3D_TEST_DEVICE": str(bench.device)}
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider", *folders]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            status = process.wait(left - 5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise LeftOutError(f"the tests took more than {left - 5:.0f} s") from None
        output.seek(0)
        text = output.read()
    failed = re.findall(r"^FAILED (\S+)", text, re.MULTILINE)
    figures = {"summary": (text.strip().splitlines() or [""])[-1], "failed": failed}
    require(status == 0, f"pytest ended with {status}", figures)
    return figures


def accuracy_checks(bench: Bench) -> dict[str, Check]:
    """A check for each budget and stack: the short ones of all stacks first."""
    try:
        names = stack_names(bench.stacks)
    except FileNotFoundError as error:
        text = str(error)

        def missing(_bench: Bench) -> Figures:
            raise LeftOutError(text)

        return {"accuracy": missing}
    budgets = _BUDGETS[:1] if bench.small else _BUDGETS
    return {
        f"accuracy on {name} after {seconds:g} s": _accuracy(name, seconds)
        for seconds in budgets
        for name in (names[:1] if bench.small else names)
    }


def _accuracy(name: str, seconds: float) -> Check:
    def check(bench: Bench) -> Figures:
        expected = 1.3 * seconds + 5
        if not bench.small and bench.clock.left() < expected:
            raise LeftOutError(f"needs {expected:.0f} s, {bench.clock.left():.0f} s were left")
        if bench.small:
            volume, truth = bench.simulated.image, bench.simulated.truth
            budget: dict[str, Any] = {"iterations": 2, "patch_shape": (8, 16, 16)}
            budget["pixel_classifier"] = False
        else:
            volume, truth = load_stack(bench.stacks, name)
            budget = {"seconds": seconds}
        labels = annotate(truth, _SLICES)
        annotation = SparseAnnotation.from_labels(labels, convention="sparse")
        iterations = 0

        def count(event: object) -> None:
            nonlocal iterations
            iterations += isinstance(event, TrainingProgress)

        begin = time.monotonic()
        config = TrainingConfig(device=str(bench.device), **budget)
        bundle = drain(Trainer(volume, annotation, config).run(), count)
        assert bundle is not None
        trained = time.monotonic()
        result = bench.segment(bundle, volume)
        scores = class_scores(result, truth, labels == 0)
        return {
            "iou": mean_iou(scores),
            "classes": {value: score["iou"] for value, score in scores.items()},
            "iterations": iterations,
            "training_s": trained - begin,
            "prediction_s": time.monotonic() - trained,
        }

    return check


def precisions_agree(bench: Bench) -> Figures:
    """Loss and gradients of one step of the default network, beside fp64 on the CPU."""
    # Four voxels deep at the coarsest level: of two, the network computes in fp32 on a CPU.
    shape = (24, 16, 16) if bench.small else (32, 64, 64)
    network = bench.bundle.build().train().requires_grad_(True)
    sample = bench.simulated
    source = Source(
        sample.image, IntensityNormalization.estimate(sample.image), torch.device("cpu")
    )
    image = source.crop(0, (0, 0, 0), shape)[None]
    box = tuple(slice(0, n) for n in shape)
    values = [0, *(c.value for c in sample.classes)]
    target = torch.from_numpy(np.searchsorted(values, sample.truth[box])[None].astype(np.uint8) + 1)
    start = {name: t.clone() for name, t in network.state_dict().items()}

    def step(device: torch.device, precision: Precision | None) -> tuple[Tensor, list[Tensor]]:
        network.load_state_dict(start)
        dtype = torch.float64 if precision is None else torch.float32
        network.to(device, dtype).zero_grad(set_to_none=True)
        form = devices.memory_format(device)
        x = image.to(device, dtype).contiguous(memory_format=form)
        with devices.autocast(device, precision or "fp32"):
            logits = network(x)
        loss = masked_loss(logits, target.to(device), TrainingConfig())
        scale = 2.0**12 if precision == "fp16" else 1.0
        (loss * scale).backward()
        gradients = [
            p.grad.double().cpu() / scale for p in network.parameters() if p.grad is not None
        ]
        return loss.detach().double().cpu(), gradients

    true_loss, true_gradients = step(torch.device("cpu"), None)
    truth = torch.cat([g.flatten() for g in true_gradients])
    figures: Figures = {"loss": float(true_loss)}
    wrong = []
    for precision, most in _LARGEST_ERROR.items():
        if precision == "fp16" and bench.device.type == "cpu":
            continue
        with devices.computing(bench.device, precision):  # type: ignore[arg-type]
            loss, gradients = step(bench.device, precision)  # type: ignore[arg-type]
        gradient = torch.cat([g.flatten() for g in gradients])
        figures[precision] = {
            "loss": relative_error(loss, true_loss),
            "gradients": relative_error(gradient, truth),
            "cosine": float(torch.nn.functional.cosine_similarity(gradient, truth, 0)),
        }
        if not figures[precision]["gradients"] < most:
            wrong.append(precision)
    require(not wrong, f"the gradients differ in {', '.join(wrong)}", figures)
    return figures
