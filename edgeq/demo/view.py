"""What the demo shows: on a terminal a screen that stays in place, in a pipe one line for each thing that happens."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ..clock import MICROSECONDS
from ..events import Event
from ..store import dead_letters, events, notifications
from ..store.store import Store
from ..telemetry.log import printable

_PAGE = 500
_HAPPENINGS = 20
_STYLES = {
    "VIOLATED": "bold red", "RESOLVED": "green", "NOTIFIED": "cyan", "DEAD LETTER": "magenta", "UNKNOWN": "yellow",
    "ARRIVED": "dim",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Happening:
    """One line: seconds since the start, what kind of thing, and a sentence."""

    seconds: float
    kind: str
    sentence: str

    def text(self) -> Text:
        """The line, coloured."""
        return Text.assemble(
            (f"{self.seconds:6.1f}s  ", "dim"),
            (f"{self.kind:<12}", _STYLES[self.kind]),
            printable(self.sentence, keep=""),
            no_wrap=True,
            overflow="ellipsis",
        )


class Watch:
    """Reads what the store holds that it hasn't seen yet, and counts it."""

    def __init__(self, store: Store, began_at: int) -> None:
        self.counts: Counter[str] = Counter()
        self.verdicts: Counter[tuple[str, str]] = Counter()
        self.latest: dict[str, Event] = {}
        self.violated: dict[tuple[str, str], float] = {}
        self._store = store
        self._began_at = began_at
        self._event_id = self._letter_id = 0
        self._sent: set[int] = set()

    async def news(self) -> list[Happening]:
        """What happened since the last call, in order of time."""
        happened: list[Happening] = []
        while page := await events.after(self._store, self._event_id, _PAGE):
            self._event_id = page[-1].id
            for event in page:
                happening = self._event(event)
                if happening is not None:
                    happened.append(happening)
        for letter in reversed(await dead_letters.find(self._store, limit=100)):
            if letter.id > self._letter_id:
                self._letter_id = letter.id
                self.counts["dead letters"] += 1
                happened.append(
                    Happening(self._since(letter.created_at), "DEAD LETTER", f"{letter.topic}: {letter.error}")
                )
        for sent in await notifications.find(self._store, limit=100, state="sent"):
            if sent.id in self._sent:
                continue
            self._sent.add(sent.id)
            self.counts["notifications"] += 1
            happened.append(
                Happening(self._since(sent.sent_at or 0), "NOTIFIED", f"{sent.channel} [{sent.severity}] {sent.title}")
            )
        return sorted(happened, key=lambda each: each.seconds)

    def _event(self, event: Event) -> Happening | None:
        if not event.type.startswith("contract."):
            self.counts["messages"] += 1
            self.latest[event.subject] = event
            if event.type.startswith("door."):
                return Happening(self._since(event.recorded_at), "ARRIVED", f"{event.type} {event.subject}")
            return None
        verdict = event.type.removeprefix("contract.")
        contract = str(event.data.get("contract", ""))
        self.counts[verdict] += 1
        self.verdicts[str(event.data.get("kind", "")), verdict] += 1
        key = (contract, event.subject)
        if verdict == "violated":
            self.violated[key] = self._since(event.recorded_at)
        else:
            self.violated.pop(key, None)
        return Happening(self._since(event.recorded_at), verdict.upper(), event.description)

    def _since(self, moment: int) -> float:
        return max(0.0, (moment - self._began_at) / MICROSECONDS)


class Screen:
    """Draws the watch's news on a terminal. `page` says where the status page is."""

    def __init__(self, watch: Watch, console: Console, page: str) -> None:
        self._watch = watch
        self._page = page
        self._console = console
        self._happenings: deque[Happening] = deque(maxlen=_HAPPENINGS)

    def add(self, happenings: list[Happening]) -> None:
        """Show these too."""
        self._happenings.extend(happenings)

    def draw(self, seconds: float) -> RenderableType:
        """The whole screen, `seconds` after the start."""
        counts = self._watch.counts
        head = Text.assemble(
            ("edgeq demo ", "bold"), f"{seconds:.0f}s   ", f"{counts['messages']} messages  ",
            (f"{counts['violated']} violated  ", "red"), (f"{counts['resolved']} resolved  ", "green"),
            (f"{counts['notifications']} notified  ", "cyan"), (f"{counts['dead letters']} dead letters", "magenta"),
        )  # fmt: skip
        page = Text(self._page, style="dim", no_wrap=True, overflow="ellipsis")
        above = Group(head, page, Columns([self._sensors(), self._contracts()], expand=True))
        taken = len(self._console.render_lines(above)) + 2  # the border below
        return Group(above, self._log(max(self._console.height - taken, 3)))

    def _sensors(self) -> Panel:
        table = Table(box=None, pad_edge=False, show_header=False)
        for subject, event in sorted(self._watch.latest.items()):
            value = event.data.get("value", event.type.removeprefix("door."))
            table.add_row(subject, Text(f"{value} {event.data.get('unit', '')}", style="bold"), f"#{event.id}")
        return Panel(table, title="what arrives", border_style="dim")

    def _contracts(self) -> Panel:
        table = Table(box=None, pad_edge=False, show_header=False)
        for (contract, subject), since in sorted(self._watch.violated.items()):
            table.add_row(Text(contract, style="bold red"), subject, f"since {since:.0f}s")
        if not self._watch.violated:
            table.add_row(Text("every promise is kept", style="green"))
        return Panel(table, title="what is violated", border_style="dim")

    def _log(self, lines: int) -> Panel:
        latest = list(self._happenings)[-lines:]
        return Panel(Group(*(each.text() for each in latest)), title="what happens", border_style="dim")


def summary(watch: Watch, seconds: float, sent: int) -> list[str]:
    """The sentences that the demo ends with."""
    counts = watch.counts
    lines = [
        f"{seconds:.0f} seconds: {sent} messages published, {counts['messages']} events stored, "
        f"{counts['dead letters']} dead letters,",
        f"{counts['violated']} violations, {counts['resolved']} resolved, {counts['notifications']} notifications sent",
    ]
    for kind in sorted({kind for kind, _ in watch.verdicts}):
        violated, resolved = watch.verdicts[kind, "violated"], watch.verdicts[kind, "resolved"]
        lines.append(f"  {kind:<10} {violated} violated, {resolved} resolved")
    return lines
