"""A booted Debian 12 with systemd and mosquitto, and no network: a machine to install edgeq on.

`debian()` makes the root folder once and keeps it in ~/.cache/edgeq; `Container` boots a copy of it with
systemd-nspawn. What stands in the way of that is raised as Unfit, for a test to skip with.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

DEADLINE_SECONDS = 300.0
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeq"
_PACKAGES = "systemd,systemd-sysv,dbus,procps,python3,python3-venv,mosquitto,mosquitto-clients"
_NEEDED = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
}
_USELESS = ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/cache/apt", "var/lib/apt/lists")
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/root",
}
_GROUPS = ("name=systemd", "memory", "pids", "")


class Unfit(Exception):
    """Why this machine can't boot a container."""


@contextlib.contextmanager
def alone(name: str) -> Iterator[Path]:
    """The folder of that name in the cache, while no other process is at it."""
    folder = CACHE / name
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def debian() -> Path:
    """The root folder of a Debian 12, not to be changed. Raises Unfit."""
    if os.geteuid() != 0:
        raise Unfit("a container is booted by root alone")
    if lacking := [package for program, package in _NEEDED.items() if shutil.which(program) is None]:
        raise Unfit(f"not installed: apt-get install {' '.join(lacking)}")
    mirror = _mirror()
    key = hashlib.sha256(f"1 {_PACKAGES}".encode()).hexdigest()[:12]
    with alone(f"debian-{key}") as root:
        if not root.is_dir():
            scratch = root.with_suffix(".new")
            shutil.rmtree(scratch, ignore_errors=True)
            made = subprocess.run(
                ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", scratch, mirror],
                capture_output=True, text=True, timeout=900,
            )  # fmt: skip
            if made.returncode != 0:
                raise Unfit(f"debootstrap from {mirror} failed: {(made.stdout + made.stderr).strip()[-500:]}")
            for name in _USELESS:
                shutil.rmtree(scratch / name)
            scratch.rename(root)
    return root


def _mirror() -> str:
    """Where this machine has its packages from, if that has Debian 12."""
    found = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Codename: bookworm",
         "Component: main", "Label: Debian"],
        capture_output=True, text=True,
    )  # fmt: skip
    return (found.stdout.split() or ["http://deb.debian.org/debian"])[0]


