"""How edgeq logs: readable lines for journald and terminals, JSON on request, and calm about what repeats.

Whatever a stranger had a part in, such as a topic or an error's text, stays one entry and gives no commands to a
terminal: characters that can't be seen are escaped, and every line after the first is indented.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping

import msgspec

from ..clock import MICROSECONDS, rfc3339

_LEVELS = {
    "debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR,
    "critical": logging.CRITICAL,
}  # fmt: skip
_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_COLOUR = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31;1m"}
_SPACES = "\t\xa0"


def configure(level: str, form: str, environ: Mapping[str, str] = os.environ) -> None:
    """Log to standard error at `level` (debug, info, warning, error, critical) in `form` (auto, text, json).

    `auto` leaves time and colour to whoever reads: systemd gets a priority before each line, a terminal the time and
    colours, a file the time. What an app and its libraries log comes the same way, but never below info.
    """
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(_Json())
    elif form == "auto" and environ.get("JOURNAL_STREAM"):
        handler.setFormatter(_Journal())
    else:
        handler.setFormatter(_Text(colour=sys.stderr.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(_LEVELS[level], logging.INFO))
    logging.getLogger("edgeq").setLevel(_LEVELS[level])


def printable(text: str, keep: str = "\n" + _SPACES) -> str:
    """`text` with every character escaped that can't be seen or that a terminal may take as a command, but for `keep`
    and the space."""
    if text.isprintable():
        return text
    return "".join([sign if sign.isprintable() or sign in keep else _escaped(sign) for sign in text])


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape").decode()


def _entry(text: str) -> str:
    """`text` as one entry of a log: its further lines can't be taken for entries of their own."""
    return "\n    ".join([printable(line, _SPACES) for line in text.splitlines()])


class _Text(logging.Formatter):
    def __init__(self, *, colour: bool) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        text = _entry(super().format(record))
        colour = _COLOUR.get(record.levelno, "") if self._colour else ""
        return f"{colour}{text}\x1b[0m" if colour else text


class _Journal(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        mark = f"<{_PRIORITY.get(record.levelno, 6)}>"
        return mark + _entry(super().format(record)).replace("\n", f"\n{mark}")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": rfc3339(round(record.created * MICROSECONDS)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": printable(record.getMessage()),
        }
        if record.exc_info:
            fields["traceback"] = printable(self.formatException(record.exc_info))
        return msgspec.json.encode(fields).decode()


class Calm:
    """Says a thing the first time, and then at most once in `seconds`, with how often it happened since.

    For what a stranger can cause a thousand times a second; counters tell the full number.
    """

    def __init__(self, log: logging.Logger, monotonic: Callable[[], float], seconds: float = 60.0) -> None:
        self._log = log
        self._monotonic = monotonic
        self._seconds = seconds
        self._said: dict[str, tuple[float, int]] = {}

    def warning(self, key: str, message: str, *args: object) -> None:
        """Log `message % args` unless the same `key` was logged a short while ago."""
        now = self._monotonic()
        said_at, unsaid = self._said.get(key, (-self._seconds, 0))
        if now - said_at < self._seconds:
            self._said[key] = (said_at, unsaid + 1)
            return
        if len(self._said) > 1000:
            self._said.clear()
        self._said[key] = (now, 0)
        more = f" (and {unsaid} more like it since)" if unsaid else ""
        self._log.warning(message + more, *args)
