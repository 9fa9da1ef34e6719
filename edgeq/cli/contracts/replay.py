"""`edgeq contracts replay`: what contracts would have said over the events that are stored."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from ...calendar import local_zone, parse_moment
from ...clock import MICROSECONDS, Clock, rfc3339
from ...config.files import in_order
from ...config.load import load_file
from ...config.schema import Config, LoadedConfig
from ...config.section import Section
from ...contracts import Contract, load_contracts
from ...contracts.history import Stretch, find, moments
from ...contracts.relations import looked_at
from ...contracts.replay import Replay, Said
from ...contracts.tally import FLAP_SECONDS, Tallies, Tally
from ...errors import ConfigError, EdgeqError
from ...events import from_json
from ...patterns import pattern
from ...units import Duration, spoken
from .. import completing
from ..common import as_json, configured, load_config, open_store
from ..printing import cell, json_line, say, say_error, say_json, say_table
from ..progress import progress
from .configured import configured_contracts, no_such_contract

_COLUMNS = ("contract", "violations", "time violated", "flaps", "unknown", "skipped", "open at the end")
_OPEN_SHOWN = 5
_OTHER_KEYS = frozenset(each.encode_name for each in msgspec.structs.fields(Config)) - {"contracts"}


class ContractsFile(msgspec.Struct, frozen=True):
    """What is read of a file with contracts to try out."""

    contracts: list[Section] = []


@click.command()
@click.argument("file", required=False, type=click.Path())
@click.option(
    "--since",
    default="24h",
    show_default=True,
    metavar="TIME",
    help="Over the last so long, such as 7d, or since a time.",
)
@click.option("--until", default="", metavar="TIME", help="Until so long ago, or until then. By default until now.")
@click.option(
    "--contract",
    "names",
    multiple=True,
    metavar="NAME",
    shell_complete=completing.contracts,
    help="Only this one; may be given more than once.",
)
@click.option("--subject", default="*", help="Only what is said of this subject; * stands for any text.")
@as_json
@configured
def replay(file: str | None, since: str, until: str, names: tuple[str, ...], subject: str, json_lines: bool) -> None:
    """What contracts would have said of what happened.

    The contracts of the configuration are judged over the stored events, or, to try some out, those of FILE (a YAML
    file with contracts: in it, such as another configuration). Nothing is changed, and a running appliance isn't
    disturbed. Times are durations, counted back from now, or such as 2026-03-31T12:00:00+02:00.

    How contracts stood before isn't known: each begins as if it were new. Whether the sensors could be heard isn't
    known either: every silence counts.
    """
    loaded = load_config()
    contracts = _contracts(loaded, file)
    judged = _chosen(contracts, names)
    now = Clock().now()
    begin, end = _moment("--since", since, now), _moment("--until", until or "0", now)
    if begin >= end:
        raise click.UsageError(f"--since: {rfc3339(begin)} isn't before {rfc3339(end)}")
    wanted = names or [contract.name for contract in contracts]
    printer = _Printer(wanted, subject, json_lines)
    stretch, count = asyncio.run(_replay(loaded, judged, (begin, end), printer))
    printer.end(stretch, count)


def _contracts(loaded: LoadedConfig, file: str | None) -> list[Contract]:
    if file is None:
        contracts = configured_contracts(loaded)
    else:
        read, problems = load_file(Path(file), ContractsFile, ignore=_OTHER_KEYS)
        contracts = load_contracts(read.contracts, problems) if read else []
        if problems:
            raise ConfigError(in_order(problems, [file]))
    if not contracts:
        raise EdgeqError(
            f"there are no contracts in {file or os.path.basename(loaded.files[0])}",
            hint="write some below contracts:, or name a file that has some",
        )
    return contracts


def _chosen(contracts: Sequence[Contract], names: Sequence[str]) -> list[Contract]:
    """Those of these names (or all), and what they look at."""
    known = {contract.name: contract for contract in contracts}
    for name in names:
        if name not in known:
            raise no_such_contract(name, list(known))
    chosen = list(names or known)
    for name in chosen:  # it grows meanwhile
        chosen += [each for each in looked_at(known[name]) if each not in chosen]
    return [contract for contract in contracts if contract.name in chosen]


def _moment(option: str, text: str, now: int) -> int:
    try:
        return now - Duration.parse(text).microseconds
    except ValueError:
        try:
            return parse_moment(text, local_zone(""))
        except ValueError:
            hint = "must be a duration such as 24h or 7d, or a time such as 2026-03-31T12:00:00+02:00"
            raise click.UsageError(f"{option} {hint}, not {text!r}") from None


async def _replay(
    loaded: LoadedConfig, contracts: Sequence[Contract], span: tuple[int, int], printer: _Printer
) -> tuple[Stretch, int]:
    """The stretch that was judged, and how many events it has."""
    replay = Replay(contracts)
    count = 0
    async with open_store(loaded) as store:
        stretch = await find(store, *span)
        printer.print(replay.begin(stretch.begins_at))
        at = stretch.after_id
        with progress("events", stretch.last_id - at) as advance:
            async for page in moments(store, stretch):
                for event, clock_set in page:
                    if clock_set:
                        printer.print(replay.set_clock(event.recorded_at))
                    printer.print(replay.observe(event))
                count += len(page)
                printer.flush()
                reached = page[-1].event.id if page else at
                advance(reached - at)
                at = reached
        printer.print(replay.elapse(stretch.until))
    return stretch, count


class _Printer:
    """Prints what is said by the contracts of these names, of subjects that fit, and what it comes to."""

    def __init__(self, names: Sequence[str], subject: str, json_lines: bool) -> None:
        self._tallies = Tallies(names)
        self._fits = pattern(subject)
        self._json_lines = json_lines
        self._lines: list[str] = []

    def flush(self) -> None:
        """Print the verdicts so far. One by one would be slow on a terminal: the bar is drawn anew each time."""
        if self._lines:
            print("\n".join(self._lines))
            self._lines.clear()

    def print(self, what: list[Said]) -> None:
        """Count what is said, and have the verdicts printed with the next `flush`."""
        for said in what:
            if not said.contract:
                self._tallies.add(said)
            elif said.contract in self._tallies.of and self._fits(said.subject):
                self._tallies.add(said)
                if said.event is not None:
                    self._print(said)

    def _print(self, said: Said) -> None:
        if self._json_lines:
            assert said.event is not None
            data = from_json(said.event.data_json)
            self._lines.append(json_line({"at": said.at, "verdict": said.what, "subject": said.subject, **data}))
        else:
            self._lines.append("  ".join(map(cell, (rfc3339(said.at), f"{said.what:<8}", said.contract, said.message))))

    def end(self, stretch: Stretch, count: int) -> None:
        """Print the last verdicts, and the summary."""
        self.flush()
        for name, tally in self._tallies.of.items():
            tally.finish(stretch.until)
            if self._json_lines:
                say_json(_as_json(name, tally))
        if self._json_lines:
            say_json({
                "since": stretch.begins_at, "until": stretch.until, "events": count, "failed": self._tallies.failed,
            })  # fmt: skip
            return
        if any(tally.violations or tally.unknowns for tally in self._tallies.of.values()):
            say()
        say_table(_COLUMNS, [_row(*each) for each in self._tallies.of.items()], empty="")
        say()
        say(f"{count} event{'' if count == 1 else 's'} from {rfc3339(stretch.begins_at)} to {rfc3339(stretch.until)}")
        if stretch.begins_at > stretch.since:
            say("the first event that is stored is of then")
        say("what was before isn't known: each contract began as if it were new")
        if any(tally.flaps for tally in self._tallies.of.values()):
            say(f"a flap is a violation that begins within {Duration(FLAP_SECONDS)} of the end of the one before it")
        if self._tallies.failed:
            failed = f"{self._tallies.failed} event{'' if self._tallies.failed == 1 else 's'}"
            say_error(f"{failed} could not be judged; the first: {self._tallies.failure}")


def _row(name: str, tally: Tally) -> tuple[Any, ...]:
    skipped = ", ".join(f"{count} {reason}" for reason, count in tally.skipped.most_common())
    subjects = sorted(tally.open)
    more = ", …" if len(subjects) > _OPEN_SHOWN else ""
    names = f": {', '.join(filter(None, subjects[:_OPEN_SHOWN]))}{more}" if any(subjects) else ""
    violated = spoken(tally.violated_microseconds / MICROSECONDS) if tally.violated_microseconds else ""
    return (
        name, tally.violations, violated, tally.flaps, tally.unknowns, skipped,
        f"{len(subjects)}{names}" if subjects else "",
    )  # fmt: skip


def _as_json(name: str, tally: Tally) -> dict[str, Any]:
    return {
        "contract": name, "violations": tally.violations,
        "violated_seconds": tally.violated_microseconds / MICROSECONDS, "flaps": tally.flaps,
        "unknown": tally.unknowns, "reminders": tally.reminders, "skipped": dict(tally.skipped),
        "open": [{"subject": subject, "since": since} for subject, since in sorted(tally.open.items())],
    }  # fmt: skip
