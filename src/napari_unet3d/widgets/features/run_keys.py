"""Keys of a run: train or continue, and show or hide the newest prediction."""

from __future__ import annotations

from napari_unet3d.widgets.viewer.layers import role_of
from napari_unet3d.widgets.workbench import Feature, Workbench


class RunKeys(Feature):
    """Ctrl+Enter presses the main button; D shows and hides the newest prediction."""

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        bench.shortcuts.add("Control-Enter", "Train, or continue the training", bench.actions.start)
        bench.shortcuts.add("D", "Show or hide the newest prediction", self.toggle_prediction)

    def toggle_prediction(self) -> None:
        """Show the newest prediction, or hide it."""
        predictions = [x for x in self.bench.viewer.layers if role_of(x) == "prediction"]
        if not predictions:
            self.bench.run_bar.set_status("There is no prediction yet.")
            return
        # The one that is shown; else the one that was added last.
        shown = [x for x in predictions if x.visible]
        newest = shown[-1] if shown else max(predictions, key=_number)
        newest.visible = not newest.visible


def _number(layer: object) -> int:
    """Rises with the age of the plugin's layers: napari counts the layers that it makes."""
    return int(getattr(layer, "_number", 0))
