"""Whether the expected IoU of a stack, and its interval, hold the true IoU.

    python benchmarks/expected.py --data FOLDER --part development --json expected.json

FOLDER holds one folder a stack, with `image.tif` and `labels.tif` (dense truth, 0 is background).
Each stack is taken as it is and in some variants (`variants.py`). To be quick, the pixel classifier
segments alone: features, fit and cross-fitting are those of the product, the network is left out.
With `--iterations`, the whole product is trained.
The truth is that of all slices without annotation. Beside it stands a random forest, fitted to the
same voxels with the same features, for its calibration error. Counts are written after each case,
and what is there already is not run again; `--table` only reads them.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from protocol import (
    DEVELOPMENT,
    SAMPLE,
    Labels,
    annotate,
    calibration_error,
    load_stack,
    stack_names,
)
from torch import Tensor
from variants import cases

from napari_unet3d.config import TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.boxes import plan_blocks
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.slice_summary import ExpectedIoU
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import drain
from napari_unet3d.model.evidence import ClassCheck, SliceCheck
from napari_unet3d.model.mixture_fit import fit_calibration
from napari_unet3d.pixels.features import filter_bank
from napari_unet3d.pixels.fit import fit_pixels
from napari_unet3d.prediction.expected import check_slice, expected_iou
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.prediction.tally import SliceTally
from napari_unet3d.sampling.patches import PatchSampler
from napari_unet3d.sampling.pixel_samples import sample_pixels
from napari_unet3d.sampling.source import Source
from napari_unet3d.training.trainer import Trainer

SCORED = 400_000
"""Voxels of a stack that are segmented and scored, chosen at random."""
BLOCK = 300_000
"""Voxels whose features are computed at once."""
FOREST_FITTED, FOREST_SCORED = 30_000, 60_000
"""Voxels that the forest is fitted to, and scored on."""
FOREST = {"n_estimators": 100, "min_samples_leaf": 2, "n_jobs": 1, "random_state": 0}
LARGEST, MOST_SLICES = 1_700_000, 100
"""Voxels and xy slices of a case: of a larger stack, the middle is taken."""

Floats = NDArray[np.floating[Any]]
Counts = list[list[float]]
"""For each class the numbers of a `ClassCheck`."""


def counts(probabilities: Tensor, target: Tensor) -> Counts:
    """For each class the numbers of a `ClassCheck`."""
    return [list(astuple(c)) for c in check_slice("", probabilities, target).classes]


def run_case(volume: Volume, truth: Labels, k: int) -> dict[str, Any]:
    """Counts of the annotated slices by cross-fitting, and of the stack; calibration errors."""
    begin = time.perf_counter()
    labels = annotate(truth, k)
    annotation = SparseAnnotation.from_labels(labels)
    values = [c.value for c in annotation.classes]
    n_classes = len(values) + 1
    numbers = np.zeros(256, np.int64)
    numbers[values] = np.arange(1, n_classes)
    source = Source(volume, IntensityNormalization.estimate(volume), torch.device("cpu"))
    samples = sample_pixels(PatchSampler(source, annotation), lambda: False)
    classifier, crossed = fit_pixels(samples, volume.n_channels, n_classes, 0, lambda: math.inf)
    parts: dict[str, list[int]] = {}
    for i, sample in enumerate(samples):
        parts.setdefault(str(sample.ref), []).append(i)

    def check(ref: str) -> Counts:
        p = torch.cat([crossed[i] for i in parts[ref]]).softmax(1)
        return counts(p, torch.cat([samples[i].target for i in parts[ref]]))

    record: dict[str, Any] = {"slices": {ref: check(ref) for ref in parts}}
    record["fit_s"] = time.perf_counter() - begin
    rng = np.random.default_rng(0)
    share = min(1.0, SCORED / truth.size)
    read = partial(source.read, 0, beyond="nearest")
    features, ours, target, new = [], [], [], []
    for box in plan_blocks(volume.shape, (16, 64, 64), BLOCK):
        chosen = np.flatnonzero(rng.random(math.prod(box.shape)) < share)
        if not len(chosen):
            continue
        bank = filter_bank(read, box.start, box.stop, volume.voxel_size)
        x = bank.flatten(1)[:, torch.from_numpy(chosen)].T.contiguous()
        features.append(x.numpy())
        ours.append(classifier.voxel_log_probabilities(x).softmax(1).numpy())
        target.append(numbers[truth[box.slices].ravel()[chosen]])
        new.append(labels[box.slices].ravel()[chosen] == 0)
    x, p, t, unseen = map(np.concatenate, (features, ours, target, new))
    record["stack"] = counts(*map(torch.from_numpy, (p, t)))
    record["unseen"] = counts(*map(torch.from_numpy, (p[unseen], t[unseen])))
    right = p[unseen].argmax(1) == t[unseen]
    record["ece"] = calibration_error(p[unseen].max(1), right)
    fitted = fit_calibration(
        torch.cat(crossed),
        None,
        torch.cat([s.target for s in samples]),
        iterations=1,
        slices=len(parts),
    )
    cooled = fitted.of_pixels_alone(torch.from_numpy(p[unseen]).log())
    record["cooled_ece"] = calibration_error(cooled.numpy().max(1), right)
    record["temperature"] = 1 / fitted.network
    some = rng.permutation(np.flatnonzero(unseen))[:FOREST_SCORED]
    theirs = _forest(samples, x[some], n_classes)
    record["forest_ece"] = calibration_error(theirs.max(1), theirs.argmax(1) == t[some])
    record["forest"] = counts(*map(torch.from_numpy, (theirs, t[some])))
    record["seconds"] = time.perf_counter() - begin
    return record


def run_product(volume: Volume, truth: Labels, k: int, iterations: int) -> dict[str, Any]:
    """The same counts of the whole product: the network trains for so many iterations."""
    labels = annotate(truth, k)
    config = TrainingConfig(seconds=None, iterations=iterations)
    bundle = drain(Trainer(volume, SparseAnnotation.from_labels(labels), config).run())
    assert bundle is not None  # only a cancel gives None
    found = np.zeros(volume.shape, np.uint8)
    p = np.zeros((len(bundle.classes) + 1, *volume.shape), np.float16)
    tally = SliceTally(volume.shape, len(p))
    drain(predict(bundle, volume, found, tally=tally, probabilities=p))
    unseen = labels == 0
    return {
        "slices": {
            c.ref: [list(astuple(x)) for x in c.classes] for c in bundle.record.cross_fitted
        },
        "stack": [[n, 0, 0, hits, amount] for n, hits, amount in tally.overlaps()[1:].tolist()],
        "unseen": [
            [
                int(((found == c.value) & unseen).sum()),
                int(((found == c.value) & (truth == c.value) & unseen).sum()),
                int(((truth == c.value) & unseen).sum()),
            ]
            for c in bundle.classes
        ],
        "ece": calibration_error(p.max(0)[unseen].astype(np.float32), (found == truth)[unseen]),
        "iterations": bundle.record.iterations,
        "calibration": bundle.calibration.model_dump(),
        "seconds": bundle.record.seconds,
    }


def _forest(samples: list[Any], x: Floats, n_classes: int) -> Floats:
    """Probabilities of a random forest that was fitted to the samples."""
    from sklearn.ensemble import RandomForestClassifier

    own = np.concatenate([s.features.numpy() for s in samples])
    target = np.concatenate([s.target.numpy() for s in samples])
    some = np.random.default_rng(0).permutation(len(target))[:FOREST_FITTED]
    forest = RandomForestClassifier(**FOREST).fit(own[some], target[some])
    out = np.zeros((len(x), n_classes), np.float32)
    out[:, forest.classes_] = forest.predict_proba(x)
    return out


def cropped(volume: Volume, truth: Labels) -> tuple[Volume, Labels]:
    """The middle of a stack that is too large, with all its xy slices where there are few."""
    z = min(len(truth), MOST_SLICES)
    share = min(1.0, math.sqrt(LARGEST / (z * math.prod(truth.shape[1:]))))
    sizes = [z, *(int(n * share) for n in truth.shape[1:])]
    middle = tuple(
        slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(truth.shape, sizes, strict=True)
    )
    return replace(volume, data=volume.data[(..., *middle)]), truth[middle]


@dataclass(frozen=True)
class Row:
    """What was expected of a class in a case, and what is true."""

    case: str
    slices: int
    expected: ExpectedIoU
    true: float

    @property
    def holds(self) -> bool:
        """Whether the interval holds the truth."""
        return self.expected.low <= self.true <= self.expected.high


def rows(records: dict[str, Any]) -> Iterator[Row]:
    """Classes that are in the truth of a case."""
    for key, record in records.items():
        checks = [
            SliceCheck(ref, tuple(ClassCheck(*c) for c in of_slice))
            for ref, of_slice in record["slices"].items()
        ]
        stack = np.array([[found, hits, all_] for found, _, _, hits, all_ in record["stack"]])
        expected = expected_iou(np.concatenate([np.zeros((1, 3)), stack]), checks)
        for number, (of_class, unseen) in enumerate(zip(expected, record["unseen"], strict=True)):
            found, hits, voxels, *_ = unseen
            if of_class is not None and voxels:
                case, _, k = key.rpartition(", ")
                name = case if len(expected) == 1 else f"{case}, class {number + 1}"
                yield Row(name, int(k), of_class, hits / (found + voxels - hits))


def table(records: dict[str, Any]) -> str:
    """A row for each class and number of slices; then shares, errors and widths."""
    lines = [
        "| stack | k | expected IoU | true | held |",
        "|---|---|---|---|---|",
    ]
    found = list(rows(records))
    for r in found:
        e = r.expected
        interval = f"{e.value:.3f} ({e.low:.2f} to {e.high:.2f})"
        held = "yes" if r.holds else "no"
        lines.append(f"| {r.case} | {r.slices} | {interval} | {r.true:.3f} | {held} |")
    lines += [
        "",
        "| k | intervals that hold the truth | mean error | mean width | "
        "calibration error | with a temperature by cross-fitting | of the forest |",
        "|---|---|---|---|---|---|---|",
    ]
    for k in (*sorted({r.slices for r in found}), None):
        some = [r for r in found if k in (None, r.slices)]
        cases_of = [r for key, r in records.items() if k is None or key.endswith(f", {k}")]
        lines.append(_summary("all" if k is None else str(k), some, cases_of))
    return "\n".join(lines)


def _summary(name: str, some: Sequence[Row], records: Sequence[dict[str, Any]]) -> str:
    held = sum(r.holds for r in some)
    cells = [
        name,
        f"{held} of {len(some)} ({held / len(some):.0%})",
        f"{fmean(abs(r.expected.value - r.true) for r in some):.3f}",
        f"{fmean(r.expected.high - r.expected.low for r in some):.2f}",
        f"{fmean(r['ece'] for r in records):.4f}",
        *(_mean(records, name) for name in ("cooled_ece", "forest_ece")),
    ]
    return f"| {' | '.join(cells)} |"


def _mean(records: Sequence[dict[str, Any]], name: str) -> str:
    numbers = [r[name] for r in records if name in r]
    return f"{fmean(numbers):.4f}" if numbers else "not measured"


def main() -> None:
    """Run the cases, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--part", choices=("development", "confirmation"), default="development")
    parser.add_argument("--slices", nargs="*", type=int, default=(1, 3, 5))
    parser.add_argument("--variants", type=int, default=1, help="of each stack")
    parser.add_argument("--iterations", type=int, help="train the network, too")
    parser.add_argument("--json", type=Path, default=Path("expected.json"))
    parser.add_argument("--table", action="store_true", help="of the cases so far, run none")
    options = parser.parse_args()
    records = json.loads(options.json.read_text()) if options.json.exists() else {}
    if not options.table:
        run(options, records)
    print(table(records))


def run(options: argparse.Namespace, records: dict[str, Any]) -> None:
    """Run the cases that are not there yet."""
    names = [
        n for n in stack_names(options.data)
        if (n in DEVELOPMENT) == (options.part == "development")
    ]  # fmt: skip
    stacks = [(n, *cropped(*load_stack(options.data, n))) for n in names]
    if options.part == "development":
        stacks.append((SAMPLE, *load_stack(None, SAMPLE)))
    stacks.sort(key=lambda s: s[2].size)
    for name, volume, truth in cases(stacks, options.variants):
        for k in options.slices:
            if (key := f"{name}, {k}") not in records:
                if options.iterations is None:
                    records[key] = run_case(volume, truth, k)
                else:
                    records[key] = run_product(volume, truth, k, options.iterations)
                options.json.write_text(json.dumps(records))
                print(f"{key}: {records[key]['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
