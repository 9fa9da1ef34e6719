"""Who may read and write the files: the appliance must, strangers mustn't."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from ..config.origin import is_secret
from .case import Case, group_name, user_name
from .finding import SUDO, Finding, bad, ok, unknown, warn

_SUFFIXES = ("", "-wal", "-shm", "-lock")


def configuration(case: Case) -> Iterator[Finding]:
    """Whether strangers may change the configuration."""
    folder = Path(case.loaded.folder)
    paths = [Path(name) for name in case.loaded.files]
    paths += [folder, *(each for each in (folder / "conf.d",) if each.is_dir())]
    path = case.loaded.config.app.path
    if path is not None:
        paths.append(Path(path))
    open_to_all = [each for each in paths if _mode(each) & stat.S_IWOTH and not _mode(each) & stat.S_ISVTX]
    for each in open_to_all:
        yield bad(
            f"{each} can be changed by everybody",
            "whoever has a login here can have edgeq run their code",
            f"sudo chmod o-w {each}",
        )
    if paths and not open_to_all:
        yield ok("no stranger may change the configuration")


def secrets(case: Case) -> Iterator[Finding]:
    """Whether strangers may read secrets."""
    files = {*case.loaded.secret_files, *_written_in(case), *_named_by_sections(case)}
    exposed = [name for name in sorted(files) if _mode(Path(name)) & stat.S_IROTH and _is_reached(Path(name))]
    for name in exposed:
        yield warn(
            f"{name} holds a secret, and everybody on this machine may read it",
            "others may log in with it as edgeq does",
            f"sudo chgrp {group_name(case.user_id)} {name} && sudo chmod 640 {name}",
        )
    if files and not exposed:
        yield ok("no stranger may read a secret")


def database(case: Case) -> Iterator[Finding]:
    """Whether the appliance may write its database."""
    path = case.database
    if path is None:
        return
    user = case.user_id
    folder = path.parent
    do = f"sudo chown -R {user_name(user)}: {folder}"
    if not folder.is_dir():
        yield bad(
            f"the folder {folder} doesn't exist",
            "edgeq doesn't start",
            f"sudo install -d -o {user_name(user)} -m 750 {folder}",
        )
        return
    try:
        found = [(name, os.stat(name)) for name in (f"{path}{end}" for end in _SUFFIXES) if os.path.exists(name)]
        above = folder.stat()
    except OSError as error:
        yield unknown(f"{folder} can't be looked into: {error.strerror}", "who may write there can't be seen", SUDO)
        return
    fine = True
    if not may_write(above, user):
        fine = False
        yield bad(f"{user_name(user)} may not write in {folder}", "SQLite makes files beside the database", do)
    for name, there in found:
        if not may_write(there, user):
            fine = False
            yield bad(
                f"{name} belongs to {user_name(there.st_uid)}, and {user_name(user)} may not write it",
                "no message can be stored",
                do,
            )
        if there.st_mode & stat.S_IWOTH:
            fine = False
            yield bad(
                f"{name} can be changed by everybody", "what is stored can't be relied on", f"sudo chmod o-w {name}"
            )
    if fine:
        yield ok(f"{user_name(user)} may write the database, and no stranger")


def may_write(there: os.stat_result, user: int) -> bool:
    """Whether a user may write what `os.stat` says this of, as owner, in its group, or as anybody."""
    if user == 0:
        return True
    if there.st_uid == user:
        return bool(there.st_mode & stat.S_IWUSR)
    if there.st_gid in _groups(user):
        return bool(there.st_mode & stat.S_IWGRP)
    return bool(there.st_mode & stat.S_IWOTH)


def _groups(user: int) -> list[int]:
    try:
        entry = pwd.getpwuid(user)
    except KeyError:
        return [user] if user != os.geteuid() else os.getgroups()
    return os.getgrouplist(entry.pw_name, entry.pw_gid)


def _written_in(case: Case) -> Iterator[str]:
    """The files of the configuration in which a secret stands itself."""
    places, shown = case.loaded.places, case.loaded.shown
    for path, place in places.items():
        if is_secret(path.rpartition(".")[2]) and path not in shown:
            yield from (name for name in case.loaded.files if place.startswith(f"{name}:"))


def _named_by_sections(case: Case) -> Iterator[str]:
    """The files that channels and processors read a secret from when they are made."""
    for section in (*case.loaded.config.channels.values(), *case.loaded.config.processors.values()):
        for key, value in section.data.items():
            if key.endswith("_file") and isinstance(value, str):
                yield str(Path(case.loaded.folder) / value)


def _is_reached(path: Path) -> bool:
    """Whether everybody can get to where the file is."""
    return all(_mode(folder) & stat.S_IXOTH for folder in path.absolute().parents)


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError:
        return 0
