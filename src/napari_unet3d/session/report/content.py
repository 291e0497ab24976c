"""What a report consists of, whatever file it becomes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text.

    Attributes
    ----------
    text
        The text.
    quoted
        Whether it is meant to be copied, such as the paragraph for the methods section.
    """

    text: str
    quoted: bool = False


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes
    ----------
    columns
        Titles of the columns; empty for a table of facts, whose first column is the title.
    rows
        As many texts as there are columns.
    note
        Explains the table, below it.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Attributes
    ----------
    name
        For the legend; empty where the chart has one line only.
    points
        (x, y).
    errors
        Intervals (low, high) of the points; empty without.
    marked
        Whether each point has a dot.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    errors: tuple[tuple[float, float], ...] = ()
    marked: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart with lines.

    Attributes
    ----------
    title, x, y
        Heading, and names of the axes with their units.
    series
        The lines; at least one has a point.
    y_range
        Ends of the y axis; those of the points when None.
    """

    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    y_range: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture of a slice.

    Attributes
    ----------
    pixels
        (height, width, 3) uint8, RGB.
    caption
        What it shows.
    ratio
        Height of a pixel by its width, where the voxels are not square.
    """

    pixels: NDArray[np.uint8]
    caption: str
    ratio: float = 1.0


@dataclass(frozen=True)
class Legend:
    """Colors and what they mean."""

    entries: tuple[tuple[str, str], ...]
    """(color as #rrggbb, meaning)."""


@dataclass(frozen=True)
class PictureRow:
    """Pictures side by side."""

    pictures: tuple[Picture, ...]


Block = Paragraph | Table | Chart | PictureRow | Legend


@dataclass(frozen=True)
class Section:
    """A heading and what follows it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Report:
    """A whole report.

    Attributes
    ----------
    title
        The heading.
    made
        When and by which program it was made: the only line that differs from one report on the
        same work to the next.
    sections
        The parts.
    """

    title: str
    made: str
    sections: tuple[Section, ...]
