"""How much main memory is left to this process."""

from __future__ import annotations

from pathlib import Path

import psutil

_NO_LIMIT = 1 << 62
"""Bytes: more than any machine has."""
_CONTROL_GROUPS = Path("/sys/fs/cgroup")


def free_main_memory() -> int:
    """Bytes that can still be taken, under the limits of the machine and of a container.

    The limit of a job under cgroup v1 cannot be seen.
    """
    return min(int(psutil.virtual_memory().available), _left_in_container())


def _left_in_container() -> int:
    """Bytes left under the limits of the container or job (cgroup v2), which psutil ignores."""
    left = _NO_LIMIT
    try:
        own = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip().lstrip("/")
        for group in (_CONTROL_GROUPS / own, *(_CONTROL_GROUPS / own).parents):
            if (group / "memory.max").is_file():
                left = min(left, left_in_group(group))
            if group == _CONTROL_GROUPS:
                break
    except OSError:
        pass
    return left


def left_in_group(group: Path) -> int:
    """Bytes left under the limit of one control group, given its folder.

    The pages of files that were read count as used there, but the kernel gives them back when
    memory is short, so they count as free here.
    """
    limit = (group / "memory.max").read_text().strip()
    if not limit.isdigit():  # "max": no limit
        return _NO_LIMIT
    used = int((group / "memory.current").read_text())
    lines = (group / "memory.stat").read_text().splitlines()
    statistics = dict(line.split() for line in lines if len(line.split()) == 2)
    return max(int(limit) - used + int(statistics.get("inactive_file", 0)), 0)
