"""What a GPU does with the product: a check of everything that a CPU cannot show.

    python benchmarks/gpu.py [--minutes N] [--device auto|cuda[:N]|mps|cpu] [--stacks FOLDER]
                             [--json FILE] [--parts LETTERS]

Needs nothing but the package and a GPU; MONAI and pytest are used where they are installed. Each
part gets a share of the time, what it leaves goes to the next ones, and the run ends before N
minutes are over, 8 by default. A check that fails does not stop the others. The table on the
screen is in Markdown; the file has all figures. `--device cpu` is a dry run with tiny stacks.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import napari_unet3d  # noqa: F401  first: it sets how OpenMP's threads wait, and torch reads that

# isort: split
import gpu_accuracy
import gpu_lines
import gpu_memory
import gpu_speed
import psutil
import torch
from gpu_checks import Bench, Check, Clock, Outcome, carry_out
from report import markdown

from napari_unet3d.errors import BadInputError
from napari_unet3d.networks import device as devices

_RESERVE = 4.0
"""Seconds before the end at which a check that is not finished is given up."""


@dataclass(frozen=True)
class Part:
    """A part of the run.

    Attributes
    ----------
    letter, title
        As the report names it.
    share
        Weight of its time beside the other parts.
    checks
        Gives the checks of the part by name, in their order.
    """

    letter: str
    title: str
    share: float
    checks: Callable[[Bench], dict[str, Check]]


def _named(*checks: Check) -> Callable[[Bench], dict[str, Check]]:
    return lambda bench: {check.__name__.replace("_", " "): check for check in checks}


PARTS = (
    Part("b", "lines that run on a GPU only", 20, _named(
        gpu_lines.device_trial,
        gpu_lines.tf32_is_off,
        gpu_lines.interpolation,
        gpu_lines.clamp_of_integers,
        gpu_lines.warps,
        gpu_lines.memory_figures,
        gpu_lines.shortage_is_recognized,
        gpu_lines.resident_source,
        gpu_lines.copies,
        gpu_lines.waits_in_a_step,
        gpu_lines.random_numbers,
        gpu_memory.bytes_a_value_of_training,
        gpu_memory.bytes_a_value_of_prediction,
        gpu_lines.replays_change_nothing,
        gpu_lines.repeated_training_is_equal,
        gpu_lines.resumed_equals_never_stopped,
        gpu_lines.largest_map,
    )),
    Part("f", "agreement with fp64", 5, _named(gpu_accuracy.precisions_agree)),
    Part("e", "lack of memory", 10, _named(
        gpu_memory.training_survives_an_injected_shortage,
        gpu_memory.prediction_survives_an_injected_shortage,
        gpu_memory.training_survives_a_real_shortage,
        gpu_memory.prediction_survives_a_real_shortage,
    )),
    Part("c", "speed and peak memory", 20, _named(
        gpu_speed.convolution_peak,
        gpu_speed.training_step_by_kernels,
        gpu_speed.prediction_by_kernels,
        gpu_speed.training_speed,
        gpu_speed.prediction_speed,
        gpu_speed.prediction_beside_monai,
        gpu_speed.a_large_stack,
    )),
    Part("a", "tests on the device", 15, _named(gpu_accuracy.tests_on_the_device)),
    Part("d", "accuracy after seconds", 30, gpu_accuracy.accuracy_checks),
)  # fmt: skip
"""In the order in which they run: what is new with each machine comes first."""


class Run:
    """All parts on one machine, and the report.

    Parameters
    ----------
    bench
        The machine.
    parts
        What is run.
    seconds
        Time of the whole run.
    path
        File for the results; None for the table alone.
    """

    def __init__(self, bench: Bench, parts: list[Part], seconds: float, path: Path | None) -> None:
        self._bench, self._parts, self._seconds, self._path = bench, parts, seconds, path
        self._machine = describe(bench)  # a device that has failed cannot be asked any more
        self._begin = time.monotonic()
        self._lock = threading.Lock()
        self._checks = {part.letter: part.checks(bench) for part in parts}
        self.outcomes = [
            Outcome(letter, name) for letter, checks in self._checks.items() for name in checks
        ]

    def carry_out(self) -> None:
        """Run the checks until the time is over; a check that hangs ends the program."""
        guard = threading.Timer(max(1.0, self._seconds - _RESERVE), self._give_up)
        guard.daemon = True
        guard.start()
        for number, part in enumerate(self._parts):
            shares_left = sum(p.share for p in self._parts[number:])
            self._bench.clock.begin_part(part.share, shares_left)
            self._run_part(part)
        self._bench.clock.begin_part(1, 1)
        for part in self._parts:  # what was not reached, in the time that the last parts left
            self._run_part(part)
        guard.cancel()

    def _run_part(self, part: Part) -> None:
        """Run the checks of a part that have not run, until its time is over."""
        checks = self._checks[part.letter]
        for outcome in self.outcomes:
            new = outcome.part == part.letter and outcome.status == "not reached"
            if new and self._bench.clock.left() > 0:
                carry_out(outcome, checks[outcome.name], self._bench)
                self.write()

    def report(self) -> int:
        """Write everything; returns the exit status, 1 where a check has failed."""
        # A check that was given up may end meanwhile: file and table tell the same.
        self.outcomes = copy.deepcopy(self.outcomes)
        self.write()
        print(self.table(), flush=True)
        return int(any(outcome.status == "failed" for outcome in self.outcomes))

    def _give_up(self) -> None:
        os._exit(self.report())

    def write(self) -> None:
        """Write the results so far, so that nothing is lost with the machine."""
        if self._path is None:
            return
        results = {
            "machine": self._machine,
            "seconds_allowed": self._seconds,
            "seconds": time.monotonic() - self._begin,
            "parts": {part.letter: part.title for part in self._parts},
            "counts": Counter(outcome.status for outcome in self.outcomes),
            "outcomes": [outcome.as_json() for outcome in self.outcomes],
        }
        with self._lock:
            new = self._path.with_name(self._path.name + ".new")
            new.write_text(json.dumps(results, indent=1, default=str) + "\n")
            new.replace(self._path)

    def table(self) -> str:
        """The results in Markdown."""
        machine = "\n".join(f"- {key}: {value}" for key, value in self._machine.items())
        rows = [
            [o.part, o.name, o.status, f"{o.seconds:.1f}", _in_words(o.figures, o.text)]
            for o in self.outcomes
        ]
        counts = Counter(o.status for o in self.outcomes)
        total = ", ".join(f"{n} {status}" for status, n in counts.items())
        header = ["part", "check", "result", "s", "figures"]
        return f"{machine}\n\n{markdown(header, rows)}\n\n{total}"


def _in_words(figures: dict[str, Any], text: str) -> str:
    parts = [text] if text else []
    parts += [f"{key}: {_short(value)}" for key, value in figures.items()]
    return "; ".join(parts).replace("|", "/").replace("\n", " ")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, dict):
        return "(" + ", ".join(f"{k} {_short(v)}" for k, v in value.items()) + ")"
    return str(value)


def describe(bench: Bench) -> dict[str, Any]:
    """The machine and its software."""
    machine = {
        "device": f"{bench.device} ({devices.describe(bench.device)})",
        "precision": bench.precision,
        "free memory, GB": round(devices.free_memory(bench.device) / 1e9, 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    if bench.device.type == "cuda":
        machine |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return machine


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="end before this time is over")
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:N, mps or cpu")
    parser.add_argument("--stacks", type=Path, help="folder of stacks, for the accuracy")
    parser.add_argument("--json", type=Path, help="file for all results")
    parser.add_argument("--parts", default="".join(part.letter for part in PARTS))
    options = parser.parse_args(arguments)
    started = time.time() - psutil.Process().create_time()  # loading torch takes its time, too
    seconds = 60 * options.minutes - started
    clock = Clock(seconds - _RESERVE)
    try:
        device = devices.pick_device(options.device)
    except (BadInputError, RuntimeError) as error:
        parser.error(str(error))
    if device.type == "cpu" and options.device == "auto":
        why = devices.unused_gpu() or "No GPU was found."
        parser.error(f"{why} Use --device cpu for a dry run.")
    precision = devices.pick_precision(device)
    bench = Bench(device, precision, device.type == "cpu", options.stacks, clock)
    parts = [part for part in PARTS if part.letter in options.parts]
    run = Run(bench, parts, seconds, options.json)
    run.carry_out()
    return run.report()


if __name__ == "__main__":
    sys.exit(main())
