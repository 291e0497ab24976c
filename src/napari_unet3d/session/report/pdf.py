"""Writes a report as a PDF file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime

from fpdf import FPDF
from fpdf.enums import XPos, YPos
from fpdf.fonts import FontFace

from napari_unet3d.session.report.content import (
    Block,
    Chart,
    Legend,
    Paragraph,
    PictureRow,
    Report,
    Table,
)
from napari_unet3d.session.report.drawing import HEIGHT, WIDTH, Anchor, Point, draw
from napari_unet3d.session.report.html import png, stretched

_FONT, _ENCODING = "Helvetica", "windows-1252"
"""A font that every reader of PDF has; it has the letters of Western Europe only."""
_MISSING = (
    "Some letters of this report are not in the font of the PDF and appear as '?'. The HTML "
    "report has them."
)
_MARGIN = 18.0
"""Millimeters."""
_TEXT, _SMALL, _HEADING, _TITLE = 10.0, 8.5, 13.0, 17.0
"""Points, heights of the fonts."""
_LEADING = 1.35
"""Ratio of the height of a line to that of its font."""
_POINT = 25.4 / 72
"""Millimeters."""
_PICTURES = 4
"""Pictures in a row: image, annotation, segmentation and mistakes of a slice."""
_GAP = 3.0
"""Millimeters between pictures."""
_TALLEST = 90.0
"""Millimeters of a picture: two rows fit on a page."""
_CHART = 120.0
"""Millimeters of the width of a chart."""


def to_pdf(report: Report, made: datetime) -> bytes:
    """The report as a PDF file.

    Parameters
    ----------
    report
        The report.
    made
        Time in the properties of the file, with a time zone.
    """
    page = _Pages(report, made)
    page.heading(report.title, _TITLE)
    page.paragraph(report.made, _SMALL)
    if not _fits(report):
        page.paragraph(_MISSING, _SMALL)
    for section in report.sections:
        page.heading(section.title, _HEADING, section.blocks[0] if section.blocks else None)
        for block in section.blocks:
            page.add(block)
    return page.finish()


def _plain(text: str) -> str:
    return text.encode(_ENCODING, "replace").decode(_ENCODING)


def _fits(report: Report) -> bool:
    """Whether the font has all letters of the report."""
    try:
        _every_text(report).encode(_ENCODING)
    except UnicodeEncodeError:
        return False
    return True


def _every_text(report: Report) -> str:
    texts = [report.title, report.made]
    for section in report.sections:
        texts.append(section.title)
        for block in section.blocks:
            if isinstance(block, Paragraph):
                texts.append(block.text)
            elif isinstance(block, Table):
                texts += [*block.columns, block.note, *(cell for row in block.rows for cell in row)]
            elif isinstance(block, Legend):
                texts += [text for _, text in block.entries]
            elif isinstance(block, PictureRow):
                texts += [picture.caption for picture in block.pictures]
    return "".join(texts)


class _Pages:
    """The pages of a report, filled from top to bottom."""

    def __init__(self, report: Report, made: datetime) -> None:
        self._pdf = pdf = FPDF(format="A4", unit="mm")
        pdf.core_fonts_encoding = _ENCODING
        pdf.set_margins(_MARGIN, _MARGIN)
        pdf.set_auto_page_break(True, _MARGIN)
        pdf.set_creation_date(made)
        pdf.set_title(_plain(report.title))
        pdf.set_lang("en")
        pdf.add_page()

    def finish(self) -> bytes:
        """The file."""
        return bytes(self._pdf.output())

    def heading(self, text: str, size: float, first: Block | None = None) -> None:
        """Write a heading, on the same page as the beginning of the block that follows."""
        pdf = self._pdf
        following = _CHART * HEIGHT / WIDTH if isinstance(first, Chart) else 15.0
        if pdf.will_page_break(15.0 + following):
            pdf.add_page()
        pdf.ln(2 if size == _TITLE else 5)
        self._write(text, size, "B")
        pdf.ln(1)

    def paragraph(self, text: str, size: float = _TEXT, *, quoted: bool = False) -> None:
        """Write a paragraph."""
        if quoted:
            self._pdf.set_fill_color(240)
        self._write(text, size, fill=quoted)
        self._pdf.ln(1.5)

    def add(self, block: Block) -> None:
        """Write any block."""
        if isinstance(block, Paragraph):
            self.paragraph(block.text, quoted=block.quoted)
        elif isinstance(block, Table):
            self._table(block)
        elif isinstance(block, Chart):
            self._chart(block)
        elif isinstance(block, Legend):
            self._legend(block)
        else:
            self._pictures(block)

    def _write(self, text: str, size: float, style: str = "", *, fill: bool = False) -> None:
        self._font(size, style)
        self._pdf.multi_cell(
            0, self._height(size), _plain(text), fill=fill, align="L",
            new_x=XPos.LMARGIN, new_y=YPos.NEXT,
        )  # fmt: skip

    def _font(self, size: float, style: str = "") -> None:
        self._pdf.set_font(_FONT, style, size)

    @staticmethod
    def _height(size: float) -> float:
        return size * _POINT * _LEADING

    def _table(self, table: Table) -> None:
        pdf = self._pdf
        columns = len(table.rows[0]) if table.rows else len(table.columns)
        widths = self._widths(table, columns)
        self._font(_SMALL)
        plain, bold = FontFace(emphasis=""), FontFace(emphasis="BOLD")
        pdf.set_fill_color(255)
        with pdf.table(
            col_widths=widths,
            width=int(pdf.epw),
            line_height=self._height(_SMALL),
            borders_layout="HORIZONTAL_LINES",
            text_align="LEFT",
            first_row_as_headings=bool(table.columns),
            headings_style=bold,
            padding=0.6,
        ) as written:
            for cells in (*((table.columns,) if table.columns else ()), *table.rows):
                row = written.row()
                for number, text in enumerate(cells):
                    row.cell(_plain(text), style=plain if number else bold)
        pdf.ln(1.5)
        if table.note:
            self.paragraph(table.note, _SMALL)

    def _widths(self, table: Table, columns: int) -> tuple[float, ...]:
        """Shares of the width: as much as the longest text of a column needs, within limits."""
        rows = (*((table.columns,) if table.columns else ()), *table.rows)
        self._font(_SMALL, "B")
        longest = [
            max(self._pdf.get_string_width(_plain(row[i])) for row in rows) + 3
            for i in range(columns)
        ]
        return tuple(min(width, self._pdf.epw * 0.7) for width in longest)

    def _pictures(self, row: PictureRow) -> None:
        pdf = self._pdf
        number = min(_PICTURES, max(2, len(row.pictures)))
        width = (pdf.epw - _GAP * (number - 1)) / number
        for first in range(0, len(row.pictures), number):
            pictures = row.pictures[first : first + number]
            pixels = [stretched(picture) for picture in pictures]
            sizes = []
            for rows, columns in (array.shape[:2] for array in pixels):
                height = min(width * rows / columns, _TALLEST)
                sizes.append((height * columns / rows, height))
            tallest = max(height for _, height in sizes)
            if pdf.will_page_break(tallest + 14):
                pdf.add_page()
            top, lowest = pdf.get_y(), 0.0
            for i, (picture, array, (w, h)) in enumerate(zip(pictures, pixels, sizes, strict=True)):
                x = pdf.l_margin + i * (width + _GAP)
                pdf.image(io.BytesIO(png(array)), x, top, w, h, alt_text=_plain(picture.caption))
                pdf.set_xy(x, top + tallest + 1)
                self._font(_SMALL)
                pdf.multi_cell(width, self._height(_SMALL), _plain(picture.caption), align="L")
                lowest = max(lowest, pdf.get_y())
            pdf.set_xy(pdf.l_margin, lowest + 2)

    def _legend(self, legend: Legend) -> None:
        pdf = self._pdf
        self._font(_SMALL)
        side = self._height(_SMALL) * 0.7
        for color, text in legend.entries:
            needed = side + 2 + pdf.get_string_width(_plain(text)) + 5
            if pdf.get_x() + needed > pdf.w - pdf.r_margin:
                pdf.ln(self._height(_SMALL))
            pdf.set_fill_color(*_rgb(color))
            pdf.rect(pdf.get_x(), pdf.get_y() + side * 0.2, side, side, "DF")
            pdf.set_x(pdf.get_x() + side + 1)
            pdf.cell(needed - side - 1, self._height(_SMALL), _plain(text))
        pdf.ln(self._height(_SMALL) + 1.5)

    def _chart(self, chart: Chart) -> None:
        pdf, height = self._pdf, _CHART * HEIGHT / WIDTH
        if pdf.will_page_break(height):
            pdf.add_page()
        draw(chart, _PdfCanvas(pdf, pdf.l_margin, pdf.get_y(), _CHART / WIDTH))
        pdf.set_draw_color(0)
        pdf.set_line_width(0.2)
        pdf.set_xy(pdf.l_margin, pdf.get_y() + height + 2)


class _PdfCanvas:
    """A place on a page.

    Parameters
    ----------
    pdf
        The pages.
    left, top
        The place, mm.
    scale
        Millimeters a unit.
    """

    def __init__(self, pdf: FPDF, left: float, top: float, scale: float) -> None:
        self._pdf, self._left, self._top, self._scale = pdf, left, top, scale

    def _place(self, at: Point) -> Point:
        return self._left + at[0] * self._scale, self._top + at[1] * self._scale

    def line(self, points: Sequence[Point], color: str | None, width: float) -> None:
        self._pdf.set_draw_color(*_rgb(color or "#000000"))
        self._pdf.set_line_width(width * self._scale)
        self._pdf.polyline([self._place(p) for p in points])

    def dot(self, center: Point, radius: float, color: str | None) -> None:
        x, y = self._place(center)
        r = radius * self._scale
        self._pdf.set_fill_color(*_rgb(color or "#000000"))
        self._pdf.ellipse(x - r, y - r, 2 * r, 2 * r, "F")

    def text(self, at: Point, text: str, anchor: Anchor, *, turned: bool = False) -> None:
        pdf = self._pdf
        pdf.set_font(_FONT, "", 11 * self._scale / _POINT)
        text = _plain(text)
        x, y = self._place(at)
        shift = {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor] * pdf.get_string_width(text)
        if turned:
            with pdf.rotation(90, x, y):
                pdf.text(x - shift, y, text)
        else:
            pdf.text(x - shift, y, text)


def _rgb(color: str) -> tuple[int, int, int]:
    """A color "#rrggbb" as numbers."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
