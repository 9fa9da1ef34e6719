"""`edgeq contracts explain`: why a contract stands where it stands."""

from __future__ import annotations

import asyncio
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import click
import msgspec

from ...clock import Clock, rfc3339
from ...config.schema import LoadedConfig
from ...config.suggest import did_you_mean
from ...contracts import Contract
from ...contracts.contract import say as worded
from ...contracts.explain import REASONS, Explanation, Looked, conditions, explain, recent
from ...contracts.overview import ROWS_MAX, rank
from ...control import ask_appliance
from ...errors import EdgeqError
from ...events import to_json
from ...store import contract_states, cursors, events
from ...store.contract_states import ContractState
from ...store.store import Store
from .. import completing
from ..common import as_json, configured, load_config, open_store
from ..printing import last_line, say, say_json, say_table
from .configured import configured_contracts, no_such_contract
from .times import ago, ahead

_SUBJECTS_SHOWN = 20
_SKIPPED_SHOWN = 5
_LABEL = 13
_WIDTH_MIN = 20


class _Answer(msgspec.Struct, frozen=True):
    """What was found: the states, the worst first; if they are of one subject, the explanation; the latest events that
    were skipped; what the running appliance has counted; the id of the last event that was judged, and what else is to
    be known of the Sentinel."""

    rows: Sequence[ContractState]
    one: Explanation | None
    skipped: Sequence[Looked]
    counted: Mapping[str, Any]
    judged_to: int
    notes: Sequence[str]


@click.command("explain")
@click.argument("name", shell_complete=completing.contracts)
@click.argument("subject", required=False)
@as_json
@configured
def explain_contract(name: str, subject: str | None, json_lines: bool) -> None:
    """Why a contract stands where it stands for SUBJECT.

    Which rule, which numbers, which events, what happens next, what would put it right, what holds it back, and what
    was told before. Without SUBJECT, if there are several: a line for each, the worst first.
    """
    loaded = load_config()
    contracts = configured_contracts(loaded)
    contract = next((each for each in contracts if each.name == name), None)
    if contract is None:
        raise no_such_contract(name, [each.name for each in contracts])
    answer = asyncio.run(_find(loaded, contract, subject))
    if json_lines:
        say_json(_as_dict(contract, answer))
    else:
        _print(contract, answer, Clock().now())


async def _find(loaded: LoadedConfig, contract: Contract, subject: str | None) -> _Answer:
    async with open_store(loaded) as store:
        rows = sorted(await contract_states.find(store, limit=ROWS_MAX, contract=contract.name), key=rank)
        chosen = [row for row in rows if subject is None or row.subject == subject]
        if subject is not None and not chosen:
            raise EdgeqError(f"{contract.name} has no subject {subject!r}", hint=_nearest(subject, rows))
        one = await explain(store, contract, chosen[0]) if len(chosen) == 1 else None
        skipped = [each.looked for each in await recent(store, contract) if each.looked.reasons] if one is None else []
        judged_to, notes = await _progress(loaded, store)
    notes += _out_of_force(contract) if not rows else []
    try:
        status = await ask_appliance(loaded.config)
    except EdgeqError as error:
        status, notes = None, [*notes, f"what was skipped since the start can't be told: {error}"]
    counts = [each for each in (status or {}).get("contracts", []) if each.get("contract") == contract.name]
    return _Answer(rows, one, skipped[:_SKIPPED_SHOWN], counts[0] if counts else {}, judged_to, notes)


def _out_of_force(contract: Contract) -> list[str]:
    calendar, now = contract.calendar, Clock().now()
    if calendar is None or calendar.is_active(now):
        return []
    change = calendar.next_change(now)
    return [f"not in force{'' if change is None else f' until {rfc3339(change)}'}: nothing is judged"]


def _nearest(subject: str, rows: Sequence[ContractState]) -> str:
    known = [row.subject for row in rows]
    hint = did_you_mean(subject, known)
    if hint.startswith("did") or len(known) <= _SUBJECTS_SHOWN:
        return hint or "it has none yet"
    return f"there is: {', '.join(known[:_SUBJECTS_SHOWN])} and {len(known) - _SUBJECTS_SHOWN} more"


async def _progress(loaded: LoadedConfig, store: Store) -> tuple[int, list[str]]:
    """The id of the last event that was judged, and what keeps the states from being those of this moment."""
    sections = loaded.config.processors.items()
    name = next((name for name, section in sections if section.data.get("kind") == "sentinel"), "sentinel")
    cursor = next((each for each in await cursors.every(store) if each.processor == name), None)
    if cursor is None:
        return 0, ["nothing was judged yet"]
    behind = await events.count_after(store, cursor.last_consumed_id)
    found = [f"{behind} stored event{'s' if behind > 1 else ''} not judged yet"] if behind else []
    if cursor.failure is not None:
        found.append(f"the processor {name} fails at event {cursor.failed_id}: {last_line(cursor.error)}")
    found += [f"the processor {name} is paused"] if cursor.paused else []
    return cursor.last_consumed_id, found


