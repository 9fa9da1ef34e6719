"""The machine that is installed on: what is done to it, each step said, or with `dry_run` only said.

Every step leaves alone what is as it should be, and a file is either the old or the new one, whenever the power goes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


class Failed(Exception):
    """It can't be done: what, why, what to do. What was there before still works, unless the text says otherwise."""


class Machine:
    """This machine. `dry_run`: nothing is changed."""

    def __init__(self, *, dry_run: bool) -> None:
        self.dry_run = dry_run
        self.has_systemd = Path("/run/systemd/system").is_dir()

    def say(self, text: str) -> None:
        """Tell whoever looks on; it may be nobody."""
        with contextlib.suppress(OSError):
            print(f"edgeq: {text}", file=sys.stderr, flush=True)

    def do(self, what: str, action: Callable[[], object]) -> None:
        """Say it and do it. Raises Failed when the system doesn't let it."""
        if self.dry_run:
            self.say(f"would do: {what}")
            return
        self.say(what)
        try:
            action()
        except OSError as error:
            raise Failed(f"{what}: {error}") from error

    def run(self, what: str, *command: str | Path, **options: object) -> None:
        """Say it and run a program. Raises Failed with the end of what it said."""
        self.do(what, lambda: self.output(what, *command, **options))

    def output(self, what: str, *command: str | Path, **options: object) -> str:
        """What a program prints. For what changes nothing. Raises Failed with the end of what it said."""
        done = self.ask(*command, **options)
        if done.returncode != 0:
            lines = (done.stderr + done.stdout).strip().splitlines()[-12:]
            said = "\n".join(f"    {line}" for line in lines)
            raise Failed(f"{what}: this failed with {done.returncode}: {' '.join(map(str, command))}\n{said}".rstrip())
        return done.stdout

    def ask(self, *command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
        """Run a program that changes nothing, or that the caller answers for; it has no terminal."""
        settings: dict = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, **options}
        try:
            return subprocess.run([str(word) for word in command], **settings)
        except OSError as error:
            return subprocess.CompletedProcess(command, 127, "", str(error))

    def systemctl(self, *words: str) -> None:
        """Tell systemd, if it runs here."""
        if self.has_systemd:
            self.run(f"systemctl {' '.join(words)}", "systemctl", *words)

    def folder(self, path: Path, mode: int = 0o755, owner: str = "root") -> None:
        """Have a folder. That of another owner or mode is put right."""
        if not path.is_dir():
            self.do(f"making {path}", lambda: path.mkdir(parents=True))
        if not self.dry_run:
            _own(path, mode, owner)

    def write(self, path: Path, text: str, mode: int = 0o644, group: str = "root") -> bool:
        """Have a file with this text; whether it had to be written."""
        if path.is_file() and path.read_text(errors="replace") == text:
            return False
        self.do(f"writing {path}", lambda: _replace(path, text, mode, group))
        return True

    def link(self, path: Path, target: str) -> bool:
        """Have a symbolic link, switched in one step; whether it had to be made."""
        if path.is_symlink() and os.readlink(path) == target:
            return False
        self.do(f"linking {path} to {target}", lambda: _relink(path, target))
        return True

    def remove(self, *paths: Path) -> None:
        """Have these no more, whatever they are."""
        for path in paths:
            if path.is_symlink() or path.is_file():
                self.do(f"removing {path}", path.unlink)
            elif path.is_dir():
                self.do(f"removing {path}", lambda path=path: shutil.rmtree(path))

    def apt(self, *packages: str) -> None:
        """Install Debian packages. Raises Failed where that isn't possible."""
        names = " ".join(packages)
        if shutil.which("apt-get") is None:
            raise Failed(
                f"this needs {names}, and there is no apt-get to install them; install them, then run this again"
            )
        apt = ("apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120")
        install = (*apt, "install", "-y", "--no-install-recommends", *packages)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}

        def fetch() -> None:
            if self.ask(*install, env=environment).returncode != 0:  # the lists of packages may be old
                self.ask(*apt, "update", env=environment)
                self.output(f"installing {names}", *install, env=environment)

        self.do(f"installing {names} with apt", fetch)


def _own(path: Path, mode: int, owner: str) -> None:
    path.chmod(mode)
    shutil.chown(path, owner, owner)


def _replace(path: Path, text: str, mode: int, group: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.edgeq-new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        shutil.chown(new, "root", group)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    _sync(path.parent)


def _relink(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.edgeq-new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Have what was renamed in it survive a power cut from here on."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
