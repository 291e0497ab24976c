"""Speed: training steps beside their bare convolutions, and prediction beside MONAI's.

    python benchmarks/speed.py [--shape Z Y X] [--voxel-size Z Y X] [--precision fp32] [--repeats N]
        [--json FILE]

1. Every convolution of the planned network alone, on the planned batch of patches: what the
   arithmetic costs at the least on this machine.
2. A whole training step (sampling, augmentation, forward, loss, backward, optimizer,
   averaging), as the `Trainer` does it, and its share of the above.
3. Prediction of a whole stack, beside MONAI's `sliding_window_inference` with the same network,
   tile, overlap and number format. Each run is a process of its own, for its memory.

What is compared is measured in turn, round by round, so that a slower minute of the machine hits
both. Figures are medians. MONAI is left out where it is not installed (`pip install monai`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import napari_unet3d  # noqa: F401  first: it sets how OpenMP's threads wait, and torch reads that

# isort: split
import numpy as np
import psutil
import torch
from protocol import cpu_name, installed, peak_memory
from report import markdown
from torch import Tensor, nn
from torch.nn import functional

from napari_unet3d.config import PredictionConfig, TrainingConfig, Triple
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.samples import CLASSES, VOXEL_SIZE, tubules
from napari_unet3d.data.shapes import describe_shape
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import TrainingProgress, drain
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.model.mixture import Calibration
from napari_unet3d.networks import device as devices
from napari_unet3d.networks.architecture import Architecture
from napari_unet3d.networks.device import Precision
from napari_unet3d.networks.geometry import is_padded, receptive_field, walk
from napari_unet3d.networks.tracing import Layer
from napari_unet3d.prediction.engine import Engine
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.prediction.scores import label_table
from napari_unet3d.sampling.source import Source
from napari_unet3d.training.averaging import average_weights
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.learner import Learner
from napari_unet3d.training.listening import Listener
from napari_unet3d.training.losses import masked_loss
from napari_unet3d.training.plan import Patches, TrainingPlan
from napari_unet3d.training.trainer import Trainer

CPU = torch.device("cpu")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
MONAI_ROI = (96, 96, 96)
"""What MONAI's own examples use most."""
STEPS = 4
"""Training steps in a round; the first follows something else and is left out."""

Seconds = dict[str, list[float]]


# ---- the convolutions alone -----------------------------------------------------------------


@dataclass(frozen=True)
class TimedLayer:
    """One convolution with the shapes that it works on.

    Attributes
    ----------
    convolution
        As `geometry.walk` lists it.
    first
        Whether its input is the image, which needs no gradient.
    """

    convolution: Layer
    first: bool

    @property
    def upward(self) -> bool:
        """Whether it is an up-convolution."""
        return self.convolution.operation == "up-convolution"

    @property
    def forward_flop(self) -> int:
        """Operations of a forward pass; a multiply-add is two."""
        return 2 * self.convolution.multiply_adds

    @property
    def training_flop(self) -> int:
        """Operations of a forward pass and the gradients of weight and input."""
        return self.forward_flop * (2 if self.first else 3)


def list_layers(config: Architecture, patch: Triple) -> list[TimedLayer]:
    """The convolutions of a padded network, with their shapes, in the order of the forward pass."""
    if not is_padded(config):
        raise ValueError("only padded networks are measured; leave the preset as it is")
    convolutions = [layer for layer in walk(config, patch)[0] if layer.is_convolution]
    return [TimedLayer(c, first=i == 0) for i, c in enumerate(convolutions)]