class Container:
    """A copy of `root` in `folder`, to be booted. `root` is what it sees as /."""

    def __init__(self, image: Path, folder: Path) -> None:
        self.root = folder / "root"
        self.console = folder / "console"
        self._name = f"edgeq-{os.getpid()}-{folder.name}"[:60]
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._groups: dict[str, Path] = {}
        subprocess.run(["cp", "--archive", "--reflink=auto", image, self.root], check=True)
        (self.root / "etc" / "hostname").write_text("gateway\n")
        (self.root / "etc" / "hosts").write_text("127.0.0.1 localhost\n127.0.1.1 gateway\n::1 localhost\n")
        (self.root / "etc" / "machine-id").write_text(hashlib.md5(self._name.encode()).hexdigest() + "\n")

    def boot(self) -> None:
        """Boot it, and return when everything is started. Raises Unfit with what it last said."""
        command = [
            "systemd-nspawn", "--quiet", f"--directory={self.root}", f"--machine={self._name}", "--hostname=gateway",
            "--boot", "--private-network", "--register=no", "--link-journal=no", "--console=read-only",
        ]  # fmt: skip
        if Path("/run/systemd/system").is_dir():
            command = ["systemd-run", "--scope", "--quiet", "--property=Delegate=yes", "--", *command, "--keep-unit"]
        else:
            self._groups = self._make_groups()
            groups = [str(group) for group in self._groups.values()]
            enter = f'for group in {shlex.join(groups)}; do echo $$ > $group/cgroup.procs; done; exec "$@"'
            command = ["sh", "-c", enter, "sh", *command, "--keep-unit"]
        with self.console.open("ab") as console:
            self._nspawn = subprocess.Popen(  # it ends with the tests, even if these are killed
                ["setpriv", "--pdeathsig", "KILL", *command],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        try:
            self._until_booted()
        except AssertionError as error:
            raise Unfit(f"systemd-nspawn doesn't boot here: {error}\n{self._said()}") from None

    def reboot(self) -> None:
        """Have it reboot in an orderly way, and return when everything is started again."""
        assert self._nspawn is not None
        self.run("systemctl", "reboot", check=False)
        self._nspawn.wait(DEADLINE_SECONDS)
        self.stop()
        self.boot()

    def stop(self) -> None:
        """End it at once, as a power cut does, though what was written stays."""
        if self._nspawn is None:
            return
        while self._nspawn.poll() is None:
            if (leader := self._leader()) is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(leader, signal.SIGKILL)
            elif self._nspawn.poll() is None:
                self._nspawn.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._nspawn.wait(1)
        self._nspawn = None
        for group in self._groups.values():
            for folder, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)

    @property
    def leader(self) -> int:
        """The process that is number 1 in there."""
        leader = self._leader()
        assert leader is not None, f"the container has ended\n{self._said()}"
        return leader

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program in there as root; `check`: it must end with 0."""
        leader = str(self.leader)
        inside = ("nsenter", "--target", leader, "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd")
        done = subprocess.run(
            [*inside, "--", *command], env=_ENVIRONMENT, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=DEADLINE_SECONDS,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def shell(self, text: str, *, check: bool = True) -> str:
        """What a line of shell prints in there, the way a person types it."""
        done = self.run("bash", "-c", text, check=check)
        return done.stdout + done.stderr

    def until(self, condition: Callable[[], object], what: str, seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until it is so."""
        deadline = time.monotonic() + seconds
        while True:
            assert self._nspawn is not None
            ended = self._nspawn.poll() is not None  # before the look, which is the last
            if condition():
                return
            assert time.monotonic() < deadline, f"waited {seconds:g}s for {what}"
            assert not ended, "systemd-nspawn has ended"
            time.sleep(0.1)

    def limit_memory(self, unit: str, size: int) -> None:
        """Have the kernel hold the service to `size` bytes where systemd can't do it: of control groups of the older
        kind, a container gets none to write. Raises Unfit where nobody can."""
        if "memory" not in self._groups:
            limit = self.run("cat", f"/sys/fs/cgroup/system.slice/{unit}.service/memory.max", check=False).stdout
            if limit.strip() != str(size):
                raise Unfit(f"no control group for memory in the container (memory.max: {limit.strip() or 'none'})")
            return
        group = self._groups["memory"] / unit
        group.mkdir(exist_ok=True)
        (group / "memory.limit_in_bytes").write_text(str(size))
        members = self._groups["name=systemd"] / "payload/system.slice" / f"{unit}.service" / "cgroup.procs"
        for process in members.read_text().split():
            (group / "cgroup.procs").write_text(process)

    def _leader(self) -> int | None:
        """The only child of nspawn, which may stand behind systemd-run."""
        process = None if self._nspawn is None else self._nspawn.pid
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
            for child in children:
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return int(child)
        return None

    def _until_booted(self) -> None:
        self.until(lambda: self._leader() is not None, "the container's first process")

        def started() -> bool:
            said = self.run("systemctl", "is-system-running", check=False).stdout.strip()
            return said in ("running", "degraded")

        self.until(started, "the end of the boot")

    def _said(self) -> str:
        return self.console.read_text(errors="replace")[-1500:]

    def _make_groups(self) -> dict[str, Path]:
        """Control groups of its own, where no systemd makes them: two containers in one would end each other's
        processes."""
        mounts = {}
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields, _, rest = line.partition(" - ")
            kind, _, options = rest.split()
            if kind in ("cgroup", "cgroup2"):
                names = options.split(",") if kind == "cgroup" else [""]
                mounts |= dict.fromkeys(names, Path(fields.split()[4]))
        groups = {}
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for name in set(controllers.split(",")) & set(_GROUPS) & mounts.keys():
                group = mounts[name] / path.lstrip("/") / self._name
                group.mkdir(exist_ok=True)
                groups[name] = group
        return groups
