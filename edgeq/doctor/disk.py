"""The disk under the database: its room, its kind, and what it has complained of."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ..units import Size
from .case import Case
from .finding import Finding, bad, ok, unknown, warn

FREE_BYTES_MIN = 50 * 2**20
FILES_MIN = 1000

_FORGETS = ("tmpfs", "ramfs")
_REMOTE = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs", "fuse.rclone")
_CARD = re.compile(r"mmcblk\d+")
_ESCAPED = re.compile(r"\\([0-7]{3})")


class Mount(msgspec.Struct, frozen=True):
    """A line of /proc/self/mountinfo. `device` is what the kernel calls it: `179:2`."""

    device: str
    place: str
    options: list[str]
    kind: str
    source: str


def space(case: Case) -> Iterator[Finding]:
    """Room on the disk."""
    folder = _folder(case)
    if folder is None:
        return
    limits = case.loaded.config.store.retention
    there = os.statvfs(folder)
    free = there.f_bavail * there.f_frsize
    said = f"{Size(free // 2**20 * 2**20)} are free on the disk of {folder}"
    do = f"sudo du -xh {folder} | sort -h | tail"
    if free < max(limits.min_free_disk, FREE_BYTES_MIN):
        yield bad(
            f"{said}, and store.retention.min_free_disk is {limits.min_free_disk}",
            "the oldest events are deleted, read or not; on a full disk messages wait at the broker, which has limits",
            do,
        )
    else:
        yield ok(said)
        yield from _growth(case, free)
    if there.f_files and there.f_favail < FILES_MIN:
        yield bad(
            f"only {there.f_favail} more files can be made on the disk of {folder} (inodes)",
            "SQLite can't make its log, so no message can be stored",
            f"sudo du -x --inodes {folder} | sort -n | tail",
        )


def _growth(case: Case, free: int) -> Iterator[Finding]:
    """Whether the database may grow as large as it is allowed to."""
    limits = case.loaded.config.store.retention
    assert case.database is not None
    try:
        size = case.database.stat().st_size
    except OSError:
        size = 0
    room = size + free - limits.min_free_disk
    if limits.max_size is None or limits.max_size > room:
        allowed = "has no limit" if limits.max_size is None else f"may grow to {limits.max_size}"
        yield warn(
            f"the database {allowed}, and the disk has room for {Size(max(0, room) // 2**20 * 2**20)} of it",
            "the disk is at its limit before the database is, and then the oldest events are deleted, read or not",
            f"store: {{retention: {{max_size: {Size(max(4 * 2**20, room // 2 // 2**20 * 2**20))}}}}}",
        )


def file_system(case: Case) -> Iterator[Finding]:
    """What kind of file system it is, and on what."""
    mount = _mount(case)
    if mount is None:
        return
    card = _CARD.search(_device(case, mount))
    where = f"{mount.place} ({mount.kind}{', on an SD card or eMMC' if card else ''})"
    if mount.kind in _FORGETS:
        yield bad(
            f"the database is in memory: {where}",
            "it is gone with the next boot, and with it what was acknowledged",
            "put store.url on a disk, such as sqlite:////var/lib/edgeq/edgeq.db",
        )
    elif mount.kind == "overlay":
        yield bad(
            f"the database is on an overlay: {where}",
            "the next boot forgets it (raspi-config, overlayroot); in a container, a new one does",
            "put store.url on a disk or volume of its own, or switch the overlay off: sudo raspi-config",
        )
    elif mount.kind in _REMOTE:
        yield bad(
            f"the database is on another machine's disk: {where}",
            "SQLite's locks and its log don't work there; the file may be damaged",
            "put store.url on a disk of this machine, or use postgresql://",
        )
    else:
        yield ok(f"the database is on {where}")


def options(case: Case) -> Iterator[Finding]:
    """How the file system is mounted."""
    mount = _mount(case)
    if mount is None or mount.kind in (*_FORGETS, *_REMOTE, "overlay"):
        return
    if "ro" in mount.options:
        yield bad(
            f"{mount.place} is mounted read-only",
            "nothing can be stored; the kernel does that when a disk fails",
            f"sudo dmesg | grep -i error; then: sudo mount -o remount,rw {mount.place}",
        )
    if {"nobarrier", "barrier=0"} & set(mount.options):
        yield bad(
            f"{mount.place} is mounted without barriers",
            "a power cut may take messages that were acknowledged already",
            f"remove nobarrier from the line of {mount.place} in /etc/fstab, and reboot",
        )
    if not {"noatime", "relatime", "nodiratime"} & set(mount.options):
        yield warn(
            f"{mount.place} is mounted without noatime",
            "each read of a file is a write to the card",
            f"add noatime to the line of {mount.place} in /etc/fstab, and reboot",
        )


def errors(case: Case) -> Iterator[Finding]:
    """What the file system has complained of."""
    mount = _mount(case)
    if mount is None or mount.kind != "ext4":
        return
    name = _device(case, mount).rpartition("/")[2]
    text = case.read(f"sys/fs/ext4/{name}/errors_count").strip()
    if not text.isdecimal():
        yield unknown(f"whether {mount.place} has had errors can't be seen", f"/sys/fs/ext4/{name} doesn't say")
    elif int(text):
        yield bad(
            f"the file system of {mount.place} has had {text} errors",
            "a disk that errs once errs again; what it was told to keep may be gone",
            f"edgeq db --help for a backup now; then sudo e2fsck -f /dev/{name}, unmounted, and a new card",
        )
    else:
        yield ok(f"the file system of {mount.place} has had no errors")


def mounts(text: str) -> Iterator[Mount]:
    """The lines of /proc/self/mountinfo."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        words, rest = before.split(" "), after.split(" ")
        if len(words) < 6 or len(rest) < 3:
            continue
        flags = [*words[5].split(","), *rest[2].split(",")]
        yield Mount(words[2], _unescaped(words[4]), flags, rest[0], _unescaped(rest[1]))


def _mount(case: Case) -> Mount | None:
    """Where the database is; None when it isn't here, or that can't be told."""
    folder = _folder(case)
    if folder is None:
        return None
    found = [each for each in mounts(case.read("proc/self/mountinfo")) if folder.is_relative_to(each.place)]
    found.sort(key=lambda each: len(each.place))  # of those on one place, the last one counts
    return found[-1] if found else None


def _folder(case: Case) -> Path | None:
    if case.database is None:
        return None
    folder = case.database.resolve().parent
    return folder if folder.is_dir() else None


def _device(case: Case, mount: Mount) -> str:
    """The path of the device below /sys/devices, as of a partition: `…/mmcblk0/mmcblk0p2`; its name where the kernel
    says no more."""
    try:
        return str((case.root / "sys/dev/block" / mount.device).resolve(strict=True))
    except OSError:
        return mount.source


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)
