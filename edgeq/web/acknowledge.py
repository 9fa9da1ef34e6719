"""The page behind a link in a notification: what it is about, and a button.

To open it changes nothing, so that programs which look at the links in mails and messages acknowledge nothing; the
button does. Who has the link may: it is all that is asked for. A link that isn't one of ours, and one to something that
never was, get the same answer.
"""

from __future__ import annotations

from microdot import Request, Response

from ..clock import Clock, rfc3339
from ..notifications.acknowledge import BY_CHARACTERS_MAX, Note, Standing, Told, acknowledge, standing
from ..notifications.links import Links, signing_key
from ..store import threads
from ..store.store import Store
from ..telemetry.metrics import Metrics
from .html import html_page
from .server import Page

STORE_SECONDS = 10.0
ROUTES_MAX = 100

_FORM = (
    '<form method="post"><label for="by">Your name, if you like</label>'
    f'<input id="by" name="by" maxlength="{BY_CHARACTERS_MAX}" autocomplete="name">'
    "<button>Acknowledge</button></form>"
)


class AcknowledgePage:
    """Reads tokens, shows what they are about, and acknowledges it."""

    def __init__(self, gateway: str, store: Store, metrics: Metrics, clock: Clock) -> None:
        self._gateway = gateway
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._links: Links | None = None

    def page(self) -> Page:
        """Where it stands on the server."""
        return Page("/ack/<token>", ("GET", "POST"), self.answer)

    async def answer(self, request: Request, token: str) -> Response:
        """The page for a link's token. Raises StoreError."""
        now = self._clock.now()
        told = (await self._reader()).read(token, now)
        if told is None:
            return html_page(404, "Unknown link", "This link is none of this gateway, or a part of it is missing.")
        if told == "expired":
            return html_page(
                410, "Expired link", "This link is too old. What is open can still be acknowledged on the gateway."
            )
        if request.method != "POST":
            open_threads = await threads.latest(self._store, ROUTES_MAX, fingerprints=[told.fingerprint])
            return self._shown(standing(open_threads, told))
        return await self._acknowledge(told, _name(request), now)

    async def _acknowledge(self, told: Told, by: str, now: int) -> Response:
        note = Note(by=by, how="link")
        (found,) = await self._store.write(lambda tx: acknowledge(tx, [told], note, now), timeout_seconds=STORE_SECONDS)
        if found.news:
            self._metrics.events.add(1)
            return html_page(200, "Acknowledged", *self._about(found), "There will be no more reminders of it.")
        return self._shown(found)

    def _shown(self, found: Standing) -> Response:
        if found.state == "replaced":
            return html_page(200, "Not the latest", "What this link was about happened again. There is a newer one.")
        if found.state == "over":
            return html_page(200, "It is over", "There is nothing to acknowledge any more.")
        about = self._about(found)
        if found.state == "open":
            return html_page(200, about[0], *about[1:], form=_FORM)
        return html_page(200, "Already acknowledged", *about, _by_whom(found))

    def _about(self, found: Standing) -> list[str]:
        assert found.thread is not None
        thread = found.thread
        return [
            thread.text.title,
            thread.text.body if thread.text.body != thread.text.title else "",
            f"{thread.thread.severity}, since {rfc3339(thread.thread.opened_at)}, told by {self._gateway}",
        ]

    async def _reader(self) -> Links:
        if self._links is None:
            self._links = Links("", await signing_key(self._store))
        return self._links


def _by_whom(found: Standing) -> str:
    when = "" if found.acknowledged_at is None else rfc3339(found.acknowledged_at)
    return f"by {found.by}, {when}" if found.by else when


def _name(request: Request) -> str:
    try:
        given = (request.form or {}).get("by", "")
    except ValueError:  # not text
        given = ""
    return str(given).encode(errors="replace").decode()
