"""A new result takes the place of the last one of its image, which one click brings back."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QPushButton

from napari_unet3d.widgets.run.runner import Finished
from napari_unet3d.widgets.viewer.result_layers import Result, bring_back
from napari_unet3d.widgets.workbench import Feature, Workbench


class EarlierResult(Feature):
    """Keeps the layers of the result that was replaced last, and shows them again on request."""

    place = "result"

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self.button = QPushButton("Bring back the earlier result")
        self.button.setToolTip(
            "A new result takes the place of the last one of the same image. This shows the last\n"
            "one again, beside the new one; it can be brought back until the next result is made.\n"
            "A prediction that you renamed or painted on is never replaced."
        )
        self.button.hide()
        self.widget = self.button
        self._replaced: Result | None = None
        self.button.clicked.connect(self.bring_back)
        bench.runner.finished.connect(self._finished)

    def bring_back(self) -> None:
        """Show the replaced result beside the new one, and keep it from now on."""
        old, self._replaced = self._replaced, None
        self.button.hide()
        if old is not None:
            bring_back(self.bench.viewer, old)
            self.bench.run_bar.set_status(f"The earlier result is the layer '{old.labels.name}'.")

    def cleanup(self) -> None:
        """Let go of the layers."""
        self._replaced = None

    def _finished(self, finished: Any) -> None:
        if isinstance(finished, Finished):
            self._replaced = finished.replaced
            self.button.setVisible(self._replaced is not None)
