"""The command line: train, predict, objects, evaluate, report, info, demo.

Each command has a module of its own that holds its options. Whatever takes seconds to import is
in `tasks`, which a command imports when it runs: `--help` loads no PyTorch.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from napari_unet3d.cli import (
    demo,
    evaluate,
    export,
    info,
    objects,
    predict,
    report,
    reproduce,
    sessions,
    train,
    train_domains,
)
from napari_unet3d.cli.signals import TerminatedError
from napari_unet3d.cli.terminal import LogHandler, errors, guarded, tell
from napari_unet3d.errors import BadInputError, RunFailedError

OpenWindow = Callable[..., None]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


_TYPER_INTERRUPTED = 130
"""Exit code of typer after Ctrl-C; ours is 1."""
_PATH_ERRORS = frozenset(
    {
        errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS,
        errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL,
    }
)  # fmt: skip
"""System errors that a wrong path causes, so the user can cure them: exit code 2."""


def run(arguments: list[str], open_window: OpenWindow) -> int:
    """Carry out a command line.

    Parameters
    ----------
    arguments
        The words after the name of the program.
    open_window
        Opens napari. Its keywords are the layers to show; there are none without a command.

    Returns
    -------
    int
        Exit code: 0 done, 1 the command failed, 2 the input cannot be used, 128 + N ended by
        signal N.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # "—" and "µm" must not end a command
    errors.begin()
    _show_log()
    with guarded():
        return _run(arguments, open_window)


def _run(arguments: list[str], open_window: OpenWindow) -> int:
    try:
        if (session := sessions.to_show(arguments)) is not None:
            open_window(session=session)
            return 0
        chosen = sessions.app if sessions.concerns_session(arguments) else app
        chosen(arguments, prog_name="napari-unet3d", obj=open_window)
    except SystemExit as end:  # how typer ends: 0, or 2 with the usage explained
        code = end.code if isinstance(end.code, int) else 0
        return _complain("interrupted", 1) if code == _TYPER_INTERRUPTED else code
    except TerminatedError as end:
        return _complain(f"{end}; no result was written", end.exit_code)
    except BadInputError as error:
        return _complain(error, 2)
    except RunFailedError as error:
        return _complain(error, 1)
    except Exception as error:
        if os.environ.get("NAPARI_UNET3D_DEBUG"):
            raise
        return _complain(*_in_words(error))
    return 0


def _in_words(error: Exception) -> tuple[str, int]:
    """Write the text and the exit code of an error that the product did not foresee."""
    how = "(NAPARI_UNET3D_DEBUG=1 shows where)"
    if isinstance(error, MemoryError):
        return (
            f"There is not enough memory ({error}). Close other programs, or use a smaller or "
            f"uncompressed stack, which is read piece by piece {how}",
            1,
        )
    if isinstance(error, OSError) and error.errno is not None:
        what = f"'{error.filename}'" if error.filename else "A file"
        if error.errno == errno.EFBIG:
            return f"{what} would be larger than a file may be here (ulimit -f).", 1
        if error.errno in _PATH_ERRORS:
            return f"{what} cannot be used: {error.strerror}. Check the path.", 2
        return f"{what} could not be read or written: {error.strerror} {how}", 1
    return f"{type(error).__name__}: {error} {how}", 1


def _show_log() -> None:
    """Show the log of the package, such as the resolution level that was read from a file."""
    log = logging.getLogger("napari_unet3d")
    if not log.handlers:
        log.addHandler(LogHandler())
        log.setLevel(logging.INFO)


def _complain(what: object, code: int) -> int:
    errors.complain(what)
    return code


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            tell(f"napari-unet3d {version('napari-unet3d')}")
        except PackageNotFoundError:
            tell("napari-unet3d (version not known: it is not installed)")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Segment 3D stacks from a few painted slices with a 3D U-Net.

    Without a command, napari opens with the plugin docked. A first session without it:

        napari-unet3d train stack.tif painted.tif -o model.unet3d --seconds 120

        napari-unet3d predict model.unet3d stack.tif -o segmented.tif

    In *painted.tif*, of the stack's shape, 0 is unlabelled (counts for nothing), 1 is
    background and 2… are your classes. In *segmented.tif*, 0 is background and the classes
    keep their numbers.

    `napari-unet3d stack.tif.unet3d-session` opens the window on this session.

    The window keeps a session beside the image. On any machine, these go on with it, and the
    window opens what they made (`train SESSION --help` tells their options):

        napari-unet3d train stack.tif.unet3d-session

        napari-unet3d predict stack.tif.unet3d-session

        napari-unet3d objects stack.tif.unet3d-session

        napari-unet3d info stack.tif.unet3d-session
    """
    if context.invoked_subcommand is None:
        context.obj()


app.command()(train.train)
app.command()(train_domains.train_domains)
app.command()(predict.predict)
app.command()(objects.objects)
app.command()(evaluate.evaluate)
app.command()(report.report)
app.command()(info.info)
app.command()(demo.demo)
app.command()(reproduce.reproduce)
app.command()(export.export)
app.command("import")(export.import_)
