"""A copy of the database, made while it is used, and looked at before it counts as one.

What can be relied on:

- It is the store as it was at one moment. Who writes to the store doesn't wait for the copy, nor for its disk.
- All that time the log can't be begun anew: it grows by what is written meanwhile. When that is more than half of the
  room that was left, or LOG_BYTES_MAX, the copy is given up.
- It is written as NAME.part, brought to the disk, read from there and checked, and only then gets its name. Whatever
  else is found under such a name was never finished, and goes with the next backup.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from ...errors import StoreError, StoreMissing
from ...failpoints import failpoint
from ..files import disk
from . import faults, patience
from .engine import log_path
from .whole import Contents, Watch, asking, contents, unwatched, uri, verify

LOG_BYTES_MAX = 256 * 2**20
PAGES_AT_ONCE = 256
_SYNC_BYTES = 4 * 2**20  # left to the system, a sync of the store would wait for all that is written of the copy
_BESIDE = ("", "-wal", "-shm", "-journal")
_MOMENT = "%Y%m%dT%H%M%S.%fZ"
_NAME_CHARACTERS = 64


class Made(NamedTuple):
    """A backup: where it is, its size in bytes, what it holds, and which older ones went for it."""

    path: str
    size: int
    contents: Contents
    removed: list[str]


def back_up(path: str, to: str, *, gateway: str, now: int, keep: int | None = None, watch: Watch = unwatched) -> Made:
    """Copy the database at `path` to the file `to`, or into the folder `to`, named by the gateway and the moment `now`
    (microseconds since 1970 UTC). With `keep`, only the newest so many of this gateway's stay in that folder.

    Raises StoreError: no such folder, a file of that name, no room, a damaged database. Nothing is left of it then.
    """
    if not os.path.exists(path):
        raise StoreMissing(f"there is no database at {path}", hint="start edgeq once, or give its configuration, -c")
    folder, name = _place(to, gateway, now)
    part = os.path.join(folder, f"{name}.part")
    with _alone(folder):
        _clean(folder, part, gateway)
        try:
            seen = copy_to(path, part, watch)
            failpoint("backup.copied")
            with _writing(part):
                _to_disk(part, again=True)
            if verify(part, watch) != seen:
                raise StoreError(f"what was written to {part} is not what {path} holds", hint="look at that disk")
            failpoint("backup.verified")
            with _writing(part):
                os.replace(part, os.path.join(folder, name))
                _to_disk(folder)
        except BaseException:
            remove_part(part)
            raise
        removed = [] if keep is None else _rotate(folder, gateway, keep, now)
    made = os.path.join(folder, name)
    return Made(made, os.stat(made).st_size, seen, removed)


def backups(folder: str, gateway: str) -> list[tuple[int, str]]:
    """The backups of a gateway in a folder, with when each was made in microseconds since 1970 UTC, the oldest first.
    Raises OSError."""
    pattern = re.compile(rf"edgeq-{re.escape(_word(gateway))}-(\d{{8}}T\d{{6}}\.\d{{6}}Z)\.db")
    found = []
    for name in os.listdir(folder):
        if (match := pattern.fullmatch(name)) is not None:
            with contextlib.suppress(ValueError):
                moment = datetime.strptime(match[1], _MOMENT).replace(tzinfo=UTC)
                found.append((round(moment.timestamp() * 1e6), os.path.join(folder, name)))
    return sorted(found)


def newest(folder: str, gateway: str, now: int) -> int | None:
    """When the newest backup of a gateway was made, in microseconds since 1970 UTC; None: there is none. One that was
    made after `now` was made while the clock was wrong. Raises StoreError when the folder can't be read."""
    with _writing(folder):
        return max((moment for moment, _ in backups(folder, gateway) if moment <= now), default=None)


def file_name(gateway: str, now: int) -> str:
    """What a backup is called that was made at `now`."""
    return f"edgeq-{_word(gateway)}-{datetime.fromtimestamp(now / 1e6, UTC):{_MOMENT}}.db"


def _word(gateway: str) -> str:
    return re.sub(r"[^\w.-]+", "-", gateway)[:_NAME_CHARACTERS]


def _place(to: str, gateway: str, now: int) -> tuple[str, str]:
    """Folder and name."""
    if os.path.isdir(to):
        return to, file_name(gateway, now)
    folder, name = os.path.split(os.path.abspath(to))
    if to.endswith("/") or not os.path.isdir(folder):
        raise StoreError(
            f"the folder {to if to.endswith('/') else folder} doesn't exist", hint="make it; is its disk mounted?"
        )
    if os.path.lexists(to):
        raise StoreError(f"{to} is there already", hint="name another file, or a folder, and how many to --keep there")
    return folder, name


