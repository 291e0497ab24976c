"""Layers are removed from a shown window; see `viewer.shader_guard`."""

from __future__ import annotations

import subprocess
import sys

from vispy.gloo import gl

from napari_unet3d.widgets.viewer.shader_guard import ShaderGuard

_REMOVING = """
import os, time
import napari, numpy as np
from napari.utils import DirectLabelColormap
from qtpy.QtWidgets import QApplication
from napari_unet3d.widgets.viewer.shader_guard import ShaderGuard

guard = ShaderGuard()

def draw(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.005)

viewer = napari.Viewer()
place = {"scale": (2, 0.5, 0.5)}
zeros, gray = np.zeros((10, 40, 44), np.uint8), np.random.rand(10, 40, 44).astype("f4")
viewer.add_image(gray, name="cells", **place)
annotation = viewer.add_labels(zeros.copy(), **place)
colors = {0: "transparent", None: "transparent", 2: "#e69f00"}
annotation.colormap = DirectLabelColormap(color_dict={**colors, None: "#ff00ff"})
viewer.layers.selection.active = annotation
draw(0.5)
prediction = viewer.add_labels(zeros.copy(), opacity=0.5, **place)
prediction.colormap = DirectLabelColormap(color_dict=colors)
draw(0.2)
viewer.layers.remove(prediction)
viewer.layers.remove("cells")
draw(0.5)
viewer.add_labels(zeros.copy(), opacity=0.5, **place)
draw(0.3)
print("drawn", flush=True)
os._exit(0)
"""


def test_removing_layers_does_not_end_the_program():
    """In a program of its own, since the crash would end the tests."""
    words = [sys.executable, "-c", _REMOVING]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert "drawn" in done.stdout, done.stderr[-500:]


def test_the_function_of_vispy_is_restored_by_the_last_guard():
    before = gl.glDeleteProgram
    first = ShaderGuard()
    second = ShaderGuard()
    assert gl.glDeleteProgram is not before
    second.stop()
    first.stop()
    assert gl.glDeleteProgram is before
