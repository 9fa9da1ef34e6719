"""What /proc says of a process."""

from __future__ import annotations

import os
from pathlib import Path


def bytes_written(pid: int) -> int:
    """How many bytes the process has made the kernel write to disks."""
    return _fields(f"/proc/{pid}/io")["write_bytes"]


def memory_mib(pid: int, *, peak: bool = False) -> float:
    """Resident memory, now or at its peak."""
    return _fields(f"/proc/{pid}/status")["VmHWM" if peak else "VmRSS"] / 1024


def processor_seconds(pid: int) -> float:
    """Processor time used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """The processes that it has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wakeups(pid: int) -> int:
    """How often one of the process's threads was woken from sleep so far."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(_fields(f"{task}/status")["voluntary_ctxt_switches"] for task in tasks)


def _fields(path: str) -> dict[str, int]:
    fields = {}
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        number = value.split()[0] if value.split() else ""
        if number.isdigit():
            fields[name] = int(number)
    return fields
