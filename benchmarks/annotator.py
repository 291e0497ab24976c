"""Simulates an annotator who paints one slice after the other, as each strategy suggests.

    python benchmarks/annotator.py --data FOLDER --json annotator.json --plot annotator.png
    python benchmarks/annotator.py --data FOLDER --network 20 --stacks fluo_nuclei_bbbc050_emb04

FOLDER holds one folder a stack, with `image.tif` and `labels.tif` (dense truth, 0 is background);
without one, the built-in tubules are used. All strategies begin with the same slice, the middle
one, and may take slices of all three orientations. After each slice a model is trained on what is
painted, and asked where it is unsure. The score is the mean IoU of the classes on all voxels
that were never painted. 'random' is foreground-aware, and run with several seeds.

Without `--network`, the model is the pixel classifier alone, whose features are computed once a
stack: 14 stacks take about ten minutes on two cores. With it, each model is trained as the product
does it, for so many seconds. Stacks above `--voxels` are cropped in their middle. The results are
written after each stack, and what is there already is not run again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np
import torch
from protocol import DEVELOPMENT, Labels, class_scores, load_stack, mean_iou, stack_names

from napari_unet3d.config import PredictionConfig, TrainingConfig, default_class
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.boxes import Box, plan_blocks
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.slice_summary import SliceSummary
from napari_unet3d.data.slices import SliceRef, plane_index
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import drain
from napari_unet3d.pixels.features import filter_bank
from napari_unet3d.pixels.fit import Schedule, fit_classifier
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.prediction.tally import SliceTally
from napari_unet3d.sampling.source import Source
from napari_unet3d.session.suggestions import STRATEGIES, Scene, Strategy, suggest
from napari_unet3d.training.trainer import Trainer

SHORT = Schedule(iterations=300, dropout=0.3)
"""How long a classifier is fitted here."""

SCORED = (1, 2, 3, 4, 6, 8)
"""Numbers of painted slices whose model is scored."""
LABELLED = 30_000
"""Voxels that the pixel classifier is fitted to."""
CHUNK = 1 << 15
"""Voxels that are classified at once."""

Model = Callable[[Labels], tuple[Labels, SliceSummary]]
"""Trains on an annotation; returns the dense labels, and what is said about each slice."""


# --- models -----------------------------------------------------------------------------------


def pixel_model(volume: Volume, classes: Sequence[int]) -> Model:
    """The pixel classifier, fitted anew to voxels that are painted."""
    intensity = IntensityNormalization.estimate(volume)
    read = partial(Source(volume, intensity, torch.device("cpu")).read, 0, beyond="nearest")
    whole = Box((0, 0, 0), volume.shape)
    features = torch.empty((21 * volume.n_channels, *volume.shape), dtype=torch.float16)
    for box in plan_blocks(volume.shape, (32, 32, 32), 500_000):
        part = filter_bank(read, box.start, box.stop, volume.voxel_size)
        features[(slice(None), *box.slices)] = part.half()
    flat = features.flatten(1)
    numbers = np.zeros(256, np.int64)
    numbers[list(classes)] = np.arange(1, len(classes) + 1)
    values = np.array([0, *classes], np.uint8)

    def model(labels: Labels) -> tuple[Labels, SliceSummary]:
        painted = np.flatnonzero(labels)
        rng = np.random.default_rng(0)
        chosen = np.sort(rng.choice(painted, min(LABELLED, len(painted)), replace=False))
        target = torch.from_numpy(numbers[labels.ravel()[chosen]])
        own = flat[:, torch.from_numpy(chosen)].float().T.contiguous()
        classifier = fit_classifier(
            volume.n_channels, len(classes) + 1, 0, SHORT, lambda: False, own, target
        )
        with torch.inference_mode():
            parts = [classifier(p.float().T).softmax(1).T for p in flat.split(CHUNK, 1)]
        probabilities = torch.cat(parts, 1).reshape(-1, *volume.shape)
        tally = SliceTally(volume.shape, len(classes) + 1)
        tally.add(0, whole, probabilities)
        return values[probabilities.argmax(0).numpy()], tally.summaries()[0]

    return model


def network_model(volume: Volume, classes: Sequence[int], seconds: float) -> Model:
    """The product's training and prediction."""
    infos = tuple(default_class(v) for v in classes)

    def model(labels: Labels) -> tuple[Labels, SliceSummary]:
        config = TrainingConfig(seconds=seconds, seed=0, device="cpu")
        bundle = drain(Trainer(volume, SparseAnnotation(labels, infos), config).run())
        out = np.zeros(volume.shape, np.uint8)
        tally = SliceTally(volume.shape, len(classes) + 1)
        drain(predict(bundle, volume, out, config=PredictionConfig(device="cpu"), tally=tally))
        return out, tally.summaries()[0]

    return model


