"""The screen of `edgeq status`, line by line."""

from __future__ import annotations

from typing import Any, Literal

from ..clock import MICROSECONDS, rfc3339
from ..units import Size
from .printing import last_line

_LONG_SECONDS = 5.0
_BEHIND_SECONDS = 60.0
_JOBS = ("ready", "delayed", "blocked", "executing", "dead", "completed", "cancelled")

Level = Literal["fine", "look", "wrong"]


class Line(str):
    """A line, and how what it says stands."""

    level: Level

    def __new__(cls, text: str, level: Level = "fine") -> Line:
        """`look`: worth a look; `wrong`: somebody has to do something."""
        line = super().__new__(cls, text)
        line.level = level
        return line


def lines(answer: dict[str, Any], now: int) -> list[Line]:
    """The screen, line by line. `now` is in microseconds since 1970 UTC."""
    made = [_head(answer, now)]
    if "error" in answer:
        return [*made, Line(f"              {answer['error']}", "wrong")]
    made += [*_session(answer, now), *_store(answer["store"], answer["running"], now)]
    made += _retention(answer, now)
    if "leader" in answer:
        made.append(Line(f"leader        {answer['leader'] or 'nobody'}", "fine" if answer["leader"] else "look"))
    for route in answer.get("routes", []):
        seen = f", the last {_ago(route['last_message_at'], now)}" if route["last_message_at"] else ""
        made.append(Line(f"route         {route['topic']}: {route['messages']} messages{seen}"))
    made += [
        Line(f"processor     {place['name']}: {_processor(place, now)}", _level_of(place))
        for place in answer.get("processors", [])
    ]
    made += _jobs(answer, now)
    made += [
        Line(f"contract      {each['contract']}: {_contract(each)}", "wrong" if each.get("violated") else "fine")
        for each in answer.get("contracts", [])
    ]
    made += [
        Line(
            f"channel       {name}: {_channel(each, now)}", "look" if each.get("last_error") or each["dead"] else "fine"
        )
        for name, each in answer.get("notifications", {}).items()
    ]
    if (threads := answer.get("threads", {})).get("open"):
        made.append(Line(f"threads       {_numbers(threads)}", "look"))
    if heartbeat := answer.get("heartbeat"):
        last = heartbeat["last_success_at"]
        text = f"answered {_ago(last, now)}" if last else "not answered since the start"
        level: Level = "look" if heartbeat["last_error"] else "fine"
        made.append(Line(f"heartbeat     {text}{_why(heartbeat['last_error'])}", level))
    if backup := answer.get("backup"):
        last = backup["last_success_at"]
        text = f"made {_ago(last, now)}" if last else "none yet"
        made.append(
            Line(f"backup        {text}{_why(backup['last_error'])}", "look" if backup["last_error"] else "fine")
        )
    made += [
        Line(
            f"dead letters  {letters['count']} from {letters['source']} ({letters['reason']}), "
            f"the oldest {_ago(letters['oldest_at'], now)}",
            "look",
        )
        for letters in answer.get("dead_letters", [])
    ]
    made += [
        Line(f"crashed       {each['name']}: {each['crashes']} times{_why(each['last_error'])}", "wrong")
        for each in answer.get("crashed", [])
    ]
    dropped = answer.get("counters", {}).get("edgeq_messages_dropped_total", {})
    if any(dropped.values()):
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
        made.append(Line(f"dropped       {counts}", "look"))
    return made


def _head(answer: dict[str, Any], now: int) -> Line:
    if "pid" in answer:
        how = f"running as process {answer['pid']}, started {_ago(answer['started_at'], now)}"
    else:
        how = "running" if answer["running"] else "edgeq is not running"
    return Line(f"gateway       {answer['gateway']}: {how}", "fine" if answer["running"] else "wrong")


def _session(answer: dict[str, Any], now: int) -> list[Line]:
    session = answer.get("session")
    if session is None:
        return []
    text = f"broker        {session['url']} as {session['client_id']}: {session['state']}"
    if session["connected_since"]:
        text += f" for {_time((now - session['connected_since']) / MICROSECONDS)}"
    if session["reason"]:
        text += f": {session['reason']}"
    rates = answer["rates"]
    return [
        Line(text, "fine" if session["state"] == "connected" else "wrong"),
        Line(
            f"rates         {rates['messages_per_second']:g} messages/s, {rates['events_per_second']:g} events/s; "
            f"{session['waiting']} waiting, {session['in_flight']} not acknowledged yet"
        ),
    ]


def _store(store: dict[str, Any], running: bool, now: int) -> list[Line]:
    made = []
    if not store.get("ok", True):
        since = f" (for {_time((now - store['since']) / MICROSECONDS)})" if store.get("since") else ""
        made.append(Line(f"store         {f'takes no commits{since}: ' if running else ''}{store['reason']}", "wrong"))
    elif store.get("reason"):
        made.append(Line(f"store         {store['reason']}", "look"))
    if "head" in store:
        made.append(Line(f"store         {store['place']}: {store['head']} events up to now{_disk(store)}"))
    return made


