"""The results beside those of the paper: Markdown, and a chart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_unet3d.data.io.atomic import Replacement
from napari_unet3d.events import mean
from napari_unet3d.reproduction import paper
from napari_unet3d.reproduction.running import TrialResult
from napari_unet3d.reproduction.trials import PAPER_METHODS, Method, Trial
from napari_unet3d.session.report.content import Chart, Series
from napari_unet3d.session.report.html import svg

REPORT, CHART = "reproduction.md", "slices.svg"
_NOT_PUBLIC = (
    "The three Xenopus kidneys of the paper are not public, so its numbers cannot be measured "
    "again. What can be repeated is the protocol, on another stack; only the order of the methods "
    "and the shape of the curves can be compared."
)
_ITERATIONS_OF_PAPER = 70_000
"""Iterations of the paper's training, for which the hours are extrapolated."""


@dataclass(frozen=True)
class Measured:
    """Figures of the same trial with several seeds.

    Attributes
    ----------
    iou
        Mean over the seeds; None where none has a result.
    spread
        Half of what the seeds differ by.
    iterations
        Mean over the seeds.
    seconds
        Mean over the seeds.
    """

    iou: float | None
    spread: float
    iterations: float
    seconds: float

    @classmethod
    def of(cls, results: Iterable[TrialResult | None]) -> Measured:
        """Figures of some results; those that are missing are left out."""
        there = [r for r in results if r is not None]
        ious = [r.iou for r in there if r.iou is not None]
        return cls(
            mean(ious),
            (max(ious) - min(ious)) / 2 if ious else 0.0,
            mean([float(r.iterations) for r in there]) or 0.0,
            mean([r.seconds for r in there]) or 0.0,
        )

    def __str__(self) -> str:
        if self.iou is None:
            return "—"
        return f"{self.iou:.3f}" + (f" ± {self.spread:.3f}" if self.spread else "")


def write_report(
    folder: Path,
    trials: Sequence[Trial],
    results: Mapping[str, TrialResult],
    *,
    stack: str,
    budget: str,
    version: str,
    failed: Sequence[str] = (),
) -> Path:
    """Write tables and chart into a folder; returns the path of the tables.

    Parameters
    ----------
    folder
        Where they go.
    trials, results
        What was asked for, and what is there.
    stack
        Name of the stack.
    budget
        Words about the settings, and how long each training was.
    version
        Words about the programs.
    failed
        A line for each trial that could not be carried out, with the reason.
    """
    of = {
        experiment: [t for t in trials if t.experiment == experiment]
        for experiment in ("semi", "slices", "full", "family")
    }
    lines = [
        "# Çiçek et al. 2016, repeated",
        "",
        f"Stack: {stack}. {budget}. {', '.join([*_devices(trials, results), version])}.",
        "",
        _NOT_PUBLIC,
        "",
        "Mean IoU of the classes; ± half of what the seeds differ by. The paper's averages of rows "
        "were verified in the paper; single values marked * are quoted from memory.",
    ]
    if of["semi"]:
        lines += ["", "## Semi-automated: cross-validation over slices", ""]
        lines += _by_method(of["semi"], results, paper.SEMI_AUTOMATED, "Çiçek et al., Table 1")
    if of["slices"]:
        lines += ["", "## By the number of annotated slices", "", f"![]({CHART})", ""]
        lines += _by_count(of["slices"], results)
        Replacement(folder / CHART).write(svg(_chart(of["slices"], results)).encode())
    if of["full"]:
        lines += ["", "## Fully automated: one stack is left out", ""]
        lines += _by_method(of["full"], results, paper.FULLY_AUTOMATED, "Çiçek et al., Table 3")
    if of["family"]:
        lines += ["", "## The family: the same slices, the same time", ""]
        lines += _family(of["family"], results)
    if of["semi"] or of["slices"] or of["full"]:
        lines += ["", "## Time", "", *_time(trials, results)]
    if failed:
        lines += ["", "## Not carried out", "", *(f"- {line}" for line in failed)]
    path = folder / REPORT
    Replacement(path).write(("\n".join(lines) + "\n").encode())
    return path


def _found(trials: Iterable[Trial], results: Mapping[str, TrialResult]) -> list[TrialResult | None]:
    return [results.get(t.key) for t in trials]


def _devices(trials: Sequence[Trial], results: Mapping[str, TrialResult]) -> list[str]:
    """On what, and in which precision, the trainings computed."""
    there = [r for r in _found(trials, results) if r is not None]
    return sorted({f"{r.device} in {r.precision}" for r in there if r.device})


