"""Where a notification goes, when, and how often: the routes of `notifications.routes`, compiled.

The first route that matches decides, and those behind it only while `continue` is set. A channel that several of them
name belongs to the first: it gets each notification once.

A route's id is made of its `match`: it stays the same when the route moves or its other keys change, so that what is
open goes on by the route as it is then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from zlib import crc32

import msgspec

from ..config.schema import LoadedConfig, NotificationRoute
from ..config.suggest import did_you_mean
from ..errors import Problem
from ..events import to_json
from ..store.notifications import QUIET, Group
from ..where import MISSING, lookup, parse_path
from .functions import Place
from .match import Facts, compile_match, given, match_faults
from .quiet import QuietHours, quiet_faults
from .template import Template, TemplateError
from .words import here

_GROUPS = ("type", "subject", "severity", "contract", "tags")


class Route:
    """A route that can be asked. `place` is its number among all. Lengths of time are in microseconds; `ttl` None means
    without an end."""

    def __init__(self, route: NotificationRoute, route_id: str, place: int) -> None:
        self.id = route_id
        self.place = place
        self.matches = compile_match(route.match)
        self.channels = tuple(dict.fromkeys(route.channels))
        self.goes_on = route.continue_
        self.repeat = tuple(each.microseconds for each in route.repeat)
        self.resolved = route.resolved
        self.escalate = tuple(
            (step.after.microseconds, tuple(dict.fromkeys(step.channels)))
            for step in sorted(route.escalate, key=lambda step: step.after)
        )
        self.failover = tuple(dict.fromkeys(route.failover))
        self.ttl = None if route.ttl is None else route.ttl.microseconds
        self.title = None if route.title is None else Template(route.title)
        self.body = None if route.body is None else Template(route.body)
        self.quiet = None if route.quiet is None else QuietHours(route.quiet)
        self._group_by = route.group_by
        self._wait = route.group_wait.microseconds
        self._interval = route.group_interval.microseconds

    def quiet_until(self, severity: str, at: int) -> int | None:
        """Until when quiet hours hold back what has this severity at `at`; None when they don't."""
        return None if self.quiet is None or severity == "critical" else self.quiet.until(at)

    def group(self, facts: Facts, *, quiet: bool) -> Group | None:
        """What a notification is told together with."""
        if quiet:
            return Group(f"{QUIET}{self.id}", 0, 0)
        if not self._group_by:
            return None
        values = to_json([_value(facts, name) for name in self._group_by])
        return Group(f"{self.id}:{hashlib.sha256(values.encode()).hexdigest()[:16]}", self._wait, self._interval)


class Policy:
    """The routes. Without any, everything goes to every channel. `channels` are the names of all that there are. Links
    to acknowledge begin with `public_url`; without it, there are none. `place` is where this gateway stands."""

    def __init__(
        self,
        routes: Sequence[NotificationRoute],
        channels: Collection[str],
        public_url: str | None = None,
        *,
        place: Place | None = None,
    ) -> None:
        self.channels = frozenset(channels)
        self.place = place or Place()
        self.public_url = public_url
        whole = [NotificationRoute(channels=list(channels))]
        compiled: list[Route] = []
        numbers: dict[str, int] = {}
        for route in routes or whole:
            name = f"{crc32(msgspec.json.encode(given(route.match), order='deterministic')):08x}"
            numbers[name] = numbers.get(name, 0) + 1
            compiled.append(Route(route, f"{name}-{numbers[name]}", len(compiled)))
        self._routes = {route.id: route for route in compiled}

    def route(self, route_id: str) -> Route | None:
        """The route of that id; None when there is none any more."""
        return self._routes.get(route_id)

    def quiet(self, at: int) -> dict[str, int]:
        """The routes, by their ids, in whose quiet hours `at` lies, and when those are over. Microseconds since 1970
        UTC."""
        found = {route.id: route.quiet_until("", at) for route in self._routes.values()}
        return {route_id: until for route_id, until in found.items() if until is not None}

    def find(self, facts: Facts) -> list[tuple[Route, tuple[str, ...]]]:
        """The routes that it goes by, each with its own channels; empty when none matches."""
        found: list[tuple[Route, tuple[str, ...]]] = []
        taken: set[str] = set()
        for route in self._routes.values():
            if route.matches(facts):
                found.append((route, tuple(name for name in route.channels if name not in taken)))
                taken.update(route.channels)
                if not route.goes_on:
                    break
        return found


def load_policy(loaded: LoadedConfig, problems: list[Problem]) -> Policy:
    """The policy of a configuration; each mistake is added to `problems`, and then it can't be relied on."""
    config = loaded.config
    before = len(problems)
    for index, route in enumerate(config.notifications.routes):
        for key, message, hint in route_faults(route):
            path = f"notifications.routes[{index}].{key}"
            problems.append(Problem(loaded.where(path), path, message, hint))
    if config.notifications.public_url is not None and config.web.listen is None:
        path = "notifications.public_url"
        problems.append(Problem(loaded.where(path), path, "needs web.listen as well: nothing would answer there"))
    routes = config.notifications.routes if len(problems) == before else ()
    return Policy(routes, config.channels, config.notifications.public_url, place=here(config.gateway))


def route_faults(route: NotificationRoute) -> Iterator[tuple[str, str, str]]:
    """What is wrong with a route: for each mistake its path, a sentence and a hint."""
    for path, message in match_faults(route.match):
        yield path, message, ""
    if route.quiet is not None:
        for path, message in quiet_faults(route.quiet):
            yield path, message, ""
    for key, template in (("title", route.title), ("body", route.body)):
        try:
            Template(template or "")
        except TemplateError as error:
            yield key, f"must be a template: {error.message}", error.hint
    for index, name in enumerate(route.group_by):
        if name not in _GROUPS and not name.startswith("data."):
            yield f"group_by[{index}]", f"must be {', '.join(_GROUPS)} or data.FIELD", did_you_mean(name, _GROUPS)
        elif name not in _GROUPS:
            try:
                parse_path(name)
            except ValueError as error:
                yield f"group_by[{index}]", str(error), ""
    if route.group_by and route.ttl is not None and route.ttl <= route.group_wait:
        yield "ttl", f"must be more than group_wait ({route.group_wait}): nothing would ever be sent", ""


def _value(facts: Facts, name: str) -> object:
    if name == "tags":
        return sorted(facts.tags)
    if name in _GROUPS:
        return getattr(facts, name)
    found = lookup(facts.data, parse_path(name))
    return None if found is MISSING else found
