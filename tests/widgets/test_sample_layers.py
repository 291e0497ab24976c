"""File ▸ Open Sample: made by code, with ground truth; no network and no window."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from napari_unet3d.data import samples as core
from napari_unet3d.widgets.viewer import samples
from napari_unet3d.widgets.viewer.layers import METADATA_KEY


@pytest.mark.parametrize(
    ("open_sample", "simulate"), [(samples.nuclei, core.nuclei), (samples.tubules, core.tubules)]
)
def test_a_sample_is_an_image_and_its_truth(
    open_sample: Callable[[], list[Any]],
    simulate: Callable[..., core.Sample],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_network(*_: object) -> None:
        pytest.fail("the network was used")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    small = simulate((12, 48, 48))
    monkeypatch.setattr(core, simulate.__name__, lambda: small)
    (image, options, kind), (truth, truth_options, truth_kind) = open_sample()
    assert (kind, truth_kind) == ("image", "labels")
    assert image.shape == truth.shape
    assert options["scale"] == truth_options["scale"] == (1.0, 0.5, 0.5)
    assert not truth_options["visible"]
    classes = options["metadata"][METADATA_KEY]["classes"]
    assert set(np.unique(truth)) <= {0, *(c["value"] for c in classes)}


def test_the_first_sample_is_painted_already(monkeypatch: pytest.MonkeyPatch) -> None:
    small = core.sparse_nuclei((12, 48, 48))
    monkeypatch.setattr(core, "sparse_nuclei", lambda: small)
    *_, (annotation, options, kind) = samples.first_steps()
    assert kind == "labels"
    metadata = options["metadata"][METADATA_KEY]
    ((axis, index, _time),) = metadata["held_out"]
    assert (annotation.take(index, axis) > 0).all()
    painted = [ref for ref in small.training_slices[:3] if annotation[ref.index].any()]
    assert painted == list(small.training_slices[:3])
    # Scribbles agree with the truth, and leave something to find out.
    labelled = annotation > 0
    assert np.array_equal(annotation[labelled], np.maximum(small.truth, 1)[labelled])
    assert labelled[painted[0].index].mean() < 0.9
