"""The hint on what to do next depends on open layers and paint only; no window is needed."""

from __future__ import annotations

import pytest

from napari_unet3d.config import default_class
from napari_unet3d.data.painted_slices import PaintedSlice
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.widgets.parts.hint import Hint, Situation, next_step

CLASSES = (default_class(2, "wall"),)


def painted(z: int, *values: int) -> PaintedSlice:
    return PaintedSlice(SliceRef(0, z), dict.fromkeys(values, 10), "partial", 100)


def hint(*slices: PaintedSlice, held_out: tuple[int, ...] = (), classes: tuple = CLASSES) -> Hint:
    refs = frozenset(SliceRef(0, z) for z in held_out)
    return next_step(Situation(True, True, slices, classes, refs))


def test_from_nothing_to_the_first_stroke() -> None:
    assert next_step(Situation()).text.startswith("Open a 3D stack")
    assert next_step(Situation(image=True)).text.startswith("Press New")
    assert hint().text.startswith("Choose a class")


def test_unknown_paint_is_named_with_a_button() -> None:
    found = hint(painted(3, 1, 7), painted(5, 1, 2))
    assert found.text.startswith("Label 7 is painted on z=3 and is in no class.")
    assert found.missing == (7,)
    assert found.button == "Add class 7"


def test_several_unknown_labels_get_one_button() -> None:
    found = hint(painted(3, 7), painted(4, 9), painted(5, 2))
    assert found.text.startswith("Labels 7 and 9 are painted on z=3 and z=4")
    assert found.button == "Add classes 7 and 9"


def test_labels_that_no_class_can_have_get_no_button() -> None:
    found = hint(painted(3, 300, 7))
    assert "repaint" in found.text
    assert found.missing == (7,)
    assert hint(painted(3, 300)).button == ""


def test_a_label_without_voxels_is_not_painted() -> None:
    slices = PaintedSlice(SliceRef(0, 3), {1: 5, 2: 5, 7: 0}, "partial", 100)
    assert hint(slices).text.startswith("Ready")


def test_all_slices_held_out_are_said_in_words() -> None:
    one = hint(painted(3, 1, 2), held_out=(3,)).text
    assert one.startswith("The painted slice z=3 is held out, so nothing is left to train on.")
    two = hint(painted(3, 1, 2), painted(4, 1, 2), held_out=(3, 4)).text
    assert two.startswith("All painted slices are held out (z=3 and z=4)")


@pytest.mark.parametrize("n", range(8))
@pytest.mark.parametrize("n_held_out", range(8))
def test_zero_slices_are_never_ready(n: int, n_held_out: int) -> None:
    held_out = tuple(range(min(n, n_held_out)))
    text = hint(*(painted(z, 1, 2) for z in range(n)), held_out=held_out).text
    assert text.startswith("Ready") == (n > len(held_out))
    assert " 0 " not in text


def test_what_lacks_on_the_slices_to_train_on() -> None:
    assert hint(painted(3, 1)).text.startswith("Only background is painted.")
    assert "Paint some background" in hint(painted(3, 2)).text
    apart = hint(painted(3, 1), painted(4, 2), held_out=(4,)).text
    assert apart.startswith("Only background is painted on the slices to train on.")
    apart = hint(painted(3, 1), painted(4, 2), held_out=(3,)).text
    assert "on the slices to train on" in apart


def test_classes_without_paint_are_named() -> None:
    classes = (*CLASSES, default_class(3, "lumen"), default_class(4, "gap"))
    text = hint(painted(3, 1, 2), classes=classes).text
    assert text.startswith("'lumen' and 'gap' are not painted yet.")


def test_long_lists_are_cut() -> None:
    text = hint(*(painted(z, 1, 7) for z in range(9))).text
    assert "z=0, z=1, z=2 and 6 more" in text


def test_ready_says_how_to_get_more() -> None:
    slices = [painted(z, 1, 2) for z in range(4)]
    assert "Three or more" in hint(slices[0]).text
    assert "on 1 slice." in hint(slices[0]).text
    assert "press Hold out" in hint(*slices).text
    assert hint(*slices, held_out=(0,)).text == (
        "Ready to train on 3 slices, and to measure on 1 held out."
    )
