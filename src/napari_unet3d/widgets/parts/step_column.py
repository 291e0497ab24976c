"""The steps of the work below each other: sections that fold, and the one that matters in view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qtpy.QtWidgets import QWidget

from napari_unet3d.widgets.parts.column_scroll import ColumnScroll
from napari_unet3d.widgets.parts.section import Section, column, stacked


class StepColumn(ColumnScroll):
    """The sections of the dock.

    On a laptop, the first section fills the height that there is. So the second one, whose
    settings are good for a start, is folded; its heading says what is set. What a run is done with
    is folded, and what is new is scrolled to.

    Parameters
    ----------
    annotate, train, progress, result
        Widgets of the four steps.
    more
        Widgets of further sections, by their headings.
    """

    def __init__(
        self,
        *,
        annotate: Sequence[QWidget],
        train: Sequence[QWidget],
        progress: Sequence[QWidget],
        result: Sequence[QWidget],
        more: Mapping[str, QWidget],
    ) -> None:
        steps = {
            "annotate": Section("1  Classes and slices", column(*annotate, spacing=6)),
            "train": Section("2  Training", column(*train), expanded=False),
            "progress": Section("3  Progress", column(*progress), expanded=False),
            "result": Section("4  Result", column(*result), expanded=False),
        }
        others = {
            title: Section(title, column(widget), expanded=False) for title, widget in more.items()
        }
        super().__init__(stacked(*steps.values(), *others.values()))
        self._steps, self.more = steps, others
        self.annotate, self.train = steps["annotate"], steps["train"]
        self.progress, self.result = steps["progress"], steps["result"]

    def section(self, place: str, title: str) -> Section | None:
        """The section of a place, or of a heading; None for a place outside of the column."""
        return self._steps.get(place, self.more.get(title))

    def show_section(self, section: Section) -> None:
        """Unfold a section, and keep it in view until the user scrolls."""
        section.setExpanded(True)
        self.scroll_to(section)

    def follow_run(self, phase: str) -> None:
        """Show what is new: the curve while training, then the result."""
        if phase == "training":
            self.train.setExpanded(False)
            self.show_section(self.progress)
        elif phase == "segmenting":
            self.progress.setExpanded(False)
            self.show_section(self.result)
