"""Failures to save, in sentences with the cure."""

from __future__ import annotations

import errno
from pathlib import Path

from napari_unet3d.errors import BadInputError, RunFailedError

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_GONE = tuple(
    getattr(errno, name)
    for name in ("ENOENT", "ENOTDIR", "ENODEV", "ENXIO", "EIO", "ESTALE", "ENOTCONN", "EHOSTDOWN")
    if hasattr(errno, name)
)


def explain(error: Exception, folder: Path) -> str:
    """Say why a session folder cannot be written, and what to do.

    Parameters
    ----------
    error
        What happened; errors of the product have their own words.
    folder
        The session folder.
    """
    if isinstance(error, BadInputError | RunFailedError):
        return str(error)
    number = getattr(error, "errno", None)
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if number in _FULL:
        return f"The disk of '{folder}' is full. Free some space."
    if number == errno.EFBIG:
        return (
            f"A file in '{folder}' would be larger than files may be here. Raise the limit "
            "(ulimit -f), or save the session on another disk."
        )
    if number in _READ_ONLY:
        return (
            f"'{folder}' cannot be written to ({reason}). Allow writing, or save the session in "
            "another folder."
        )
    if number in _GONE:
        return (
            f"'{folder}' cannot be reached ({reason}): its disk is gone, or the folder was moved "
            "or deleted. Bring it back, or save the session in another folder."
        )
    return f"'{folder}' could not be written ({reason}). Save the session in another folder."
