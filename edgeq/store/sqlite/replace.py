"""Another file in the place of the database's, which stays beside it: at no moment is there no database.

The one that goes gets a second name first, and so does its log. Only then is the log taken from the first name, and the
new file put there. A log that stood beside a database that isn't its own would destroy that. Who is interrupted before
the new file is there has changed nothing: `undo` puts the log back.
"""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime
from pathlib import Path

from ...failpoints import failpoint

_LOGS = ("-wal", "-shm")


def aside_name(path: str, why: str, now: int) -> str:
    """Where a database goes that is put aside now, in microseconds since 1970 UTC."""
    return f"{path}.{why}-{datetime.fromtimestamp(now / 1e6, UTC):%Y%m%dT%H%M%S.%fZ}"


def put_in_place(new: str, path: str, aside: str) -> None:
    """Have `new`, which nobody has open, stand at `path`, and what stands there at `aside`. Raises OSError."""
    to_disk(new)
    if os.path.exists(path):
        for suffix in ("", "-wal"):
            if os.path.exists(path + suffix):
                _name_too(path + suffix, aside + suffix)
        to_disk(os.path.dirname(os.path.abspath(path)))
        failpoint("replace.linked")
    for suffix in _LOGS:
        _unlink(path + suffix)
    failpoint("replace.alone")
    os.replace(new, path)
    to_disk(os.path.dirname(os.path.abspath(path)))
    failpoint("replace.done")


def undo(path: str) -> None:
    """Make good what an interrupted `put_in_place` has left: the database has its log again, and one name."""
    folder, name = os.path.split(os.path.abspath(path))
    for aside in Path(folder).glob(f"{_literal(name)}.*Z"):
        if not (os.path.exists(path) and aside.samefile(path)):
            continue
        log = f"{aside}-wal"
        if os.path.exists(log) and not os.path.exists(f"{path}-wal"):
            os.link(log, f"{path}-wal")
        _unlink(log)
        aside.unlink()


def to_disk(path: str) -> None:
    """Have a file or a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _name_too(path: str, also: str) -> None:
    """A second name. A file system that knows no such thing has the file moved."""
    try:
        os.link(path, also)
    except FileExistsError:
        raise
    except OSError:
        os.replace(path, also)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _literal(name: str) -> str:
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)
