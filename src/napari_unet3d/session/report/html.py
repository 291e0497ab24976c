"""Writes a report as one HTML file that needs no other file and no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_unet3d.session.report.content import (
    Block,
    Chart,
    Legend,
    Paragraph,
    Picture,
    PictureRow,
    Report,
    Table,
)
from napari_unet3d.session.report.drawing import HEIGHT, WIDTH, Anchor, Point, draw

_STYLE = """
:root { color-scheme: light dark;
        --text: #1a1a1a; --page: #ffffff; --soft: #f0f0f0; --line: #c4c4c4 }
@media (prefers-color-scheme: dark) {
  :root { --text: #e8e8e8; --page: #1c1c1e; --soft: #2a2a2d; --line: #58585c }
}
body { max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: var(--text);
       background: var(--page); font: 16px/1.5 system-ui, sans-serif }
h1 { font-size: 1.6rem; line-height: 1.25 } h2 { font-size: 1.2rem; margin-top: 2.2rem }
table { border-collapse: collapse; margin: .6rem 0; font-size: .92rem }
th, td { padding: .25rem .7rem .25rem 0; text-align: left; vertical-align: top;
         border-bottom: 1px solid var(--line) }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
.wide { overflow-x: auto }
.note { font-size: .88rem }
blockquote { margin: .6rem 0; padding: .6rem 1rem; background: var(--soft) }
.row { display: flex; flex-wrap: wrap; gap: .8rem }
figure { margin: .4rem 0; flex: 1 1 11rem; max-width: 24rem } figcaption { font-size: .85rem }
figure img { width: 100%; height: auto; display: block; image-rendering: pixelated }
svg { width: 100%; max-width: 34rem; height: auto; font: 11px system-ui, sans-serif }
.swatch { display: inline-block; width: .8rem; height: .8rem; margin: 0 .35rem 0 1rem;
          border: 1px solid var(--line) }
@media print { body { margin: 0; max-width: none } }
"""


def to_html(report: Report) -> str:
    """The report as the text of an HTML file."""
    title = escape(report.title)
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body><main>",
        f"<h1>{title}</h1>",
        f'<p class="note">{escape(report.made)}</p>',
    ]
    for section in report.sections:
        parts.append(f"<section><h2>{escape(section.title)}</h2>")
        parts += [_block(block) for block in section.blocks]
        parts.append("</section>")
    return "\n".join([*parts, "</main></body></html>", ""])


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A picture (height, width, 3) as PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()


def stretched(picture: Picture) -> NDArray[np.uint8]:
    """The pixels of a picture with square pixels."""
    if 0.99 < picture.ratio < 1.01:
        return picture.pixels
    height, width = picture.pixels.shape[:2]
    tall, wide = (picture.ratio, 1.0) if picture.ratio > 1 else (1.0, 1 / picture.ratio)
    size = max(1, round(width * wide)), max(1, round(height * tall))
    return np.asarray(Image.fromarray(picture.pixels).resize(size, Image.Resampling.NEAREST))


def _block(block: Block) -> str:
    if isinstance(block, Paragraph):
        text = f"<p>{escape(block.text)}</p>"
        return f"<blockquote>{text}</blockquote>" if block.quoted else text
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Chart):
        return svg(block)
    if isinstance(block, Legend):
        entries = "".join(
            f'<span class="swatch" style="background:{escape(color)}"></span>{escape(text)}'
            for color, text in block.entries
        )
        return f'<p class="note">{entries}</p>'
    return _pictures(block)


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in table.columns)
    lines = ['<div class="wide"><table>']
    if head:
        lines.append(f"<thead><tr>{head}</tr></thead>")
    lines.append("<tbody>")
    for first, *rest in table.rows:
        cells = "".join(f"<td>{escape(text)}</td>" for text in rest)
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    lines.append("</tbody></table></div>")
    if table.note:
        lines.append(f'<p class="note">{escape(table.note)}</p>')
    return "\n".join(lines)


def _pictures(row: PictureRow) -> str:
    figures = []
    for picture in row.pictures:
        data = base64.b64encode(png(stretched(picture))).decode("ascii")
        caption = escape(picture.caption)
        figures.append(
            f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    return f'<div class="row">{"".join(figures)}</div>'


def svg(chart: Chart) -> str:
    """A chart as an SVG element; it is also a file of its own."""
    canvas = _Svg()
    draw(chart, canvas)
    name = escape(f"{chart.title}: {chart.y} against {chart.x}")
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" role="img" '
        f'viewBox="0 0 {WIDTH:g} {HEIGHT:g}"><title>{name}</title>'
        f"{''.join(canvas.parts)}</svg>"
    )


class _Svg:
    """Collects the elements of an SVG; the color of the text is the default."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def line(self, points: Sequence[Point], color: str | None, width: float) -> None:
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(
            f'<polyline points="{text}" fill="none" stroke="{color or "currentColor"}" '
            f'stroke-width="{width:g}"/>'
        )

    def dot(self, center: Point, radius: float, color: str | None) -> None:
        x, y = center
        self.parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{color or "currentColor"}"/>'
        )

    def text(self, at: Point, text: str, anchor: Anchor, *, turned: bool = False) -> None:
        x, y = at
        turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor"{turn}>'
            f"{escape(text)}</text>"
        )
