"""Film the whole path on the sample for first steps, and count its clicks; writes path.gif.

Run it under Xvfb::

    xvfb-run -a -s "-screen 0 1600x1000x24" python docs/images/film.py 60

The last line tells clicks, keys, strokes and seconds from the open sample to the dense result, and
the IoU on the held-out slice.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time

os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="napari-unet3d-film-")

from studio import HERE, Studio, feature

_WIDTH = 900
"""Pixels of the film. The text of the dock can still be read, and a page loads it in a second."""
_COLORS = 96
"""Colors of the film: the window is mostly gray."""


def main(seconds: float = 60) -> None:
    studio = Studio(size=(1280, 800), dock_width=330)
    viewer, dock = studio.viewer, studio.dock
    studio.frame(1.5)
    viewer.open_sample("napari-unet3d", "first_steps")
    studio.clicks += 4  # File, Open Sample, napari-unet3d, First steps
    begin = time.monotonic()
    studio.wait(2)
    studio.frame(1)
    dock.annotator.jump(dock.annotator.slices()[2].ref)
    studio.clicks += 1  # the row of the slice
    studio.wait(1)
    studio.frame(2)

    viewer.dims.set_point(0, 20)
    studio.wait(0.5)
    studio.frame(1)
    dock.form.budget.setValue(seconds)
    studio.click(dock.run_bar.start_button)
    last = time.monotonic()
    while dock.runner.is_running():
        studio.wait(0.2)
        if time.monotonic() - last > 3:
            last = time.monotonic()
            studio.frame(0.25)
    took = time.monotonic() - begin
    studio.wait(1)
    studio.frame(3)
    done = f"{studio.clicks} clicks, {studio.keys} keys, {studio.strokes} strokes, {took:.0f} s"
    scores = dock.report.scores()
    iou = "not measured" if scores is None else f"{scores.mean_iou:.3f}"

    studio.key("N")  # where to look next
    studio.wait(1.5)
    studio.frame(2)
    studio.key("A")  # take over the prediction of this slice
    studio.wait(1.5)
    studio.frame(2)
    feature(dock, "Quality").show_mistakes()
    studio.wait(1)
    studio.frame(2.5)
    objects = feature(dock, "ObjectsFeature")
    section = dock.feature_sections[objects.title]
    section.setExpanded(True)
    dock.scroll_area.scroll_to(section)
    studio.wait(0.5)
    studio.click(objects.find_button)
    studio.wait(60, objects.find_button.isEnabled)
    studio.wait(1.5)
    studio.frame(4)
    studio.film(HERE / "path.gif", _WIDTH, _COLORS)
    print(f"{done} to the dense result; held-out IoU {iou}")
    studio.close()


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
