"""Which channels a notification goes to (`notifications.routes`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from ..config.schema import NotificationMatch, NotificationRoute
from ..events import Event
from ..patterns import pattern

Matcher = Callable[[Event, str], bool]


class Policy:
    """The routes, compiled. The first that matches says where to, and those behind it only while `continue` is set.

    Without any routes, everything goes to every channel.
    """

    def __init__(self, routes: Sequence[NotificationRoute], channels: Collection[str]) -> None:
        whole = [NotificationRoute(channels=list(channels))]
        self._routes = [(_matcher(route.match), route) for route in routes or whole]

    def channels_for(self, event: Event, severity: str) -> list[str]:
        """The names of the channels, each once; empty when no route matches."""
        found: dict[str, None] = {}
        for matches, route in self._routes:
            if matches(event, severity):
                found.update(dict.fromkeys(route.channels))
                if not route.continue_:
                    break
        return list(found)


def _matcher(match: NotificationMatch) -> Matcher:
    types = [pattern(text) for text in match.types]
    tags = frozenset(match.tags)
    severities = [match.severity] if isinstance(match.severity, str) else match.severity
    subject = pattern("*" if match.subject is None else match.subject)

    def matches(event: Event, severity: str) -> bool:
        return (
            (not types or any(fits(event.type) for fits in types))
            and (not severities or severity in severities)
            and subject(event.subject)
            and tags.issubset(event.tags)
        )

    return matches
