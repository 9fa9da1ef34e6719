"""Channel `smtp`: a mail.

Without TLS being asked off, nothing is sent in the clear: a server that doesn't offer STARTTLS gets no mail. A server
that can't be reached, or that refuses us (greeting, TLS, password), makes the channel wait; one that refuses the mail
itself for good (5xx) makes it a dead letter.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import smtplib
import socket
import ssl
from collections.abc import Iterator, Mapping
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import formatdate, parseaddr
from typing import Annotated, Any, Literal

import msgspec

from ...clock import MICROSECONDS
from ...config.checks import between, some
from ...units import Duration
from ..notification import Notification
from .channel import Channel, ChannelSettings, Links, Outcome, Rejected, Retry, Sent
from .line import Line, Timeout, exchange
from .tls import CaFile, context

_PORTS = {"starttls": 587, "tls": 465, "none": 25}
# About us, not about the mail: shutting down; not authenticated.
_SHUTTING_DOWN = 421
_NOT_AUTHENTICATED = (530, 534, 535, 538)


def _address(text: str) -> None:
    address = parseaddr(text)[1]
    alone = text.strip() == address or text.rstrip().endswith(f"<{address}>")
    if not address or not alone or not address.isascii() or not text.isprintable() or set(address) & set(" ,;<>"):
        raise ValueError("must be a mail address, such as gw@example.net or Greenhouse <gw@example.net>")


def _host(text: str) -> None:
    if not re.fullmatch(r"[\w.-]+|[0-9A-Fa-f:]+", text):
        raise ValueError("must be the name or address of a mail server")


def _ascii(text: str) -> None:
    if not text.isascii() or not text.isprintable():
        raise ValueError("must hold ASCII characters only")


class SmtpSettings(ChannelSettings, frozen=True, kw_only=True):
    """`channels.*` of kind `smtp`. With a password and no `username`, the address in `from` is the user."""

    host: Annotated[str, _host]
    port: Annotated[int, between(1, 65_535)] | None = None
    tls: Literal["starttls", "tls", "none"] = "starttls"
    ca: CaFile | None = None
    username: Annotated[str, _ascii] | None = None
    password: Annotated[str, _ascii] | None = None
    from_: Annotated[str, _address] = msgspec.field(name="from")
    to: Annotated[list[Annotated[str, _address]], some]
    timeout: Timeout = Duration(30)

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """A user without a password."""
        if "username" in given and "password" not in given:
            yield "username", "needs password (or password_file) as well"


class SmtpChannel(Channel):
    """One mail for each notification, to all of `to` at once; one for a digest, too, whose title says how many it tells
    of. Its Message-ID stays the same at every attempt, by which mail programs know what they have got already; those of
    one fingerprint are shown as one thread."""

    kind = "smtp"
    settings = SmtpSettings
    digests = True

    def __init__(self, name: str, settings: SmtpSettings, links: Links) -> None:
        super().__init__(name, settings, links)
        self._settings = settings
        self._port = settings.port or _PORTS[settings.tls]
        self._from = parseaddr(settings.from_)[1]
        self._to = [parseaddr(each)[1] for each in settings.to]

    async def send(self, notification: Notification) -> Outcome:
        """See Channel.send."""
        return await exchange(lambda line: self._deliver(line, notification), self._settings.timeout)

    def _deliver(self, line: Line, notification: Notification) -> Outcome:
        mail = self._compose(notification).as_bytes()
        with contextlib.ExitStack() as stack:
            try:
                client = self._greet(line)
                stack.callback(client.close)
                self._introduce(client)
            except smtplib.SMTPException as error:
                return Retry(_said(error), target_down=True)
            line.handed_over = True
            try:
                refused = client.sendmail(self._from, self._to, mail)
            except smtplib.SMTPException as error:
                return _failed(error)
            # Don't wait for what the server says to this: the mail is its own by now.
            with contextlib.suppress(OSError, smtplib.SMTPException):
                client.putcmd("quit")
        return Sent(missed=_refusals(refused), answer=client.taken)

    def _greet(self, line: Line) -> _Client:
        tls = context(self._settings.ca) if self._settings.tls == "tls" else None
        return _Client(line, self._settings.host, self._port, tls)

    def _introduce(self, client: smtplib.SMTP) -> None:
        settings = self._settings
        if settings.tls == "starttls":
            client.starttls(context=context(settings.ca))
        if settings.password is not None:
            client.login(settings.username or self._from, settings.password)

    def _compose(self, notification: Notification) -> EmailMessage:
        domain = self._from.rpartition("@")[2] or "localhost"
        mail = EmailMessage(policy=SMTP_POLICY.clone(cte_type="7bit"))
        # What looks like an encoded word would be decoded, line breaks and all (CVE-2024-6923).
        mail["Subject"] = notification.title.replace("=?", "= ?")
        mail["From"] = self._settings.from_
        mail["To"] = ", ".join(self._settings.to)
        mail["Date"] = formatdate(notification.attempted_at / MICROSECONDS)
        mail["Message-ID"] = f"<{notification.idempotency_key}@{domain}>"
        mail["References"] = f"<{_thread(notification.fingerprint)}@{domain}>"
        mail["Auto-Submitted"] = "auto-generated"
        if notification.severity == "critical":
            mail["Importance"] = "high"
        mail.set_content("\n\n".join(filter(None, (notification.body or notification.title, _link(notification)))))
        return mail


class _Client(smtplib.SMTP):
    """smtplib's client on a connection that can be cut, under TLS from the first byte if `tls` is given. `taken` is
    what the server said to the last mail."""

    taken = ""

    def __init__(self, line: Line, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self._line = line
        self._tls = tls
        super().__init__(host, port, local_hostname=_own_name(), timeout=line.timeout_seconds)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        connection = self._line.connect(host, port)
        return connection if self._tls is None else self._tls.wrap_socket(connection, server_hostname=host)

    def data(self, msg: Any) -> tuple[int, bytes]:
        """See smtplib."""
        code, text = super().data(msg)
        self.taken = _answer(code, text)
        return code, text


def _link(notification: Notification) -> str:
    """The line by which whoever reads it can acknowledge it."""
    ack_url = notification.detail.get("ack_url")
    return f"Acknowledge: {ack_url}" if isinstance(ack_url, str) and ack_url else ""


def _thread(fingerprint: str) -> str:
    """What stands for a fingerprint in a header: itself, unless it holds what can't stand there."""
    plain = re.fullmatch(r"[A-Za-z0-9_-]{1,64}", fingerprint)
    return fingerprint if plain else hashlib.sha256(fingerprint.encode(errors="replace")).hexdigest()[:32]


