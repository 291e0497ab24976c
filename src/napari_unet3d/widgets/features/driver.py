"""A layer may be removed without a crash of the OpenGL driver."""

from __future__ import annotations

from napari_unet3d.widgets.viewer.shader_guard import ShaderGuard
from napari_unet3d.widgets.workbench import Feature, Workbench


class DriverGuard(Feature):
    """Guards the drawing of the window while the dock is open."""

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self._guard = ShaderGuard()

    def cleanup(self) -> None:
        self._guard.stop()
