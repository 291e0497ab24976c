"""Distances between borders, against drawings and against every pair of voxels."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet3d.prediction.surfaces import border, surface_distance


def draw(*rows: str) -> np.ndarray:
    """A region from a drawing: "#" is inside."""
    return np.array([[c == "#" for c in row] for row in rows])


def everywhere(region: np.ndarray) -> np.ndarray:
    return np.ones(region.shape, bool)


def neighbors(mask: np.ndarray, y: int, x: int) -> list[tuple[int, int]]:
    around = ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
    return [(a, b) for a, b in around if 0 <= a < mask.shape[0] and 0 <= b < mask.shape[1]]


def slow_border(region: np.ndarray, counted: np.ndarray) -> list[tuple[int, int]]:
    return [
        (y, x)
        for y, x in np.argwhere(region & counted).tolist()
        if any(counted[n] and not region[n] for n in neighbors(region, y, x))
    ]


def test_a_region_is_bordered_by_its_outermost_voxels():
    region = draw(".....", ".###.", ".###.", ".###.", ".....")
    expected = draw(".....", ".###.", ".#.#.", ".###.", ".....")
    np.testing.assert_array_equal(border(region, everywhere(region)), expected)


def test_neither_the_edge_of_the_slice_nor_unlabelled_voxels_make_a_border():
    region = draw("###..", "###..", "###..")
    np.testing.assert_array_equal(
        border(region, everywhere(region)), draw("..#..", "..#..", "..#..")
    )
    labelled = draw("###..", "####.", "###..")
    np.testing.assert_array_equal(border(region, labelled), draw(".....", "..#..", "....."))


def test_a_shifted_edge_is_as_far_as_it_was_shifted():
    truth, predicted = draw("###....", "###...."), draw("#####..", "#####..")
    found = surface_distance(predicted, truth, everywhere(truth), (1.0, 0.25))
    assert found is not None
    assert found.mean == found.hausdorff95 == 2 * 0.25


def test_the_same_region_has_distance_zero():
    region = draw("....", ".##.", "....")
    found = surface_distance(region, region, everywhere(region), (1.0, 1.0))
    assert found is not None and found.mean == found.hausdorff95 == 0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.5, 0.4)])
def test_it_equals_the_distances_of_all_pairs(seed, spacing):
    rng = np.random.default_rng(seed)
    truth, predicted = rng.random((2, 14, 19)) > 0.7
    counted = rng.random(truth.shape) > 0.2
    a, b = (np.array(slow_border(m, counted)) * spacing for m in (predicted, truth))
    pairs = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    there, back = pairs.min(1), pairs.min(0)
    found = surface_distance(predicted, truth, counted, spacing)
    assert found is not None
    assert found.mean == pytest.approx(np.concatenate([there, back]).mean())
    assert found.hausdorff95 == pytest.approx(
        max(np.percentile(there, 95), np.percentile(back, 95))
    )


def test_what_is_painted_beyond_the_labelled_voxels_does_not_count():
    truth = draw("......", ".##...", "......", "......")
    predicted = truth | draw("......", "......", "......", "..####")
    labelled = draw("######", "######", "......", "......")
    found = surface_distance(predicted, truth, labelled, (1.0, 1.0))
    assert found is not None and found.mean == 0


@pytest.mark.parametrize("absent", ["truth", "prediction", "both", "no border"])
def test_without_two_borders_there_is_no_distance(absent):
    region, empty = draw("....", ".##.", "...."), draw("....", "....", "....")
    full = ~empty
    truth, predicted = {
        "truth": (empty, region),
        "prediction": (region, empty),
        "both": (empty, empty),
        "no border": (full, region),
    }[absent]
    assert surface_distance(predicted, truth, everywhere(truth), (1.0, 1.0)) is None