class LayerTimer:
    """Tensors of one layer, and the time that it takes.

    Parameters
    ----------
    layer
        What is timed, without its bias.
    dtype
        Number format.
    batch_size
        Patches that it works on at once.
    """

    def __init__(self, layer: TimedLayer, dtype: torch.dtype, batch_size: int) -> None:
        c = layer.convolution
        self.layer = layer
        channels = (c.in_channels, c.out_channels)
        self._x = _random(batch_size, c.in_channels, *c.in_shape, dtype=dtype)
        self._gradient = _random(batch_size, c.out_channels, *c.shape, dtype=dtype)
        order = channels if layer.upward else channels[::-1]
        self._weight = (_random(*order, *c.kernel, dtype=dtype) * 0.1).requires_grad_()
        self._x.requires_grad_(not layer.first)

    def _convolve(self) -> Tensor:
        c = self.layer.convolution
        if self.layer.upward:
            return functional.conv_transpose3d(self._x, self._weight, stride=c.kernel)
        step = [n // m for n, m in zip(c.in_shape, c.shape, strict=True)]
        padding = [k // s // 2 * s for k, s in zip(c.kernel, step, strict=True)]
        return functional.conv3d(self._x, self._weight, stride=step, padding=padding)

    def forward(self) -> float:
        """Seconds of a forward pass."""
        begin = time.perf_counter()
        with torch.no_grad():
            self._convolve()
        return time.perf_counter() - begin

    def training(self) -> float:
        """Seconds of a forward pass and the gradients."""
        wanted = [self._weight] if self.layer.first else [self._weight, self._x]
        begin = time.perf_counter()
        torch.autograd.grad(self._convolve(), wanted, self._gradient)
        return time.perf_counter() - begin


def _random(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape).to(dtype).contiguous(memory_format=torch.channels_last_3d)


# ---- training -------------------------------------------------------------------------------


class Steps:
    """A real training that goes on only when asked.

    Parameters
    ----------
    volume, annotation
        What it is trained on.
    small
        Whether on the small patches of the first half of a training.
    precision
        Number format of the network.
    """

    def __init__(
        self, volume: Volume, annotation: SparseAnnotation, small: bool, precision: Precision
    ) -> None:
        config = TrainingConfig(
            device="cpu",
            precision=precision,
            iterations=10**6,
            small_patch_share=float(small),
        )
        trainer = Trainer(volume, annotation, config)
        self.plan = trainer.plan
        self.patches = self.plan.small_patches if small else self.plan.patches
        self._control = TrainingControl()
        self._events = trainer.run(self._control)
        self.take(STEPS)

    def take(self, count: int) -> list[float]:
        """Seconds of the next steps."""
        times: list[float] = []
        begin = time.perf_counter()
        while len(times) < count:
            if isinstance(next(self._events), TrainingProgress):
                now = time.perf_counter()
                times.append(now - begin)
                begin = now
        return times

    def finish(self) -> ModelBundle:
        """The trained model."""
        self._control.stop()
        bundle = drain(self._events)
        assert bundle is not None  # only a cancel gives None
        return bundle


class Parts:
    """The parts of a training step, called one by one as a `Learner` calls them.

    Parameters
    ----------
    plan
        What is trained.
    patches
        The patches of interest.
    """

    def __init__(self, plan: TrainingPlan, patches: Patches) -> None:
        self._plan, self._patches, self._number = plan, patches, 0
        learner = Learner(plan, Listener(TrainingControl()))
        self._sampler, self._network, self._average = (
            learner.sampler, learner.network, learner.average,
        )  # fmt: skip
        self._optimizer = torch.optim.AdamW(self._network.parameters(), lr=1e-4)

    def step(self) -> dict[str, float]:
        """Seconds of each part of one step."""
        plan, config = self._plan, self._plan.config
        self._number += 1
        times = [time.perf_counter()]

        def lap() -> None:
            times.append(time.perf_counter())

        image, target = self._sampler.batch(
            self._number, plan.batch_size, self._patches, config.augmentation
        )
        lap()
        with devices.autocast(CPU, plan.precision):
            logits = self._network(image.contiguous(memory_format=torch.channels_last_3d))
        lap()
        loss = masked_loss(logits, target, config)
        lap()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        lap()
        nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        self._optimizer.step()
        lap()
        average_weights(self._average, self._network, self._number, config.weight_averaging)
        lap()
        names = ("sampling", "forward", "loss", "backward", "optimizer", "averaging")
        return {n: b - a for n, a, b in zip(names, times, times[1:], strict=False)}


def measure_training(
    volume: Volume, annotation: SparseAnnotation, repeats: int, precision: Precision
) -> dict[str, Any]:
    """Convolutions, steps and parts for both sizes of patches, and the trained model."""
    runs = {
        name: Steps(volume, annotation, name == "small", precision) for name in ("small", "full")
    }
    timers, parts = {}, {}
    for name, run in runs.items():
        layers = list_layers(run.plan.network, run.plan.main_patch(run.patches))
        dtype, size = DTYPES[run.plan.precision], run.plan.batch_size
        timers[name] = [LayerTimer(layer, dtype, size) for layer in layers]
        parts[name] = Parts(run.plan, run.patches)
    steps: Seconds = {name: [] for name in runs}
    part_times: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    forward: dict[str, list[list[float]]] = {name: [] for name in runs}
    training: dict[str, list[list[float]]] = {name: [] for name in runs}
    for number in range(repeats + 1):
        for name, run in runs.items():
            alone = [t.forward() for t in timers[name]], [t.training() for t in timers[name]]
            laps = [parts[name].step() for _ in range(2)][1:]
            whole = run.take(STEPS)[1:]
            if number:  # the first round only prepares
                forward[name].append(alone[0])
                training[name].append(alone[1])
                part_times[name] += laps
                steps[name] += whole
        print(f"training: round {number} of {repeats}", file=sys.stderr, flush=True)
    figures = {}
    for name, run in runs.items():
        figures[name] = training_figures(
            [t.layer for t in timers[name]],
            forward[name],
            training[name],
            steps[name],
            run.plan.batch_size,
        ) | {
            "patch": run.plan.main_patch(run.patches),
            "precision": run.plan.precision,
            "parts_s": {
                part: statistics.median(p[part] for p in part_times[name])
                for part in part_times[name][0]
            },
        }
    return {"patches": figures, "bundle": runs["full"].finish()}


def training_figures(
    layers: Sequence[TimedLayer],
    forward: Sequence[Sequence[float]],
    training: Sequence[Sequence[float]],
    steps: Sequence[float],
    batch_size: int,
) -> dict[str, Any]:
    """Time and operations a second of the convolutions alone and of a whole step.

    Parameters
    ----------
    layers
        The convolutions.
    forward, training
        Seconds of each of them, round by round; for all patches of a step.
    steps
        Seconds of training steps.
    batch_size
        Patches of a step.

    Returns
    -------
    dict
        `share` is the convolutions' time over the step's: 1 would be a step that does nothing
        else, and does it as fast.
    """
    rows = []
    for i, layer in enumerate(layers):
        ahead, both = (statistics.median(r[i] for r in rounds) for rounds in (forward, training))
        rows.append(
            {
                "name": layer.convolution.name,
                "channels": (layer.convolution.in_channels, layer.convolution.out_channels),
                "kernel": layer.convolution.kernel,
                "shape": layer.convolution.shape,
                "gflop": batch_size * layer.forward_flop / 1e9,
                "forward_s": ahead,
                "forward_gflops": batch_size * layer.forward_flop / ahead / 1e9,
                "training_s": both,
                "training_gflops": batch_size * layer.training_flop / both / 1e9,
            }
        )
    flop = [
        batch_size * sum(getattr(layer, n) for layer in layers)
        for n in ("forward_flop", "training_flop")
    ]
    ahead, both = (sum(row[n] for row in rows) for n in ("forward_s", "training_s"))
    step = statistics.median(steps)
    return {
        "layers": rows,
        "forward_gflop": flop[0] / 1e9,
        "training_gflop": flop[1] / 1e9,
        "convolutions_forward_s": ahead,
        "convolutions_training_s": both,
        "peak_forward_gflops": flop[0] / ahead / 1e9,
        "peak_training_gflops": flop[1] / both / 1e9,
        "step_s": step,
        "step_gflops": flop[1] / step / 1e9,
        "share": both / step,
    }


# ---- prediction -----------------------------------------------------------------------------


def predict_ours(
    bundle: ModelBundle, volume: Volume, tile: Triple, precision: Precision
) -> np.ndarray:
    """Labels by our own prediction, with its default settings, by the network alone."""
    alone = bundle.model_copy(update={"calibration": Calibration()})
    return predict_both(alone, volume, tile, precision)


def predict_both(
    bundle: ModelBundle, volume: Volume, _: Triple, precision: Precision
) -> np.ndarray:
    """The same with the pixel classifier, where the model has one."""
    labels = np.zeros(volume.shape, np.uint8)
    config = PredictionConfig(device="cpu", precision=precision)
    drain(predict(bundle, volume, labels, config=config))
    return labels


def predict_monai(
    bundle: ModelBundle, volume: Volume, tile: Triple, precision: Precision
) -> np.ndarray:
    """Labels by MONAI, with our tile, overlap and number format."""
    from monai.inferers import sliding_window_inference

    network = bundle.build().to(memory_format=torch.channels_last_3d)
    seen = receptive_field(bundle.network)
    overlap = [PredictionConfig().overlap * min(a, n) / n for a, n in zip(seen, tile, strict=True)]
    intensity = IntensityNormalization.estimate(volume)
    image = torch.from_numpy(intensity.apply(volume.crop(0, (0, 0, 0), volume.shape)))[None]

    def probabilities(window: Tensor) -> Tensor:
        with devices.autocast(CPU, precision):
            logits = network(window.contiguous(memory_format=torch.channels_last_3d))
        return logits.float().softmax(1)

    with torch.inference_mode():
        found = sliding_window_inference(
            image,
            tile,
            sw_batch_size=1,
            predictor=probabilities,
            overlap=overlap,
            mode="gaussian",
            sigma_scale=0.125,
        )
        labels: np.ndarray = label_table(bundle.classes)[found[0].argmax(0).numpy()]
        return labels


METHODS: dict[str, Callable[[ModelBundle, Volume, Triple, Precision], np.ndarray]] = {
    "ours": predict_ours,
    "with the pixel classifier": predict_both,
    "monai": predict_monai,
}


def planned_tile(bundle: ModelBundle, volume: Volume, precision: Precision) -> Triple:
    """The tile that our prediction plans."""
    intensity = IntensityNormalization.estimate(volume)
    source = Source(volume, intensity, CPU)
    mixture = bundle.build_mixture(folded=False)
    engine = Engine(mixture, source, precision, adjoining=True)
    engine.plan_blocks((1, 1, 1), prod(volume.shape))
    return engine.plan()


def run_alone(job: dict[str, Any]) -> dict[str, Any]:
    """Predict once, in this process; the labels go into a file."""
    volume = Volume(np.load(job["image"]), "ZYX", tuple(job["voxel_size"]), "µm")
    bundle = ModelBundle.load(job["model"]).without_state()
    precision = job["precision"]
    tile = tuple(job["tile"] or planned_tile(bundle, volume, precision))
    if job["method"] == "monai":
        import monai.inferers  # noqa: F401  its loading is not timed
    before = int(psutil.Process().memory_info().rss)
    begin = time.perf_counter()
    labels = METHODS[job["method"]](bundle, volume, tile, precision)
    seconds = time.perf_counter() - begin
    peak = peak_memory()
    np.save(job["labels"], labels)
    return {"seconds": seconds, "tile": tile, "peak": peak, "above_start": peak - before}


def measure_prediction(
    bundle: ModelBundle, volume: Volume, repeats: int, precision: Precision
) -> dict[str, Any]:
    """Our prediction and MONAI's in turn, each run in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle.save(folder / "model.unet3d")
        np.save(folder / "image.npy", volume.data)
        runs: dict[str, list[dict[str, Any]]] = {}
        tiles: dict[str, Sequence[int] | None] = {
            "ours": None,
            "with the pixel classifier": None,
        }

        def alone(line: str) -> None:
            job = {
                "method": line.split(",")[0],
                "tile": tiles[line],
                "model": str(folder / "model.unet3d"),
                "image": str(folder / "image.npy"),
                "labels": str(folder / f"{line}.npy"),
                "voxel_size": volume.voxel_size,
                "precision": precision,
            }
            command = [sys.executable, __file__, "--alone", json.dumps(job)]
            result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            runs.setdefault(line, []).append(json.loads(result.stdout.splitlines()[-1]))

        for number in range(repeats):
            alone("ours")
            ours = runs["ours"][0]["tile"]
            if installed("monai"):
                tiles["monai, our tile"] = ours
                if tuple(ours) != MONAI_ROI:
                    tiles["monai, its usual tile"] = MONAI_ROI
            for line in tiles:
                if line != "ours":
                    alone(line)
            print(f"prediction: round {number + 1} of {repeats}", file=sys.stderr, flush=True)
        labels = {line: np.load(folder / f"{line}.npy") for line in runs}
    figures = prediction_figures(runs, prod(volume.shape))
    for line, figure in figures.items():
        figure["equal_labels"] = float((labels[line] == labels["ours"]).mean())
    return figures


def prediction_figures(
    runs: dict[str, list[dict[str, Any]]], voxels: int
) -> dict[str, dict[str, Any]]:
    """Medians of each line, and its time and memory over ours, round by round."""
    figures = {}
    for line, results in runs.items():
        seconds = [r["seconds"] for r in results]
        slower = [r["seconds"] / o["seconds"] for r, o in zip(results, runs["ours"], strict=True)]
        figures[line] = {
            "tile": tuple(results[0]["tile"]),
            "seconds": statistics.median(seconds),
            "all_seconds": seconds,
            "voxels_per_s": voxels / statistics.median(seconds),
            "peak": statistics.median(r["peak"] for r in results),
            "above_start": statistics.median(r["above_start"] for r in results),
            "time_over_ours": statistics.median(slower),
        }
    return figures


# ---- what is printed ------------------------------------------------------------------------


def machine(precision: Precision) -> dict[str, Any]:
    """What it is measured on, and in which number format."""
    return {
        "processor": cpu_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "precision": precision,
    }


def training_tables(patches: dict[str, Any]) -> str:
    """Layers, steps and parts as Markdown."""
    texts = []
    for name, f in patches.items():
        texts.append(f"### Convolutions alone, {name} patch {describe_shape(f['patch'])}")
        header = ["layer", "channels", "kernel", "map", "GFLOP", "forward ms", "GFLOP/s"]
        rows: list[list[object]] = [
            [
                r["name"],
                "{} → {}".format(*r["channels"]),
                describe_shape(r["kernel"]),
                describe_shape(r["shape"]),
                f"{r['gflop']:.2f}",
                f"{r['forward_s'] * 1e3:.1f}",
                f"{r['forward_gflops']:.0f}",
                f"{r['training_s'] * 1e3:.1f}",
                f"{r['training_gflops']:.0f}",
            ]
            for r in f["layers"]
        ]
        rows.append(
            [
                "**sum**",
                *[""] * 3,
                f"{f['forward_gflop']:.2f}",
                f"{f['convolutions_forward_s'] * 1e3:.1f}",
                f"{f['peak_forward_gflops']:.0f}",
                f"{f['convolutions_training_s'] * 1e3:.1f}",
                f"{f['peak_training_gflops']:.0f}",
            ]
        )
        texts.append(markdown([*header, "training ms", "GFLOP/s"], rows))
    texts.append("### Training steps")
    steps = [
        [
            f"{name}, {describe_shape(f['patch'])}",
            f"{f['training_gflop']:.1f}",
            f"{f['convolutions_training_s'] * 1e3:.0f}",
            f"{f['peak_training_gflops']:.0f}",
            f"{f['step_s'] * 1e3:.0f}",
            f"{f['step_gflops']:.0f}",
            f"**{f['share']:.0%}**",
        ]
        for name, f in patches.items()
    ]
    header = ["patch", "GFLOP", "convolutions ms", "GFLOP/s", "step ms", "GFLOP/s", "share"]
    texts.append(markdown(header, steps))
    texts.append("### Parts of a step, ms")
    names = list(next(iter(patches.values()))["parts_s"])
    rows = [
        [
            name,
            *(f"{f['parts_s'][n] * 1e3:.1f}" for n in names),
            f"{sum(f['parts_s'].values()) * 1e3:.1f}",
            f"{f['step_s'] * 1e3:.1f}",
        ]
        for name, f in patches.items()
    ]
    texts.append(markdown(["patch", *names, "sum", "step of the trainer"], rows))
    return "\n\n".join(texts)


def prediction_table(figures: dict[str, Any], shape: Triple) -> str:
    """Prediction as Markdown."""
    rows = [
        [
            line,
            describe_shape(f["tile"]),
            f"{f['seconds']:.2f}",
            f"{min(f['all_seconds']):.2f}–{max(f['all_seconds']):.2f}",
            f"{f['voxels_per_s'] / 1e6:.2f}",
            f"{f['time_over_ours']:.2f}",
            f"{f['peak'] / 2**20:.0f}",
            f"{f['above_start'] / 2**20:.0f}",
            f"{f['equal_labels']:.4%}",
        ]
        for line, f in figures.items()
    ]
    header = ["", "tile", "seconds", "range", "million voxels/s", "time over ours"]
    header += ["peak MiB", "MiB above the start", "labels like ours"]
    return f"### Prediction of {describe_shape(shape)} voxels\n\n" + markdown(header, rows)


def main() -> None:
    """Run and print the tables."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 256, 256), help="of the stack")
    parser.add_argument("--voxel-size", type=float, nargs=3, default=VOXEL_SIZE, help="z, y, x")
    parser.add_argument("--repeats", type=int, default=7, help="rounds")
    parser.add_argument("--precision", choices=("auto", *DTYPES), default="auto")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument(
        "--only", choices=("training", "prediction"), help="leave the other part out"
    )
    parser.add_argument("--alone", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        print(json.dumps(run_alone(arguments.alone)))
        return
    precision = devices.pick_precision(CPU, arguments.precision)
    sample = tubules(tuple(arguments.shape))
    volume = Volume(sample.image.data, "ZYX", tuple(arguments.voxel_size), "µm", "tubules")
    planes = np.linspace(0, volume.shape[0] - 1, 7).round()[1::2]
    annotation = SparseAnnotation(sample.annotate([SliceRef(0, int(z)) for z in planes]), CLASSES)
    figures: dict[str, Any] = {"machine": machine(precision), "shape": volume.shape}
    print(", ".join(f"{key}: {value}" for key, value in figures["machine"].items()), flush=True)
    if arguments.only == "prediction":
        steps = Steps(volume, annotation, True, precision)
        steps.take(30)  # a random network is undecided, and labels differ by rounding
        bundle = steps.finish()
    else:
        measured = measure_training(volume, annotation, arguments.repeats, precision)
        bundle = measured["bundle"]
        figures["training"] = measured["patches"]
        print("\n" + training_tables(figures["training"]), flush=True)
    if arguments.only != "training":
        if not installed("monai"):
            print("\nMONAI is not installed: prediction is measured without it.", flush=True)
        figures["prediction"] = measure_prediction(bundle, volume, arguments.repeats, precision)
        print("\n" + prediction_table(figures["prediction"], volume.shape), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
