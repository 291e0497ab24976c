"""Time of a training step on idle and on busy cores, for several waits of OpenMP's threads.

    python benchmarks/threads.py [--busy 2] [--steps 24]

Each line is a process of its own, since OpenMP reads its settings once. `--busy` programs use
the cores at the same time, in the second half of the lines.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

WAITS = {
    "spin (OpenMP's default)": {"GOMP_SPINCOUNT": "", "OMP_WAIT_POLICY": ""},
    "short spin (ours)": {"GOMP_SPINCOUNT": "20000"},
    "no spin": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def measure(steps: int) -> None:
    """Print median and largest time of a step, in this process."""
    from napari_unet3d import SparseAnnotation, Trainer, TrainingConfig, tubules

    sample = tubules()
    labels = sample.annotate(sample.training_slices)
    config = TrainingConfig(iterations=steps, small_patch_share=0)
    times, last = [], time.perf_counter()
    for _ in Trainer(sample.image, SparseAnnotation(labels, sample.classes), config).run():
        times.append(time.perf_counter() - last)
        last = time.perf_counter()
    times = times[4:]  # the first steps prepare the convolutions
    print(f"{statistics.median(times):8.3f} {max(times):8.3f}")


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busy", type=int, default=2, help="other programs in the second half")
    parser.add_argument("--steps", type=int, default=24, help="training steps of a line")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.steps)
        return
    print(f"{'seconds per step':42} {'median':>8} {'max':>8}")
    for busy in (0, arguments.busy):
        for name, changes in WAITS.items():
            # An empty value is OpenMP's default, and keeps ours from being set.
            environment = os.environ | changes
            others = [
                subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)
            ]
            command = [sys.executable, __file__, "--measure", "--steps", str(arguments.steps)]
            try:
                result = subprocess.run(
                    command, env=environment, capture_output=True, text=True, check=True
                )
            finally:
                for other in others:
                    other.kill()
                    other.wait()
            print(f"{name + f', {busy} other programs':42} {result.stdout.rstrip()}", flush=True)


if __name__ == "__main__":
    main()
