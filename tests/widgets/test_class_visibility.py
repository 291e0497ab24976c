"""Classes on and off: their colors in the layers, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_unet3d.config import default_class
from napari_unet3d.widgets.parts.class_table import ClassTable
from napari_unet3d.widgets.viewer.layers import class_colormap

CLASSES = (default_class(2, "wall"), default_class(3, "lumen"))


def test_a_tick_that_is_taken_away_hides_the_label(qtbot: Any) -> None:
    table = ClassTable()
    qtbot.addWidget(table)
    table.setValue(CLASSES)
    with (
        qtbot.waitSignal(table.hiddenChanged) as hidden,
        qtbot.assertNotEmitted(table.valueChanged),
    ):
        table.table.item(1, 0).setCheckState(Qt.CheckState.Unchecked)
    assert hidden.args == [frozenset({2})]
    with qtbot.waitSignal(table.valueChanged), qtbot.assertNotEmitted(table.hiddenChanged):
        table.table.item(1, 0).setText("border")
    assert table.hidden() == {2}
    assert table.value()[0].name == "border"
    with qtbot.waitSignal(table.hiddenChanged) as hidden:
        table.table.item(0, 0).setCheckState(Qt.CheckState.Unchecked)
    assert hidden.args == [frozenset({1, 2})]


@pytest.mark.parametrize("annotation", [True, False])
def test_a_hidden_class_is_transparent(annotation: bool) -> None:
    shown = class_colormap(CLASSES, annotation=annotation)
    hidden = class_colormap(CLASSES, annotation=annotation, hidden={1, 3})
    values = [2, 3] if annotation else [c.output_value for c in CLASSES]
    assert np.allclose(shown.map(values[0]), hidden.map(values[0]))
    assert shown.map(values[1])[-1] > 0
    assert hidden.map(values[1])[-1] == 0
    if annotation:
        assert hidden.map(1)[-1] == 0 < shown.map(1)[-1]
