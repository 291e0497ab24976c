"""Learners of single voxels beside each other: same features, same voxels, same truth.

    python benchmarks/pixel_learners.py --data FOLDER --part development --json learners.json

FOLDER holds one folder a stack, with `image.tif` and `labels.tif` (dense truth, 0 is background).
Each stack is taken as it is and in some variants (`variants.py`). The features of the pixel
classifier are computed once a case; the learners are fitted to voxels of k complete slices, and
scored by the mean IoU of the classes on voxels of all other slices. The results are written after
each case, and what is there already is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from protocol import DEVELOPMENT, annotate, annotated_slices, load_stack, stack_names
from torch import Tensor
from torch.nn import functional
from variants import cases

from napari_unet3d.data.boxes import Box, plan_blocks
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.volume import Volume
from napari_unet3d.pixels.features import filter_bank
from napari_unet3d.pixels.fit import LONG, SHORT, fit_classifier, mean_iou
from napari_unet3d.sampling.source import Source

LABELLED = 40_000
"""Voxels that the learners are fitted to."""
SCORED = 150_000
"""Voxels that are scored."""
TREES = 100

Floats = NDArray[np.floating[Any]]
Learner = Callable[[Floats, NDArray[np.int64], Floats, int], Callable[[Floats], Floats]]
"""Features, targets, features without labels, seed → features → probabilities (N, K)."""


def all_features(volume: Volume) -> Floats:
    """(voxels, features) float16 of the filter bank."""
    intensity = IntensityNormalization.estimate(volume)
    read = partial(Source(volume, intensity, torch.device("cpu")).read, 0, beyond="nearest")
    features: Tensor | None = None
    for box in plan_blocks(volume.shape, (32, 32, 32), 500_000):
        part = filter_bank(read, box.start, box.stop, volume.voxel_size).half()
        if features is None:
            features = torch.empty((len(part), *volume.shape), dtype=torch.float16)
        features[(slice(None), *_slices(box))] = part
    assert features is not None
    return features.flatten(1).T.contiguous().numpy()


def _slices(box: Box) -> tuple[slice, slice, slice]:
    return box.slices


# --- learners ---------------------------------------------------------------------------------


def _dense(model: Any, classes: int) -> Callable[[Floats], Floats]:
    def probabilities(x: Floats) -> Floats:
        out = np.zeros((len(x), classes), np.float32)
        out[:, model.classes_] = model.predict_proba(x)
        return out

    return probabilities


def forest(x: Floats, y: NDArray[np.int64], _: Floats, seed: int, **settings: Any) -> Any:
    """A random forest."""
    from sklearn.ensemble import RandomForestClassifier

    settings = {"n_estimators": TREES, "min_samples_leaf": 2, "n_jobs": 1} | settings
    return _dense(RandomForestClassifier(random_state=seed, **settings).fit(x, y), y.max() + 1)


def extra_trees(x: Floats, y: NDArray[np.int64], _: Floats, seed: int) -> Any:
    """Trees whose thresholds are random."""
    from sklearn.ensemble import ExtraTreesClassifier

    model = ExtraTreesClassifier(TREES, min_samples_leaf=2, n_jobs=1, random_state=seed)
    return _dense(model.fit(x, y), y.max() + 1)


def boosting(x: Floats, y: NDArray[np.int64], _: Floats, seed: int) -> Any:
    """Gradient boosting of small trees."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=60, learning_rate=0.1, max_leaf_nodes=15, random_state=seed
    )
    return _dense(model.fit(x, y), y.max() + 1)


def _of(classifier: torch.nn.Module) -> Callable[[Floats], Floats]:
    def probabilities(x: Floats) -> Floats:
        with torch.inference_mode():
            parts = [classifier(p).softmax(1) for p in torch.from_numpy(x).split(1 << 15)]
        out: Floats = torch.cat(parts).numpy()
        return out

    return probabilities


def perceptron(x: Floats, y: NDArray[np.int64], _: Floats, seed: int, schedule: Any = SHORT) -> Any:
    """The product's perceptron."""
    channels = x.shape[1] // 21
    return _of(
        fit_classifier(
            channels, int(y.max()) + 1, seed, schedule, lambda: False, torch.from_numpy(x),
            torch.from_numpy(y),
        )
    )  # fmt: skip


