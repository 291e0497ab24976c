"""Numbers and lists as sentences have them."""

from __future__ import annotations

import pytest

from napari_unet3d.data.wording import counted, either, joined


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 slices"), (1, "1 slice"), (2, "2 slices"), (1200, "1,200 slices")]
)
def test_a_number_with_its_noun(number: int, text: str) -> None:
    assert counted(number, "slice") == text


def test_nouns_that_need_more_than_an_s() -> None:
    assert counted(1, "class", "classes") == "1 class"
    assert counted(2, "class", "classes") == "2 classes"
    assert either(1, "is", "are") == "is"
    assert either(0, "is", "are") == "are"


@pytest.mark.parametrize(
    ("items", "text"), [(["a"], "a"), (["a", "b"], "a and b"), ([1, 2, 3], "1, 2 and 3")]
)
def test_a_list(items: list[object], text: str) -> None:
    assert joined(items) == text