# --- the annotator ----------------------------------------------------------------------------


def cropped(volume: Volume, truth: Labels, voxels: int) -> tuple[Volume, Labels]:
    """The middle of a stack that has more voxels; the longest sides are cut."""
    sides = list(volume.shape)
    while np.prod(sides) > voxels:
        longest = max(sides)
        # All sides of that length are cut together, until they are as long as the next one.
        equal = [a for a in range(3) if sides[a] == longest]
        rest = int(np.prod([s for a, s in enumerate(sides) if a not in equal]))
        wanted = int((voxels / rest) ** (1 / len(equal)))
        shorter = max([s for s in sides if s < longest], default=1)
        for a in equal:
            sides[a] = max(wanted, shorter) if shorter < longest else wanted
    start = [(n - s) // 2 for n, s in zip(volume.shape, sides, strict=True)]
    box = tuple(slice(a, a + s) for a, s in zip(start, sides, strict=True))
    first = (slice(None),) * (len(volume.data.shape) - 3)
    data = np.ascontiguousarray(np.asarray(volume.data)[(*first, *box)])
    return replace(volume, data=data), np.ascontiguousarray(truth[box])


def painted(truth: Labels, refs: Sequence[SliceRef]) -> Labels:
    """An annotation with the truth on some slices, background painted too."""
    labels = np.zeros_like(truth)
    for ref in refs:
        where = plane_index(ref.axis, ref.index)
        labels[where] = np.maximum(truth[where], 1)
    return labels


def annotate(
    volume: Volume,
    truth: Labels,
    model: Model,
    strategy: Strategy,
    seed: int = 0,
    most: int = 6,
    first: dict[str, Any] | None = None,
) -> Iterator[dict[str, Any]]:
    """Paint slice after slice; yields a record for each number of slices that is scored.

    Parameters
    ----------
    first
        Model of the first slice, which all strategies share: it is put there, and taken again.
    """
    classes = [int(v) for v in np.unique(truth) if v]
    names = tuple(str(v) for v in classes)
    scene = Scene(volume.shape, volume.voxel_size, volume.unit, class_names=names)
    refs = [suggest(scene, "spread", 1)[0].ref]
    first = {} if first is None else first
    while True:
        labels = painted(truth, refs)
        summary, scored = None, len(refs) in SCORED
        if scored or strategy != "spread":
            if len(refs) == 1 and "model" in first:
                found, summary = first["model"]
            else:
                found, summary = model(labels)
            if len(refs) == 1:
                first["model"] = found, summary
        if scored:
            yield {
                "slices": len(refs),
                "iou": mean_iou(class_scores(found, truth, labels == 0)),
                "iou_all": mean_iou(class_scores(found, truth)),
                "painted": int((labels > 0).sum()),
                "refs": [str(r) for r in refs],
            }
        if len(refs) == most:
            return
        # A held-out slice elsewhere: no suggestion is spent on measuring.
        measured = frozenset({SliceRef(0, 0, time=1)})
        now = replace(scene, painted=frozenset(refs), held_out=measured, summary=summary)
        more = suggest(now, strategy, 1, seed)
        if not more:
            return
        refs.append(more[0].ref)


def run_stack(
    folder: Path | None, name: str, seeds: int, most: int, voxels: int, seconds: float | None
) -> list[dict[str, Any]]:
    """All strategies on one stack."""
    torch.set_num_threads(1)
    begin = time.perf_counter()
    volume, truth = cropped(*load_stack(folder, name), voxels)
    classes = [int(v) for v in np.unique(truth) if v]
    model = (
        pixel_model(volume, classes) if seconds is None else network_model(volume, classes, seconds)
    )
    first: dict[str, Any] = {}
    found = []
    for strategy in STRATEGIES:
        for seed in range(seeds if strategy == "random" else 1):
            for record in annotate(volume, truth, model, strategy, seed, most, first):
                key = {"stack": name, "strategy": strategy, "seed": seed, "network": seconds}
                found.append(key | {"shape": volume.shape} | record)
    found[0]["seconds"] = time.perf_counter() - begin
    return found


# --- report -----------------------------------------------------------------------------------


def curve(records: Sequence[dict[str, Any]], stack: str, strategy: str) -> dict[int, list[float]]:
    """Number of slices → IoU of each seed."""
    points: dict[int, list[float]] = {}
    for r in records:
        if r["stack"] == stack and r["strategy"] == strategy and r["iou"] is not None:
            points.setdefault(r["slices"], []).append(r["iou"])
    return dict(sorted(points.items()))


def area(points: dict[int, list[float]]) -> float:
    """Mean IoU over the numbers of slices after the first one, which all strategies share."""
    later = [fmean(values) for number, values in points.items() if number > 1]
    return fmean(later) if later else float("nan")


def report(records: Sequence[dict[str, Any]]) -> str:
    """A table of the mean IoU over the numbers of slices, and a verdict."""
    names = list(STRATEGIES)
    stacks = sorted({r["stack"] for r in records}, key=lambda s: (s not in DEVELOPMENT, s))
    lines = [
        "| stack | " + " | ".join(names) + " | last: " + " | last: ".join(names) + " |",
        "|---" * (1 + 2 * len(names)) + "|",
    ]
    areas: dict[str, dict[str, float]] = {}
    for stack in stacks:
        curves = {n: curve(records, stack, n) for n in names}
        areas[stack] = {n: area(curves[n]) for n in names}
        cells = [f"{areas[stack][n]:.3f}" for n in names]
        for n in names:
            values = list(curves[n].values())[-1] if curves[n] else [float("nan")]
            spread = f" ± {pstdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{fmean(values):.3f}{spread}")
        lines.append(f"| {stack} | {' | '.join(cells)} |")
    for title, chosen in (
        ("development", [s for s in stacks if s in DEVELOPMENT]),
        ("confirmation", [s for s in stacks if s not in DEVELOPMENT]),
        ("all", stacks),
    ):
        if chosen:
            means = {n: fmean(areas[s][n] for s in chosen) for n in names}
            best = max(means, key=lambda n: means[n])
            wins = ", ".join(
                f"{n} {sum(max(areas[s], key=lambda k: areas[s][k]) == n for s in chosen)}"
                for n in names
            )
            text = " | ".join(f"{means[n]:.3f}" for n in names)
            lines.append(
                f"| **{title}** | {text} | best mean: {best}; first on: {wins} |" + " |" * 2
            )
    return "\n".join(lines)


