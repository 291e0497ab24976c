"""Print messages on stderr and results on stdout.

Printing never stops the work: texts that cannot be printed are dropped. Texts from models and files
are shown as they are; neither the terminal nor rich interprets them.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text

from napari_unet3d.errors import RunFailedError

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of characters that control a terminal, change the direction of writing, or
are no text."""


def visible(text: object, keep: str = "") -> str:
    r"""Write the control characters of an untrusted text as "\u001b", so that no terminal obeys.

    An escaped JSON text is still the same JSON.

    Parameters
    ----------
    text
        A name, a path, a message.
    keep
        Control characters that stay, such as the line breaks of our own texts.
    """
    return "".join(
        c if c in keep or unicodedata.category(c) not in _INVISIBLE else _escaped(c)
        for c in str(text)
    )


def _escaped(character: str) -> str:
    number = ord(character)
    return json.dumps(character)[1:-1] if number > 0xFFFF else f"\\u{number:04x}"


class Messages(Console):
    """Prints messages on stderr as plain text; prints none when the user wants results only.

    Attributes
    ----------
    notes
        Texts that `note` was given since the command began, whether they were shown or not.
    """

    def __init__(self) -> None:
        super().__init__(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
        self.notes: list[str] = []

    def begin(self) -> None:
        """Start a command: forget the notes, and show messages."""
        self.notes, self.quiet = [], False

    def set_quiet(self, quiet: bool) -> None:
        """Drop messages, because the user wants results only, or show them again."""
        self.quiet = quiet

    def print(self, *objects: Any, **options: Any) -> None:
        """Print objects as rich does, but texts as they are."""
        shown = [visible(o, "\n\t") if isinstance(o, str) else o for o in objects]
        super().print(*shown, **options)

    def note(self, text: str) -> None:
        """Print a text that the user should know, and remember it for `--json`."""
        self.notes.append(text)
        self.print(text)

    def complain(self, text: object) -> None:
        """Print an error, even to a user who wants results only."""
        self.quiet = False
        self.print(Text("error:", "bold red"), end=" ")
        self.print(str(text))


errors = Messages()


def tell(text: str) -> None:
    """Print a result on stdout."""
    print(visible(text, "\n\t"), flush=True)


def check_told() -> None:
    """Raise `RunFailedError` when stdout, which alone has the result, could not be written.

    A reader that ends early, such as `head`, is no failure: it read all that it wanted.
    """
    failure = getattr(sys.stdout, "failure", None)
    if failure is not None and not isinstance(failure, BrokenPipeError):
        reason = getattr(failure, "strerror", None) or failure
        raise RunFailedError(f"The result could not be written to stdout ({reason}).")


def tell_json(data: Any) -> None:
    """Print a result as one JSON object on stdout."""
    tell(json.dumps(data, ensure_ascii=False, default=str))


class LogHandler(RichHandler):
    """Shows a log on the terminal."""

    def __init__(self) -> None:
        super().__init__(console=errors, show_time=False, show_path=False, markup=False)

    def render_message(self, record: Any, message: str) -> Any:
        """Show the message as it is."""
        return super().render_message(record, visible(message, "\n\t"))


class _Guarded:
    """A stream that drops texts when they cannot be written: full disk, reader gone."""

    def __init__(self, stream: Any) -> None:
        # A stream that was closed before the start is None. The null device takes its number,
        # so that no file of ours gets it.
        self._stream = open(os.devnull, "w", encoding="utf-8") if stream is None else stream  # noqa: SIM115
        self.failure: Exception | None = OSError("it is closed") if stream is None else None

    def write(self, text: str) -> int:
        with self._dropped():
            self._stream.write(text)
        return len(text)

    @contextlib.contextmanager
    def _dropped(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            self.failure = error

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with self._dropped():
            self._stream.flush()

    def isatty(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return bool(self._stream.isatty())
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Keep printing from raising, within the block and at Python's last flush after it."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Guarded(before[0]), _Guarded(before[1])
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in before:
            _flush_or_drop(stream)


def _flush_or_drop(stream: Any) -> None:
    """Flush a stream; when that fails, send the rest of its buffer to the null device."""
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
