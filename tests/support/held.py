"""What a process holds on to: descriptors, threads, memory, its place on the disk."""

from __future__ import annotations

import os
from pathlib import Path


def descriptors(pid: int) -> list[str]:
    """What its open descriptors lead to, in order."""
    found = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(each))
        except FileNotFoundError:  # closed meanwhile
            continue
    return sorted(found)


def threads(pid: int) -> int:
    """How many it has."""
    return len(os.listdir(f"/proc/{pid}/task"))


def memory_kib(pid: int) -> int:
    """Resident memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])
