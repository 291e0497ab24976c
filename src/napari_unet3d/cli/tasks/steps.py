"""Shows the steps of a task: as a bar on a terminal, as a line for each tenth elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TextColumn

from napari_unet3d.cli.terminal import errors


class Steps:
    """A progress bar, within a ``with`` block.

    Parameters
    ----------
    task
        Words at the beginning of each line where there is no terminal.
    """

    def __init__(self, task: str) -> None:
        self._task, self._plain = task, not errors.is_terminal
        self._printed = ("", -1)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            console=errors,
            redirect_stdout=False,  # results go there
            disable=self._plain,
        )
        self._line = self._bar.add_task(task, total=1.0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show(self, step: str, fraction: float) -> None:
        """Show which step is done how far, 0 to 1."""
        self._bar.update(self._line, description=step, completed=fraction)
        printed = step, int(10 * fraction)
        if self._plain and printed != self._printed:
            self._printed = printed
            errors.print(f"{self._task}: {step} {10 * printed[1]} %")
