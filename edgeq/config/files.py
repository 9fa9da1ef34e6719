"""The files of a configuration: finding them, and reading them within bounds.

Everything that can be wrong with a file is a ValueError whose text says so.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import ConfigError, Problem
from .environment import printable

FILE_BYTES_MAX = 2**20
SECRET_BYTES_MAX = 64 * 2**10
PLACES = ("edgeq.yaml", "config/edgeq.yaml", "/etc/edgeq/edgeq.yaml")

_REASONS = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "there is no such file",
    errno.EACCES: "may not be read by this user",
    errno.EISDIR: "is a folder, not a file",
}


def find(path: str | None, environ: Mapping[str, str]) -> Path:
    """The main file: `path`, else `$EDGEQ_CONFIG`, else the first of the usual places that there is.

    Raises ConfigError, saying where it looked, when there is none. A file that is named is not looked for.
    """
    named = path or environ.get("EDGEQ_CONFIG")
    if named:
        return Path(named)
    for place in PLACES:
        if _is_there(place):
            return Path(place)
    looked = ", ".join(["$EDGEQ_CONFIG (not set)", *(p if p.startswith("/") else f"./{p}" for p in PLACES)])
    hint = "name one with -c FILE, or make one with: edgeq new DIR"
    raise ConfigError([Problem("edgeq.yaml", "", f"no configuration found; looked at {looked}", hint)])


def beside(main: Path) -> list[Path]:
    """The files of `conf.d` beside `main`, in the order of their names. Raises ValueError."""
    folder = main.parent / "conf.d"
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        raise ValueError(_reason(error)) from None
    return [folder / name for name in sorted(names) if name.endswith(".yaml") and not name.startswith(".")]


def read(path: Path, bytes_max: int = FILE_BYTES_MAX) -> str:
    """The text of a file. Raises ValueError when it can't be read, is too large or not UTF-8, or is no file but
    something such as a pipe, which one might wait at for ever."""
    try:
        mode = os.stat(path).st_mode
        special = not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)
        content = b"" if special else _beginning(path, bytes_max + 1)
    except (OSError, ValueError) as error:
        raise ValueError(_reason(error)) from None
    if special:
        raise ValueError("is not a regular file")
    if len(content) > bytes_max:
        raise ValueError(f"is larger than {bytes_max // 1024} KiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"is not UTF-8 (line {line})") from None


def secret_reader(folder: Path, environ: Mapping[str, str], used: list[str] | None = None) -> Callable[[str], str]:
    """A function that gives the text in the file that a `KEY_file` names, without the newline at its end.

    The name is taken below `$CREDENTIALS_DIRECTORY` when there is such a file, else relative to `folder`. There,
    systemd calls a file secrets/x of a whole folder that it loads secrets_x. The path of each file that was read is
    added to `used`.
    """
    credentials = environ.get("CREDENTIALS_DIRECTORY")

    def text_of(name: str) -> str:
        path = folder / name
        if credentials and not Path(name).is_absolute() and ".." not in Path(name).parts:
            below = (Path(credentials) / name, Path(credentials) / name.replace("/", "_"))
            path = next((each for each in below if _is_there(each)), path)
        shown = printable(str(path))
        try:
            text = read(path, SECRET_BYTES_MAX)
        except ValueError as error:
            raise ValueError(f"{shown}: {error}") from None
        text = text.removesuffix("\n").removesuffix("\r")
        if not text:
            raise ValueError(f"{shown}: is empty")
        if used is not None:
            used.append(str(path))
        return text

    return text_of


def in_order(problems: list[Problem], names: list[str]) -> list[Problem]:
    """Sorted by file and line; what doesn't stand in a file comes last."""
    order = {printable(name): index for index, name in enumerate(names)}

    def rank(problem: Problem) -> tuple[int, int]:
        file, _, line = problem.where.rpartition(":")
        if problem.where in order:
            return order[problem.where], 0
        return (order[file], int(line)) if file in order else (len(order), 0)

    return sorted(problems, key=rank)


def _beginning(path: Path, bytes_max: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(bytes_max)


def _is_there(path: str | Path) -> bool:
    """Whether there is something at `path`, also when this user may not look at it."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        return True
    return True


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return _REASONS.get(error.errno or 0) or f"can't be read: {error.strerror}"
    return "has an impossible name"
