"""Versions of edgeq side by side below /opt/edgeq: each an environment of its own, and the link to the one that runs.

    /opt/edgeq/versions/0.1.0-5f0c2a9e/     an environment, with the units and samples of that version in share/edgeq
    /opt/edgeq/current                      → versions/0.1.0-5f0c2a9e, switched in one step
    /opt/edgeq/bin                          → current/bin, what units and people call

The letters behind the version stand for what it was made from: sources, extras, and the Python.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from machine import Failed, Machine

HOME = Path("/opt/edgeq")
PROJECT = Path(__file__).resolve().parents[2]
_VERSIONS = HOME / "versions"
_CURRENT = HOME / "current"
_COMPLETE = ".complete"
_SHARED = ("systemd", "config")
_SOURCES = ("edgeq", "pyproject.toml", "README.md", "LICENSE", "constraints.txt")


@dataclass(frozen=True)
class Version:
    """An environment below /opt/edgeq/versions, whether or not it is there."""

    name: str

    @property
    def folder(self) -> Path:
        return _VERSIONS / self.name

    @property
    def edgeq(self) -> Path:
        return self.folder / "bin" / "edgeq"

    @property
    def share(self) -> Path:
        """Its units and samples."""
        return self.folder / "share" / "edgeq"

    @property
    def complete(self) -> bool:
        return (self.folder / _COMPLETE).exists()


class Origin:
    """What is installed: the project's folder, a wheel, or a folder with a wheel and what it needs. Raises Failed."""

    def __init__(self, place: Path, extras: Iterable[str]) -> None:
        self.extras = sorted(set(extras))
        self.wheel = _wheel(place)
        self.place = place.resolve()
        content = hashlib.sha256()
        if self.wheel is None:
            project = tomllib.loads((place / "pyproject.toml").read_text())["project"]
            self.number = project["version"]
            known = set(project.get("optional-dependencies", {}))
            for path in _files(place):
                content.update(f"{path.relative_to(place)}\0".encode() + path.read_bytes())
        else:
            self.number = self.wheel.name.split("-")[1]
            with zipfile.ZipFile(self.wheel) as archive:
                record = next(name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
                metadata = archive.read(record.removesuffix("RECORD") + "METADATA").decode()
                content.update(archive.read(record))  # it has the checksum of every file
            known = set(re.findall(r"^Provides-Extra: (\S+)", metadata, re.MULTILINE))
        if unknown := set(self.extras) - known:
            raise Failed(f"there is no extra {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
        content.update(f"{self.extras} {platform.python_version_tuple()[:2]}".encode())
        self.version = Version(f"{self.number}-{content.hexdigest()[:8]}")

    def build(self, machine: Machine) -> None:
        """Have its version below /opt/edgeq/versions, beside what is there. One that isn't complete is made anew."""
        version = self.version
        if version.complete:
            return
        ensure_venv(machine)
        machine.run(
            f"making an environment in {version.folder}", sys.executable, "-m", "venv", "--clear", version.folder
        )
        with _built_from(self) as (source, options):
            wanted = f"edgeq[{','.join(self.extras)}] @ {source.as_uri()}" if self.extras else str(source)
            pip = (version.folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--no-input")
            self._pip(machine, *pip, "install", "--quiet", *options, wanted)
        machine.do(f"finishing {version.name}", lambda: self._finish(version))

    def _pip(self, machine: Machine, *command: str | Path) -> None:
        where = "with what lies beside it" if self.wheel else "with what pip fetches"
        minutes = "; on a small machine this takes minutes" if self.wheel is None else ""
        machine.run(f"installing edgeq {self.number} from {self.wheel or self.place} {where}{minutes}", *command)

    def _finish(self, version: Version) -> None:
        for name in _SHARED:
            shutil.copytree(PROJECT / name, version.share / name, dirs_exist_ok=True)
        os.sync()  # once what says that it is complete is on disk, everything is
        (version.folder / _COMPLETE).touch()


def ensure_venv(machine: Machine) -> None:
    """Have what Python makes environments with."""
    if machine.ask(sys.executable, "-c", "import ensurepip, venv").returncode != 0:
        machine.say("this Python can't make environments without the package python3-venv")
        machine.apt("python{}.{}-venv".format(*sys.version_info))


def current() -> Version | None:
    """The version that runs, or would. Raises Failed when /opt/edgeq was made in another way."""
    if (HOME / "bin").is_dir() and not (HOME / "bin").is_symlink():
        raise Failed(
            f"{HOME} was made by hand, without this script. Move it away, then run this again: "
            f"systemctl stop edgeq; mv {HOME} {HOME}.old"
        )
    return Version(_CURRENT.resolve().name) if _CURRENT.is_symlink() else None


def switch(machine: Machine, version: Version) -> None:
    """Have it run from its next start on."""
    machine.link(_CURRENT, f"versions/{version.name}")
    machine.link(HOME / "bin", "current/bin")


def forget(machine: Machine, *kept: Version | None) -> None:
    """Remove all other versions than those."""
    names = {version.name for version in kept if version is not None}
    if _VERSIONS.is_dir():
        machine.remove(*(folder for folder in sorted(_VERSIONS.iterdir()) if folder.name not in names))


def _wheel(place: Path) -> Path | None:
    """The wheel of edgeq at that place; None: its sources are there."""
    if place.suffix == ".whl" and place.is_file() and place.name.startswith("edgeq-"):
        return place.resolve()
    wheels = sorted(place.glob("edgeq-*.whl")) if place.is_dir() else []
    if len(wheels) > 1:
        raise Failed(f"{place} has more than one edgeq: name the one, such as --from {wheels[-1]}")
    if wheels:
        return wheels[0].resolve()
    if (place / "pyproject.toml").is_file() and (place / "edgeq").is_dir():
        return None
    raise Failed(f"--from {place}: neither a wheel of edgeq, nor a folder with one, nor the project's folder")


def _files(place: Path) -> Iterator[Path]:
    for name in _SOURCES:
        paths = sorted((place / name).rglob("*")) if (place / name).is_dir() else [place / name]
        yield from (path for path in paths if path.is_file() and "__pycache__" not in path.parts)


@contextmanager
def _built_from(origin: Origin) -> Iterator[tuple[Path, list[str | Path]]]:
    """What pip gets: a wheel and nothing from outside, or a copy of the sources, as building leaves files behind."""
    if origin.wheel is not None:
        yield origin.wheel, ["--no-index", "--find-links", origin.wheel.parent]
        return
    with tempfile.TemporaryDirectory(prefix="edgeq-") as scratch:
        copy = Path(scratch) / "edgeq"
        for path in _files(origin.place):
            target = copy / path.relative_to(origin.place)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        yield copy, ["--constraint", copy / "constraints.txt"]
