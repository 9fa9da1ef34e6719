"""The appliance: whether it runs, and what it says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from ..control import NotAllowed, ask_appliance
from ..errors import EdgeqError
from ..version import edgeq_version
from .case import UNIT, Case
from .finding import SUDO, Finding, bad, ok, unknown, warn

_START = "sudo systemctl start edgeq"
_LOG = "journalctl -u edgeq -e"


def running(case: Case) -> Iterator[Finding]:
    """The running appliance."""
    state = (case.unit or {}).get("ActiveState")
    try:
        answer = asyncio.run(ask_appliance(case.loaded.config))
    except NotAllowed:
        yield unknown("edgeq runs, and belongs to another user", "only that user, or root, may ask it", SUDO)
        return
    except EdgeqError as error:
        yield bad(str(error), "nobody can tell whether it gets on", f"{_LOG}, then: sudo systemctl restart edgeq")
        return
    if answer is not None:
        yield ok(f"edgeq runs as process {answer['pid']}")
        yield from _told(answer)
    elif state == "active":
        yield bad(
            f"{UNIT} runs, and nothing answers for this configuration",
            "it has another configuration or another store, or can't write beside its database",
            f"{_LOG}; systemctl cat edgeq",
        )
    elif state == "failed":
        yield bad(f"{UNIT} has failed", "nothing is taken in, and it stays so", f"{_LOG}; {_START}")
    else:
        do = _START if case.unit_is_there else "edgeq run"
        yield warn("edgeq doesn't run", "nothing is taken in; the broker keeps what it can", do)


def _told(answer: dict[str, Any]) -> Iterator[Finding]:
    """What it says that is wrong."""
    if (version := answer.get("version", "unknown")) != edgeq_version():
        yield warn(
            f"edgeq {version} runs, and {edgeq_version()} is installed",
            "it was upgraded, and not started again",
            "sudo systemctl restart edgeq",
        )
    store = answer["store"]
    if not store["ok"]:
        yield bad(f"the store takes no commits: {store['reason']}", "messages wait at the broker, and it has limits")
    session = answer.get("session")
    if session and session["state"] != "connected":
        yield bad(
            f"edgeq isn't connected with {session['url']}: {session['reason'] or session['state']}",
            "nothing is taken in",
            "see below what is said of the broker",
        )
    for place in answer.get("processors", []):
        if place["state"] in ("halted", "paused"):
            yield warn(
                f"the processor {place['name']} is {place['state']}{_because(place['error'])}",
                f"{place['lag_events']} events wait for it",
                f"edgeq processors resume {place['name']}",
            )
    for letters in answer.get("dead_letters", []):
        yield warn(
            f"{letters['count']} dead letters from {letters['source']} ({letters['reason']})",
            "they were put aside, and wait for somebody to decide",
            f"edgeq dead-letters list --source {letters['source']}",
        )
    for each in answer.get("crashed", []):
        yield warn(
            f"{each['name']} has crashed {each['crashes']} times: {each['last_error'] or 'no reason'}",
            "it was started again; that is a defect",
            _LOG,
        )


def _because(error: str | None) -> str:
    lines = (error or "").strip().splitlines()
    return f": {lines[-1]}" if lines else ""
