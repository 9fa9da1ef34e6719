"""`edgeq status`: one screen that says how the appliance is."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import click

from ..clock import MICROSECONDS, Clock, rfc3339
from ..config.relations import processors_of
from ..config.schema import LoadedConfig
from ..errors import EdgeqError, StoreError
from ..status import stored
from ..store.opening import place
from ..telemetry.log import printable
from ..units import Size
from .common import as_json, ask_appliance, configured, load_config, open_store
from .printing import last_line, say, say_json

_WATCH_SECONDS = 2.0
_LONG_SECONDS = 5.0
_JOBS = ("ready", "delayed", "blocked", "executing", "dead", "completed", "cancelled")
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K\n", "\x1b[J"


@click.command()
@click.option("--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
@as_json
@configured
def status(watch: bool, json_lines: bool) -> None:
    """Say on one screen how the appliance is.

    Session, rates, routes, processors, jobs, contracts, notifications, dead letters, disk, crashes.
    """
    loaded = load_config()
    while True:
        now = Clock().now()
        try:
            answer = asyncio.run(_ask(loaded))
        except EdgeqError as error:
            if not watch:
                raise
            answer = {"running": True, "gateway": loaded.config.gateway, "error": str(error)}
        shown = [printable(line, keep="") for line in lines(answer, now)]
        if json_lines:
            say_json(answer)
        elif watch and sys.stdout.isatty():
            # Written over what stands there, without a moment of emptiness.
            sys.stdout.write(_HOME + "".join(line + _CLEAR_LINE for line in shown) + _CLEAR_BELOW)
        else:
            say("\n".join(shown))
        if not watch:
            return
        sys.stdout.flush()
        time.sleep(_WATCH_SECONDS)


async def _ask(loaded: LoadedConfig) -> dict[str, Any]:
    answer = await ask_appliance(loaded)
    if answer is not None:
        return answer
    answer = {"running": False, "gateway": loaded.config.gateway}
    try:
        async with open_store(loaded) as store:
            return {**answer, **await stored(store, Clock().now(), processors_of(loaded.config))}
    except StoreError as error:
        reason = f"{error} ({error.hint})" if error.hint else str(error)
        return {**answer, "store": {"place": place(loaded.config.store.url), "ok": False, "reason": reason}}


def lines(answer: dict[str, Any], now: int) -> list[str]:
    """The screen, line by line. `now` is in microseconds since 1970 UTC."""
    made = [_head(answer, now)]
    if "error" in answer:
        return [*made, f"              {answer['error']}"]
    made += [*_session(answer, now), *_store(answer["store"], answer["running"], now)]
    if "leader" in answer:
        made.append(f"leader        {answer['leader'] or 'nobody'}")
    for route in answer.get("routes", []):
        seen = f", the last {_ago(route['last_message_at'], now)}" if route["last_message_at"] else ""
        made.append(f"route         {route['topic']}: {route['messages']} messages{seen}")
    made += [f"processor     {place['name']}: {_processor(place, now)}" for place in answer.get("processors", [])]
    made += _jobs(answer, now)
    made += [f"contract      {each['contract']}: {_contract(each)}" for each in answer.get("contracts", [])]
    made += [f"channel       {name}: {_channel(each, now)}" for name, each in answer.get("notifications", {}).items()]
    if (threads := answer.get("threads", {})).get("open"):
        made.append(f"threads       {_numbers(threads)}")
    if heartbeat := answer.get("heartbeat"):
        last = heartbeat["last_success_at"]
        text = f"answered {_ago(last, now)}" if last else "not answered since the start"
        made.append(f"heartbeat     {text}{_why(heartbeat['last_error'])}")
    made += [
        f"dead letters  {letters['count']} from {letters['source']} ({letters['reason']}), "
        f"the oldest {_ago(letters['oldest_at'], now)}"
        for letters in answer.get("dead_letters", [])
    ]
    made += [
        f"crashed       {each['name']}: {each['crashes']} times{_why(each['last_error'])}"
        for each in answer.get("crashed", [])
    ]
    dropped = answer.get("counters", {}).get("edgeq_messages_dropped_total", {})
    if any(dropped.values()):
        made.append("dropped       " + ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items())))
    return made


def _head(answer: dict[str, Any], now: int) -> str:
    if "pid" in answer:
        how = f"running as process {answer['pid']}, started {_ago(answer['started_at'], now)}"
    else:
        how = "running" if answer["running"] else "edgeq is not running"
    return f"gateway       {answer['gateway']}: {how}"


def _session(answer: dict[str, Any], now: int) -> list[str]:
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
        text,
        f"rates         {rates['messages_per_second']:g} messages/s, {rates['events_per_second']:g} events/s; "
        f"{session['waiting']} waiting, {session['in_flight']} not acknowledged yet",
    ]


def _store(store: dict[str, Any], running: bool, now: int) -> list[str]:
    made = []
    if not store.get("ok", True):
        since = f" (for {_time((now - store['since']) / MICROSECONDS)})" if store.get("since") else ""
        made.append(f"store         {f'takes no commits{since}: ' if running else ''}{store['reason']}")
    elif store.get("reason"):
        made.append(f"store         {store['reason']}")
    if "head" in store:
        made.append(f"store         {store['place']}: {store['head']} events up to now{_disk(store)}")
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


def _owner(place: dict[str, Any]) -> str:
    """Whose it is, where it may be several machines'."""
    return f"; run by {place['owner'] or 'nobody'}" if "owner" in place else ""


def _jobs(answer: dict[str, Any], now: int) -> list[str]:
    """A line for each queue, worker in trouble and dependency that doesn't work."""
    made = []
    for queue in answer.get("jobs", []):
        text = _numbers({name: queue[name] for name in _JOBS})
        if queue["oldest_ready_seconds"] >= _LONG_SECONDS:
            text += f"; the oldest ready for {_time(queue['oldest_ready_seconds'])}"
        made.append(f"jobs          {queue['queue']}: {'paused, ' if queue['paused'] else ''}{text}")
    made += [
        f"worker        {worker['queue']}: {worker['overdue']} of {worker['concurrency']} places are held by "
        "jobs that should have ended"
        for worker in answer.get("workers", [])
        if worker["overdue"]
    ]
    made += [
        f"dependency    {breaker['name']}: {breaker['state'].replace('_', ' ')} after {breaker['failures']} failures, "
        f"its jobs wait{_why(breaker['error'])}"
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