def _retention(answer: dict[str, Any], now: int) -> list[Line]:
    """How much of its limit the store takes, and what is wrong with keeping it within that."""
    store, kept = answer["store"], answer.get("retention")
    if kept is None or "used_bytes" not in store:
        return []
    text = f"{Size(store['used_bytes'])} taken"
    if kept["max_size"] is not None:
        text += f" of {Size(kept['max_size'])}"
    if store["oldest_event_at"]:
        text += f", the oldest event {_ago(store['oldest_event_at'], now)}"
    made = [Line(f"retention     {text}", "fine")]
    if kept.get("trouble"):
        made.append(Line(f"retention     {kept['trouble']}", "wrong"))
    if kept.get("waits_until"):
        made.append(Line(f"retention     begins to delete old events at {rfc3339(kept['waits_until'])}", "look"))
    if kept.get("doubts_clock"):
        made.append(Line("retention     doesn't believe the clock, which leapt and isn't synchronised", "look"))
    return made


def _disk(store: dict[str, Any]) -> str:
    if "file_bytes" not in store:  # it isn't on this machine's disk
        return ""
    return (
        f", {Size(store['file_bytes'])} and {Size(store['wal_bytes'])} of log, "
        f"{Size(store['free_disk_bytes'])} free on the disk"
    )


def _processor(place: dict[str, Any], now: int) -> str:
    if place["state"] == "not configured":  # nobody reads, so nobody lags behind
        return f"not configured; events up to {place['last_consumed_id']} were read"
    lag = f"{place['lag_events']} events, {_time(place['lag_seconds'])} behind"
    text = f"{place['state']}, at event {place['last_consumed_id']}, {lag if place['lag_events'] else 'up to date'}"
    busy = (now - place["busy_since"]) / MICROSECONDS if place.get("busy_since") else 0.0
    if busy >= _LONG_SECONDS:
        text += f", busy with event {place['busy_with']} for {_time(busy)}"
    if said := place.get("says"):
        text += "; " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in said.items())
    return text + _owner(place) + _why(place["error"])


def _level_of(place: dict[str, Any]) -> Level:
    if place["state"] == "halted":
        return "wrong"
    behind = place["lag_seconds"] >= _BEHIND_SECONDS
    return "look" if behind or place["error"] or place["state"] in ("paused", "retrying", "waiting") else "fine"


def _owner(place: dict[str, Any]) -> str:
    """Whose it is, where it may be several machines'."""
    return f"; run by {place['owner'] or 'nobody'}" if "owner" in place else ""


def _jobs(answer: dict[str, Any], now: int) -> list[Line]:
    """A line for each queue, worker in trouble and dependency that doesn't work."""
    made = []
    for queue in answer.get("jobs", []):
        text = _numbers({name: queue[name] for name in _JOBS})
        if queue["oldest_ready_seconds"] >= _LONG_SECONDS:
            text += f"; the oldest ready for {_time(queue['oldest_ready_seconds'])}"
        level: Level = "look" if queue["paused"] or queue["dead"] else "fine"
        made.append(Line(f"jobs          {queue['queue']}: {'paused, ' if queue['paused'] else ''}{text}", level))
    made += [
        Line(
            f"worker        {worker['queue']}: {worker['overdue']} of {worker['concurrency']} places are held by "
            "jobs that should have ended",
            "wrong",
        )
        for worker in answer.get("workers", [])
        if worker["overdue"]
    ]
    made += [
        Line(
            f"dependency    {breaker['name']}: {breaker['state'].replace('_', ' ')} after {breaker['failures']} "
            f"failures, its jobs wait{_why(breaker['error'])}",
            "wrong",
        )
        for breaker in answer.get("breakers", [])
        if breaker["state"] != "closed"
    ]
    return made


def _contract(counts: dict[str, Any]) -> str:
    last = counts.get("last_skipped")
    if last is None:
        return _numbers(counts)
    skipped = ", ".join(f"{count} {reason}" for reason, count in sorted(counts["skipped"].items()))
    whose = f" of {last['subject']}" if last["subject"] else ""
    return f"{_numbers(counts)}; skipped {skipped}, the last one event {last['event_id']}{whose}"


def _channel(channel: dict[str, Any], now: int) -> str:
    """How many notifications are in which state, and what those wait for that do."""
    text = _numbers(channel)
    if channel["oldest_seconds"] >= _LONG_SECONDS:
        text += f"; the oldest was raised {_time(channel['oldest_seconds'])} ago"
    if not channel.get("configured", True):
        text += "; not configured, so they wait" if channel["queued"] else "; not configured"
    until = channel.get("waiting_until")
    if until is not None and channel["queued"]:
        text += f"; tried again in {_time((until - now) / MICROSECONDS)}"
    return text + _owner(channel) + _why(channel.get("last_error") or channel["error"])


def _numbers(counts: dict[str, Any]) -> str:
    """`3 executing, 1 dead`: the counts that aren't zero, without times and texts."""
    times = ("_at", "_until")
    found = [f"{n} {name}" for name, n in counts.items() if type(n) is int and n and not name.endswith(times)]
    return ", ".join(found) or "none"


def _why(error: str | None) -> str:
    return f"; {last_line(error)[:200]}" if error else ""


def _ago(moment: int, now: int) -> str:
    seconds = (now - moment) / MICROSECONDS
    return f"{_time(seconds)} ago" if -1 < seconds < 7 * 86400 else rfc3339(moment)


def _time(seconds: float) -> str:
    """Roughly, for a glance: `12s`, `5m`, `3h`, `2d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"
