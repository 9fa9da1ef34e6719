"""A cgroup with so much memory and processor time, of version 1 or 2, whichever the machine has."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Self

PERIOD_US = 100_000
_END_SECONDS = 10.0


class NoCgroupError(Exception):
    """None can be made on this machine; the text says why."""


class Cgroup:
    """Use it in a `with` block; whoever is still in it at the end is killed. Raises NoCgroupError at the start.

    What is started with `command` before its own words begins its life in it, and so do its children.
    """

    def __init__(self, memory_bytes: int, cores: float | None = None) -> None:
        self._limits = memory_bytes, cores
        self._folders: dict[str, Path] = {}

    def __enter__(self) -> Self:
        memory, cores = self._limits
        name = f"edgeq-{os.getpid()}-{time.monotonic_ns()}"
        try:
            unified = _unified()
            places = (
                {"memory": unified, "cpu": unified} if unified else {kind: _mount(kind) for kind in ("memory", "cpu")}
            )
            for kind, place in places.items():
                self._folders[kind] = place / name
                self._folders[kind].mkdir(exist_ok=True)
            if unified:
                self._write("memory", "memory.max", memory)
                with contextlib.suppress(FileNotFoundError):  # a kernel without swap
                    self._write("memory", "memory.swap.max", 0)
                if cores is not None:
                    self._write("cpu", "cpu.max", f"{round(cores * PERIOD_US)} {PERIOD_US}")
            else:
                self._write("memory", "memory.limit_in_bytes", memory)
                with contextlib.suppress(FileNotFoundError, PermissionError):
                    self._write("memory", "memory.memsw.limit_in_bytes", memory)
                if cores is not None:
                    self._write("cpu", "cpu.cfs_period_us", PERIOD_US)
                    self._write("cpu", "cpu.cfs_quota_us", round(cores * PERIOD_US))
        except OSError as error:
            self.__exit__()
            raise NoCgroupError(f"no cgroup can be made here: {error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        deadline = time.monotonic() + _END_SECONDS
        while (left := [path for path in set(self._folders.values()) if path.exists()]) and time.monotonic() < deadline:
            for path in left:
                for pid in (path / "cgroup.procs").read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                with contextlib.suppress(OSError):  # it takes a moment until the killed are gone
                    path.rmdir()
            time.sleep(0.01)

    @property
    def command(self) -> tuple[str, ...]:
        """To be put before the words of a command."""
        files = " ".join(f"'{path / 'cgroup.procs'}'" for path in sorted(set(self._folders.values())))
        return ("/bin/sh", "-c", f'echo $$ | tee {files} > /dev/null && exec "$@"', "sh")

    @property
    def killed(self) -> int:
        """How many processes the kernel has killed in it for want of memory."""
        found = self._fields("memory", "memory.events", "memory.oom_control")
        return found.get("oom_kill", 0)

    @property
    def throttled_share(self) -> float:
        """In which share of the periods in which it had something to do it had to wait for its next one."""
        found = self._fields("cpu", "cpu.stat")
        return found.get("nr_throttled", 0) / max(1, found.get("nr_periods", 0))

    def _write(self, kind: str, name: str, value: object) -> None:
        (self._folders[kind] / name).write_text(str(value))

    def _fields(self, kind: str, *names: str) -> dict[str, int]:
        for name in names:
            path = self._folders[kind] / name
            if path.exists():
                return {key: int(value) for key, value in map(str.split, path.read_text().splitlines())}
        return {}


def _unified() -> Path | None:
    """Where cgroups of version 2 with these two controllers can be made; None when version 1 has them."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if kind == "cgroup2" and {"cpu", "memory"} <= set((Path(mount) / "cgroup.controllers").read_text().split()):
            switch = Path(mount) / "cgroup.subtree_control"
            if not {"cpu", "memory"} <= set(switch.read_text().split()):
                switch.write_text("+cpu +memory")
            return Path(mount)
    return None


def _mount(controller: str) -> Path:
    """Where the controller of version 1 is mounted. Raises OSError when it is not."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, options, *_ = line.split()
        if kind == "cgroup" and controller in options.split(","):
            return Path(mount)
    raise FileNotFoundError(f"the machine has no cgroup controller for {controller}")
