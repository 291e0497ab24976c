"""Tables, comparisons and plots of the runs of `accuracy.py`.

A run is a dictionary: stack, slices, seconds (None for a method without a budget), seed, method,
and either its figures, an `error`, or a reason why it was `not_run`.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Run = dict[str, Any]
Case = tuple[str, str, float | None]
"""Stack, annotated slices, seconds of training."""

REFERENCE = "forest"
"""The method that all others must beat."""
NOISE = 0.01
"""Difference of repeated runs that is expected, where too few seeds show it."""


def table(runs: Sequence[Run]) -> str:
    """Mean IoU of all methods side by side, in Markdown."""
    methods, cases = _methods(runs), _cases(runs)
    references = REFERENCE in methods
    rivals = [m for m in methods if m != REFERENCE] if references else []
    header = ["stack", "slices", "s", *methods, *(f"{m} − {REFERENCE}" for m in rivals)]
    rows, means, wins = [], dict[str, list[float]](), dict.fromkeys(methods, 0)
    gains: dict[str, list[float]] = {m: [] for m in rivals}
    for case in cases:
        found = {m: _ious(runs, case, m) for m in methods}
        mean = {m: statistics.mean(ious) for m, ious in found.items() if ious}
        for method, value in mean.items():
            means.setdefault(method, []).append(value)
        best = max(mean.values(), default=None)
        cells = []
        for method in methods:
            text = _spread(found[method]) if found[method] else _missing(runs, case, method)
            if mean.get(method) == best and best is not None:
                wins[method] += 1
                text = f"**{text}**"
            cells.append(text)
        ahead = []
        for rival in rivals:
            known = rival in mean and REFERENCE in mean
            if known:
                gains[rival].append(mean[rival] - mean[REFERENCE])
            ahead.append(_signed(gains[rival][-1]) if known else "—")
        rows.append([*_case(case), *cells, *ahead])
    if len(cases) > 1:
        complete = [m for m in methods if len(means.get(m, [])) == len(cases)]
        average = [f"{statistics.mean(means[m]):.3f}" if m in complete else "—" for m in methods]
        average += [_signed(statistics.mean(gains[m])) if gains[m] else "—" for m in rivals]
        rows.append(["mean", "", "", *average])
        ahead = [f"{sum(g > 0 for g in gains[m])} of {len(gains[m])} ahead" for m in rivals]
        rows.append(["wins", "", "", *(str(wins[m]) for m in methods), *ahead])
    return markdown(header, rows)


def details(runs: Sequence[Run]) -> str:
    """The other figures, a line for each stack and method; means over the seeds."""
    header = [
        "stack", "slices", "s", "method", "IoU", "Dice", "IoU / Dice of the classes",
        "calibration error", "retention (oracle, random)", "90 % after, s", "training, s",
        "prediction, s", "peak memory, GiB",
    ]  # fmt: skip
    rows = []
    for case in _cases(runs):
        for method in _methods(runs):
            good = [r for r in _of(runs, case, method) if "iou" in r]
            if not good:
                continue
            retention = [_mean(good, f"retention{kind}") for kind in ("", "_oracle")]
            random = _mean(good, "error_rate")
            memory = _mean(good, "peak_memory")
            rows.append(
                [
                    *_case(case),
                    method,
                    _number(_mean(good, "iou")),
                    _number(_mean(good, "dice")),
                    _class_text(good),
                    _number(_mean(good, "calibration_error")),
                    "—"
                    if retention[0] is None
                    else f"{_number(retention[0], 4)} ({_number(retention[1], 4)}, "
                    f"{_number(random, 4)})",
                    _number(_mean(good, "reached_s"), 0),
                    _number(_mean(good, "training_s"), 1),
                    _number(_mean(good, "prediction_s"), 1),
                    _number(None if memory is None else memory / 2**30, 2),
                ]
            )
    return markdown(header, rows)


def failures(runs: Sequence[Run]) -> list[str]:
    """A line for each run that failed or was not run, with the reason."""
    lines = []
    for run in runs:
        reason = run.get("error") or run.get("not_run")
        if reason:
            what = "failed" if "error" in run else "not run"
            budget = "" if run["seconds"] is None else f", {run['seconds']:g} s"
            name = f"{run['stack']}, {run['slices']} slices{budget}, {run['method']}"
            line = f"{name}, seed {run['seed']}: {what}: {reason.strip().splitlines()[-1]}"
            lines.append(line)
    return lines


# --- comparison -----------------------------------------------------------------------------


def differences(old: Sequence[Run], new: Sequence[Run]) -> list[dict[str, Any]]:
    """What changed, for every stack, annotation, budget and method that both have.

    A change stands out when it is larger than the spread of the seeds (largest minus smallest,
    the larger one of old and new); with a single seed than what repeated runs differ by.
    """
    found = []
    for key in _keys(new):
        *case, method = key
        before, after = (_ious(runs, tuple(case), method, exact=True) for runs in (old, new))
        if not before or not after:
            continue
        spread = max(max(ious) - min(ious) for ious in (before, after))
        if len(before) < 2 or len(after) < 2:
            spread = max(spread, NOISE)
        change = statistics.mean(after) - statistics.mean(before)
        found.append(
            {
                "case": tuple(case),
                "method": method,
                "old": statistics.mean(before),
                "new": statistics.mean(after),
                "change": change,
                "spread": spread,
                "flag": abs(change) > spread,
            }
        )
    return found


def comparison(old: Sequence[Run], new: Sequence[Run]) -> str:
    """The differences to earlier runs in Markdown; ▲ and ▼ where the seeds do not explain it."""
    found = differences(old, new)
    if not found:
        return "The earlier file has no run of the same stacks, slices, seconds and methods."
    rows = []
    for item in found:
        flag = ("▲" if item["change"] > 0 else "▼") if item["flag"] else ""
        numbers = [f"{item['old']:.3f}", f"{item['new']:.3f}"]
        numbers += [f"{_signed(item['change'])} {flag}".strip(), f"{item['spread']:.3f}"]
        rows.append([*_case(item["case"]), item["method"], *numbers])
    header = ["stack", "slices", "s", "method", "earlier", "now", "change", "spread of the seeds"]
    return markdown(header, rows)


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


# --- plot -----------------------------------------------------------------------------------


def plot(runs: Sequence[Run], path: Path) -> None:
    """Draw IoU against seconds of training, a panel for each stack and annotation.

    Raises
    ------
    ModuleNotFoundError
        matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("--plot needs matplotlib: pip install matplotlib") from error
    methods = _methods(runs)
    panels = list(dict.fromkeys((r["stack"], r["slices"]) for r in runs))
    columns = min(3, max(1, len(panels)))
    lines = max(1, -(-len(panels) // columns))
    figure = Figure(figsize=(5 * columns, 3.6 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    for i, panel in enumerate(panels):
        axes = figure.add_subplot(lines, columns, i + 1)
        axes.set_title(f"{panel[0]}, slices: {panel[1]}", fontsize=9)
        axes.set_xlabel("training, s")
        axes.set_ylabel("mean IoU")
        for number, method in enumerate(methods):
            color = f"C{number}"
            of = [k for k in _keys(runs) if k[:2] == panel and k[3] == method]
            points = [(k[2], _ious(runs, k[:3], method, exact=True)) for k in of]
            budgets = sorted((s, ious) for s, ious in points if s is not None and ious)
            if budgets:
                seconds = [s for s, _ in budgets]
                axes.plot(
                    seconds,
                    [statistics.mean(ious) for _, ious in budgets],
                    "o-",
                    color=color,
                    label=method,
                )
                low, high = ([f(ious) for _, ious in budgets] for f in (min, max))
                axes.fill_between(seconds, low, high, color=color, alpha=0.2, linewidth=0)
            for _, ious in (p for p in points if p[0] is None and p[1]):
                mean = statistics.mean(ious)
                axes.axhline(mean, color=color, linestyle="--", label=method)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


# --- which runs -----------------------------------------------------------------------------


def _keys(runs: Sequence[Run]) -> list[tuple[Any, ...]]:
    keys = ((r["stack"], r["slices"], r["seconds"], r["method"]) for r in runs)
    return list(dict.fromkeys(keys))


def _methods(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(r["method"] for r in runs))


def _cases(runs: Sequence[Run]) -> list[Case]:
    """Every stack, annotation and budget; methods without a budget are shown with each."""
    found = []
    for stack, slices in dict.fromkeys((r["stack"], r["slices"]) for r in runs):
        seconds = {r["seconds"] for r in runs if (r["stack"], r["slices"]) == (stack, slices)}
        budgets = sorted(s for s in seconds if s is not None)
        found += [(stack, slices, s) for s in budgets or [None]]
    return found


def _of(runs: Sequence[Run], case: Sequence[Any], method: str, exact: bool = False) -> list[Run]:
    stack, slices, seconds = case
    allowed = {seconds} if exact else {seconds, None}
    return [
        r
        for r in runs
        if (r["stack"], r["slices"], r["method"]) == (stack, slices, method)
        and r["seconds"] in allowed
    ]


def _ious(
    runs: Sequence[Run], case: Sequence[Any], method: str, exact: bool = False
) -> list[float]:
    found = (r.get("iou") for r in _of(runs, case, method, exact))
    return [iou for iou in found if iou is not None]


def _mean(runs: Iterable[Run], name: str) -> float | None:
    numbers = [r[name] for r in runs if r.get(name) is not None]
    return statistics.mean(numbers) if numbers else None


# --- text -----------------------------------------------------------------------------------


def _missing(runs: Sequence[Run], case: Case, method: str) -> str:
    found = _of(runs, case, method)
    return "failed" if any("error" in r for r in found) else "not run" if found else "—"


def _class_text(runs: Sequence[Run]) -> str:
    values = list(dict.fromkeys(v for r in runs for v in r["classes"]))
    texts = []
    for value in values:
        there = [r["classes"][value] for r in runs if value in r["classes"]]
        iou, dice = (statistics.mean(s[name] for s in there) for name in ("iou", "dice"))
        texts.append(f"{value}: {iou:.3f} / {dice:.3f}")
    return ", ".join(texts)


def _case(case: Case) -> list[str]:
    stack, slices, seconds = case
    return [stack, str(slices), "—" if seconds is None else f"{seconds:g}"]


def _spread(numbers: Sequence[float]) -> str:
    half = (max(numbers) - min(numbers)) / 2
    mean = f"{statistics.mean(numbers):.3f}"
    return f"{mean} ± {half:.3f}" if len(numbers) > 1 else mean


def _signed(number: float) -> str:
    return f"{number:+.3f}".replace("-", "−")


def _number(number: float | None, digits: int = 3) -> str:
    return "—" if number is None else f"{number:.{digits}f}"
