"""A disk whose power can be cut: ext4 in a file, mounted where only the test and what it starts can see it.

The shutdown ioctl of ext4 drops all that was not synced, as a power cut does; the next mount replays the journal.
Nothing outlives the test, even a killed one: the mounts are in a namespace that ends with the last process in it, and
the kernel frees a loop device with its last mount. (A process started with `UNTIL_THE_TEST_ENDS` ends with the test.)
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import struct
import subprocess
from pathlib import Path

UNTIL_THE_TEST_ENDS = ("setpriv", "--pdeathsig", "KILL")

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_BYTES = 64 * 2**20
# Nothing but what a program syncs shall reach the disk: no commits of the journal by time, none by renames.
_OPTIONS = "loop,noatime,commit=60,noauto_da_alloc"
_LOOP_MAJOR = 7
_EXT4_IOC_SHUTDOWN = 0x8004587D
_NOLOGFLUSH = 2
_CLONE_FS = 0x00000200
_CLONE_NEWNS = 0x00020000

_libc = ctypes.CDLL(None, use_errno=True)


class NoDiskError(Exception):
    """There can be no such disk on this machine; the text says why."""


class Disk:
    """Use it in a `with` block of the main thread. `folder` is where it is mounted. Raises NoDiskError at the start.

    Nobody may have a file of it open at `unmount`. It has `size` bytes, what the file system needs for itself included.
    """

    def __init__(self, place: Path, size: int = _BYTES) -> None:
        self._size = size
        self.folder = place / "disk"
        self._image = place / "disk.ext4"
        self._home = -1
        self._working_folder = ""

    def __enter__(self) -> Disk:
        if os.geteuid() != 0:
            raise NoDiskError("cutting the power of a disk needs root")
        for program, package in (("mkfs.ext4", "e2fsprogs"), ("mount", "mount"), ("setpriv", "util-linux")):
            if shutil.which(program, path=_PATH) is None:
                raise NoDiskError(f"{program} isn't installed: apt-get install {package}")
        self._working_folder = os.getcwd()
        self._home = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _unshare(_CLONE_NEWNS)
        except OSError as error:
            os.close(self._home)
            raise NoDiskError(f"this process may have no mounts of its own: {error}") from error
        try:
            _do("mount", "--make-rslave", "/")
            self.format()
            self.mount()
        except subprocess.CalledProcessError as error:
            self.__exit__()
            raise NoDiskError(f"no file can be mounted here as a disk: {error.stderr.strip()}") from error
        return self

    def __exit__(self, *_: object) -> None:
        if self.folder.is_mount():
            _do("umount", "--lazy", str(self.folder))
        self._image.unlink(missing_ok=True)
        # Threads that the test has started share this one's working folder; a namespace is left by whoever shares none.
        _unshare(_CLONE_FS)
        if _libc.setns(self._home, _CLONE_NEWNS) != 0:
            raise OSError(ctypes.get_errno(), "setns failed")
        os.close(self._home)
        os.chdir(self._working_folder)

    def format(self) -> None:
        """Make it empty. It must not be mounted."""
        self._image.unlink(missing_ok=True)
        with self._image.open("wb") as file:
            file.truncate(self._size)
        _do("mkfs.ext4", "-q", "-F", str(self._image))

    def mount(self) -> None:
        """Mount it, which makes whole what a cut has left."""
        self.folder.mkdir(exist_ok=True)
        _do("mount", "-t", "ext4", "-o", _OPTIONS, str(self._image), str(self.folder))

    def unmount(self) -> None:
        """Unmount it."""
        _do("umount", str(self.folder))

    def cut(self, *processes: int) -> None:
        """Cut the power, also of these processes: what is not on the disk by now never will be. Unmount before looking.

        The processes go first, by a few microseconds. A sync that the cut catches half way may return success (the
        kernel finds its part of the journal done with, and doesn't ask why), and nobody may live to tell of it.
        """
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            device = os.major(os.fstat(descriptor).st_dev)
            assert device == _LOOP_MAJOR, f"{self.folder} is not the disk that was mounted here"
            for process in processes:
                os.kill(process, signal.SIGKILL)
            fcntl.ioctl(descriptor, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NOLOGFLUSH))
        finally:
            os.close(descriptor)


def _unshare(what: int) -> None:
    if _libc.unshare(what) != 0:
        raise OSError(ctypes.get_errno(), "unshare failed")


def _do(*command: str) -> None:
    environment = {**os.environ, "PATH": _PATH}
    subprocess.run(command, env=environment, check=True, capture_output=True, text=True)


def fill_up(folder: Path, leave: int) -> Path:
    """Leave so much of a disk, also to root."""
    filler = folder / "filler"
    size = 0
    with filler.open("wb") as file:
        for step in (2**20, 2**16, 2**12):
            with contextlib.suppress(OSError):
                while True:
                    os.posix_fallocate(file.fileno(), size, step)
                    size += step
        file.truncate(size - leave)
    return filler
