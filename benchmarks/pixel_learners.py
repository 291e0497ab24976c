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
from protocol import DEVELOPMENT, annotate, stack_names
from torch import Tensor
from variants import case_names, load_case

from napari_unet3d.data.boxes import Box, plan_blocks
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.volume import Volume
from napari_unet3d.pixels.features import filter_bank
from napari_unet3d.pixels.fit import MORE_FOR_TREES, SCHEDULE, Schedule, fit_classifier, mean_iou
from napari_unet3d.pixels.trees import fit_trees
from napari_unet3d.sampling.source import Source

LABELLED = 40_000
"""Voxels that the learners are fitted to."""
SCORED = 150_000
"""Voxels that are scored."""
TREES = 100
SHORT = Schedule(iterations=300, dropout=0.3)
"""A shorter schedule of the perceptron than the product's."""

Floats = NDArray[np.floating[Any]]
Learner = Callable[[Floats, NDArray[np.int64], int], Callable[[Floats], Floats]]
"""Features, targets, seed → features → probabilities (N, K)."""


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


def forest(x: Floats, y: NDArray[np.int64], seed: int, **settings: Any) -> Any:
    """A random forest."""
    from sklearn.ensemble import RandomForestClassifier

    settings = {"n_estimators": TREES, "min_samples_leaf": 2, "n_jobs": 1} | settings
    return _dense(RandomForestClassifier(random_state=seed, **settings).fit(x, y), y.max() + 1)


def boosting(x: Floats, y: NDArray[np.int64], seed: int) -> Any:
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


def perceptron(x: Floats, y: NDArray[np.int64], seed: int, schedule: Schedule = SCHEDULE) -> Any:
    """The product's perceptron."""
    channels = x.shape[1] // 21
    return _of(
        fit_classifier(
            channels, int(y.max()) + 1, seed, schedule, lambda: False, torch.from_numpy(x),
            torch.from_numpy(y),
        )
    )  # fmt: skip


def trees(x: Floats, y: NDArray[np.int64], seed: int) -> Any:
    """The product's boosted trees."""
    own = torch.from_numpy(x), torch.from_numpy(y)
    return _of(fit_trees(*own, int(y.max()) + 1, seed, lambda: False))


# --- a case -----------------------------------------------------------------------------------


def run_case(volume: Volume, truth: NDArray[np.uint8], k: int, x: Floats) -> dict[str, Any]:
    """IoU of each learner, and its seconds."""
    labels = annotate(truth, k)
    values = [0, *(int(v) for v in np.unique(truth) if v)]
    numbers = np.zeros(256, np.int64)
    numbers[values] = np.arange(len(values))
    rng = np.random.default_rng(0)
    painted, rest = np.flatnonzero(labels), np.flatnonzero(labels == 0)
    chosen = rng.choice(painted, min(len(painted), LABELLED), replace=False)
    scored = rng.choice(rest, min(len(rest), SCORED), replace=False)
    own, y = x[chosen].astype(np.float32), numbers[truth.ravel()[chosen]]
    others, target = x[scored].astype(np.float32), numbers[truth.ravel()[scored]]
    n_classes = len(values)
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
        "forest": timed("forest", lambda: forest(own, y, 0)),
        "boosting": timed("boosting", lambda: boosting(own, y, 0)),
        "short": timed("short", lambda: perceptron(own, y, 0, SHORT)),
        "perceptron": timed("perceptron", lambda: perceptron(own, y, 0)),
        "trees": timed("trees", lambda: trees(own, y, 0)),
    }
    for name, model in models.items():
        probabilities[name] = _padded(
            timed(f"{name}, predict", lambda m=model: m(others)), n_classes
        )
    _mixtures(probabilities, k)
    return {"iou": {n: iou(p) for n, p in probabilities.items()}, "seconds": seconds}


def _padded(p: Floats, n_classes: int) -> Floats:
    out = np.zeros((len(p), n_classes), np.float32)
    out[:, : p.shape[1]] = p
    return out


def _mixtures(p: dict[str, Floats], k: int) -> None:
    share = 0.5 + MORE_FOR_TREES / k
    p["ours"] = share * p["trees"] + (1 - share) * p["perceptron"]
    p["trees+perceptron"] = (p["trees"] + p["perceptron"]) / 2
    p["forest+perceptron"] = (p["forest"] + p["perceptron"]) / 2
    p["boosting+perceptron"] = (p["boosting"] + p["perceptron"]) / 2
    p["forest+boosting"] = (p["forest"] + p["boosting"]) / 2


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
    for name in case_names(options.data, names, options.variants):
        volume, truth = load_case(options.data, name)
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