def _own_name() -> str:
    """What to greet with. Not what the name service says of us: to ask it could take long."""
    name = socket.gethostname()
    return name if re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", name) else "[127.0.0.1]"


def _failed(error: smtplib.SMTPException) -> Outcome:
    """What came of a mail that was handed over and not taken."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        answers = list(error.recipients.values())
        reason = _refusals(error.recipients)
    elif isinstance(error, smtplib.SMTPResponseException):
        answers = [(error.smtp_code, b"")]
        reason = _said(error)
    else:
        return Retry(_said(error))
    codes = [code for code, _ in answers]
    if any(code == _SHUTTING_DOWN or code in _NOT_AUTHENTICATED for code in codes):
        return Retry(reason, target_down=True)
    return Rejected(reason) if all(code >= 500 for code in codes) else Retry(reason)


def _said(error: smtplib.SMTPException) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        return _answer(error.smtp_code, error.smtp_error)
    return str(error) or type(error).__name__


def _refusals(refused: Mapping[str, tuple[int, bytes]]) -> str:
    return "; ".join(f"{address}: {_answer(code, text)}" for address, (code, text) in refused.items())


def _answer(code: int, text: bytes | str) -> str:
    words = text.decode(errors="replace") if isinstance(text, bytes) else text
    return f"{code} {' '.join(words.split())}"[:300]
