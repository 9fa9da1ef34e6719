"""A PostgreSQL server for a bench, on the disk to measure."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

import psycopg
from support import free_port


class Postgres:
    """A PostgreSQL server with its default settings that trusts everybody. Use it in a `with` block."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self._programs = postgres_programs()
        self._user = postgres_user()
        self._folder = folder / "postgresql"
        self.port = port or free_port()

    def __enter__(self) -> Self:
        self._folder.mkdir()
        self._folder.parent.chmod(0o711)
        if self._user:
            os.chown(self._folder, self._user["user"], self._user["group"])
        self._call("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-instructions")
        options = f"-p {self.port} -h 127.0.0.1 -k {self._folder}"
        self._call("pg_ctl", "-o", options, "-l", str(self._folder / "log"), "-w", "start")
        return self

    def __exit__(self, *_: object) -> None:
        self._call("pg_ctl", "-m", "immediate", "-w", "stop")

    def _call(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), "-D", str(self._folder / "data"), *arguments]
        done = subprocess.run(command, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **self._user)
        if done.returncode:
            raise SystemExit(f"{program} failed: {done.stderr.decode(errors='replace')}")

    @property
    def pid(self) -> int:
        """That of the first of its processes."""
        return int((self._folder / "data" / "postmaster.pid").read_text().split()[0])

    def url(self, database: str) -> str:
        """The URL of a database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def database(self, name: str) -> str:
        """Make a database; its URL."""
        self.sql(f"CREATE DATABASE {name}")
        return self.url(name)

    def sql(self, text: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement on a connection of its own; its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(text)
            return cursor.fetchall() if cursor.description else []

    @property
    def version(self) -> str:
        """Which one it is."""
        return str(self.sql("SHOW server_version")[0][0])


def postgres_programs() -> Path:
    """The folder of the server's programs, which Debian keeps out of everybody's PATH; of several the newest."""
    found = [Path(path).parent for path in glob.glob("/usr/lib/postgresql/*/bin/postgres")]
    newest = max(found, key=lambda path: float(path.parent.name), default=None)
    program = shutil.which("postgres")
    if newest is None and program is None:
        raise SystemExit("this bench needs PostgreSQL: sudo apt install postgresql")
    return newest or Path(program or "").resolve().parent


def postgres_user() -> dict[str, Any]:
    """As whom the server's programs run: not as root."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = names.get("postgres") or names["nobody"]
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
