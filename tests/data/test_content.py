"""How much there is to see on each slice."""

from __future__ import annotations

import numpy as np

from napari_unet3d.data.content import gray_content
from napari_unet3d.data.volume import Volume


def test_slices_with_structure_have_content() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(100, 5, (130, 300, 40)).astype(np.float32)
    image[60:90, 100:200, 10:20] += 100
    z, y, x = gray_content(Volume(image, "ZYX"))
    assert [len(z), len(y), len(x)] == [130, 300, 40]
    assert z[65:85].min() > 5 * z[:55].max()
    assert y[105:195].min() > 5 * y[:95].max()
    assert x[12:18].min() > 5 * x[:8].max()


def test_channels_count_alike_and_time_points_apart() -> None:
    image = np.zeros((2, 2, 12, 16, 16), np.uint16)
    image[1, 0, 2, ::2] = 1000  # the first channel is a thousand times as bright
    image[1, 1, 9, ::2] = 1
    volume = Volume(image, "TCZYX")
    z, _, _ = gray_content(volume, 1)
    assert set(np.argsort(z)[-2:]) == {2, 9}
    assert (gray_content(volume, 0)[0] == 1).all()  # nothing differs