def distilled(x: Floats, y: NDArray[np.int64], unlabelled: Floats, seed: int, teacher: Any) -> Any:
    """A perceptron that learns what a forest says of labelled and unlabelled voxels."""
    from napari_unet3d.pixels.classifier import PixelClassifier

    classes = int(y.max()) + 1
    soft = torch.from_numpy(np.concatenate([teacher(x), teacher(unlabelled)]))
    hard = functional.one_hot(torch.from_numpy(y), classes).float()
    soft[: len(y)] = 0.5 * soft[: len(y)] + 0.5 * hard
    both = torch.from_numpy(np.concatenate([x, unlabelled]))
    torch.manual_seed(seed)
    classifier = PixelClassifier(x.shape[1] // 21, classes, 0.1)
    classifier.mean.copy_(both.mean(0))
    classifier.std.copy_(both.std(0).clamp(min=1e-3))
    optimizer = torch.optim.AdamW(classifier.parameters(), 5e-3, weight_decay=1e-2)
    steps = 600
    for i in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * 0.5 * (1 + np.cos(np.pi * i / steps))
        chosen = torch.randint(len(both), (2048,))
        loss = functional.cross_entropy(classifier(both[chosen]), soft[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return _of(classifier.eval().requires_grad_(False))


# --- a case -----------------------------------------------------------------------------------


def run_case(volume: Volume, truth: NDArray[np.uint8], k: int, x: Floats) -> dict[str, Any]:
    """IoU of each learner, and what cross-fitting says of it."""
    labels = annotate(truth, k)
    values = [0, *(int(v) for v in np.unique(truth) if v)]
    numbers = np.zeros(256, np.int64)
    numbers[values] = np.arange(len(values))
    rng = np.random.default_rng(0)
    painted, rest = np.flatnonzero(labels), np.flatnonzero(labels == 0)
    chosen = rng.choice(painted, min(len(painted), LABELLED), replace=False)
    scored = rng.choice(rest, min(len(rest), SCORED), replace=False)
    free = rng.choice(rest, min(len(rest), LABELLED), replace=False)
    own, y = x[chosen].astype(np.float32), numbers[truth.ravel()[chosen]]
    others, target = x[scored].astype(np.float32), numbers[truth.ravel()[scored]]
    unlabelled = x[free].astype(np.float32)
    n_classes = len(values)
    y = y.copy()
    classes = [c for c in range(1, n_classes) if (y == c).any()] or [1]
    truth_of = torch.from_numpy(target)

    def iou(p: Floats) -> float:
        return mean_iou(torch.from_numpy(p.argmax(1)), truth_of, [c for c in range(1, n_classes)])

    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        result = work()
        seconds[name] = round(time.perf_counter() - begin, 2)
        return result

    probabilities: dict[str, Floats] = {}
    models = {
        "forest": timed("forest", lambda: forest(own, y, unlabelled, 0)),
        "extra": timed("extra", lambda: extra_trees(own, y, unlabelled, 0)),
        "boosting": timed("boosting", lambda: boosting(own, y, unlabelled, 0)),
        "short": timed("short", lambda: perceptron(own, y, unlabelled, 0)),
        "long": timed("long", lambda: perceptron(own, y, unlabelled, 0, LONG)),
    }
    models["distilled"] = timed(
        "distilled", lambda: distilled(own, y, unlabelled, 0, models["forest"])
    )
    for name, model in models.items():
        probabilities[name] = _padded(
            timed(f"{name}, predict", lambda m=model: m(others)), n_classes
        )
    _mixtures(probabilities)
    record = {"iou": {n: iou(p) for n, p in probabilities.items()}, "seconds": seconds}
    # Cross-fitting by slices, in two halves; with one slice, by its two halves along y.
    refs = annotated_slices(truth.shape, k)
    z, rows, _ = np.unravel_index(chosen, truth.shape)
    planes = np.array([r.index for r in refs])
    fold = (
        np.searchsorted(planes, z) * 2 // len(planes)
        if len(planes) > 1
        else (rows * 2 // truth.shape[1])
    )
    crossed = {n: np.zeros((len(y), n_classes), np.float32) for n in ("forest", "short", "long")}
    for f in (0, 1):
        inside = fold == f
        if inside.all() or not inside.any() or len(np.unique(y[~inside])) < 2:
            continue
        for name, learner in {
            "forest": partial(forest, n_estimators=50),
            "short": perceptron,
            "long": partial(perceptron, schedule=LONG),
        }.items():
            model = learner(own[~inside], y[~inside], unlabelled, 0)
            crossed[name][inside] = _padded(model(own[inside]), n_classes)
    _mixtures(crossed)
    y_of = torch.from_numpy(y)
    record["crossed"] = {
        n: {
            "iou": mean_iou(torch.from_numpy(p.argmax(1)), y_of, classes),
            "loss": float(-np.log(p[np.arange(len(y)), y] + 1e-3).mean()),
            "by fold": [
                mean_iou(
                    torch.from_numpy(p[fold == f].argmax(1)), y_of[torch.from_numpy(fold == f)],
                    classes,
                )
                for f in (0, 1) if (fold == f).any()
            ],
        }
        for n, p in crossed.items()
    }  # fmt: skip
    return record


def _padded(p: Floats, n_classes: int) -> Floats:
    out = np.zeros((len(p), n_classes), np.float32)
    out[:, : p.shape[1]] = p
    return out


def _mixtures(p: dict[str, Floats]) -> None:
    p["forest+short"] = (p["forest"] + p["short"]) / 2
    p["forest+long"] = (p["forest"] + p["long"]) / 2
    p["forest*short"] = _normalized(np.sqrt((p["forest"] + 1e-3) * (p["short"] + 1e-3)))
    if "extra" in p:
        p["extra+short"] = (p["extra"] + p["short"]) / 2
        p["forest+boosting"] = (p["forest"] + p["boosting"]) / 2
        p["forest+boosting+short"] = (p["forest"] + p["boosting"] + p["short"]) / 3


def _normalized(p: Floats) -> Floats:
    out: Floats = p / p.sum(1, keepdims=True)
    return out


def main() -> None:
    """Run the cases, and print the differences to the forest."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--part", choices=("development", "confirmation"), default="development")
    parser.add_argument("--slices", nargs="*", type=int, default=(1, 3))
    parser.add_argument("--variants", type=int, default=3, help="of each stack")
    parser.add_argument("--json", type=Path, default=Path("learners.json"))
    options = parser.parse_args()
    names = [
        n for n in stack_names(options.data)
        if (n in DEVELOPMENT) == (options.part == "development")
    ]  # fmt: skip
    records = json.loads(options.json.read_text()) if options.json.exists() else {}
    stacks = [(n, *load_stack(options.data, n)) for n in names]
    for name, volume, truth in cases(stacks, options.variants):
        missing = [k for k in options.slices if f"{name}, {k}" not in records]
        if not missing or volume.data.size > 8_000_000:
            continue
        features = all_features(volume)
        for k in missing:
            records[f"{name}, {k}"] = run_case(volume, truth, k, features)
            row = records[f"{name}, {k}"]["iou"]
            print(f"{name}, {k}:", {n: round(v, 3) for n, v in row.items()}, flush=True)
            options.json.write_text(json.dumps(records, indent=1))
    print(table(records))


def table(records: dict[str, Any]) -> str:
    """Difference of each learner to the forest: mean, least, and cases more than 0.01 behind."""
    names = list(next(iter(records.values()))["iou"])
    lines = [
        "| learner | mean IoU | mean difference | least | behind by 0.01 |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        values: Sequence[float] = [r["iou"][name] for r in records.values()]
        differences = [r["iou"][name] - r["iou"]["forest"] for r in records.values()]
        behind = sum(d < -0.01 for d in differences)
        figures = f"{fmean(values):.3f} | {fmean(differences):+.3f} | {min(differences):+.3f}"
        lines.append(f"| {name} | {figures} | {behind} of {len(values)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
