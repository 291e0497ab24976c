"""Take the pictures of README and tutorial: the true window, driven through a whole piece of work.

Run it under Xvfb; it trains for a minute by default::

    xvfb-run -a -s "-screen 0 1600x1000x24" python docs/images/take.py 120
    xvfb-run -a -s "-screen 0 1600x1000x24" python docs/images/take.py 120 light
"""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Any

import numpy as np

# Own work must neither appear in the pictures nor be touched: sessions go elsewhere.
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="napari-unet3d-pictures-")

from studio import HERE, Studio, feature, paths_through


def main(seconds: float = 60, theme: str = "dark") -> None:
    from napari_unet3d.data.samples import tubules
    from napari_unet3d.data.slices import SliceRef

    folder = HERE if theme == "dark" else HERE / theme
    folder.mkdir(exist_ok=True)
    studio = Studio(theme=theme, folder=folder)
    viewer, dock = studio.viewer, studio.dock
    studio.take("1-start")
    viewer.open_sample("napari-unet3d", "tubules")
    studio.wait(1)
    layer = dock.choice.value()[1]
    truth = viewer.layers["kidney tubules truth"].data
    sample = tubules()
    viewer.dims.set_point(0, sample.training_slices[1].index)
    viewer.reset_view()
    studio.wait(0.5)

    # A few scribbles with the real mouse, each along the middle of a structure.
    layer.brush_size = 4
    plane = truth[sample.training_slices[1].index]
    for value in (3, 2, 1):
        dock.annotator.choose_label(value)
        for path in paths_through(plane == (0 if value == 1 else value)):
            studio.stroke(path * 0.5)
    studio.wait(1)
    studio.take("2-scribbles")

    annotation = sample.annotate((*sample.training_slices, *sample.held_out_slices))
    index = np.nonzero(annotation)
    layer.data_setitem(index, annotation[index])
    for ref in sample.held_out_slices:
        dock.annotator.rescan()
        dock.annotator.jump(ref)
        studio.wait(0.5)
        studio.click(dock.slice_table.hold_out_button)
    dock.annotator.jump(sample.training_slices[1])
    studio.take("3-slices")

    # What the tools propose between two painted slices; it is discarded again.
    dock.annotator.jump(SliceRef(0, 28))
    tools = feature(dock, "Tools")
    studio.click(tools.bar.action_buttons["interpolate"])
    studio.wait(10, lambda: tools.bar.action_buttons["discard"].isVisible())
    studio.wait(1)
    studio.take("7-tools")
    studio.click(tools.bar.action_buttons["discard"])

    dock.annotator.jump(SliceRef(0, 26))
    dock.form.budget.setValue(seconds)
    studio.click(dock.run_bar.start_button)
    runner = dock.runner
    studio.wait(30, lambda: runner.phase == "training" and dock.run_bar.stop_button.isVisible())
    studio.wait(0.7 * seconds, lambda: runner.phase != "training")
    studio.take("4-training")
    studio.wait(900, lambda: not runner.is_running())
    studio.take("5-result")
    print(dock.run_bar.status.text())
    _quality(studio)
    _objects(studio)
    _in_3d(studio)
    studio.close()


def _quality(studio: Studio) -> None:
    """The mistakes of a held-out slice in color, beside the scores."""
    quality = feature(studio.dock, "Quality")
    studio.dock.annotator.jump(min(studio.dock.slice_table.value()))
    quality.show_mistakes()
    studio.viewer.layers["kidney tubules annotation"].visible = False
    studio.dock.scroll_area.scroll_to(studio.dock.results_section)
    studio.take("8-quality")
    for layer in [x for x in studio.viewer.layers if "mistakes" in x.name]:
        layer.visible = False


def _objects(studio: Studio) -> None:
    """The lumens as objects, with their volumes."""
    objects = feature(studio.dock, "ObjectsFeature")
    section = studio.dock.feature_sections[objects.title]
    section.setExpanded(True)
    studio.dock.scroll_area.scroll_to(section)
    studio.wait(1)
    studio.click(objects.find_button)
    studio.wait(120, objects.find_button.isEnabled)
    studio.wait(2)
    studio.take("9-objects")
    for layer in [x for x in studio.viewer.layers if "objects" in x.name]:
        layer.visible = False


def _in_3d(studio: Studio) -> None:
    viewer: Any = studio.viewer
    viewer.layers["kidney tubules annotation"].visible = False
    viewer.layers["kidney tubules"].visible = False
    viewer.dims.ndisplay = 3
    viewer.reset_view()
    viewer.scene.camera.angles = (0, 30, -50)
    viewer.scene.camera.zoom *= 0.8
    prediction = viewer.layers["kidney tubules prediction"]
    prediction.visible = True
    prediction.selected_label, prediction.show_selected_label = 3, True  # the lumens
    prediction.opacity = 1
    studio.wait(2)
    studio.take("6-in-3d")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(float(arguments[0]) if arguments else 60, *arguments[1:])
