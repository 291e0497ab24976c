"""Shows what the gates of an attention network let pass, on the slice in view."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import Any

import numpy as np
from napari.layers import Image

from napari_unet3d.config import PredictionConfig
from napari_unet3d.data.volume import Volume
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks.attention import AttentionUNetConfig
from napari_unet3d.session.slice_view import SliceView, first_class
from napari_unet3d.widgets.features.in_view import InView, Views
from napari_unet3d.widgets.viewer.slice_layer import SliceLayer
from napari_unet3d.widgets.workbench import Workbench

_COLORS = ("green", "magenta", "cyan", "yellow")
"""Colors of the layers, the finest gate first."""


class Gates(InView):
    """A layer for each gate; only for networks that have gates."""

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench, "Show what the gates let pass", "Gates")
        self.check_box.setToolTip(
            "A layer for each attention gate: bright where its skip passes details on to the "
            "result. It is computed for the slice in view, which takes a moment."
        )
        self._follow()

    def _levels(self) -> range:
        """Levels of the gates of the current model, the finest first."""
        bundle = self._bundle()
        if bundle is None or not isinstance(bundle.network, AttentionUNetConfig):
            return range(0)
        return range(1, len(bundle.network.strides))

    def _show_state(self) -> None:
        has_gates = bool(self._levels())
        assert self.widget is not None
        self.widget.setVisible(has_gates)
        if not has_gates:
            self.check_box.setChecked(False)
        self.check_box.setEnabled(not self.bench.runner.is_running())

    def _make_views(self, bundle: ModelBundle, volume: Volume, config: PredictionConfig) -> Views:
        return {
            level: SliceView(bundle.with_network({"gate": level}), volume, config, first_class)
            for level in self._levels()
        }

    def _make_layer(self, name: Hashable) -> SliceLayer[Image]:
        assert isinstance(name, int)
        make = partial(_gate_layer, colormap=_COLORS[(name - 1) % len(_COLORS)])
        return SliceLayer(self.bench.viewer, make, np.float32, f"gate {name} in view")


def _gate_layer(values: Any, **options: Any) -> Image:
    return Image(values, blending="additive", contrast_limits=(0.0, 1.0), **options)
