"""Paths as users write them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from napari_unet3d.errors import BadInputError

_UNUSABLE = {
    errno.ELOOP: "it is a link that leads back to itself",
    errno.EACCES: "you may not look into the folder",
    errno.EINVAL: "such a name cannot be used here",
}


def user_path(text: str | os.PathLike[str]) -> Path:
    """Make a path from what a user wrote; "~" and "~name" stand for home folders.

    Raises
    ------
    BadInputError
        No such user, a name that is too long or holds a null character, links that lead in a
        circle, or a folder that may not be looked into. Nothing needs to be there.
    """
    written = os.fspath(text)
    if not written or "\0" in written:
        raise BadInputError(f"{written!r} is no path: give the name of a file or folder.")
    path = Path(written)
    try:
        path = path.expanduser()
    except RuntimeError:
        # A file may be called so, too: a shell writes its name as it is.
        if not os.path.lexists(path):
            raise BadInputError(
                f"'{path}': there is no home folder of '{path.parts[0].removeprefix('~')}'. Write "
                "the path in full."
            ) from None
        path = Path.cwd() / path
    try:
        path.stat()
    except (OSError, ValueError) as error:
        reason = _UNUSABLE.get(getattr(error, "errno", None) or errno.ENOENT)
        if getattr(error, "errno", None) == errno.ENAMETOOLONG:
            longest = max(len(os.fsencode(part)) for part in path.parts)
            reason = f"a name in it has {longest} bytes, more than the system allows"
        if reason is not None:
            raise BadInputError(f"'{path}' cannot be used: {reason}. Check the path.") from error
    return path
