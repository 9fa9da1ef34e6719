"""`edgeq run` as a child process, with the configuration a test gives it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from edgeq.control import ask, socket_path
from edgeq.errors import EdgeqError

from .stores import Database, PostgresDatabase

DEADLINE_SECONDS = 120.0


class Appliance:
    """One appliance in `folder`. `configuration` is YAML; `start` returns when it runs (or has ended).

    `database` is the file that `sql` reads, and `command` what is started; a test may change either. The file is not
    used when the store is `on` a server; `url` names the one that is. `environment` is what its programs get.
    """

    def __init__(self, folder: Path, configuration: str, on: Database | None = None) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.database = folder / "edgeq.db"
        self._server = on if isinstance(on, PostgresDatabase) else None
        self.url = str(self.database) if self._server is None else self._server.url
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("EDGEQ_")}
        if self._server is not None:
            self.environment |= {"EDGEQ_STORE__URL": self._server.url, "RUNTIME_DIRECTORY": str(folder)}
        self.log_file = folder / "edgeq.log"
        self.command: tuple[str, ...] = (sys.executable, "-m", "edgeq.cli.main", "run")
        self.process: subprocess.Popen[bytes] | None = None
        self.configure(configuration)

    def configure(self, configuration: str) -> None:
        """Write the configuration file."""
        (self.folder / "edgeq.yaml").write_text(configuration)

    def spawn(self, **environment: str) -> subprocess.Popen[bytes]:
        """Start it, and don't wait."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env={**self.environment, **environment},
                stdout=log,
                stderr=log,
            )
        return self.process

    def start(self, **environment: str) -> None:
        """Start it, and return when it has connected to its broker and subscribed."""
        self.spawn(**environment)
        self.until(self.connected, "a connection")

    def connected(self) -> bool:
        """Whether it has a connection with its broker, and subscriptions there."""
        with suppress(EdgeqError):  # it may be ending
            return bool(self.status().get("session", {}).get("state") == "connected")
        return False

    def until(self, condition: Callable[[], Any], what: str, *, seconds: float = DEADLINE_SECONDS) -> None:
        """Return when `condition()` is true. Fails with the log when it doesn't become so, or the process has ended."""
        deadline = time.monotonic() + seconds
        while True:
            ended = self.process is not None and self.process.poll() is not None  # before the look, which is the last
            if condition():
                return
            assert not ended, f"edgeq ended:\n{self.log}"
            assert time.monotonic() < deadline, f"waited {seconds:g}s for {what}:\n{self.log[-4000:]}"
            time.sleep(0.02)

    def send(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def ended(self, seconds: float = DEADLINE_SECONDS) -> int:
        """Wait for its end; its exit status."""
        assert self.process is not None
        status = self.process.wait(seconds)
        self.process = None
        return status

    def reload(self, configuration: str) -> None:
        """Have it read this configuration, and return when it is connected again."""
        self.configure(configuration)
        taken = self.log.count("was read again")
        self.send(signal.SIGHUP)
        self.until(lambda: self.log.count("was read again") > taken, "the new configuration to be taken")
        self.until(self.connected, "a connection")

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Call `edgeq` with these words, as in another terminal."""
        return subprocess.run(
            [sys.executable, "-m", "edgeq.cli.main", *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
        )

    def status(self) -> dict[str, Any]:
        """What it says of itself; `running` is false when it isn't."""
        found = [Path(socket_path(str(self.database)))] if self._server is None else self.folder.glob("*-control")
        answers = [asyncio.run(ask(str(path), "status")) for path in found]
        return next((answer for answer in answers if answer is not None), {"running": False})

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self, seconds: float = DEADLINE_SECONDS) -> int:
        """End it in peace, which may take so long; its exit status."""
        self.send(signal.SIGTERM)
        return self.ended(seconds)

    def sql(self, text: str, *params: Any) -> list[Any]:
        """Rows of a query, as anybody with a tool for the database would read them; none before there is one."""
        if self._server is not None:
            return self._server.sql(text, *params)
        if not self.database.exists():
            return []
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=60)) as connection:
            try:
                return connection.execute(text, params).fetchall()
            except sqlite3.OperationalError as error:
                if re.search("no such table|unable to open", str(error)):
                    return []
                raise

    @property
    def log(self) -> str:
        """All that it logged, over all its runs."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""
