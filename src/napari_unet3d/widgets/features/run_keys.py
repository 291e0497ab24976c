"""Keys of a run: train or continue, and show or hide the newest prediction."""

from __future__ import annotations

from napari_unet3d.widgets.viewer.predictions import newest_prediction
from napari_unet3d.widgets.workbench import Feature, Workbench


class RunKeys(Feature):
    """Ctrl+Enter presses the main button; D shows and hides the newest prediction."""

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        bench.shortcuts.add("Control-Enter", "Train, or continue the training", bench.actions.start)
        bench.shortcuts.add("D", "Show or hide the newest prediction", self.toggle_prediction)

    def toggle_prediction(self) -> None:
        """Hide the newest prediction that is shown; where none is, show the newest."""
        viewer = self.bench.viewer
        newest = newest_prediction(viewer) or newest_prediction(viewer, hidden=True)
        if newest is None:
            self.bench.run_bar.set_status("There is no prediction yet.")
            return
        newest.visible = not newest.visible
