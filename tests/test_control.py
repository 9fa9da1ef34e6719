"""The socket on which a running appliance says how it is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edgeq import control
from edgeq.control import ControlServer, ask, socket_path
from edgeq.errors import EdgeqError, StoreUnavailable


async def fine() -> dict[str, Any]:
    return {"fine": True, "text": "x" * 100_000}


async def not_now() -> dict[str, Any]:
    raise StoreUnavailable("the disk is full")


@asynccontextmanager
async def running(path: str) -> AsyncIterator[ControlServer]:
    server = ControlServer(path, {"status": fine, "not-now": not_now})
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return socket_path(str(tmp_path / "edgeq.db"))


async def test_it_answers_and_leaves_nothing_behind(path: str) -> None:
    assert await ask(path, "status") is None
    async with running(path):
        assert await ask(path, "status") == await fine()
        with pytest.raises(EdgeqError, match=r"can't say: there is no request 'drop all tables'"):
            await ask(path, "drop all tables")
        with pytest.raises(EdgeqError, match=r"can't say: the disk is full"):
            await ask(path, "not-now")
    with pytest.raises(FileNotFoundError):
        os.stat(path)
    assert await ask(path, "status") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
async def test_only_its_own_user_may_ask() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = f"{folder}/edgeq.db-control"
        async with running(path):
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
            os.seteuid(65534)
            try:
                with pytest.raises(EdgeqError, match="belongs to another user"):
                    await ask(path, "status")
            finally:
                os.seteuid(0)


async def test_a_path_longer_than_a_sockets_name_can_be(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 200) / ("y" * 200)
    folder.mkdir(parents=True)
    path = socket_path(str(folder / "edgeq.db"))
    async with running(path):
        assert stat.S_ISSOCK(os.stat(path).st_mode)
        assert await ask(path, "status") == await fine()
    assert list(folder.iterdir()) == []


async def test_what_a_killed_one_has_left_is_replaced(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(path)
    assert await ask(path, "status") is None
    async with running(path):
        assert await ask(path, "status") == await fine()


async def test_started_twice_it_listens_once(path: str) -> None:
    async with running(path) as server:
        before = os.stat(path).st_ino
        await server.start()
        assert os.stat(path).st_ino == before


async def test_one_that_listens_is_left_alone_by_one_that_has_no_name_yet(path: str) -> None:
    async with running(path):
        waiting = ControlServer(path, {})
        await waiting.start(alone=False)
        await waiting.stop()
        assert await ask(path, "status") == await fine()


async def test_one_that_has_lost_its_name_leaves_the_socket_of_the_next_one(path: str) -> None:
    async with running(path) as frozen, running(path):
        await frozen.stop()
        assert await ask(path, "status") == await fine()


async def test_where_there_can_be_no_socket_the_log_says_so_and_that_is_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = socket_path(str(tmp_path / "edgeq.db"))
    os.mkdir(path)
    with caplog.at_level(logging.WARNING):
        async with running(path):
            pass
    (record,) = caplog.records
    assert record.getMessage() == f"`edgeq status` can't ask this process: {path}: Is a directory"
    assert stat.S_ISDIR(os.stat(path).st_mode)


GARBAGE = [
    b"", b"\n", b"\xff\xfe\x00\n", b"status", b"x" * 1_000_000, b"status\nstatus\nstatus\n", b"GET / HTTP/1.1\r\n\r\n",
]  # fmt: skip


async def test_whoever_talks_nonsense_disturbs_nobody(path: str, caplog: pytest.LogCaptureFixture) -> None:
    async with running(path):
        silent = [await asyncio.open_unix_connection(path) for _ in range(50)]
        for garbage in GARBAGE:
            reader, writer = await asyncio.open_unix_connection(path)
            with contextlib.suppress(OSError):
                writer.write(garbage)
                await writer.drain()
                writer.write_eof()
            with contextlib.suppress(OSError):
                await reader.read()
            writer.close()
            assert await ask(path, "status") == await fine()
        for _, writer in silent:
            writer.close()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "no sensible answer"),
        (b"pong\n", "no sensible answer"),
        (b"[]\n", "no sensible answer"),
        (b"{" * 100_000 + b"\n", "no sensible answer"),
        (b"x" * 17 * 2**20, "no sensible answer"),
        (None, "doesn't answer within 0.3s"),
    ],
)
async def test_an_answer_that_is_none(
    path: str, answer: bytes | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if answer is None:
        monkeypatch.setattr(control, "_SECONDS", 0.3)
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer is None:
            await over.wait()
        else:
            with contextlib.suppress(OSError):
                writer.write(answer)
                await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        with pytest.raises(EdgeqError, match=told):
            await ask(path, "status")
    finally:
        over.set()
        server.close()
        await asyncio.sleep(0)
