"""Shows the scores of the classes as a narrow table."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtWidgets import QAbstractItemView

from napari_unet3d.prediction.intervals import Estimate
from napari_unet3d.session.quality import ClassQuality, show_estimate
from napari_unet3d.widgets.parts.narrow_table import RIGHT, NarrowTable, cell
from napari_unet3d.widgets.parts.swatches import swatch

Rows = tuple[ClassQuality, ...]


class ScoreTable(NarrowTable):
    """A display of one row a class: IoU with its interval, Dice, distance between borders.

    The rows are its value; without rows it is hidden.

    Parameters
    ----------
    name
        Its name for screen readers.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, most_rows=10)
        self._rows: Rows = ()
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setValue(())

    def value(self) -> Rows:
        """The rows that are shown."""
        return self._rows

    def setValue(self, rows: Sequence[ClassQuality], unit: str = "") -> None:
        """Show rows.

        Parameters
        ----------
        rows
            One a class; the mean of the classes may follow.
        unit
            Of the distances. The column is left out where none was measured.
        """
        self._rows = tuple(rows)
        measured = any(row.distance.value is not None for row in rows)
        titles = [cell("Class"), cell("IoU", RIGHT), cell("Dice", RIGHT)]
        if measured:
            titles.append(cell(_short(unit), RIGHT))
            titles[-1].setToolTip(
                f"Mean distance between the borders, in {unit or 'the unit of the stack'}, within "
                "the slice (mean symmetric surface distance)."
            )
        titles[1].setToolTip("Intersection over union; in brackets its 95 % interval.")
        self.set_titles(titles, stretched=0)
        self.setRowCount(len(rows))
        for number, row in enumerate(rows):
            name = cell(row.name)
            name.setToolTip(_details(row, unit))
            if row.color is not None:
                name.setIcon(swatch(row.color))
            self.setItem(number, 0, name)
            self._set(number, 1, row.iou, show_estimate(row.iou), row, unit)
            self._set(number, 2, row.dice, _plain(row.dice), row, unit)
            if measured:
                self._set(number, 3, row.distance, _plain(row.distance), row, unit)
        self.fit_height()
        self.setVisible(bool(rows))

    def _set(
        self, number: int, column: int, estimate: Estimate, text: str, row: ClassQuality, unit: str
    ) -> None:
        item = cell(text, RIGHT)
        item.setToolTip(
            _details(row, unit)
            if estimate.value is not None
            else ""
            if row.color is None
            else "This class is neither painted nor predicted there, or has no border."
        )
        self.setItem(number, column, item)


def _short(unit: str) -> str:
    return {"pixel": "px", "": "Distance"}.get(unit, unit)


def _plain(estimate: Estimate) -> str:
    return "—" if estimate.value is None else f"{estimate.value:.2f}"


def _details(row: ClassQuality, unit: str) -> str:
    lines = [f"{row.name}: IoU {show_estimate(row.iou)}", f"Dice {show_estimate(row.dice)}"]
    if row.distance.value is not None:
        lines += [
            f"mean surface distance {show_estimate(row.distance)} {unit}",
            f"95 % Hausdorff distance {show_estimate(row.distance95)} {unit}",
        ]
    if row.voxels is not None:
        lines.append(f"{row.voxels:,} voxels painted on {row.iou.slices or 1} slice(s)")
    return "\n".join(lines)
