"""A PostgreSQL server as a child process on a free port, with what can befall one."""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

from .mosquitto import free_port

DEADLINE_SECONDS = 120.0
MEMORY_BYTES = 2 * 2**30
ROLE = "edgeq"  # what tests connect as: it owns their databases, and may no more than that
_STOPS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "100",
    "shared_buffers": "16MB",
    "dynamic_shared_memory_type": "mmap",  # in its folder, and gone with it
    "max_wal_size": "128MB",
    "min_wal_size": "32MB",
    "log_line_prefix": "%m [%p] %a: ",
    "timezone": "UTC",
}
# Ends the server and removes its folder when its input ends: also when the tests were killed.
_GUARD = 'cat; p=$(head -n 1 "$1/data/postmaster.pid") && kill -QUIT $p; kill -CONT $p; rm -rf "$1"'


def find_postgres() -> Path | None:
    """The folder of the server's programs, also where Debian puts them; of several versions the newest."""
    found = shutil.which("initdb")
    if found is not None and (Path(found).resolve().parent / "postgres").exists():
        return Path(found).resolve().parent
    installed = [Path(path).parent for path in glob.glob("/usr/lib/postgresql/*/bin/postgres")]
    return max(installed, key=lambda path: float(path.parent.name), default=None)


def _program(name: str) -> str:
    folder = find_postgres()
    assert folder is not None
    return str(folder / name)


def _user() -> dict[str, Any]:
    """As whom the server's programs run: it refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    raise AssertionError("PostgreSQL doesn't run as root, and there is no user postgres or nobody")


def _owned_folder() -> Path:
    """A new folder that belongs to that user: pytest's own can't be entered by others. It is in memory if there is
    room: a new database for each test is a lot to write."""
    memory = "/dev/shm"
    roomy = os.path.isdir(memory) and shutil.disk_usage(memory).free > MEMORY_BYTES
    folder = Path(tempfile.mkdtemp(prefix="edgeq-postgres-", dir=memory if roomy else None))
    user = _user()
    if user:
        os.chown(folder, user["user"], user["group"])
    return folder


def _guard(folder: Path) -> subprocess.Popen[bytes]:
    command = ["sh", "-c", _GUARD, "guard", str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)


@functools.cache
def _initialised() -> tuple[Path, subprocess.Popen[bytes]]:
    """A folder with an empty cluster that every server begins as a copy of, and its guard. Made once in a process."""
    folder = _owned_folder()
    guard = _guard(folder)
    initdb = [_program("initdb"), "-D", str(folder / "cluster"), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
    initdb += ["--locale=C.UTF-8", "--no-sync", "--no-instructions"]
    done = subprocess.run(initdb, cwd="/", capture_output=True, text=True, **_user())
    assert done.returncode == 0, done.stderr
    return folder / "cluster", guard


def sql(url: str, text: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Run statements (without `params` there may be several) on a connection of its own; the rows of the last."""
    with psycopg.connect(url, autocommit=True, connect_timeout=60, application_name="test") as connection:
        cursor = connection.execute(text, params or None)
        while cursor.nextset():
            pass
        return cursor.fetchall() if cursor.description else []


class Postgres:
    """One server with a cluster of its own. `settings` are those of postgresql.conf.

    `start` returns when it accepts connections. `url` names its database `postgres`, as its superuser; `fresh_database`
    makes those of tests, whose owner is an ordinary role. `close` ends it and removes its files.
    """

    def __init__(self, **settings: str) -> None:
        self.folder = _owned_folder()
        self._guard = _guard(self.folder)
        self.port = free_port()
        self.url = self._url_of("postgres", "postgres")
        copy = ["cp", "-R", str(_initialised()[0]), str(self.folder / "data")]
        subprocess.run(copy, cwd="/", check=True, **_user())
        mine = {**_SETTINGS, "port": str(self.port), "unix_socket_directories": str(self.folder), **settings}
        with (self.folder / "data" / "postgresql.conf").open("a") as config:
            config.writelines(f"{name} = '{value}'\n" for name, value in mine.items())
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0

    def _url_of(self, role: str, database: str) -> str:
        return f"postgresql://{role}@127.0.0.1:{self.port}/{database}"

    # Its life

    def start(self) -> None:
        """Start it, with the same port and the same files as before."""
        with (self.folder / "log").open("ab") as log:
            command = [_program("postgres"), "-D", str(self.folder / "data")]
            self._process = subprocess.Popen(
                command, cwd="/", stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, **_user()
            )
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            try:
                self.sql(self.url, "SELECT 1")
            except psycopg.OperationalError:
                assert self._process.poll() is None, f"PostgreSQL didn't start:\n{self.log}"
                assert time.monotonic() < deadline, f"PostgreSQL accepts no connection:\n{self.log}"
                time.sleep(0.01)
            else:
                break
        if not self.sql(self.url, "SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]):
            self.sql(self.url, f"CREATE ROLE {ROLE} LOGIN")

    def stop(self, mode: str = "fast") -> None:
        """End it: `smart` waits for its clients, `fast` sends them away, `immediate` is a crash."""
        if self._process is not None:
            self._process.send_signal(_STOPS[mode])
            self._process.wait(DEADLINE_SECONDS)
            self._process = None

    def restart(self, mode: str = "fast") -> None:
        """`stop` and `start`."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """End it if it runs, and remove its files."""
        if self._process is not None:
            self.thaw()
            self.stop("immediate")
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait(DEADLINE_SECONDS)

    @property
    def log(self) -> str:
        """All that it logged."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    # Its databases

    def fresh_database(self, template: str = "template1") -> str:
        """The URL of a new database that nobody uses."""
        self._databases += 1
        name = f"test_{self._databases}"
        self.sql(self.url, f"CREATE DATABASE {name} OWNER {ROLE} TEMPLATE {template}")
        return self._url_of(ROLE, name)

    def drop(self, url: str) -> None:
        """Remove a database, also from under those who are connected to it."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            try:
                self.sql(self.url, f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")
            except psycopg.errors.ObjectInUse:  # the server waits for their end, but not for long
                assert time.monotonic() < deadline, f"somebody doesn't leave {url}:\n{self.log[-4000:]}"
            else:
                return

    def unused(self, url: str) -> None:
        """Return when nobody is connected to a database: those who have left may not be gone yet."""
        text = "SELECT 1 FROM pg_stat_activity WHERE datname = %s"
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self.sql(self.url, text, [url.rpartition("/")[2]]):
            assert time.monotonic() < deadline, f"somebody is connected to {url}"
            time.sleep(0.005)

    def sql(self, url: str, text: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """See the function `sql`."""
        return sql(url, text, params)

    # Its troubles

    def freeze(self) -> None:
        """Stop all its processes where they are: connections stay open, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        parent = self._process.pid
        os.kill(parent, number)  # first: then there are no new ones
        for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), number)

    def terminate(self, pattern: str) -> int:
        """End the sessions whose application_name is LIKE `pattern`, as an administrator does; how many there were."""
        text = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE %s AND pid <> "
        return len(self.sql(self.url, text + "pg_backend_pid()", [pattern]))
