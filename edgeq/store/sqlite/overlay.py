"""A log for a damaged file that puts whole pages over those on which SQLite keeps what tables there are.

The file itself stays as it is: a log is how SQLite takes pages from elsewhere. The whole pages are those of a new
store, which are the same in every file that began with these tables; whether that is so of a damaged one, what is read
shows. What the log of the damaged file holds of whole commits is taken over.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path

from ..schema import migrate

_MAGIC = 0x377F0683  # checksums of words with the great end first
_VERSION = 3007000
_HEADER, _FRAME = struct.Struct(">8I"), struct.Struct(">6I")
_SALT = (0x65646765, 0x71303031)
_INTERIOR = 5


def template(folder: str) -> dict[int, bytes]:
    """The pages, by number, on which a new store says what tables there are: the first, and those it leads to. `folder`
    is for making one."""
    path = os.path.join(folder, "template.db")
    migrate(path, may_change=True)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    connection.close()
    whole = Path(path).read_bytes()
    size = int.from_bytes(whole[16:18], "big")
    pages = {number + 1: whole[number * size : (number + 1) * size] for number in range(len(whole) // size)}
    return {number: pages[number] for number in (1, *_children(pages[1]))}


def write_log(file: str, log: str, pages: dict[int, bytes], target: str) -> None:
    """Write to `target` a log for `file` with `pages`, after what the log `log` has."""
    size = len(pages[1])
    with open(target, "wb") as out:
        header = struct.pack(">6I", _MAGIC, _VERSION, size, 0, *_SALT)
        sums = _sum(header, (0, 0))
        out.write(header + struct.pack(">2I", *sums))
        frames = {**dict(_committed(log, size)), **pages}
        count = max(os.stat(file).st_size // size, *frames)
        frames[1] = _counting(frames[1], count)
        for left, (number, page) in zip(range(len(frames) - 1, -1, -1), frames.items(), strict=True):
            start = struct.pack(">2I", number, 0 if left else count)
            sums = _sum(page, _sum(start, sums))
            out.write(start + struct.pack(">4I", *_SALT, *sums) + page)


def logged_pages(log: str) -> set[int]:
    """The numbers of the pages that a log has, also of those that no commit made valid."""
    found: set[int] = set()
    with contextlib.suppress(OSError), open(log, "rb") as file:
        header = file.read(_HEADER.size)
        if len(header) == _HEADER.size:
            *_, size, _, one, two, _, _ = _HEADER.unpack(header)
            while len(frame := file.read(_FRAME.size)) == _FRAME.size:
                number, _, *salt, _, _ = _FRAME.unpack(frame)
                if salt != [one, two]:
                    break
                found.add(number)
                file.seek(size, os.SEEK_CUR)
    return found


def _counting(page: bytes, count: int) -> bytes:
    """The first page of a file of so many pages, none of which is free."""
    return page[:28] + struct.pack(">3I", count, 0, 0) + page[40:]


def _children(page: bytes) -> list[int]:
    """The pages below the first one."""
    if page[100] != _INTERIOR:
        return []
    cells = struct.unpack_from(f">{int.from_bytes(page[103:105], 'big')}H", page, 112)
    return [*(int.from_bytes(page[cell : cell + 4], "big") for cell in cells), int.from_bytes(page[108:112], "big")]


def _committed(log: str, size: int) -> Iterator[tuple[int, bytes]]:
    """The pages of a log up to its last whole commit, as they came."""
    try:
        file = open(log, "rb")  # noqa: SIM115 - there may be none
    except OSError:
        return
    with file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return
        magic, _, its_size, _, *salt, one, two = _HEADER.unpack(header)
        order = ">" if magic & 1 else "<"
        sums = _sum(header[:24], (0, 0), order)
        if magic >> 1 != _MAGIC >> 1 or its_size != size or sums != (one, two):
            return
        waiting: list[tuple[int, bytes]] = []
        while len(frame := file.read(_FRAME.size + size)) == _FRAME.size + size:
            number, commit, *its_salt, one, two = _FRAME.unpack_from(frame)
            sums = _sum(frame[_FRAME.size :], _sum(frame[:8], sums, order), order)
            if its_salt != salt or sums != (one, two):
                return
            waiting.append((number, frame[_FRAME.size :]))
            if commit:
                yield from waiting
                waiting = []


def _sum(data: bytes, sums: tuple[int, int], order: str = ">") -> tuple[int, int]:
    """SQLite's checksum, which goes on from that of what stands before."""
    one, two = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for at in range(0, len(words), 2):
        one = (one + words[at] + two) & 0xFFFFFFFF
        two = (two + words[at + 1] + one) & 0xFFFFFFFF
    return one, two
