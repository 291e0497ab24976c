"""The benchmark of siblings: both methods are applied to a stack that nobody annotated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark_scripts import imported
from napari_unet3d.config import TrainingConfig
from napari_unet3d.data.volume import Volume


@pytest.fixture(scope="module")
def script() -> Any:
    with imported(("protocol", "peers", "siblings")) as scripts:
        yield scripts.siblings


def column(shape: tuple[int, int, int], at: int) -> tuple[Volume, np.ndarray]:
    """A bright column, and its truth."""
    _, y, x = np.indices(shape)
    truth = np.where((y - 12) ** 2 + (x - at) ** 2 < 36, 2, 0).astype(np.uint8)
    noise = np.random.default_rng(at).normal(0, 0.1, shape)
    return Volume((truth / 2 + noise).astype(np.float32)), truth


def test_the_sibling_is_segmented(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    stacks = {"a": column((10, 24, 28), 10), "b": column((12, 26, 24), 14)}
    monkeypatch.setattr(script, "load_stack", lambda _, name: stacks[name])
    config = TrainingConfig(iterations=3, device="cpu", precision="fp32")
    found = script.run(Path(), ("a", "b"), 2, config)
    assert found["forest"] > 0.8
    assert found["ours"] > 0.8
    assert 0 <= found["weight"] <= 1