def plot(records: Sequence[dict[str, Any]], path: Path) -> None:
    """IoU against slices, a panel a stack."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    stacks = sorted({r["stack"] for r in records}, key=lambda s: (s not in DEVELOPMENT, s))
    columns = min(4, len(stacks))
    rows = -(-len(stacks) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(3.4 * columns, 2.7 * rows), squeeze=False, layout="constrained"
    )
    for panel, stack in zip(axes.flat, stacks, strict=False):
        for strategy, (name, _) in STRATEGIES.items():
            points = curve(records, stack, strategy)
            x = list(points)
            y = np.array([fmean(v) for v in points.values()])
            (line,) = panel.plot(x, y, marker="o", markersize=3, label=name)
            off = np.array([pstdev(v) for v in points.values()])
            if off.any():
                panel.fill_between(x, y - off, y + off, color=line.get_color(), alpha=0.2)
        mark = "" if stack in DEVELOPMENT else " (confirmation)"
        panel.set_title(f"{stack}{mark}", fontsize=7)
        panel.set_xlabel("slices", fontsize=7)
        panel.set_ylabel("IoU", fontsize=7)
        panel.tick_params(labelsize=6)
    for panel in list(axes.flat)[len(stacks) :]:
        panel.axis("off")
    axes.flat[0].legend(fontsize=6)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the stacks")
    parser.add_argument("--stacks", nargs="*", default=(), help="names; all of the folder")
    parser.add_argument("--seeds", type=int, default=3, help="of the random strategy")
    parser.add_argument("--most", type=int, default=6, help="slices in the end")
    parser.add_argument("--voxels", type=int, default=1_500_000, help="of a stack at most")
    parser.add_argument("--network", type=float, help="train networks for so many seconds")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--json", type=Path, help="results; what it holds is not run again")
    parser.add_argument("--plot", type=Path, help="picture of the curves")
    options = parser.parse_args()
    records: list[dict[str, Any]] = []
    if options.json is not None and options.json.is_file():
        records = json.loads(options.json.read_text())
    there = {r["stack"] for r in records if r["network"] == options.network}
    waiting = [n for n in stack_names(options.data, options.stacks) if n not in there]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context) as pool:
        size = (options.seeds, options.most, options.voxels, options.network)
        jobs = {pool.submit(run_stack, options.data, name, *size): name for name in waiting}
        for job in as_completed(jobs):
            found = job.result()
            records += found
            print(f"{jobs[job]}: {found[0]['seconds']:.0f} s", flush=True)
            if options.json is not None:
                options.json.write_text(json.dumps(records, indent=1))
    records = [r for r in records if r["network"] == options.network]
    print(report(records))
    if options.plot is not None:
        plot(records, options.plot)


if __name__ == "__main__":
    main()
