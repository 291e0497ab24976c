"""What is printed where: messages go to stderr, so that stdout holds results only.

Printing never stops the work: what cannot be printed is dropped. Texts from models and files are
shown as they are, not interpreted.
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
"""Categories of characters that steer a terminal, change the direction, or are no text."""


def visible(text: object, keep: str = "") -> str:
    r"""Write control characters of an untrusted text as in "\u001b", so that nothing obeys them.

    What is escaped in a JSON text stays the same JSON.

    Parameters
    ----------
    text
        A name, a path, a message.
    keep
        Control characters that stay, such as line breaks of our own.
    """
    return "".join(
        c if c in keep or unicodedata.category(c) not in _INVISIBLE else _escaped(c)
        for c in str(text)
    )


def _escaped(character: str) -> str:
    number = ord(character)
    return json.dumps(character)[1:-1] if number > 0xFFFF else f"\\u{number:04x}"


class Messages(Console):
    """Messages on stderr, never parsed as markup; quiet when the user wants results only.

    Attributes
    ----------
    notes
        What `note` has shown, or would have shown, since the command began.
    """

    def __init__(self) -> None:
        super().__init__(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
        self.notes: list[str] = []

    def begin(self) -> None:
        """Start a command: nothing is noted yet, and everything is shown."""
        self.notes, self.quiet = [], False

    def set_quiet(self, quiet: bool) -> None:
        """Drop messages, because the user wants results only, or show them again."""
        self.quiet = quiet

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, but texts as they are."""
        shown = [visible(o, "\n\t") if isinstance(o, str) else o for o in objects]
        super().print(*shown, **options)

    def note(self, text: str) -> None:
        """Print something that the user should know, and remember it for `--json`."""
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
    """Raise `RunFailedError` when a result was lost that is nowhere but on stdout.

    A reader that ends early, such as `head`, has had what it wanted.
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
    """A stream that drops what cannot be written: a full disk, a reader that has gone."""

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
    """Within, printing raises nothing; afterwards, neither does Python's own last flush."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Guarded(before[0]), _Guarded(before[1])
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in before:
            _flush_or_drop(stream)


def _flush_or_drop(stream: Any) -> None:
    """Flush a stream; what it still holds goes to the null device when that fails."""
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