@contextlib.contextmanager
def _alone(folder: str) -> Iterator[None]:
    """Have the folder for this backup alone, where its file system knows such locks."""
    with _writing(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno == errno.EWOULDBLOCK:
                raise StoreError(f"another backup to {folder} is being made", hint="wait for its end") from None
        yield
    finally:
        os.close(descriptor)


def _clean(folder: str, part: str, gateway: str) -> None:
    """Remove what earlier ones, which were killed, have left."""
    ours = re.compile(rf"edgeq-{re.escape(_word(gateway))}-\d{{8}}T\d{{6}}\.\d{{6}}Z\.db\.part")
    with _writing(folder):
        for name in os.listdir(folder):
            if ours.fullmatch(name):
                remove_part(os.path.join(folder, name))
    remove_part(part)


def remove_part(part: str) -> None:
    """Remove a copy that is none yet."""
    for suffix in _BESIDE:
        with contextlib.suppress(OSError):
            os.unlink(f"{part}{suffix}")


def copy_to(path: str, part: str, watch: Watch) -> Contents:
    """Write a copy of the database at `path` to the file `part`, which isn't there; what it must hold. Raises
    StoreError."""
    with contextlib.closing(
        sqlite3.connect(uri(path, mode="ro"), uri=True, timeout=patience.BUSY_SECONDS, isolation_level=None)
    ) as source:
        try:
            source.execute("PRAGMA cache_size=-512")
            # One snapshot from here on: without it, each commit of another connection would have it begin anew.
            source.execute("BEGIN")
            with asking(source, watch):
                found = contents(source, path)
            size = source.execute("PRAGMA page_count").fetchone()[0] * source.execute("PRAGMA page_size").fetchone()[0]
        except sqlite3.Error as error:
            raise faults.refusal(error, path) from error
        _need_room(part, size)
        limit = min(LOG_BYTES_MAX, disk(path)["free_disk_bytes"] // 2)
        log_before = _log_bytes(path)
        with _writing(part):
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, os.stat(path).st_mode & 0o777)
        try:
            synced = 0

            def step(status: int, remaining: int, total: int) -> None:
                nonlocal synced
                failpoint("backup.step")
                written = (total - remaining) * (size // max(1, total))
                if written - synced >= _SYNC_BYTES:
                    os.fdatasync(descriptor)
                    synced = written
                if _log_bytes(path) - log_before > limit:
                    raise StoreError(
                        f"given up, as the log of {path} would grow too large before the end of the backup",
                        hint="make room beside the database, or back up to a faster disk, or when less is written",
                    )
                watch("copied", total - remaining, total)

            _write(source, path, part, step)
        finally:
            os.close(descriptor)
    return found


def _write(source: sqlite3.Connection, path: str, part: str, step: Callable[[int, int, int], None]) -> None:
    # Nobody else knows this file: it needs neither locks, which not every file system has, nor a journal.
    with contextlib.closing(sqlite3.connect(uri(part, vfs="unix-none"), uri=True, isolation_level=None)) as target:
        try:
            for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=OFF", "synchronous=OFF", "cache_size=-512"):
                target.execute(f"PRAGMA {pragma}")
            with _writing(part):
                source.backup(target, pages=PAGES_AT_ONCE, progress=step)
            target.execute("PRAGMA journal_mode=DELETE")  # can be opened where nothing can be written
        except sqlite3.Error as error:
            if faults.code(error) == sqlite3.SQLITE_FULL:
                raise _full(part) from error
            if faults.code(error) in faults.DAMAGED:
                raise faults.refusal(error, path) from error
            raise StoreError(f"{path} can't be copied to {part}: {error}", hint="look at that disk") from error


def _need_room(part: str, size: int) -> None:
    free = disk(part)["free_disk_bytes"]
    if free < size:
        raise StoreError(
            f"there is no room for the copy: it takes {size} bytes, and {free} are free in {os.path.dirname(part)}",
            hint="make room there, keep fewer backups, or name another disk",
        )


def _full(part: str) -> StoreError:
    return StoreError(
        f"the disk of {os.path.dirname(part)} is full", hint="make room there, keep fewer backups, or name another disk"
    )


@contextlib.contextmanager
def _writing(path: str) -> Iterator[None]:
    """Turn errors of the system into sentences."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(path) from error
        raise StoreError(f"the backup can't be written: {error}", hint="look at that disk, and its rights") from error


def _to_disk(path: str, *, again: bool = False) -> None:
    """Have it survive a power cut; what is read `again` comes from the disk and not from memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        if again:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _rotate(folder: str, gateway: str, keep: int, now: int) -> list[str]:
    """Remove all but the newest. Those that are younger than this one are of a clock that was wrong."""
    with _writing(folder):
        found = sorted(backups(folder, gateway), key=lambda each: (each[0] <= now, each[0]))
        old = [path for _, path in found[:-keep]]
        for path in old:
            Path(path).unlink()
    return old


def _log_bytes(path: str) -> int:
    try:
        return os.stat(log_path(path)).st_size
    except OSError:
        return 0
