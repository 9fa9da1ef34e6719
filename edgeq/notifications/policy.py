"""Which channels a notification goes to (`notifications.routes`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from ..config.schema import NotificationMatch, NotificationRoute
from ..config.suggest import did_you_mean
from ..errors import Problem
from ..events import Event
from ..patterns import pattern
from .notification import SEVERITIES

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


def check_routes(
    routes: Sequence[NotificationRoute],
    channels: Collection[str],
    problems: list[Problem],
    where: Callable[[str], str],
) -> None:
    """Append a Problem for each channel and severity that there isn't. `where` gives `file:line` of a dotted path."""
    for index, route in enumerate(routes):
        path = f"notifications.routes[{index}]"
        for at, name in enumerate(route.channels):
            if name not in channels:
                key = f"{path}.channels[{at}]"
                problems.append(Problem(where(key), key, f"there is no channel {name!r}", did_you_mean(name, channels)))
        for severity in _severities(route.match):
            if severity not in SEVERITIES:
                key = f"{path}.match.severity"
                hint = did_you_mean(severity, SEVERITIES)
                problems.append(Problem(where(key), key, f"there is no severity {severity!r}", hint))


def _matcher(match: NotificationMatch) -> Matcher:
    types = [pattern(text) for text in match.types]
    tags = frozenset(match.tags)
    severities = _severities(match)
    subject = pattern("*" if match.subject is None else match.subject)

    def matches(event: Event, severity: str) -> bool:
        return (
            (not types or any(fits(event.type) for fits in types))
            and (not severities or severity in severities)
            and subject(event.subject)
            and tags.issubset(event.tags)
        )

    return matches


def _severities(match: NotificationMatch) -> list[str]:
    return [match.severity] if isinstance(match.severity, str) else match.severity
