"""Whether this tree trains and segments as another revision does, to the last bit, and as fast.

python benchmarks/unchanged.py --before REVISION [--data FOLDER] [NAME ...]

Each case trains a fixed number of iterations and segments its stack through the command line,
once with the code of REVISION (checked out into a temporary folder) and once with the code of
this tree, in turn. Compared are all tensors of the model, and the values of the segmentation, the
probabilities and the uncertainty. With --repeat, the order is swapped each time, and the medians
of the seconds and of the largest resident memory are compared too. Needs git.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from protocol import SAMPLE, annotate, load_stack
from safetensors.torch import load_file

from napari_unet3d.data.io.outputs import create_output

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("tubes_2p_vessels_large", "fluo_cells_arabidopsis_ovule", "em_sstem_drosophila_vnc")
"""Stacks with other voxel sizes and numbers of classes than the built-in one."""


@dataclass
class Figures:
    """Seconds and bytes of one revision, a number for each repetition."""

    training: list[float] = field(default_factory=list)
    prediction: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


def run(tree: Path, *arguments: object) -> tuple[float, float]:
    """Carry out a command of one tree; seconds, and the largest resident memory in bytes."""
    environment = os.environ | {"PYTHONPATH": str(tree / "src")}
    command = [sys.executable, "-m", "napari_unet3d", *map(str, arguments)]
    begin = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, cwd=tree, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{output.read().decode(errors='replace')}")
    return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def write_case(folder: Path, stacks: Path | None, name: str) -> None:
    """The image of a stack, and three annotated slices of it, as files."""
    volume, truth = load_stack(stacks, name)
    labels = annotate(truth, 3)
    size: dict[str, Any] = {"voxel_size": volume.voxel_size, "unit": volume.unit}
    for file, values in (("image.tif", volume.crop(0, (0, 0, 0), volume.shape)[0]),
                         ("labels.tif", labels)):  # fmt: skip
        with create_output(folder / file, values.shape, values.dtype, **size) as array:
            array[:] = values


def outputs(folder: Path) -> dict[str, np.ndarray]:
    """Everything a run left, by name."""
    found = {n: t.numpy() for n, t in load_file(folder / "m.unet3d").items()}
    for file in sorted(folder.glob("*.tif")):
        found[file.name] = tifffile.imread(file)
    return found


def differences(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> list[str]:
    """What is not the same to the bit, with its largest difference."""
    told = [f"{name}: only one of them has it" for name in sorted(set(before) ^ set(after))]
    for name in sorted(set(before) & set(after)):
        a, b = before[name], after[name]
        if a.shape != b.shape:
            told.append(f"{name}: {a.shape} and {b.shape}")
        elif a.tobytes() != b.tobytes():
            most = np.abs(a.astype(float) - b.astype(float)).max()
            told.append(f"{name}: {np.mean(a != b):.2%} of the values differ, by up to {most:.3g}")
    return told


def compare(
    before: Path, stacks: Path | None, name: str, arguments: argparse.Namespace
) -> tuple[list[str], dict[str, Figures]]:
    """Run one case in both trees; what differs, and what each took."""
    trees = {"before": before, "after": ROOT}
    figures = {side: Figures() for side in trees}
    told: list[str] = []
    for repetition in range(arguments.repeat):
        results = {}
        with tempfile.TemporaryDirectory() as temporary:
            base = Path(temporary)
            write_case(base, stacks, name)
            for side in sorted(trees, reverse=bool(repetition % 2)):
                folder = base / side
                folder.mkdir()
                image, model = base / "image.tif", folder / "m.unet3d"
                training = run(
                    trees[side], "train", image, base / "labels.tif", "-o", model, "--seed",
                    arguments.seed, "--iterations", arguments.iterations, "--labels", "sparse",
                    "--device", "cpu", *arguments.train,
                )  # fmt: skip
                prediction = run(
                    trees[side], "predict", model, image, "-o", folder / "labels.tif",
                    "--probabilities", folder / "probabilities.tif",
                    "--uncertainty", folder / "uncertainty.tif", "--device", "cpu",
                )  # fmt: skip
                results[side] = outputs(folder)
                figures[side].training.append(training[0])
                figures[side].prediction.append(prediction[0])
                figures[side].memory.append(max(training[1], prediction[1]))
        told = told or differences(results["before"], results["after"])
    return told, figures


def row(name: str, told: list[str], figures: dict[str, Figures]) -> str:
    """One line of the table: whether it is the same, seconds and memory before and after."""
    cells = [name, "yes" if not told else f"**no**, {len(told)} differ"]
    for unit, what in ((1.0, "training"), (1.0, "prediction"), (2.0**30, "memory")):
        a, b = (statistics.median(getattr(figures[side], what)) for side in ("before", "after"))
        cells.append(f"{a / unit:.2f} → {b / unit:.2f} ({b / a - 1:+.1%})")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Compare all cases and print a table; the exit code is 1 when anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", required=True, help="revision to compare with")
    parser.add_argument(
        "--data", dest="stacks", type=Path, help="folder of stacks; else the built-in one only"
    )
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--repeat", type=int, default=1, help="runs of each, for the medians")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--train",
        nargs=argparse.REMAINDER,
        default=[],
        help="options of `train`: all that follows, so this one comes last",
    )
    parser.add_argument("names", nargs="*", help="stacks of the folder")
    arguments = parser.parse_args()
    cases: list[tuple[Path | None, str]] = [(None, SAMPLE)]
    if arguments.stacks is not None:
        cases = [(arguments.stacks, name) for name in arguments.names or NAMES]
    changed = False
    print("| stack | same to the bit | training, s | prediction, s | memory, GiB |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "before"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", before, arguments.before], check=True)
        try:
            for stacks, name in cases:
                told, figures = compare(before, stacks, name, arguments)
                print(row(name, told, figures), flush=True)
                for line in told[:10]:
                    print(f"  {line}", file=sys.stderr)
                changed = changed or bool(told)
        finally:
            subprocess.run([*git, "remove", "--force", before], check=True)
    sys.exit(changed)


if __name__ == "__main__":
    main()