def _methods(trials: Sequence[Trial]) -> list[Method]:
    return list({t.method.key: t.method for t in trials}.values())


def _labels(trials: Sequence[Trial]) -> list[str]:
    return list(dict.fromkeys(t.label for t in trials))


def _by_method(
    trials: Sequence[Trial],
    results: Mapping[str, TrialResult],
    published: Mapping[str, float],
    source: str,
) -> list[str]:
    labels = _labels(trials)
    lines = [
        f"| method | {' | '.join(labels)} | mean | {source} |",
        "|---|" + "---:|" * (len(labels) + 2),
    ]
    for method in _methods(trials):
        mine = [t for t in trials if t.method == method]
        cells = [Measured.of(_found((t for t in mine if t.label == x), results)) for x in labels]
        seeds = sorted({t.seed for t in mine})
        means = []
        for seed in seeds:
            found = _found((t for t in mine if t.seed == seed), results)
            ious = [r.iou for r in found if r is not None and r.iou is not None]
            if len(ious) == len(labels):  # a mean without its hardest fold would be another one
                means.append(sum(ious) / len(ious))
        average = mean(means)
        spread = f" ± {(max(means) - min(means)) / 2:.3f}" if len(means) > 1 else ""
        total = "—" if average is None else f"**{average:.3f}**{spread}"
        theirs = f"{published[method.key]:.3f}" if method.key in published else "—"
        lines.append(f"| {method.title} | {' | '.join(map(str, cells))} | {total} | {theirs} |")
    return lines


def _by_count(trials: Sequence[Trial], results: Mapping[str, TrialResult]) -> list[str]:
    lines = [
        "| slices of yz, xz, xy | ours | Çiçek et al., Table 2: three stacks* |",
        "|---|---:|---:|",
    ]
    for counts, theirs in paper.BY_SLICES.items():
        label = ", ".join(map(str, counts))
        mine = Measured.of(_found((t for t in trials if t.label == label), results))
        lines.append(f"| {label} | {mine} | {' / '.join(f'{iou:.3f}' for iou in theirs)} |")
    return lines


def _family(trials: Sequence[Trial], results: Mapping[str, TrialResult]) -> list[str]:
    rows = []
    for method in _methods(trials):
        mine = Measured.of(_found((t for t in trials if t.method == method), results))
        rows.append((mine, method))
    rows.sort(key=lambda row: -(row[0].iou or 0.0))
    lines = ["| network | IoU | iterations | seconds |", "|---|---:|---:|---:|"]
    return lines + [
        f"| {method.title} | {mine} | {mine.iterations:.0f} | {mine.seconds:.0f} |"
        for mine, method in rows
    ]


def _time(trials: Sequence[Trial], results: Mapping[str, TrialResult]) -> list[str]:
    lines = [
        "| method | patch | iterations | seconds an iteration | hours of 70,000 iterations |",
        "|---|---|---:|---:|---:|",
    ]
    for method in (m for m in PAPER_METHODS if m in _methods(trials)):
        found = _found(
            (t for t in trials if t.method == method and t.experiment != "family"), results
        )
        mine = Measured.of(found)
        if not mine.iterations:
            continue
        each = mine.seconds / mine.iterations
        hours = each * _ITERATIONS_OF_PAPER / 3600
        patches = sorted({"×".join(map(str, r.patch)) for r in found if r is not None})
        figures = f"{mine.iterations:.0f} | {each:.3f} | {hours:.1f}"
        lines.append(f"| {method.title} | {', '.join(patches)} | {figures} |")
    return lines


def _chart(trials: Sequence[Trial], results: Mapping[str, TrialResult]) -> Chart:
    ours, theirs = [], []
    for counts, ious in paper.BY_SLICES.items():
        label = ", ".join(map(str, counts))
        measured = Measured.of(_found((t for t in trials if t.label == label), results)).iou
        if measured is not None:
            ours.append((float(sum(counts)), measured))
        theirs.append((float(sum(counts)), sum(ious) / len(ious)))
    series = [Series("Çiçek et al. 2016, other stacks", tuple(theirs), marked=True)]
    if ours:
        series.insert(0, Series("this stack", tuple(ours), marked=True))
    return Chart("IoU by annotated slices", "annotated slices", "IoU", tuple(series), (0.0, 1.0))
