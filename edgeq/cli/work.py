"""`edgeq work`: workers, and nothing else."""

from __future__ import annotations

import asyncio
import logging

import click

from ..config.checks import label
from ..jobs.worker import Overrides
from ..telemetry.log import configure
from ..units import Duration
from ..work import GRACE_SECONDS, Bounds, Work
from . import completing
from .common import configured, duration, load_plan, verbose
from .program import arm_failpoints, run_program

log = logging.getLogger("edgeq.work")

_POLL_SECONDS_MIN = 0.01
_COUNT = click.IntRange(1)


def _queues(ctx: click.Context, param: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        try:
            label(name)
        except ValueError as error:
            raise click.BadParameter(f"{error}, not {name!r}") from None
    return names


@click.command()
@click.argument("queues", metavar="[QUEUE]...", nargs=-1, callback=_queues, shell_complete=completing.queues)
@click.option("--max-jobs", metavar="N", type=_COUNT, help="End after so many jobs.")
@click.option("--max-time", metavar="TIME", callback=duration(0.001), help="End after so long, such as 1h.")
@click.option("--drain", is_flag=True, help="End as soon as no job can run now; those for later stay.")
@click.option(
    "--concurrency",
    metavar="N",
    type=click.IntRange(1, 1000),
    help="So many jobs at once, whatever their queue, instead of what is configured.",
)
@click.option("--max-attempts", metavar="N", type=click.IntRange(1, 1000), help="Instead of what the jobs say.")
@click.option("--timeout", metavar="TIME", callback=duration(0.001), help="For each attempt, instead of the jobs' own.")
@click.option(
    "--poll",
    metavar="TIME",
    callback=duration(_POLL_SECONDS_MIN),
    help="Look for jobs so often, even if nobody says that there are any. Default: 30s.",
)
@click.option(
    "--grace",
    metavar="TIME",
    callback=duration(0),
    default=str(Duration(GRACE_SECONDS)),
    show_default=True,
    help="What jobs have to end in when this ends; the rest is given back.",
)
@configured
def work(
    queues: tuple[str, ...],
    max_jobs: int | None,
    max_time: Duration | None,
    drain: bool,
    concurrency: int | None,
    max_attempts: int | None,
    timeout: Duration | None,
    poll: Duration | None,
    grace: Duration,
) -> None:
    """Run jobs, and nothing else.

    Of the queues named, or of all that are configured. Beside `edgeq run` or without it, in as many processes as one
    likes.

    SIGTERM and Ctrl-C let jobs end within the grace and give back the rest, which costs them no attempt; a second one
    gives them back at once, a third one ends without that. SIGHUP changes nothing: what is configured is read at the
    start.
    """
    plan = load_plan()
    config = plan.loaded.config.log
    configure("debug" if verbose() else config.level, config.format)
    arm_failpoints()

    async def main() -> None:
        worker = Work(
            plan,
            queues,
            bounds=Bounds(max_jobs, max_time, drain),
            concurrency=concurrency,
            overrides=Overrides(max_attempts, timeout and float(timeout), poll and float(poll)),
            grace_seconds=float(grace),
        )
        await run_program(worker.run, worker.stop, _hung_up)

    asyncio.run(main())


def _hung_up() -> None:
    log.info("SIGHUP changes nothing here: a restart reads the configuration again")
