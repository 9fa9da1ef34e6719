"""What is looked at: a configuration, and the machine."""

from __future__ import annotations

import contextlib
import functools
import grp
import os
import pwd
import subprocess
from pathlib import Path

import msgspec

from ..clock import Clock
from ..config.checks import is_loopback, is_postgres, sqlite_path
from ..config.schema import LoadedConfig
from ..mqtt.address import Address
from ..mqtt.embedded import is_embedded

_COMMAND_SECONDS = 5.0
_TEXT_BYTES_MAX = 2**20
UNIT = "edgeq.service"
_UNIT_FACTS = (
    "LoadState", "ActiveState", "SubState", "UnitFileState", "FragmentPath", "DropInPaths", "NeedDaemonReload", "User",
    "Type", "KillMode", "WatchdogUSec", "RestartPreventExitStatus", "ExecStart", "NRestarts", "MainPID",
)  # fmt: skip


class Case(msgspec.Struct, frozen=True, dict=True, kw_only=True):
    """One look. `thorough` allows what takes long. `root` is where the files of the machine are, for tests."""

    loaded: LoadedConfig
    clock: Clock
    thorough: bool = False
    root: Path = Path("/")

    @property
    def database(self) -> Path | None:
        """The file of the store, unless that is on a server."""
        url = self.loaded.config.store.url
        return None if is_postgres(url) else Path(os.path.abspath(sqlite_path(url)))

    @property
    def client_id(self) -> str:
        """The name of the appliance's session. It must never be used: the broker would end that."""
        return self.loaded.config.mqtt.client_id or f"edgeq-{self.loaded.config.gateway}"

    @property
    def broker(self) -> Address | None:
        """Where the broker is; None when it is embedded."""
        url = self.loaded.config.mqtt.url
        return None if is_embedded(url) else Address.parse(url)

    @property
    def broker_is_here(self) -> bool:
        """Whether the broker is on this machine, as far as its address says."""
        return self.broker is not None and is_loopback(self.broker.host)

    def read(self, path: str) -> str:
        """The text of a file of the machine, such as `proc/meminfo`; empty when it can't be read."""
        try:
            with open(self.root / path, "rb") as file:
                return file.read(_TEXT_BYTES_MAX).decode(errors="replace")
        except OSError:
            return ""

    def run(self, *command: str) -> str | None:
        """What a program of the system prints; None when it isn't there, fails or doesn't end."""
        try:
            done = subprocess.run(
                command, capture_output=True, timeout=_COMMAND_SECONDS, stdin=subprocess.DEVNULL, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.decode(errors="replace") if done.returncode == 0 else None

    @functools.cached_property
    def unit(self) -> dict[str, str] | None:
        """What systemd says of the service; None where there is no systemd."""
        shown = self.run("systemctl", "show", UNIT, f"--property={','.join(_UNIT_FACTS)}")
        if shown is None:
            return None
        return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)

    @property
    def unit_is_there(self) -> bool:
        """Whether the service is installed."""
        return (self.unit or {}).get("LoadState") == "loaded"

    @property
    def user_id(self) -> int:
        """Who the appliance runs as: the service's user if it is installed, else whom the database belongs to, else
        whoever asks."""
        if self.unit_is_there and self.unit:
            with contextlib.suppress(KeyError):
                return pwd.getpwnam(self.unit.get("User") or "root").pw_uid
        if self.database is not None:
            with contextlib.suppress(OSError):
                return self.database.stat().st_uid
        return os.geteuid()


def user_name(user_id: int) -> str:
    """The name of a user, or the number of one without."""
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)


def group_name(user_id: int) -> str:
    """The name of a user's own group, or a number."""
    try:
        return grp.getgrgid(pwd.getpwuid(user_id).pw_gid).gr_name
    except KeyError:
        return str(user_id)
