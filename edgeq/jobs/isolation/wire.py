"""What a worker and the processes of its jobs say to each other: records, each in a frame, over a pair of sockets.

A frame is four bytes of length (big-endian) and a record in MessagePack, of FRAME_BYTES_MAX at most. The worker says
`Setup` once and then `Run` for each job; the process answers `Ready` or `Unable`, and each `Run` with `Begun` and, in
the end, with one of `Done`, `PutOff` and `Broken`. `Progress` and `Logged` may come at any time.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

from ...events import NewEvent
from ...store.jobs import NewJob, StoredJob

FRAME_BYTES_MAX = 8 * 1024 * 1024
WHERE_SIGNAL = signal.SIGRTMIN + 7  # to a process: write down where your code is, and end
_LENGTH_BYTES = 4

T = TypeVar("T")


class Frame(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of what is sent."""


class Setup(Frame, frozen=True):
    """How to begin: the modules to import, the function (`module:name`) that makes `ctx.context`, the limit of the
    memory in bytes, and below which levels (of the root logger and of edgeq's own) nothing is logged."""

    modules: tuple[str, ...]
    context: str | None
    memory_max: int | None
    log_level: int
    edgeq_log_level: int


class Run(Frame, frozen=True):
    """Run the job; or, with the text of the error of its last attempt, its `failed`."""

    job: StoredJob
    timeout_seconds: float
    failed: str | None


class Ready(Frame, frozen=True):
    """Everything is imported, and the context is made."""


class Unable(Frame, frozen=True):
    """It could not be: why. The process ends."""

    error: str


class Begun(Frame, frozen=True):
    """The job is in hand, and what happens from here on is its doing. `cooperative`: it heeds its time limit, and needs
    to be ended only if it doesn't."""

    cooperative: bool


class Done(Frame, frozen=True):
    """See outcome.Completed."""

    result: str
    events: tuple[NewEvent, ...]
    jobs: tuple[NewJob, ...]


class PutOff(Frame, frozen=True):
    """See outcome.Snoozed."""

    seconds: float
    events: tuple[NewEvent, ...]
    jobs: tuple[NewJob, ...]


class Broken(Frame, frozen=True):
    """See outcome.Failed; `error` is fit to be stored."""

    reason: str
    error: str
    final: bool = False
    retry_after: float | None = None


class Progress(Frame, frozen=True):
    """What ctx.progress() said, as JSON text."""

    text: str


class Logged(Frame, frozen=True):
    """An entry for the log."""

    logger: str
    level: int
    text: str


Ended = Done | PutOff | Broken
Answer = Ready | Unable | Begun | Ended | Progress | Logged
Order = Setup | Run


class TooLarge(ValueError):
    """A record takes more than FRAME_BYTES_MAX. The text goes between "the job" and "from" or "to a process"."""


_encode = msgspec.msgpack.Encoder().encode


def pack(record: Frame) -> bytes:
    """The frame of a record. Raises TooLarge, and ValueError for a text that can't be encoded."""
    body = _encode(record)
    if len(body) > FRAME_BYTES_MAX:
        raise TooLarge(f"takes {len(body) / 2**20:.1f} MiB; at most {FRAME_BYTES_MAX // 2**20} MiB can be sent")
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


class Frames(Generic[T]):
    """Bytes in, as they arrive, and records out."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[T]) -> None:
        self._decode = decoder.decode
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[T]:
        """The records that `data` completes. Raises ValueError for anything else."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(buffer[:_LENGTH_BYTES], "big")
            if end > _LENGTH_BYTES + FRAME_BYTES_MAX:
                raise ValueError("what arrived is not a frame")
            if len(buffer) < end:
                return
            body = bytes(buffer[_LENGTH_BYTES:end])
            del buffer[:end]
            try:
                yield self._decode(body)
            except msgspec.MsgspecError as error:
                raise ValueError(f"what arrived can't be read: {error}") from None


def answers() -> Frames[Answer]:
    """For the worker's end."""
    return Frames(msgspec.msgpack.Decoder(Answer))


def orders() -> Frames[Order]:
    """For the process's end."""
    return Frames(msgspec.msgpack.Decoder(Order))
