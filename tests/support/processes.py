"""Processes that a test didn't start itself: whether they are there, and what they have written."""

from __future__ import annotations

from pathlib import Path

from edgeq.testing.waiting import until

START_SECONDS = 120.0  # for interpreters to start on a busy machine


def there(pid: int) -> bool:
    """Whether the process exists and isn't a zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


async def gone(pid: int) -> None:
    """Return when the process has ended."""
    await until(lambda: not there(pid), f"the end of process {pid}", deadline_seconds=START_SECONDS)


async def written(file: Path) -> str:
    """What a job has written, once it has."""
    what = f"{file.name} to be written"
    text: str = await until(lambda: file.exists() and file.read_text(), what, deadline_seconds=START_SECONDS)
    return text
