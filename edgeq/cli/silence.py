"""`edgeq silence`: let nobody be told of something for a while, see what is silenced, and end it before its time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import click

from ..clock import MICROSECONDS, Clock, rfc3339
from ..config.scalars import resolve
from ..config.schema import LoadedConfig, NotificationMatch
from ..config.suggest import did_you_mean
from ..errors import EdgeqError, Problem
from ..events import from_json, to_json
from ..moments import moment
from ..notifications.acknowledge import COMMENT_CHARACTERS_MAX, facts_of_thread
from ..notifications.match import compile_match, given, read_match
from ..notifications.silences import LONGEST, SILENCES_MAX, begin_silence
from ..patterns import pattern
from ..store import silences as table
from ..store import threads
from ..store.silences import NewSilence, Silence
from ..store.store import Tx
from ..store.threads import OpenThread
from ..units import Duration
from .common import ID, ROWS, WRITE_SECONDS, as_json, bounded, configured, duration, load_config, open_store, user
from .printing import say, say_error, say_json, say_table

KEYS = ("type", "tag", "severity", "subject", "contract")

_LISTS = {"type": "types", "tag": "tags", "severity": "severity"}
_SHOWN_MAX = 20
_THREADS_MAX = 10_000


@click.group()
def silence() -> None:
    """What nobody is to be told of for a while."""


@silence.command()
@click.option("--match", "first", metavar="KEY=VALUE...", multiple=True, required=True, help="What it is about.")
@click.argument("more", metavar="", nargs=-1)
@click.option("--for", "length", metavar="DURATION", callback=duration(1), help="How long, such as 2h; up to 366d.")
@click.option("--until", metavar="TIME", help="Until when, instead.")
@click.option("--from", "begin", metavar="TIME", help="From when on; by default now.")
@click.option("--comment", required=True, callback=bounded(COMMENT_CHARACTERS_MAX), help="Why.")
@as_json
@configured
def add(
    first: tuple[str, ...],
    more: tuple[str, ...],
    length: Duration | None,
    until: str | None,
    begin: str | None,
    comment: str,
    json_lines: bool,
) -> None:
    """Silence notifications. All conditions must hold.

    KEY is type, tag, severity, subject, contract (in these but tag and severity * stands for any text), or data.FIELD
    with a value or a condition in JSON. Of types and severities given several times any will do. What is silenced
    stands in the list of notifications; what is open when the silence ends is told then. TIME is a time such as 22:30
    or 2026-03-31T12:00, by the clock of this machine unless it says otherwise.
    """
    now = Clock().now()
    match = _match([*first, *more])
    starts_at, ends_at = _times(now, begin, until, length)
    loaded = load_config()
    new = NewSilence(to_json(given(match)), starts_at, ends_at, now, comment=comment, created_by=user())

    async def main() -> tuple[int, list[OpenThread]]:
        async with open_store(loaded, make=True) as store:
            silence_id = await store.write(lambda tx: _add(tx, new), timeout_seconds=WRITE_SECONDS)
            return silence_id, await threads.latest(store, _THREADS_MAX)

    silence_id, open_threads = asyncio.run(main())
    fits = compile_match(match)
    silenced = [each for each in open_threads if fits(facts_of_thread(each))]
    if json_lines:
        titles = [each.text.title for each in silenced]
        say_json({"id": silence_id, "match": given(match), "starts_at": starts_at, "ends_at": ends_at, "open": titles})
        return
    say(f"silence {silence_id} from {rfc3339(starts_at)} until {rfc3339(ends_at)}")
    _say_silenced(silenced)
    _warn_of_contract(match.contract, loaded)


@silence.command("list")
@click.option("--all", "everything", is_flag=True, help="Those that are over, too.")
@click.option("--limit", default=50, show_default=True, type=ROWS, help="How many, the latest.")
@as_json
@configured
def list_silences(everything: bool, limit: int, json_lines: bool) -> None:
    """What is silenced now or later, and until when."""
    now = Clock().now()

    async def main() -> list[Silence]:
        async with open_store(load_config()) as store:
            return await (table.latest(store, limit) if everything else table.until_after(store, now, limit))

    found = asyncio.run(main())
    if json_lines:
        for each in found:
            say_json(_as_dict(each, now))
        return
    say_table(
        ("id", "state", "from", "until", "match", "comment", "by"),
        [
            (
                each.id, _state(each, now), rfc3339(each.starts_at), rfc3339(each.ends_at), _words(each.match),
                each.comment, each.created_by,
            )
            for each in found
        ],
        empty="no silences",
    )  # fmt: skip


@silence.command()
@click.argument("silence_id", metavar="[ID]", type=ID, required=False)
@click.option("--all", "everything", is_flag=True, help="All that aren't over.")
@configured
def expire(silence_id: int | None, everything: bool) -> None:
    """End a silence now. What is open of it is told."""
    if (silence_id is None) != everything:
        raise click.UsageError("say which: an ID or --all")
    now = Clock().now()

    def unit(tx: Tx) -> int:
        return table.end_all(tx, now) if silence_id is None else table.end(tx, silence_id, now)

    async def main() -> int:
        async with open_store(load_config()) as store:
            return await store.write(unit, timeout_seconds=WRITE_SECONDS)

    count = asyncio.run(main())
    if silence_id is None:
        say(f"{count} ended")
    elif count:
        say(f"silence {silence_id} is over")
    else:
        raise EdgeqError(f"there is no silence {silence_id} that isn't over", hint="edgeq silence list shows them")


def _add(tx: Tx, new: NewSilence) -> int:
    silence_id = begin_silence(tx, new)
    if silence_id is None:
        raise EdgeqError(f"there are {SILENCES_MAX} silences, which is the most", hint="let some of them expire")
    return silence_id


# Words


def _match(words: Iterable[str]) -> NotificationMatch:
    """What conditions as `KEY=VALUE` ask for."""
    values: dict[str, Any] = {}
    for word in words:
        key, found, value = word.partition("=")
        if not found or not value:
            raise click.UsageError(f"--match takes KEY=VALUE, not {word!r}")
        if key in _LISTS:
            values.setdefault(_LISTS[key], []).append(value)
        elif key in KEYS or (key.startswith("data.") and key != "data."):
            place, name = (values, key) if key in KEYS else (values.setdefault("data", {}), key.removeprefix("data."))
            if name in place:
                raise click.UsageError(f"--match {key} is given twice")
            place[name] = value if key in KEYS else _condition(value)
        else:
            raise click.UsageError(f"--match {key}: unknown key; {did_you_mean(key, (*KEYS, 'data.FIELD'))}")
    problems: list[Problem] = []
    match = read_match(values, problems, "--match")
    if match is None:
        raise click.UsageError("; ".join(map(_said, problems)))
    return match


def _condition(value: str) -> Any:
    """A value as it would be in YAML; a list or a mapping as in JSON."""
    if value.startswith(("{", "[", '"')):
        with suppress(ValueError):
            return from_json(value)
    return resolve(value)


def _said(problem: Problem) -> str:
    names = {plural: key for key, plural in _LISTS.items()}
    path = problem.path.removeprefix("--match.")
    name = path.partition("[")[0]
    said = f"--match {names.get(name, path)}: {problem.message}"
    return said + (f" ({problem.hint})" if problem.hint else "")


def _times(now: int, begin: str | None, until: str | None, length: Duration | None) -> tuple[int, int]:
    if (until is None) == (length is None):
        raise click.UsageError("say how long: --for or --until")
    starts_at = now if begin is None else _moment("--from", begin, now)
    ends_at = starts_at + length.microseconds if length is not None else _moment("--until", until or "", now)
    if ends_at <= now:
        raise click.UsageError(f"it would be over already: {rfc3339(ends_at)} has passed")
    if ends_at <= starts_at:
        raise click.UsageError("--until must be after --from")
    if ends_at - starts_at > LONGEST.microseconds:
        raise click.UsageError(f"a silence is {int(LONGEST // 86400)}d long at most")
    if starts_at - now > LONGEST.microseconds:
        raise click.UsageError(f"--from is more than {int(LONGEST // 86400)}d ahead")
    return starts_at, ends_at


def _moment(option: str, text: str, now: int) -> int:
    """A time with or without a zone; a time of day is the next one."""
    local = datetime.fromtimestamp(now // MICROSECONDS).astimezone()
    with suppress(ValueError):
        clock = datetime.strptime(text, "%H:%M").time()
        at = datetime.combine(local.date(), clock).astimezone()
        if at <= local:
            at = datetime.combine(datetime.fromordinal(local.toordinal() + 1).date(), clock).astimezone()
        return round(at.timestamp()) * MICROSECONDS
    try:
        with suppress(ValueError):
            read = datetime.fromisoformat(text.upper())
            return moment(read.astimezone().isoformat())
        return moment(text)
    except (ValueError, OverflowError):
        raise click.UsageError(
            f"{option} takes a time such as 22:30, 2026-03-31T12:00 or 2026-03-31T12:00:00+02:00, not {text!r}"
        ) from None


def _say_silenced(silenced: Sequence[OpenThread]) -> None:
    if not silenced:
        say("nothing that it is about is open now")
        return
    say(f"open now, and silenced by it: {len(silenced)}")
    for each in silenced[:_SHOWN_MAX]:
        say(f"  {each.text.title}, since {rfc3339(each.thread.opened_at)}")
    if len(silenced) > _SHOWN_MAX:
        say(f"  and {len(silenced) - _SHOWN_MAX} more")


def _warn_of_contract(name: str | None, loaded: LoadedConfig) -> None:
    """There may be one by that name later; more often it is a mistake."""
    known = [str(section.data.get("name")) for section in loaded.config.contracts]
    if name is not None and not any(map(pattern(name), known)):
        say_error(f"no contract fits {name!r} now; {did_you_mean(name, known) or 'there are none'}")


def _as_dict(row: Silence, now: int) -> dict[str, Any]:
    fields: dict[str, Any] = {name: getattr(row, name) for name in row.__struct_fields__}
    with suppress(ValueError):  # shown as it stands in the table
        fields["match"] = from_json(row.match)
    return {**fields, "state": _state(row, now)}


def _words(match: str) -> str:
    """A match as it was given."""
    try:
        values = from_json(match)
    except ValueError:
        return match
    if not isinstance(values, dict):
        return match
    names = {plural: key for key, plural in _LISTS.items()}
    words = []
    for key, value in values.items():
        if key == "data" and isinstance(value, dict):
            words += [f"data.{field}={_word(condition)}" for field, condition in value.items()]
        else:
            words += [
                f"{names.get(key, key)}={_word(each)}" for each in (value if isinstance(value, list) else [value])
            ]
    return " ".join(words) or "everything"


def _word(value: Any) -> str:
    return value if isinstance(value, str) else to_json(value)


def _state(row: Silence, now: int) -> str:
    if row.ends_at <= now:
        return "over"
    return "active" if row.starts_at <= now else "to come"
