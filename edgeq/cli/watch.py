"""`edgeq status --watch` on a terminal: the screen again and again, what is wrong first, rates and lag over time.

It has the terminal's other screen, so that what stood there is back at the end. q ends it, p holds it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import threading
import tty
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ..clock import Clock
from ..telemetry.log import printable
from ..units import Duration
from .screen import Level, lines

_SAMPLES = 60
_STYLES: dict[Level, str] = {"wrong": "bold red", "look": "yellow", "fine": ""}
_BARS, _PLAIN_BARS = "▁▂▃▄▅▆▇█", "._-=+*#@"
_RATES = {"messages/s": "edgeq_messages_received_total", "events/s": "edgeq_events_total"}


class Watch:
    """Asks `ask` every `interval` on a thread of its own: one that takes long holds up no key."""

    def __init__(self, ask: Callable[[], dict[str, Any]], interval: Duration) -> None:
        self._ask = ask
        self._interval = interval
        self._clock = Clock()
        self._console = Console(highlight=False)
        self._answer: dict[str, Any] = {}
        self._answered_at = 0
        self._series: dict[str, deque[float]] = {}
        self._before: tuple[float, dict[str, float]] | None = None
        self._held = False
        self._over = threading.Event()
        self._wake, self._waker = os.pipe()

    def run(self) -> None:
        """Show it until somebody presses q, or SIGTERM or Ctrl-C comes."""
        os.set_blocking(self._waker, False)
        threading.Thread(target=self._go_on_asking, name="edgeq-watch", daemon=True).start()
        signals = {signal.SIGWINCH: self._nudge, signal.SIGTERM: self._end}
        kept = {number: signal.signal(number, lambda *_, act=act: act()) for number, act in signals.items()}
        try:
            with _keys() as keys, Live(console=self._console, screen=True, auto_refresh=False) as live:
                while not self._over.is_set():
                    live.update(self._picture(), refresh=True)
                    self._heed(keys)
        finally:
            self._over.set()
            for number, handler in kept.items():
                signal.signal(number, handler)

    def _heed(self, keys: int | None) -> None:
        """Wait for an answer, a key, or another size of the window."""
        ready = select.select([self._wake, *([] if keys is None else [keys])], [], [])[0]
        if self._wake in ready:
            os.read(self._wake, 4096)
        if keys is None or keys not in ready:
            return
        pressed = os.read(keys, 64)
        if not pressed or b"q" in pressed or b"\x04" in pressed:  # the terminal is gone, or Ctrl-D
            self._end()
        if pressed.count(b"p") % 2:
            self._held = not self._held

    def _end(self) -> None:
        self._over.set()
        self._nudge()

    def _nudge(self) -> None:
        with contextlib.suppress(BlockingIOError):  # so many wait to be heard already
            os.write(self._waker, b".")

    def _go_on_asking(self) -> None:
        while not self._over.is_set():
            if not self._held:
                answer = self._ask()
                if not self._held:
                    self._take(answer)
                    self._nudge()
            self._over.wait(self._interval)

    def _take(self, answer: dict[str, Any]) -> None:
        """Keep the answer, and what it says of rates and lag."""
        now = self._clock.monotonic()
        counters = answer.get("counters", {})
        totals = {name: float(sum(counters[key].values())) for name, key in _RATES.items() if key in counters}
        if self._before is not None and totals:
            then, before = self._before
            for name, total in totals.items():
                # Less than before: it was started anew, and counts from zero.
                more = total - before.get(name, total) if total >= before.get(name, total) else total
                self._sample(name, more / max(now - then, 1e-3))
        self._before = (now, totals) if totals else None
        for place in answer.get("processors", []):
            if place["state"] != "not configured":
                self._sample(f"lag {place['name']}", float(place["lag_events"]))
        self._answer, self._answered_at = answer, self._clock.now()

    def _sample(self, name: str, value: float) -> None:
        self._series.setdefault(name, deque(maxlen=_SAMPLES)).append(value)

    def _picture(self) -> Group:
        size = self._console.size
        shown = [self._title(), Text("")]
        if not self._answer:
            return Group(*shown, Text("asking edgeq …"))
        said = lines(self._answer, self._answered_at)
        order: tuple[Level, ...] = ("wrong", "look", "fine")
        shown += [_line(str(line), _STYLES[level]) for level in order for line in said if line.level == level]
        shown += [Text(""), *self._curves(size.width)]
        more = len(shown) - size.height
        if more > 0:
            shown = [*shown[: size.height - 1], _line(f"… {more + 1} more lines", "dim")]
        return Group(*shown)

    def _title(self) -> Text:
        state = "held" if self._held else f"every {self._interval}"
        return _line(f"edgeq status, {state}; q ends it, p {'goes on' if self._held else 'holds it'}", "bold")

    def _curves(self, width: int) -> Iterator[Text]:
        bars = _BARS if self._console.encoding.lower().startswith("utf") else _PLAIN_BARS
        for name, values in list(self._series.items()):
            recent = list(values)
            label = f"{name:<20.40} {recent[-1]:>10.6g}  "
            yield _line(label + sparkline(recent[-max(1, width - len(label)) :], bars), "cyan")


def sparkline(values: list[float], bars: str = _BARS) -> str:
    """A sign for each value, as high as it is beside the highest; the lowest sign is nothing at all."""
    highest = max(values, default=0.0)
    if highest <= 0:
        return bars[0] * len(values)
    return "".join(bars[min(len(bars) - 1, round(value / highest * (len(bars) - 1)))] for value in values)


def _line(text: str, style: str) -> Text:
    return Text(printable(text, keep=""), style=style, no_wrap=True, overflow="ellipsis")


@contextlib.contextmanager
def _keys() -> Iterator[int | None]:
    """Where keys can be read as they are pressed; None without a keyboard."""
    if sys.stdin is None or not sys.stdin.isatty():
        yield None
        return
    keys = sys.stdin.fileno()
    kept = termios.tcgetattr(keys)
    try:
        tty.setcbreak(keys)
        yield keys
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, kept)
