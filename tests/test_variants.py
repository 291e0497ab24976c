"""Variants of a stack: another image, the same truth."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmark_scripts import imported
from napari_unet3d.data.volume import Volume


@pytest.fixture(scope="module")
def scripts() -> Iterator[SimpleNamespace]:
    with imported(("protocol", "variants")) as found:
        yield found


def stack(shape: tuple[int, int, int] = (48, 30, 40)) -> tuple[Volume, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = np.zeros(shape, np.uint8)
    truth[:, 8:20, 10:25] = 2
    image = (100 * truth + rng.normal(300, 20, shape)).astype(np.uint16)
    return Volume(image, voxel_size=(2.0, 0.5, 0.5)), truth


def test_each_variant_has_another_image_and_fits_its_truth(scripts: Any) -> None:
    volume, truth = stack()
    for name, variant in scripts.variants.VARIANTS.items():
        changed, labels = variant(volume, truth)
        again, _ = variant(volume, truth)
        np.testing.assert_array_equal(changed.data, again.data, name)
        assert changed.shape == labels.shape, name
        assert set(np.unique(labels)) == {0, 2}, name
        same = changed.shape == volume.shape and np.array_equal(changed.data, volume.data)
        assert not same, name
        inside, outside = (float(changed.data[m].mean()) for m in (labels == 2, labels == 0))
        assert (inside > outside) == (name != "inverted"), name


def test_thinning_and_swapping_change_the_voxel_size_with_the_axes(scripts: Any) -> None:
    volume, truth = stack()
    variants = scripts.variants.VARIANTS
    thin, labels = variants["thinned by 4"](volume, truth)
    assert (thin.shape, thin.voxel_size) == ((12, 30, 40), (8.0, 0.5, 0.5))
    np.testing.assert_array_equal(labels, truth[::4])
    swapped, labels = variants["axes swapped"](volume, truth)
    assert (swapped.shape, swapped.voxel_size) == ((30, 48, 40), (0.5, 2.0, 0.5))
    np.testing.assert_array_equal(labels, truth.swapaxes(0, 1))


def test_stacks_together_have_all_variants_that_fit(scripts: Any) -> None:
    volume, truth = stack()
    many = [(f"stack {i}", volume, truth) for i in range(4)]
    names = [name for name, _, _ in scripts.variants.cases(many, 3)]
    assert len(names) == len(set(names)) == 16
    seen = {name.partition(": ")[2] for name in names} - {""}
    assert seen == set(scripts.variants.VARIANTS)
    flat = stack((14, 30, 40))[0]
    assert not scripts.variants.fits("thinned by 2", flat)
    assert "thinned by 2" not in scripts.variants.variant_names(0, flat, 11)


def test_a_case_is_found_again_by_its_name(scripts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [("a", *stack()), ("b", *stack((14, 30, 40)))]
    loaded = {name: (volume, truth) for name, volume, truth in many}
    monkeypatch.setattr(scripts.variants, "load_stack", lambda _, name: loaded[name])
    names = scripts.variants.case_names(None, list(loaded), 2)
    assert names == [name for name, *_ in scripts.variants.cases(many, 2)]
    assert scripts.variants.case_names(None, list(loaded), 0) == list(loaded)
    for name, volume, truth in scripts.variants.cases(many, 2):
        found, its_truth = scripts.variants.load_case(None, name)
        np.testing.assert_array_equal(found.data, volume.data, name)
        np.testing.assert_array_equal(its_truth, truth, name)
