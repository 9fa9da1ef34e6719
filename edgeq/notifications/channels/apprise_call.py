"""The program that channel `apprise` runs for each notification, and the only file that knows the library.

Apprise takes some 45 MB for all its services, has no time limit for a message as a whole, and says only whether it was
sent. So it gets a process of its own, which can be killed and gives its memory back; and that process watches whether
there is a way to the target, and what a web server answers.

Run as a file: `python -P apprise_call.py`. It reads one JSON object (`url`, `title`, `body`, `type`) and prints one:
`sent`, `reason`, `target_down`, `unreachable`, `after_seconds` (see `channel.Retry`).
"""

from __future__ import annotations

import json
import logging
import socket
import ssl
import sys
from typing import Any

_OVERLOADED = (429, 502, 503, 504)
_NOT_AUTHENTICATED = (401, 407)
_RETRY_AFTER_SECONDS_MAX = 3600


class Watch(logging.Handler):
    """What was seen of the way to the target: `reached` says whether the last connection came about, None that there
    was none; `status` is that of the last answer of a web server; `warnings` are the library's."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.reached: bool | None = None
        self.status: int | None = None
        self.after_seconds: int | None = None
        self.warnings: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        self.warnings.append(record.getMessage())

    def look(self, owner: Any, name: str, done: bool | None) -> None:
        """Look at the calls of `owner.name`: one that raises OSError is no way, one that doesn't is `done`."""
        call = getattr(owner, name)

        def watched(*args: Any, **more: Any) -> Any:
            try:
                result = call(*args, **more)
            except OSError:
                self.reached = False
                raise
            self.reached = done if done is not None else self.reached
            return result

        setattr(owner, name, watched)

    def look_at_answers(self) -> None:
        """Look at what web servers answer."""
        import requests

        send = requests.Session.send

        def watched(*args: Any, **more: Any) -> Any:
            answer = send(*args, **more)
            self.status = answer.status_code
            asked = answer.headers.get("Retry-After", "").strip()
            self.after_seconds = min(int(asked[:9]), _RETRY_AFTER_SECONDS_MAX) if asked.isdecimal() else None
            return answer

        requests.Session.send = watched  # type: ignore[method-assign]


def main() -> None:
    """See the module."""
    asked = json.load(sys.stdin)
    try:
        import apprise
    except ImportError as error:
        _say(sent=False, reason=f"apprise can't be used: {error}", target_down=True)
        return
    watch = Watch()
    watch.look(socket, "getaddrinfo", None)
    watch.look(socket.socket, "connect", True)
    watch.look(ssl.SSLSocket, "do_handshake", True)
    watch.look_at_answers()
    logging.getLogger("apprise").addHandler(watch)
    service = apprise.Apprise.instantiate(asked["url"])
    if service is None:
        _say(sent=False, reason="apprise knows no service for this url, or misses something in it", target_down=True)
        return
    if "overflow=" not in asked["url"].lower():
        service.overflow_mode = apprise.OverflowMode.SPLIT  # rather than to have it refused
    sent = bool(service.notify(title=asked["title"], body=asked["body"], notify_type=asked["type"]))
    down = watch.reached is False
    reason = "there is no way to the target" if down else "apprise could not send it"
    _say(
        sent=sent,
        reason=": ".join([reason, *watch.warnings[-1:]]),
        target_down=down or watch.status in (*_OVERLOADED, *_NOT_AUTHENTICATED),
        unreachable=down,
        after_seconds=watch.after_seconds if watch.status in _OVERLOADED else None,
    )


def _say(**answer: Any) -> None:
    print(json.dumps(answer))  # noqa: T201 - to the channel that runs it


if __name__ == "__main__":
    main()
