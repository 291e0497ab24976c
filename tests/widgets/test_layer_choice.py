"""Image, annotation and time points, without a viewer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_unet3d.errors import BadInputError
from napari_unet3d.widgets.viewer.layer_choice import LayerChoice, read_times


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("", None),
        ("  ", None),
        ("3", (3,)),
        ("0,3", (0, 3)),
        ("0-4", (0, 1, 2, 3, 4)),
        (" 4 - 5; 1, 4", (1, 4, 5)),
    ],
)
def test_time_points_are_read(text: str, times: tuple[int, ...] | None) -> None:
    assert read_times(text, 6) == times


@pytest.mark.parametrize("text", ["a", "1.5", "-1", "1-", "6", "2-6", "4-2", "0:3"])
def test_what_is_no_time_point_is_said_with_the_cure(text: str) -> None:
    with pytest.raises(BadInputError, match=r"time point.*(0,3 or 0-4|from 0 to 5)"):
        read_times(text, 6)


def test_time_points_are_asked_of_a_time_series_only(qtbot: Any) -> None:
    choice = LayerChoice()
    qtbot.addWidget(choice)
    choice.show()
    stack, series = Image(np.zeros((4, 5, 6))), Image(np.zeros((3, 4, 5, 6)))
    choice.set_layers([stack, series], [])
    choice.setValue(stack, None)
    choice.times.setText("7")
    assert not choice.times.isVisible()
    assert choice.times_value() is None
    choice.setValue(series, None)
    assert choice.times.isVisible()
    with pytest.raises(BadInputError, match="from 0 to 2"):
        choice.times_value()
    choice.times.setText("1")
    assert choice.times_value() == (1,)
    choice.first_axis.setCurrentIndex(choice.first_axis.findData("channels"))
    assert not choice.times.isVisible()
    assert choice.times_value() is None


def test_no_annotation_is_a_choice_too(qtbot: Any) -> None:
    choice = LayerChoice()
    qtbot.addWidget(choice)
    layer = Labels(np.zeros((4, 5, 6), np.uint8))
    image = Image(np.zeros((4, 5, 6)))
    choice.set_layers([image], [layer])
    assert choice.value() == (image, None)
    with pytest.raises(BadInputError, match="Press New"):
        choice.chosen()
    choice.setValue(image, layer)
    assert choice.chosen() == (image, layer)
    choice.set_layers([], [])
    with pytest.raises(BadInputError, match="No image"):
        choice.chosen()


def test_a_long_name_is_shortened_and_not_cut_off(qtbot: Any) -> None:
    choice = LayerChoice()
    qtbot.addWidget(choice)
    choice.resize(300, 200)
    choice.show()
    name = "a very long name of a stack annotation"
    choice.set_layers([Image(np.zeros((4, 5, 6)), name="cells")], [])
    choice.set_layers([choice.image.currentData()], [Labels(np.zeros((4, 5, 6), int), name=name)])
    choice.annotation.setCurrentIndex(1)
    assert choice.image.shown_text() == "cells"
    beginning, end = choice.annotation.shown_text().split("…")
    assert name.startswith(beginning) and beginning
    assert name.endswith(end) and end
    assert choice.annotation.itemText(1) == name
