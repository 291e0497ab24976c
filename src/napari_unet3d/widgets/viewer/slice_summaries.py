"""What the newest prediction of an image says about its slices, kept with the image layer.

So it outlives a dock that is closed, and goes with the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from napari.layers import Image

from napari_unet3d.data.slice_summary import StackSummary
from napari_unet3d.events import SlicesSummarized
from napari_unet3d.widgets.viewer.layers import metadata_of, remember

_KEY = "slice_summary"
"""Entry of the plugin's metadata of an image."""


def write_summary_of(image: Image, summary: StackSummary | None) -> None:
    """Store what a prediction says about the slices of an image; None forgets it."""
    remember(image, **{_KEY: summary})


def read_summary_of(image: Image | None) -> StackSummary | None:
    """What the newest prediction says about the slices of an image; None before there is one."""
    found = None if image is None else metadata_of(image).get(_KEY)
    return found if isinstance(found, StackSummary) else None


def newest_summary(events: Sequence[Any]) -> StackSummary | None:
    """The last summary among the events of a run; None where there is none."""
    for event in reversed(events):
        if isinstance(event, SlicesSummarized):
            return event.summary
    return None
