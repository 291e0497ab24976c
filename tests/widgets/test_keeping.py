"""Nothing is lost: what is painted is on the disk, and there again when its image opens."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_unet3d.widgets.features.keeping import Keeping


def keeping_of(dock: Any) -> Keeping:
    (feature,) = [f for f in dock.features if isinstance(f, Keeping)]
    return feature


def test_from_the_first_stroke_on(ready: Any, qtbot: Any, painted: np.ndarray) -> None:
    keeping = keeping_of(ready)
    qtbot.waitUntil(lambda: keeping.keeper() is not None, timeout=5000)
    keeper = keeping.keeper()
    qtbot.waitUntil(lambda: not keeper.waits(), timeout=8000)
    np.testing.assert_array_equal(keeper.folder.annotation[:], painted)
    print(keeper.state(), list(keeper.path.iterdir()))