def _as_dict(contract: Contract, answer: _Answer) -> dict[str, Any]:
    found = {
        "contract": contract.name,
        "kind": contract.kind,
        "severity": contract.keys.severity,
        "description": contract.keys.description,
        "rule": contract.promise(),
        "conditions": conditions(contract),
        "notes": answer.notes,
        "skipped": answer.counted.get("skipped", {}),
        "last_skipped": answer.counted.get("last_skipped"),
    }
    if answer.one is not None:
        return {**found, **msgspec.to_builtins(answer.one)}
    subjects = [
        {name: getattr(row, name) for name in ("subject", "state", "since", "deadline_at", "episode")}
        for row in answer.rows
    ]
    return {**found, "subjects": subjects, "skipped_events": msgspec.to_builtins(answer.skipped)}


# For people


def _print(contract: Contract, answer: _Answer, now: int) -> None:
    one, keys = answer.one, contract.keys
    _line("contract", f"{contract.name}, {contract.kind}, {keys.severity}")
    _line("", keys.description)
    _line("rule", contract.promise())
    for condition in conditions(contract):
        _line("", condition)
    if one is not None:
        _print_one(one, now)
    for note in answer.notes:
        _line("note", note)
    _line("skipped", _counted(answer.counted))
    if one is None:
        _print_rows(contract, answer, now)
        _print_events("skipped among the latest events", answer.skipped, answer, now)
        return
    _print_events("the latest events that it looked at", one.events, answer, now)
    if one.history:
        say("\ntold before")
        rows = [(ago(each.at, now), each.what, each.episode, each.message) for each in one.history]
        say_table(("when", "what", "episode", "message"), rows, empty="")


def _print_one(one: Explanation, now: int) -> None:
    _line("subject", one.subject or "(none)")
    judged = f", judged to be {one.judged}" if one.judged not in ("", one.state) else ""
    episode = f", episode {one.episode}" if one.episode else ""
    _line("state", f"{one.state}{judged} {_since(one.since, now)}{episode}")
    for why in one.held_back:
        _line("held back", why)
    if one.cause is not None:
        _line("because of", f"event {one.cause.id}, {rfc3339(one.cause.occurred_at)}: {_event(one.cause)}")
    elif one.cause_id:
        _line("because of", f"event {one.cause_id}, which is no longer stored")
    if one.observed is not None:
        _line("observed", worded(one.observed))
    _line("remembered", one.recalls)
    for name, state in one.looks_at.items():
        _line("looks at", f"{name}, which is {state}")
    for each in one.coming:
        _line("next", f"{rfc3339(each.at)} ({ahead(each.at, now)}): {each.what}")
    _line("resolved by" if one.state == "violated" else "kept by", one.cure)


def _print_rows(contract: Contract, answer: _Answer, now: int) -> None:
    if not answer.rows:
        _line("state", "no subject was seen yet")
        return
    say("")
    rows = [
        (row.subject, row.state, ago(row.since, now), ahead(row.deadline_at, now))
        for row in answer.rows[:_SUBJECTS_SHOWN]
    ]
    say_table(("subject", "state", "since", "next deadline"), rows, empty="")
    if len(answer.rows) > _SUBJECTS_SHOWN:
        more = f"and {len(answer.rows) - _SUBJECTS_SHOWN} more: edgeq contracts list {contract.name}"
        say("\n".join(_broken(more)))
    more = f"edgeq contracts explain {contract.name} {answer.rows[0].subject or repr('')} says more of one"
    say("\n".join(["", *_broken(more)]))


def _print_events(title: str, found: Sequence[Looked], answer: _Answer, now: int) -> None:
    if not found:
        return
    say(f"\n{title}")
    alone = answer.one is not None and all(each.subject == answer.one.subject for each in found)
    columns = [
        name for name in ("id", "occurred", "type", "subject", "data", "outcome") if name != "subject" or not alone
    ]
    rows = []
    for each in found:
        subject = [] if alone else [each.subject]
        data = to_json(each.data)
        rows.append((each.id, ago(each.occurred_at, now), each.type, *subject, data, _outcome(each, answer)))
    say_table(columns, rows, empty="")


def _outcome(event: Looked, answer: _Answer) -> str:
    if event.id > answer.judged_to:
        return "not judged yet"
    return "; ".join(REASONS.get(reason, f"skipped: {reason}") for reason in event.reasons) or "judged"


def _counted(counted: Mapping[str, Any]) -> str:
    reasons, last = counted.get("skipped"), counted.get("last_skipped")
    if not reasons or not last:
        return ""
    text = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    whose = f" of {last['subject']}" if last["subject"] else ""
    return f"{text} since the start, the last one event {last['event_id']}{whose}"


def _event(event: Looked) -> str:
    data = "" if event.data == {} else f" {to_json(event.data)}"
    return f"{event.type}{f' of {event.subject}' if event.subject else ''}{data}"


def _since(since: int, now: int) -> str:
    return f"since {rfc3339(since)} ({ago(since, now)})"


def _line(label: str, text: str) -> None:
    """A line with a label; on a terminal, it is broken at its width. None if there is nothing to say."""
    if not text:
        return
    for index, line in enumerate(_broken(text, _LABEL)):
        say(f"{'' if index else label:<{_LABEL}}{line}")


def _broken(text: str, indent: int = 0) -> list[str]:
    """The text in the lines that a terminal has room for beside `indent` characters; elsewhere it is one."""
    if not sys.stdout.isatty():
        return [text]
    width = max(_WIDTH_MIN, shutil.get_terminal_size().columns - indent)
    return textwrap.wrap(text, width, break_on_hyphens=False) or [text]
