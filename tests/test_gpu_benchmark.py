"""`benchmarks/gpu.py` without a GPU: every check runs once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmark_scripts import FOLDER, imported

NAMES = ("protocol", "report", "gpu_checks", "gpu_lines", "gpu_memory", "gpu_speed",
         "gpu_accuracy", "gpu")  # fmt: skip
NEEDS_MORE = {
    "copies", "waits in a step", "replays change nothing", "largest map", "tests on the device",
    "training survives a real shortage", "prediction survives a real shortage",
    "prediction beside monai",
}  # fmt: skip
"""Checks that a CPU, too little time or a missing library leaves out, each with its reason."""


@pytest.fixture(scope="module")
def benchmark() -> Iterator[SimpleNamespace]:
    with imported(NAMES) as scripts:
        yield scripts


@pytest.fixture(scope="module")
def bench(benchmark: Any) -> Any:
    clock = benchmark.gpu_checks.Clock(15)  # too little for the tests, which would run in a test
    return benchmark.gpu_checks.Bench(torch.device("cpu"), "fp32", True, None, clock)


@pytest.mark.parametrize("letter", "abcdef")
def test_every_check_of_a_part_runs_on_a_cpu(benchmark: Any, bench: Any, letter: str) -> None:
    (part,) = (part for part in benchmark.gpu.PARTS if part.letter == letter)
    outcomes = []
    for name, check in part.checks(bench).items():
        outcome = benchmark.gpu_checks.Outcome(letter, name)
        benchmark.gpu_checks.carry_out(outcome, check, bench)
        outcomes.append(outcome)
    assert [f"{o.name}: {o.text}" for o in outcomes if o.status == "failed"] == []
    left_out = {o.name: o.text for o in outcomes if o.status == "left out"}
    assert set(left_out) <= NEEDS_MORE
    assert all(left_out.values())
    assert all(o.figures for o in outcomes if o.status == "passed")
    json.dumps([o.as_json() for o in outcomes])


def test_a_failing_check_does_not_stop_the_others(benchmark: Any, bench: Any) -> None:
    checks = benchmark.gpu_checks

    def broken(_bench: Any) -> dict[str, Any]:
        raise RuntimeError("CUDA error: an illegal memory access\nwas encountered")

    def out_of_bounds(_bench: Any) -> dict[str, Any]:
        checks.require(False, "too slow", {"seconds": 3.0})
        return {}

    outcomes = [checks.Outcome("b", name) for name in ("broken", "bounds")]
    for outcome, check in zip(outcomes, (broken, out_of_bounds), strict=True):
        checks.carry_out(outcome, check, bench)
    assert [o.status for o in outcomes] == ["failed", "failed"]
    assert "RuntimeError: CUDA error: an illegal memory access was encountered" in outcomes[0].text
    assert outcomes[1].figures == {"seconds": 3.0}


def test_unused_time_goes_to_the_parts_that_follow(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = benchmark.gpu_checks
    now = 0.0
    monkeypatch.setattr(checks.time, "monotonic", lambda: now)
    clock = checks.Clock(100)
    clock.begin_part(20, 100)
    assert clock.left() == pytest.approx(20)
    now = 5.0
    clock.begin_part(20, 80)
    assert clock.left() == pytest.approx(95 / 4)
    now = 90.0
    clock.begin_part(60, 60)
    assert clock.left() == pytest.approx(10)


def test_the_program_ends_in_time_with_complete_results(tmp_path: Path) -> None:
    """Whatever was reached by then: each check is listed, and the table is printed."""
    file = tmp_path / "gpu.json"
    command = [sys.executable, str(FOLDER / "gpu.py"), "--device", "cpu", "--minutes", "0.3"]
    done = subprocess.run(
        [*command, "--json", str(file)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(file.read_text())
    assert set(results["parts"]) == set("abcdef")
    statuses = {"passed", "left out", "not reached", "not finished"}
    assert {outcome["status"] for outcome in results["outcomes"]} <= statuses
    assert set(results["parts"]) == {outcome["part"] for outcome in results["outcomes"]}
    assert sum(results["counts"].values()) == len(results["outcomes"]) > 20
    assert results["machine"]["device"].startswith("cpu")
    for outcome in results["outcomes"]:
        assert f"| {outcome['part']} | {outcome['name']} | {outcome['status']} |" in done.stdout


def test_without_a_gpu_the_program_says_so(
    benchmark: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit) as ended:
        benchmark.gpu.main(["--minutes", "0.3"])
    assert ended.value.code == 2
    assert "--device cpu for a dry run" in capsys.readouterr().err
