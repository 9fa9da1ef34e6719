"""Real targets for channels: an HTTP server, a mail server and a server that only drips, each in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import shutil
import socket
import ssl
import subprocess
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as default_policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from .mosquitto import free_port

DEADLINE_SECONDS = 120.0


async def until(condition: Callable[[], object]) -> None:
    """Return as soon as `condition()` holds; it may be a coroutine function."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            answer = condition()
            if await answer if inspect.isawaitable(answer) else answer:
                return
            await asyncio.sleep(0.002)


@dataclass(frozen=True)
class Answer:
    """How the HTTP server answers once. `way`: `answer`, `slow` (byte by byte), `endless` (with a body that never
    ends), `mute` (with a body that never begins), `cut` (the connection), `hang`, `drip` (a header without end),
    `garbage` (no HTTP)."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    way: str = "answer"
    body: bytes = b"x" * 100_000


@dataclass(frozen=True)
class Request:
    """What the HTTP server got."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class HttpTarget:
    """Answers 200, unless `answers` holds something else: the next is used up by the next request, the last one stays
    if `stay` is set. `requests` are those that came whole; `date` is what it says of its clock."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.answers: deque[Answer] = deque()
        self.stay = False
        self.date = ""
        self.requests: list[Request] = []
        self._ended = threading.Event()
        target = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                target.handle(self)

            do_GET = do_PUT = do_PATCH = do_POST  # noqa: N815

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64  # a client that finds no place tries again after a second

            def handle_error(self, *args: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def answer(self, request: Request) -> Answer:
        """What it answers when `answers` holds nothing."""
        return Answer()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers["Content-Length"] or 0)
        body = handler.rfile.read(length)
        if len(body) < length:  # whoever sent it is gone
            return
        request = Request(handler.command, handler.path, dict(handler.headers.items()), body)
        self.requests.append(request)
        if self.answers:
            answer = self.answers[0] if self.stay and len(self.answers) == 1 else self.answers.popleft()
        else:
            answer = self.answer(request)
        if answer.way == "cut":
            handler.connection.shutdown(socket.SHUT_RDWR)
        elif answer.way == "hang":
            self._ended.wait(DEADLINE_SECONDS)
        elif answer.way == "garbage":
            handler.wfile.write(b"220 mail.example.net ESMTP\r\n")
        elif answer.way == "drip":
            with contextlib.suppress(OSError):
                handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
                while not self._ended.wait(0.02):
                    handler.wfile.write(b"x")
        elif answer.way == "slow":
            for byte in b"HTTP/1.1 %d Slow\r\nContent-Length: 0\r\n\r\n" % answer.status:
                handler.wfile.write(bytes([byte]))
        else:
            if answer.way == "slow":
                self._ended.wait(0.2)
            handler.send_response_only(answer.status)
            for name, value in (("Date", self.date or handler.date_time_string()), *answer.headers):
                handler.send_header(name, value)
            handler.end_headers()
            if answer.way == "mute":
                self._ended.wait(DEADLINE_SECONDS)
                return
            with contextlib.suppress(OSError):
                handler.wfile.write(answer.body)
                while answer.way == "endless" and not self._ended.wait(0.02):
                    handler.wfile.write(b"x")

    def stop(self) -> None:
        """Close it: from now on connections are refused."""
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(DEADLINE_SECONDS)


class _Controller(Controller):
    """Leaves no connection open."""

    def factory(self) -> Any:
        protocol = super().factory()
        self.protocols = [*getattr(self, "protocols", []), protocol]
        return protocol

    def hang_up(self) -> None:
        """End what is connected."""

        async def end() -> None:
            for protocol in self.protocols:
                if protocol.transport is not None:
                    protocol.transport.abort()
            for _ in range(5):  # the transports close in the loop's next turns
                await asyncio.sleep(0)

        if self.loop.is_running():
            asyncio.run_coroutine_threadsafe(end(), self.loop).result(DEADLINE_SECONDS)


class MailTarget:
    """Takes mail, unless `refuse` (by SMTP command) holds the answers to give first: `refuse["DATA"] = ["451 later"]`.
    With `hang_at_quit` it says nothing after the last mail."""

    def __init__(
        self,
        *,
        user: str = "",
        password: str = "",
        tls: ssl.SSLContext | None = None,
        starttls: bool = True,
        hang_at_quit: bool = False,
        port: int = 0,
    ) -> None:
        self._hang_at_quit = hang_at_quit
        self.mails: list[EmailMessage] = []
        self.recipients: list[list[str]] = []
        self.raw: list[bytes] = []
        self.refuse: dict[str, list[str]] = {"MAIL": [], "RCPT": [], "DATA": []}
        self.encrypted: list[bool] = []
        options: dict[str, Any] = {"ready_timeout": DEADLINE_SECONDS}
        if user:
            wanted = LoginPassword(user.encode(), password.encode())
            options["authenticator"] = lambda server, session, envelope, way, given: AuthResult(
                success=given == wanted, handled=False
            )
            options["auth_required"] = True
            options["auth_require_tls"] = tls is not None and starttls
        if tls is not None and starttls:
            options["tls_context"] = tls
            options["require_starttls"] = True
        elif tls is not None:
            options["ssl_context"] = tls
        self._controller = _Controller(self, hostname="127.0.0.1", port=port or free_port(), **options)
        self._controller.start()
        self.port = self._controller.port

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        if self.refuse["MAIL"]:
            return self.refuse["MAIL"].pop(0)
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        if self.refuse["RCPT"]:
            answer = self.refuse["RCPT"].pop(0)
            if answer:
                return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.refuse["DATA"]:
            return self.refuse["DATA"].pop(0)
        self.raw.append(envelope.content)
        self.mails.append(message_from_bytes(envelope.content, policy=default_policy))  # type: ignore[arg-type]
        self.recipients.append(list(envelope.rcpt_tos))
        self.encrypted.append(server.transport.get_extra_info("sslcontext") is not None)
        return "250 OK"

    async def handle_QUIT(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self._hang_at_quit:
            await asyncio.sleep(DEADLINE_SECONDS)
        return "221 Bye"

    def stop(self) -> None:
        """Close it: from now on connections are refused."""
        self._controller.hang_up()
        with warnings.catch_warnings():
            # A connection accepted in the moment of the end is left to the garbage collector by asyncio.
            warnings.simplefilter("ignore", ResourceWarning)
            self._controller.stop()
            gc.collect()


class DripTarget:
    """Accepts, and then sends a byte every now and then for ever, without ever ending a line."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._ended = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = self._server.accept()[0]
                threading.Thread(target=self._drip, args=(connection,), daemon=True).start()

    def _drip(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while not self._ended.wait(0.02):
                connection.sendall(b"2")

    def stop(self) -> None:
        """Close it."""
        self._ended.set()
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


@contextmanager
def closing(target: Any) -> Iterator[Any]:
    """Stops a target at the end; one that was stopped already, too."""
    try:
        yield target
    finally:
        with contextlib.suppress(Exception):
            target.stop()


def certificate(folder: Path) -> tuple[ssl.SSLContext, str]:
    """A server's context for 127.0.0.1 and the file of the certificate, signed by itself."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl isn't installed: apt-get install openssl")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", key, "-out", cert, "-days", "3650", "-subj", "/CN=127.0.0.1",
            "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context, str(cert)
