"""`edgeq status`: one screen that says how the appliance is."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from ..clock import MICROSECONDS, Clock, rfc3339
from ..config.load import sqlite_path
from ..config.schema import LoadedConfig
from ..control import ask, socket_path
from ..errors import StoreError
from ..status import stored
from ..units import Size
from .common import as_json, configured, load_config, open_store, run_async, say, say_json


@click.command()
@click.option("--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
@as_json
@configured
def status(watch: bool, json_lines: bool) -> None:
    """Session, rates, processors, jobs, contracts, notifications, dead letters, disk."""
    loaded = load_config()
    while True:
        answer = run_async(_ask(loaded))
        if json_lines:
            say_json(answer)
        else:
            if watch and sys.stdout.isatty():
                say("\x1b[H\x1b[2J", end="")
            for line in lines(answer, Clock().now()):
                say(line)
        if not watch:
            return
        time.sleep(2.0)


async def _ask(loaded: LoadedConfig) -> dict[str, Any]:
    path = sqlite_path(loaded.config.store.url)
    answer = await ask(socket_path(path), "status")
    if answer is not None:
        return dict(answer)
    answer = {"running": False, "gateway": loaded.config.gateway}
    try:
        async with open_store(loaded) as store:
            return {**answer, **await stored(store, path, Clock().now())}
    except StoreError as error:
        return {**answer, "store": {"path": path, "ok": False, "reason": str(error)}}


def lines(answer: dict[str, Any], now: int) -> list[str]:
    """The screen, line by line. `now` is in microseconds since 1970 UTC."""
    store = answer["store"]
    made = [_head(answer, now), *_session(answer, now), _store(store)]
    for route in answer.get("routes", []):
        seen = f", last {_ago(route['last_message_at'], now)}" if route["last_message_at"] else ""
        made.append(f"route         {route['topic']}: {route['messages']} messages{seen}")
    for place in answer.get("processors", []):
        lag = (
            f"{place['lag_events']} events, {place['lag_seconds']:.0f}s behind" if place["lag_events"] else "up to date"
        )
        error = f"; {_last_line(place['error'])}" if place.get("error") else ""
        made.append(f"processor     {place['name']}: {place['state']}, at {place['last_consumed_id']}, {lag}{error}")
    made += [f"jobs          {queue['queue']}: {_numbers(queue)}" for queue in answer.get("jobs", [])]
    made += [f"contract      {each['contract']}: {_numbers(each)}" for each in answer.get("contracts", [])]
    for channel, counts in answer.get("notifications", {}).items():
        error = f"; {_last_line(counts['error'])}" if counts.get("error") else ""
        made.append(f"channel       {channel}: {_numbers(counts)}{error}")
    made += [
        f"dead letters  {letters['count']} from {letters['source']} ({letters['reason']}), "
        f"oldest {_ago(letters['oldest_at'], now)}"
        for letters in answer.get("dead_letters", [])
    ]
    dropped = {
        reason: count
        for reason, count in answer.get("counters", {}).get("edgeq_messages_dropped_total", {}).items()
        if count
    }
    if dropped:
        made.append("dropped       " + ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items())))
    return made


def _head(answer: dict[str, Any], now: int) -> str:
    if not answer["running"]:
        return f"gateway       {answer['gateway']}: edgeq is not running"
    return f"gateway       {answer['gateway']}: running as {answer['pid']}, started {_ago(answer['started_at'], now)}"


def _session(answer: dict[str, Any], now: int) -> list[str]:
    session = answer.get("session")
    if session is None:
        return []
    text = f"broker        {session['url']} as {session['client_id']}: {session['state']}"
    if session["connected_since"]:
        text += f" since {_ago(session['connected_since'], now)}"
    if session["reason"]:
        text += f": {session['reason']}"
    rates = answer["rates"]
    return [
        text,
        f"rates         {rates['messages_per_second']} messages/s, {rates['events_per_second']} events/s; "
        f"{session['waiting']} waiting, {session['in_flight']} not acknowledged yet",
    ]


def _store(store: dict[str, Any]) -> str:
    if not store.get("ok", True):
        return f"store         takes no commits: {store['reason']}"
    return (
        f"store         {store['path']}: {store['head']} events up to now, {Size(store['file_bytes'])} "
        f"and {Size(store['wal_bytes'])} of log, {Size(store['free_disk_bytes'])} free on the disk"
    )


def _numbers(counts: dict[str, Any]) -> str:
    """`3 executing, 1 dead`: the counts that aren't zero, without times and texts."""
    found = [f"{count} {name}" for name, count in counts.items() if type(count) is int and count and name[-3:] != "_at"]
    return ", ".join(found) or "none"


def _ago(moment: int, now: int) -> str:
    seconds = (now - moment) / MICROSECONDS
    if seconds < 0 or seconds > 7 * 86400:
        return rfc3339(moment)
    if seconds < 120:
        return f"{seconds:.0f}s ago"
    return f"{seconds / 60:.0f}m ago" if seconds < 7200 else f"{seconds / 3600:.0f}h ago"


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1][:200]
