"""Accuracy on unannotated voxels after a short training, beside that of other methods.

    python benchmarks/accuracy.py
    python benchmarks/accuracy.py --data FOLDER --slices 1 3 5 planes --seconds 30 60 180 600 \
        --methods unet forest interpolation walker basicunet dynunet --json new.json
    python benchmarks/accuracy.py --data FOLDER --compare old.json --plot accuracy.png
    python benchmarks/accuracy.py --data FOLDER --variants 3 --seconds 15 --methods unet forest

FOLDER holds one folder a stack, with `image.tif` and `labels.tif` (dense truth, 0 is
background). Without one, the built-in tubules are used. `k` xy slices are annotated
completely, at `linspace(0, Z-1, 2k+1).round()[1::2]`, or with `planes` the middle one of each
orientation; all other voxels score. `--variants` adds variants of each stack, chosen by its place
among the stacks. Every run is a process of its own, one after the other.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import peers
import report
import torch
from protocol import (
    PLANES,
    Labels,
    Look,
    NotRunError,
    Result,
    Slices,
    annotate,
    cpu_name,
    peak_memory,
    score,
    stack_names,
    watched_slice,
)
from variants import case_names, load_case

import networks
from napari_unet3d.config import PredictionConfig, TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import SlicePreview, TrainingProgress, drain
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.trainer import Trainer

GRACE = 1800.0
"""Seconds that a run may take beyond twice its budget before it is ended."""


def segment(
    volume: Volume,
    labels: Labels,
    seconds: float,
    seed: int,
    look: Look | None = None,
    prediction: dict[str, Any] | None = None,
    **changes: Any,
) -> Result:
    """Ours: train with the default settings and `changes`, and predict with those of
    `prediction`."""
    config = TrainingConfig(**{"seconds": seconds, "seed": seed} | changes)
    control = TrainingControl()
    if look is not None:
        control.watch(look.ref)
    curve: list[tuple[float, float]] = []
    details: dict[str, Any] = {"iterations": 0}
    begin = time.perf_counter()

    def note(event: object) -> None:
        if isinstance(event, TrainingProgress):
            details["iterations"] = event.iteration
        elif isinstance(event, SlicePreview) and look is not None:
            curve.append((time.perf_counter() - begin, look.iou(event.labels)))

    bundle = drain(Trainer(volume, SparseAnnotation.from_labels(labels), config).run(control), note)
    assert bundle is not None
    trained = time.perf_counter()
    out = np.zeros(volume.shape, np.uint8)
    values = (0, *(c.value for c in bundle.classes))
    probabilities = np.empty((len(values), *volume.shape), np.float16)
    settings = PredictionConfig(**{"device": config.device} | (prediction or {}))
    drain(predict(bundle, volume, out, probabilities=probabilities, config=settings))
    return Result(
        out,
        values,
        probabilities,
        trained - begin,
        time.perf_counter() - trained,
        curve if look is not None else None,
        details,
    )


@dataclass(frozen=True)
class Method:
    """How a method is called, and what its result depends on."""

    run: Callable[..., Result]
    timed: bool = False
    seeded: bool = True


METHODS = {
    "unet": Method(segment, timed=True),
    "forest": Method(peers.forest),
    "interpolation": Method(peers.interpolation, seeded=False),
    "walker": Method(peers.walker, seeded=False),
    "basicunet": Method(networks.basicunet, timed=True),
    "dynunet": Method(networks.dynunet, timed=True),
    "nnunet": Method(peers.nnunet, timed=True),
}


@dataclass(frozen=True)
class Job:
    """One run: everything that its process needs to know."""

    data: str | None
    stack: str
    slices: Slices
    seconds: float | None
    seed: int
    method: str
    settings: dict[str, Any]
    curve: bool

    def key(self) -> dict[str, Any]:
        """What names the run in the results."""
        return {
            "stack": self.stack,
            "slices": str(self.slices),
            "seconds": self.seconds,
            "seed": self.seed,
            "method": self.method,
        }


def plan(arguments: argparse.Namespace, names: Sequence[str]) -> Iterator[Job]:
    """Yield all runs; a method without a budget runs once for all budgets."""
    data = None if arguments.data is None else str(arguments.data)
    for stack in names:
        for slices in arguments.slices:
            for name in arguments.methods:
                method = METHODS[name]
                for seconds in arguments.seconds if method.timed else [None]:
                    for seed in range(arguments.seeds if method.seeded else 1):
                        settings = arguments.settings if name == "unet" else {}
                        curve = arguments.curve and method.timed
                        yield Job(data, stack, slices, seconds, seed, name, settings, curve)


def work(job: Job) -> dict[str, Any]:
    """Run a method in this process and score what it found."""
    volume, truth = load_case(None if job.data is None else Path(job.data), job.stack)
    labels = annotate(truth, job.slices)
    look = watched_slice(truth, labels) if job.curve else None
    method = partial(METHODS[job.method].run, **job.settings)
    before = peak_memory()
    try:
        result = method(volume, labels, job.seconds or 0.0, job.seed, look)
    except NotRunError as reason:
        return {"not_run": str(reason)}
    except Exception as error:
        return {"error": f"{traceback.format_exc()}\n{type(error).__name__}: {error}"}
    memory = {"peak_memory": peak_memory(), "memory_before": before}
    return score(result, truth, labels, look) | memory | {"threads": torch.get_num_threads()}


def run(job: Job) -> dict[str, Any]:
    """Run a job in a process of its own; what goes wrong there becomes its `error`."""
    with tempfile.TemporaryDirectory(prefix="unet3d-benchmark-") as folder:
        target = Path(folder) / "result.json"
        command = [sys.executable, __file__, "--job", json.dumps(asdict(job)), str(target)]
        limit = GRACE + 2 * (job.seconds or 0.0)
        try:
            done = subprocess.run(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=limit
            )
        except subprocess.TimeoutExpired:
            return job.key() | {"error": f"ended after {limit:.0f} s"}
        if target.exists():
            figures: dict[str, Any] = json.loads(target.read_text())
            return job.key() | figures
        text = f"{done.stderr.strip()}\nthe process ended with status {done.returncode}"
        return job.key() | {"error": text.strip()}


def machine() -> dict[str, Any]:
    """What the figures depend on, beside the code."""
    packages = ("napari-unet3d", "torch", "numpy", "scikit-image", "scikit-learn", "monai")
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": found,
    }


def _slices(text: str) -> Slices:
    if text == PLANES:
        return text
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}': give a number from 1, or {PLANES}")
    return int(text)


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    try:
        if equals:
            return key, json.loads(value)
    except json.JSONDecodeError:
        pass
    raise argparse.ArgumentTypeError(f"'{text}': give KEY=JSON, such as 'preset=\"fast\"'")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, help="folder with the stacks; the built-in tubules without it")
    add("--stacks", nargs="*", default=[], help="names of stacks in it; all without it")
    add("--variants", type=int, default=0, help="variants of each stack that are run, too")
    add("--slices", nargs="+", type=_slices, default=[3], help=f"annotated slices, or {PLANES}")
    add("--seconds", nargs="+", type=float, default=[60.0], help="training times")
    add("--seeds", type=int, default=3, help="repetitions")
    add("--methods", nargs="+", choices=METHODS, default=["unet", "forest", "interpolation"])
    add("--set", nargs="*", type=_setting, default=[], metavar="KEY=JSON", dest="settings",
        help="other settings of our training; prediction={…}: of the prediction")  # fmt: skip
    add("--curve", action="store_true", help="look at a slice while training, for its curve")
    add("--json", type=Path, help="where to write the figures of every run")
    add("--compare", type=Path, metavar="OLD.json", help="print what changed since then")
    add("--beside", type=Path, metavar="OTHER.json", help="runs of other methods, for the tables")
    add("--plot", type=Path, metavar="FILE.png", help="draw IoU against seconds")
    add("--job", nargs=2, help=argparse.SUPPRESS)
    return parser


def main() -> None:
    """Run everything and print the tables."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.job:
        job = Job(**json.loads(arguments.job[0]))
        Path(arguments.job[1]).write_text(json.dumps(work(job)))
        return
    arguments.settings = dict(arguments.settings)
    earlier: list[report.Run] = []
    beside: list[report.Run] = []
    try:
        PredictionConfig(**arguments.settings.get("prediction", {}))
        TrainingConfig(**{k: v for k, v in arguments.settings.items() if k != "prediction"})
        names = stack_names(arguments.data, arguments.stacks)
        names = case_names(arguments.data, names, arguments.variants)
        if arguments.beside:
            beside = json.loads(arguments.beside.read_text())["runs"]
        if arguments.compare:
            earlier = json.loads(arguments.compare.read_text())["runs"]
    except (ValueError, OSError) as error:
        parser.error(str(error))
    except (KeyError, TypeError):
        parser.error("--compare and --beside take files that --json of this script wrote")

    content: dict[str, Any] = {"machine": machine(), "settings": arguments.settings}
    content["runs"] = runs = []
    jobs = list(plan(arguments, names))
    for i, job in enumerate(jobs):
        runs.append(run(job))
        found = runs[-1].get("iou")
        outcome = "no result" if found is None else f"IoU {found:.3f}"
        budget = "" if job.seconds is None else f", {job.seconds:g} s"
        name = f"{job.stack}, {job.slices} slices{budget}, {job.method}, seed {job.seed}"
        print(f"{i + 1} of {len(jobs)}: {name}: {outcome}", file=sys.stderr, flush=True)
        if arguments.json:  # after each run: a benchmark takes hours
            arguments.json.write_text(json.dumps(content, indent=1))

    shown = [*runs, *(run for run in beside if run["method"] not in arguments.methods)]
    facts = content["machine"]
    print(
        f"{facts['cpu']}, {facts['threads']} threads, torch {facts['packages']['torch']}, "
        f"napari-unet3d {facts['packages']['napari-unet3d']}, {facts['date']}; "
        f"settings {arguments.settings or 'default'}\n"
    )
    print(f"Mean IoU, ± half of what the seeds differ by:\n\n{report.table(shown)}\n")
    print(f"All figures:\n\n{report.details(shown)}\n")
    for line in report.failures(runs):
        print(f"- {line}")
    if arguments.compare:
        print(f"\nSince {arguments.compare}:\n\n{report.comparison(earlier, runs)}")
    if arguments.plot:
        try:
            report.plot(shown, arguments.plot)
        except ModuleNotFoundError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
