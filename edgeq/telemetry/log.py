"""How edgeq logs: readable lines for journald and terminals, JSON on request, and calm about what repeats."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping

import msgspec

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_COLOUR = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31;1m"}


def configure(level: str, form: str, environ: Mapping[str, str] = os.environ) -> None:
    """Log to standard error at `level` (debug, info, warning, error) in `form` (auto, text, json).

    `auto` leaves time and colour to whoever reads: systemd gets a priority before each line, a terminal the time and
    colours, a file the time.
    """
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(_Json())
    elif form == "auto" and environ.get("JOURNAL_STREAM"):
        handler.setFormatter(_Journal())
    else:
        handler.setFormatter(_Text(colour=sys.stderr.isatty()))
    root = logging.getLogger("edgeq")
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    root.propagate = False


class _Text(logging.Formatter):
    def __init__(self, *, colour: bool) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        colour = _COLOUR.get(record.levelno, "") if self._colour else ""
        return f"{colour}{text}\x1b[0m" if colour else text


class _Journal(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        mark = f"<{_PRIORITY.get(record.levelno, 6)}>"
        return "\n".join(mark + line for line in super().format(record).splitlines())


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{record.msecs:03.0f}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(fields).decode(errors="replace")


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
