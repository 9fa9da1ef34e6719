"""The store that `store.url` names: a file of SQLite, or a database on a PostgreSQL server.

Who uses SQLite doesn't need PostgreSQL's driver, and doesn't pay for it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..clock import Clock
from ..config.checks import is_postgres, sqlite_path
from ..config.schema import Config
from ..errors import MissingExtra, StoreError
from ..telemetry.metrics import Metrics
from .files import disk
from .sqlite import LOG_BYTES_KEPT, SqliteStore
from .store import Store

_NAME_BYTES = 48
_LOG_PART = 8


def make_store(
    config: Config,
    part: str,
    *,
    metrics: Metrics,
    clock: Clock,
    exclusive: bool = False,
    make: bool = False,
    session: bool = True,
) -> Store:
    """The store of a configuration, not open yet. `part` is what this program is called, `run`, `work` or `command`.

    `exclusive` is for the appliance, of which there may be one; others open the store beside it, and only with `make`
    one that isn't there yet. Without `session`, what others commit may go unnoticed, and nothing can be owned: for
    commands that do one thing. Raises StoreError: see `place`.
    """
    settings = config.store
    if not is_postgres(settings.url):
        path, kept = sqlite_path(settings.url), settings.retention
        log_bytes = _log_bytes(path, kept.max_size)
        return SqliteStore(
            path,
            metrics=metrics,
            clock=clock,
            durability=settings.durability,
            commit_interval_seconds=float(settings.commit_interval),
            exclusive=exclusive,
            make=make,
            log_bytes_kept=log_bytes,
            room_kept=min(log_bytes, kept.min_free_disk // 2),  # less than what retention strives for
        )
    place(settings.url)
    from .postgres.store import PostgresStore

    return PostgresStore(
        settings.url,
        metrics=metrics,
        clock=clock,
        part=f"{config.gateway} {part}",
        durability=settings.durability,
        commit_interval_seconds=float(settings.commit_interval),
        make=make or exclusive,
        session=session,
    )


def _log_bytes(path: str, size_max: int | None) -> int:
    """How long the log of a file may become that may be so large: no more than a part of it, and of its disk."""
    parts = [size // _LOG_PART for size in (size_max, disk(path)["disk_bytes"]) if size]
    return min([LOG_BYTES_KEPT, *parts])


def place(url: str) -> str:
    """Where the store is, for people: a path, or a database on a server, without its password.

    Raises MissingExtra when its driver isn't installed, StoreError when that doesn't understand the URL.
    """
    if not is_postgres(url):
        return sqlite_path(url)
    try:
        from psycopg import ProgrammingError

        from .postgres.connecting import place as place_of
    except ImportError:
        raise MissingExtra("a store on PostgreSQL", "postgres") from None
    try:
        return place_of(url)
    except ProgrammingError as error:
        raise StoreError(f"PostgreSQL's driver doesn't understand the url: {error}".strip()) from None


# What the programs on one machine have beside the store, such as the appliance's control socket


def local_bases(config: Config, environ: Mapping[str, str] = os.environ) -> Iterator[str]:
    """What the paths of local files begin with: beside a file of SQLite; for a database elsewhere, in the first of
    several folders that can be had, so whoever looks for such a file looks at each."""
    url = config.store.url
    if not is_postgres(url):
        yield sqlite_path(url)
        return
    # A machine may have gateways of one name, and a socket's name has room for 107 bytes only.
    number = hashlib.sha256(f"{config.gateway} {place(url)}".encode()).hexdigest()[:8]
    name = config.gateway.encode()[:_NAME_BYTES].decode(errors="ignore")
    for folder in _folders(environ):
        yield str(folder / f"{name}-{number}")


def local_base(config: Config, environ: Mapping[str, str] = os.environ) -> str:
    """The first of `local_bases` at which files can be made, and its folder with it."""
    bases = list(local_bases(config, environ))
    if not is_postgres(config.store.url):
        return bases[0]
    return next((base for base in bases if _usable(Path(base).parent)), bases[-1])


def _folders(environ: Mapping[str, str]) -> Iterator[Path]:
    if given := environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]:
        yield Path(given)
    yield Path("/run/edgeq")
    if own := environ.get("XDG_RUNTIME_DIR"):
        yield Path(own) / "edgeq"
    yield Path(environ.get("TMPDIR") or "/tmp") / f"edgeq-{os.geteuid()}"  # noqa: S108 - see _usable


def _usable(folder: Path) -> bool:
    """Whether the folder is there, made if need be, and no stranger's: others may write to where it stands."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid in (0, os.geteuid()) and os.access(folder, os.W_OK | os.X_OK)
