"""`edgeq jobs dispatch`: a job by hand, its arguments checked as if a program had dispatched it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import click
import msgspec

from ..clock import MICROSECONDS, Clock
from ..config.suggest import did_you_mean
from ..context import delay_seconds
from ..errors import EdgeqError, RejectedMessage
from ..events import from_json, to_json
from ..intake.times import parse_time
from ..store import jobs as table
from ..store.jobs import Dispatched
from . import completing
from .common import WRITE_SECONDS, as_json, configured, load_plan, open_store
from .printing import say, say_error, say_json


@click.command()
@click.argument("kind", metavar="MODULE:NAME")
@click.argument("pairs", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--args", "args_json", metavar="JSON", default=None, help="The arguments, as one JSON object.")
@click.option("--delay", metavar="TIME", default=None, help="Run it after so long, such as 10m.")
@click.option("--run-at", metavar="MOMENT", default=None, help="Run it then: RFC 3339, UTC without an offset.")
@click.option("--priority", metavar="WORD|N", default=None, help="high, normal, low or a number.")
@click.option("--queue", default=None, shell_complete=completing.queues, help="Another queue than the job's own.")
@click.option("--max-attempts", type=int, default=None, help="How often it is tried.")
@click.option("--expires", metavar="TIME", default=None, help="Begin no attempt later than so long after its time.")
@click.option("--unique-key", default=None, help="Add it only if no such job with this key is there.")
@as_json
@configured
def dispatch(kind: str, pairs: tuple[str, ...], args_json: str | None, json_lines: bool, **options: Any) -> None:
    """Add a job.

    Its arguments are checked against the class or function. A value is read as JSON where its type isn't text.

    \b
    edgeq jobs dispatch greenhouse.jobs:Water bed=north litres=2.5
    """
    plan = load_plan()
    from ..jobs.job import registry  # what the plan has imported is in it

    definition = registry.get(kind)
    if definition is None:
        what = f"there is no job {kind} in the modules that the configuration names"
        raise EdgeqError(what, hint=did_you_mean(kind, registry))
    given = _given(definition.arguments, pairs, args_json)
    now, how = Clock().now(), {name: value for name, value in options.items() if value is not None}
    if how.get("priority", "").lstrip("+-").isdecimal():
        how["priority"] = int(how["priority"])
    try:
        run_at = _run_at(now, how.pop("delay", None), how.pop("run_at", None))
        new = definition.decode(to_json(given)).new_job(now=now, run_at=run_at, **how)
    except (ValueError, RejectedMessage) as error:
        raise click.UsageError(str(error)) from None

    async def main() -> Dispatched:
        async with open_store(plan.loaded, make=True) as store:
            return (await store.write(lambda tx: table.add(tx, [new]), timeout_seconds=WRITE_SECONDS))[0]

    added = asyncio.run(main())
    if new.queue not in plan.loaded.config.jobs.queues:
        say_error(f"warning: no queue is called {new.queue!r}: only `edgeq work {new.queue}` would run the job")
    if json_lines:
        say_json({"id": added.id, "existed": added.existed})
    elif added.existed:
        say(f"not added: job {added.id} with this unique key is there")
    else:
        say(f"added {kind} to queue {new.queue} as job {added.id}")


def _given(types: Mapping[str, Any], pairs: tuple[str, ...], args_json: str | None) -> dict[str, Any]:
    """The arguments from the command line. One that the job doesn't have is wrong usage."""
    if args_json is not None and pairs:
        raise click.UsageError("--args and KEY=VALUE don't go together")
    given: dict[str, Any] = {}
    if args_json is not None:
        try:
            given = from_json(args_json)
        except ValueError as error:
            raise click.UsageError(f"--args is not JSON: {error}") from None
        if not isinstance(given, dict):
            raise click.UsageError("--args must be a JSON object")
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not sign or not key:
            raise click.UsageError(f"{pair!r} must be written KEY=VALUE")
        if key in given:
            raise click.UsageError(f"{key} is given twice")
        given[key] = _value(text, types.get(key, str))
    for key in given:
        if key not in types:
            hint = did_you_mean(key, types) if types else "it has none"
            raise click.UsageError(f"the job has no argument {key!r} ({hint})")
    return given


def _value(text: str, wanted: Any) -> Any:
    """`text` as an argument of type `wanted`: as JSON if that is what fits, else as it is."""
    if wanted is str:
        return text
    try:
        value = from_json(text)
        msgspec.convert(value, wanted)
    except (ValueError, TypeError):
        return text
    return value


def _run_at(now: int, delay: str | None, moment: str | None) -> int | None:
    """When to run it, in microseconds since 1970 UTC; None at once. Raises ValueError or RejectedMessage."""
    if delay is None:
        return None if moment is None else parse_time(moment)
    if moment is not None:
        raise ValueError("--delay and --run-at don't go together")
    return now + round(delay_seconds(delay) * MICROSECONDS)
