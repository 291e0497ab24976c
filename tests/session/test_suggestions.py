"""Which slice is suggested, and with what words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_unet3d.data.slice_summary import SliceSummary
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.session.suggestions import STRATEGIES, Scene, Strategy, suggest

SHAPE = (40, 60, 60)
FLAT = Scene(SHAPE, (4.0, 0.5, 0.5), "µm", class_names=("lumen", "wall"))
"""Thin slices along z only: xz and yz slices have voxels of 4 × 0.5 µm."""


def refs(*z: int) -> frozenset[SliceRef]:
    return frozenset(SliceRef(0, i) for i in z)


def summary(peaks: dict[int, int], shape: tuple[int, int, int] = SHAPE) -> SliceSummary:
    """Equal amounts of two classes everywhere; each class is unsure around one z."""
    amounts, unsure = [], []
    for axis, n in enumerate(shape):
        area = np.prod(shape) / n
        amounts.append(np.full((n, 3), area / 3))
        unsure.append(np.full((n, 3), 0.01 * area / 3))
        for number, z in peaks.items() if axis == 0 else ():
            unsure[-1][z - 2 : z + 3, number] = 0.9 * area / 3
    (a, b, c), (d, e, f) = amounts, unsure
    cells = np.zeros((5, 8, 8))
    cells[3, 2, 1] = 0.5
    return SliceSummary(shape, (a, b, c), (d, e, f), cells, (8, 8, 8))


def test_evenly_spaced_begins_in_the_middle_and_fills_the_widest_gap() -> None:
    first, *_ = suggest(FLAT, "spread")
    assert first.ref in refs(19, 20)
    second, third, *_ = suggest(replace(FLAT, painted=refs(20)), "spread")
    assert {second.ref, third.ref} <= refs(6, 7, 8, 32, 33, 34)
    assert abs(second.ref.index - third.ref.index) > 20
    (last, *_) = suggest(replace(FLAT, painted=refs(3, 8, 30, 36)), "spread")
    assert 17 <= last.ref.index <= 21


def test_a_slice_where_a_rare_class_is_unsure_comes_first() -> None:
    known = replace(FLAT, painted=refs(20), summary=summary({1: 31, 2: 8}))
    rare = summary({1: 31, 2: 8})
    for sums in (*rare.amounts, *rare.unsure):
        sums[:, 1] /= 1000  # 'lumen' is a thousandth of the stack, and counts as much
    known = replace(known, summary=rare)
    first, second, *_ = suggest(known, "unsure")
    assert {round(s.ref.index / 10) for s in (first, second)} == {1, 3}
    lumen = next(s for s in (first, second) if s.ref.index > 20)
    assert "'lumen' is unsure here" in lumen.reason
    away = lumen.ref.index - 20
    assert f"the nearest painted slice, z=20, is {away} slices ({4 * away} µm) away" in lumen.reason


def test_diversity_keeps_from_painting_one_place_twice() -> None:
    known = replace(FLAT, painted=refs(20), summary=summary({1: 31}))
    first, *others = suggest(known, "unsure", count=3)
    assert 29 <= first.ref.index <= 33
    assert all(abs(s.ref.index - first.ref.index) > 3 for s in others if s.ref.axis == 0)


def test_orientations_take_turns_where_voxels_are_cubes() -> None:
    cubes = Scene((50, 50, 50), (1.0, 1.0, 1.0), "µm", painted=refs(25))
    first, second, *_ = suggest(cubes, "spread")
    assert {first.ref.axis, second.ref.axis} == {1, 2}
    assert first.reason == "no xz slice is painted yet"
    long_voxels = suggest(replace(FLAT, painted=refs(25)), "spread", 2)
    assert all(s.ref.axis == 0 for s in long_voxels)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_painted_and_held_out_slices_are_never_suggested(strategy: Strategy) -> None:
    painted = refs(*range(0, 40, 2))
    scene = replace(FLAT, painted=painted, held_out=refs(4, 8), summary=summary({1: 8}))
    found = suggest(scene, strategy, count=12)
    assert len({s.ref for s in found}) == 12
    assert not painted & {s.ref for s in found}
    assert all(s.purpose == "train" for s in found)


def test_one_more_to_measure_is_suggested_until_one_is_held_out() -> None:
    scene = replace(FLAT, painted=refs(5, 20, 35))
    *train, measure = suggest(scene, "spread")
    assert measure.purpose == "measure" and len(train) == 5
    assert str(measure).startswith(f"To measure: {measure.ref}, because no slice is held out")
    assert measure.ref not in {s.ref for s in train}
    held = replace(scene, painted=refs(5, 20, 35, 12), held_out=refs(12))
    assert {s.purpose for s in suggest(held, "spread")} == {"train"}


def test_random_is_repeatable_and_prefers_slices_with_structure() -> None:
    known = summary({})
    known.amounts[0][:, 1:] = 0
    known.amounts[0][10:15, 1:] = 100
    for axis in (1, 2):
        known.amounts[axis][:, 1:] = 0
    scene = replace(FLAT, painted=refs(20), summary=known)
    draws = [suggest(scene, "random", 3, seed=seed) for seed in range(6)]
    assert draws[0] == suggest(scene, "random", 3, seed=0)
    assert len({d[0].ref for d in draws}) > 1
    assert all(10 <= s.ref.index < 15 for d in draws for s in d)
    assert "is likely on it" in draws[0][0].reason


def test_before_a_model_gray_values_decide() -> None:
    content = [np.full(n, 0.01) for n in SHAPE]
    content[0][28:36] = 5.0
    scene = replace(FLAT, content=content)
    first, *_ = suggest(scene, "unsure")
    assert 28 <= first.ref.index < 36
    assert "much varies" in first.reason
    assert suggest(scene, "spread")[0].ref in refs(19, 20)


def test_a_summary_of_another_stack_does_not_count() -> None:
    other = replace(FLAT, painted=refs(20), summary=summary({1: 31}, (48, 60, 60)))
    assert suggest(other, "unsure") == suggest(replace(other, summary=None), "unsure")
    fewer = replace(other, summary=summary({1: 31}), class_names=("lumen",))
    assert suggest(fewer, "unsure") == suggest(replace(fewer, summary=None), "unsure")


def test_nothing_is_suggested_where_all_is_painted() -> None:
    every = frozenset(SliceRef(axis, i) for axis in range(3) for i in range(3))
    assert suggest(Scene((3, 3, 3), painted=every)) == ()
    (last,) = suggest(Scene((3, 3, 3), painted=every - {SliceRef(1, 2)}), "spread")[:1]
    assert last.ref == SliceRef(1, 2)


def test_long_axes_are_ranked_too() -> None:
    long = Scene((2000, 3000, 3000), (1.0, 4.0, 4.0), "µm", painted=refs(1000))
    first, *_ = suggest(long, "spread")
    assert first.ref.axis == 0
    assert 200 < first.ref.index < 500 or 1500 < first.ref.index < 1800
