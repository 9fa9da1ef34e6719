"""`edgeq work`: which jobs it runs, how many, for how long, and how it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.appliance import Appliance
from support.mosquitto import free_port
from support.stores import Database
from support.working import APP, FINDER, dispatch, job

CONFIGURATION = """\
gateway: gw
mqtt: {{url: "mqtt://127.0.0.1:{port}"}}
store: {{url: edgeq.db, durability: normal}}
app: {{path: ., modules: [app]}}
jobs:
  {concurrency}
  queues:
    default: {{concurrency: 2}}
    other: {{concurrency: 2}}
    apart: {{isolation: process, context: "app:connect"}}
    inside: {{context: "app:connect"}}
"""
WORK = (sys.executable, "-m", "edgeq.cli.main", "work")


Make = Callable[..., Appliance]


def _processes(folder: Path, database: Database | None) -> Iterator[Make]:
    made: list[Appliance] = []

    def process(*words: str, concurrency: str = "") -> Appliance:
        configuration = CONFIGURATION.format(port=free_port(), concurrency=concurrency)
        new = Appliance(folder, configuration, database)
        (new.folder / "app.py").write_text(APP)
        new.log_file = new.folder / f"log-{len(made)}"
        new.command = (*WORK, *words)
        made.append(new)
        return new

    yield process
    for each in made:
        each.kill()


@pytest.fixture
def make(tmp_path: Path, database: Database) -> Iterator[Make]:
    """Makes processes that work in one folder, `make("--drain")`; they end with the test."""
    yield from _processes(tmp_path / "edgeq", database)


@pytest.fixture
def make_on_file(tmp_path: Path) -> Iterator[Make]:
    """The same, always with a file as the database."""
    yield from _processes(tmp_path / "edgeq", None)


def states(work: Appliance) -> dict[int, str]:
    """The state of every job."""
    return dict(work.sql("SELECT id, state FROM jobs"))


def notes(work: Appliance) -> list[list[str]]:
    """What the jobs of kind Note have written: text, process, context."""
    path = work.folder / "notes"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def began(work: Appliance, n: object) -> Callable[[], bool]:
    """Whether a job of kind Wait has begun."""
    return (work.folder / f"began-{n}").exists


def let_go(work: Appliance, *numbers: object) -> None:
    """Let jobs of kind Wait end."""
    for n in numbers:
        (work.folder / f"go-{n}").touch()


# Which jobs


def test_several_processes_share_the_work_with_an_appliance(make: Make) -> None:
    works = [make(), make()]
    run = make()
    run.command = (*WORK[:-1], "run")
    for each in (*works, run):
        each.spawn()
        each.until(lambda each=each: "is running" in each.log or "working on" in each.log, "the start")
    dispatch(run.url, *(job("Wait", n=n) for n in range(6)))
    run.until(lambda: all(began(run, n)() for n in range(6)), "two jobs in each of the three")
    ids = [dispatch(run.url, *(job("Note", text=f"{page}-{n}") for n in range(100))) for page in range(5)]
    let_go(run, *range(6))
    run.until(lambda: list(states(run).values()) == ["completed"] * 506, "all of it")
    assert sorted(text for text, *_ in notes(run)) == sorted(f"{page}-{n}" for page in range(5) for n in range(100))
    assert len({each for page in ids for each in page}) == 500
    assert [each.stop() for each in (*works, run)] == [0, 0, 0]
    assert not any("Traceback" in each.log for each in (*works, run))


def test_it_makes_the_database_and_works_on_every_configured_queue(make: Make) -> None:
    work = make()
    work.spawn()
    work.until(lambda: "working on default, other, apart, inside" in work.log, "the start")
    for queue in ("default", "other", "apart", "inside", "unknown"):
        dispatch(work.url, job("Note", queue, text=queue))
    work.until(lambda: len(notes(work)) == 4, "the jobs")
    assert work.process is not None
    pid = str(work.process.pid)
    found = {text: (process == pid, context) for text, process, context in notes(work)}
    assert found == {
        "default": (True, "None"), "other": (True, "None"), "apart": (False, "connected"), "inside": (True, "connected")
    }  # fmt: skip
    work.until(lambda: list(states(work).values()).count("completed") == 4, "their ends")
    assert states(work)[5] == "available"
    assert work.stop() == 0


def test_it_works_on_the_queues_that_are_named_configured_or_not(make: Make) -> None:
    work = make("other", "unknown", "--drain")
    dispatch(work.url, *(job("Note", queue, text=queue) for queue in ("default", "other", "unknown")))
    work.spawn()
    assert work.ended() == 0
    assert sorted(text for text, *_ in notes(work)) == ["other", "unknown"]
    assert "no queue is called 'unknown' in the configuration: it has the defaults" in work.log


@pytest.mark.parametrize("words", [["--drain"], [], ["default"]])
def test_sources_of_its_queues_are_asked(make: Make, words: list[str]) -> None:
    work = make(*words)
    (work.folder / "finder.py").write_text(FINDER)
    work.configure((work.folder / "edgeq.yaml").read_text().replace("[app]", "[app, finder]"))
    (work.folder / "inbox").mkdir()
    for name in ("a", "b"):
        (work.folder / "inbox" / name).touch()
    work.spawn()
    if words == ["default"]:
        work.until(lambda: "working on default" in work.log, "the start")
        assert work.stop() == 0
        assert notes(work) == [], "nobody here works on what it would find"
        return
    if not words:
        work.until(lambda: len(notes(work)) == 2, "both jobs")
        (work.folder / "inbox" / "c").touch()
        work.until(lambda: len(notes(work)) == 3, "the third job")
        work.send(signal.SIGTERM)
    assert work.ended() == 0
    assert sorted(text for text, *_ in notes(work)) == ["a", "b", *([] if words else ["c"])], "each of them once"


# How many, and for how long


def test_it_ends_after_so_many_jobs(make: Make) -> None:
    work = make("--max-jobs", "3")
    dispatch(work.url, *(job("Note", text=str(n)) for n in range(5)))
    work.spawn()
    assert work.ended() == 0
    assert sorted(states(work).values()) == ["available"] * 2 + ["completed"] * 3


def test_it_ends_after_so_long(make: Make) -> None:
    work = make("--max-time", "5s")  # enough for the job to begin, also on a busy machine
    dispatch(work.url, job("Wait", n=1))
    work.spawn()
    work.until(lambda: "stopping: 1 jobs" in work.log, "the end of the time")
    let_go(work, 1)
    assert work.ended() == 0
    assert states(work) == {1: "completed"}, "what runs may end"


def test_draining_runs_what_is_ready_and_what_comes_of_it(make: Make) -> None:
    work = make("--drain")
    dispatch(work.url, job("Chain", left=20), job("Note", text="later", delay_seconds=3600), job("Fail"))
    work.spawn()
    assert work.ended() == 0
    found = dict(work.sql("SELECT kind || ' ' || state, count(*) FROM jobs GROUP BY 1"))
    assert found.pop("app:Chain completed") == 21
    assert found.pop("app:Note scheduled") == 1
    assert list(found) in (["app:Fail retryable"], ["app:Fail dead"])
    work.spawn()
    assert work.ended() == 0, "there is nothing to do"


def test_what_a_job_tells_is_an_event_for_the_courier_of_the_appliance(make: Make) -> None:
    work = make("--drain", "default", "apart")
    dispatch(work.url, job("Tell"), job("Tell", queue="apart"))
    work.spawn()
    assert work.ended() == 0
    told = '{"title":"Told","body":"","severity":"critical","channels":["phone"]}'
    assert work.sql("SELECT type, tags, data FROM events") == [("notification", '["notification"]', told)] * 2


def test_draining_leaves_a_paused_queue_alone(make: Make) -> None:
    work = make("--drain")
    dispatch(work.url, job("Note", text="held"), job("Note", "other", text="free"))
    assert work.cli("queues", "pause", "default").returncode == 0
    work.spawn()
    assert work.ended() == 0
    assert [text for text, *_ in notes(work)] == ["free"]


def test_a_queue_is_paused_and_resumed_while_it_works(make: Make) -> None:
    work = make()
    work.spawn()
    work.until(lambda: "working on" in work.log, "the start")
    dispatch(work.url, job("Wait", n=1))
    work.until(began(work, 1), "the job")
    assert work.cli("queues", "pause", "default").returncode == 0
    dispatch(work.url, job("Note", text="held"), job("Note", "other", text="free"))
    let_go(work, 1)
    work.until(lambda: states(work) == {1: "completed", 2: "available", 3: "completed"}, "the rest")
    assert work.cli("queues", "resume", "default").returncode == 0
    work.until(lambda: states(work)[2] == "completed", "the one that was held")
    assert work.stop() == 0


@pytest.mark.parametrize(("words", "concurrency"), [(("--concurrency", "3"), ""), ((), "concurrency: 3")])
def test_so_many_jobs_run_at_once_whatever_their_queue(make: Make, words: tuple[str, ...], concurrency: str) -> None:
    work = make("default", "other", *words, concurrency=concurrency)
    dispatch(work.url, *(job("Wait", queue, n=n) for n, queue in enumerate(["default", "other"] * 3)))
    work.spawn()

    def running() -> list[int]:
        return [n for n in range(6) if began(work, n)() and not (work.folder / f"go-{n}").exists()]

    for left in (6, 5, 4):
        work.until(lambda: len(running()) == 3, f"three of {left}")
        assert len(work.sql("SELECT id FROM jobs WHERE state = 'executing'")) == 3
        let_go(work, running()[0])
    work.until(lambda: len(running()) == 3, "the last three")
    let_go(work, *range(6))
    work.until(lambda: set(states(work).values()) == {"completed"}, "all")
    assert work.stop() == 0


def test_one_queue_may_have_more_at_once_than_configured(make: Make) -> None:
    work = make("default", "--concurrency", "5")
    dispatch(work.url, *(job("Wait", n=n) for n in range(6)))
    work.spawn()
    work.until(lambda: all(began(work, n)() for n in range(5)), "five of them")
    assert not began(work, 5)()
    let_go(work, *range(6))
    work.until(lambda: set(states(work).values()) == {"completed"}, "all")
    assert work.stop() == 0


# How jobs are run


def test_breakers_are_as_configured(make: Make) -> None:
    work = make("--drain", "--concurrency", "1", concurrency="breakers: {crm: {failures: 1}}")
    failing = job("Fail")
    dispatch(work.url, *[replace(failing, needs="crm")] * 3)
    work.spawn()
    assert work.ended() == 0
    assert work.sql("SELECT name, state, failures FROM breakers") == [("crm", "open", 1)]
    assert work.sql("SELECT blocked_by FROM jobs WHERE id > 1") == [("breaker",), ("breaker",)]


def test_the_number_of_attempts_can_be_said(make: Make) -> None:
    work = make("--max-attempts", "1", "--drain")
    dispatch(work.url, job("Fail"))
    work.spawn()
    assert work.ended() == 0
    assert work.sql("SELECT state, attempt FROM jobs ORDER BY id") == [("dead", 1)]


def test_the_time_for_an_attempt_can_be_said(make: Make) -> None:
    work = make("--timeout", "100ms", "--max-attempts", "1", "--drain")
    dispatch(work.url, job("Wait", n=1), job("Wait", "apart", n=2))
    work.spawn()
    assert work.ended() == 0
    assert work.sql("SELECT state FROM jobs ORDER BY id") == [("dead",), ("dead",)]
    assert work.sql("SELECT reason FROM dead_letters") == [("timeout",), ("timeout",)]
    assert "took longer than 100ms" in work.sql("SELECT error FROM jobs")[0][0]


def test_how_often_to_look_can_be_said(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In this process, with a store whose signal tells of nothing."""
    from edgeq.cli.common import load_plan
    from edgeq.config.load import load_to_plan
    from edgeq.jobs.worker import Overrides
    from edgeq.store.store import Signal
    from edgeq.work import Bounds, Work

    made = make()
    monkeypatch.chdir(made.folder)
    here = {"store.url": made.url}
    monkeypatch.setattr(
        "edgeq.cli.common.load_config_to_plan", lambda: load_to_plan("edgeq.yaml", environ={}, overrides=here)
    )
    (made.folder / "edgeq.yaml").write_text((made.folder / "edgeq.yaml").read_text().replace("[app]", "[polled]"))
    (made.folder / "polled.py").write_text(APP)
    monkeypatch.setattr(Signal, "fire", lambda self, topics: None)
    plan = load_plan()

    async def main() -> None:
        work = Work(plan, ["other"], bounds=Bounds(jobs_max=1), overrides=Overrides(poll_seconds=0.05))
        running = asyncio.create_task(work.run())
        while not work.workers or not work.workers["other"].idle:  # noqa: ASYNC110 - no signal, that is the point
            await asyncio.sleep(0.01)
        await asyncio.to_thread(dispatch, made.url, job("Chain", "other", left=0))
        await asyncio.wait_for(running, 60)

    asyncio.run(main())
    assert set(states(made)) == {1}


# How it ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_jobs_end(make: Make, number: int) -> None:
    work = make("default")
    dispatch(work.url, *(job("Wait", n=n) for n in range(3)))
    work.spawn()
    work.until(lambda: began(work, 0)() and began(work, 1)(), "the first two")
    work.send(number)
    work.until(lambda: "stopping: 2 jobs that run have up to 10s to end" in work.log, "the end to begin")
    let_go(work, 0, 1, 2)
    assert work.ended() == 0
    assert states(work) == {1: "completed", 2: "completed", 3: "available"}


@pytest.mark.parametrize("queue", ["default", "apart"])
@pytest.mark.parametrize("kind", ["Wait", "Block"])
def test_what_does_not_end_in_time_is_given_back_and_costs_no_attempt(make: Make, queue: str, kind: str) -> None:
    work = make(queue, "--grace", "200ms")
    dispatch(work.url, job(kind, queue, n=1))
    work.spawn()
    work.until(began(work, 1), "the job")
    assert work.stop() == 0
    assert work.sql("SELECT state, attempt, lease_owner FROM jobs") == [("available", 0, None)]


def test_a_second_signal_gives_back_at_once(make: Make) -> None:
    work = make("--grace", "10m")
    dispatch(work.url, job("Wait", n=1))
    work.spawn()
    work.until(began(work, 1), "the job")
    work.send(signal.SIGTERM)
    work.until(lambda: "stopping: 1 jobs that run have up to 600s to end" in work.log, "the end to begin")
    work.send(signal.SIGTERM)
    assert work.ended() == 0
    assert work.sql("SELECT state, attempt FROM jobs ORDER BY id") == [("available", 0)]


def test_a_third_signal_waits_for_nothing(make: Make) -> None:
    work = make()
    dispatch(work.url, job("Stubborn"))
    work.spawn()
    work.until(began(work, "stubborn"), "the job")
    for said in ("stopping: 1 jobs that run have up to 10s to end", "what runs is given back now"):
        work.send(signal.SIGTERM)
        work.until(lambda said=said: said in work.log, said)
    work.send(signal.SIGTERM)
    assert work.ended() == 1


def test_a_thread_that_hangs_does_not_hold_up_the_end(make: Make) -> None:
    work = make("--grace", "100ms")
    dispatch(work.url, job("Thread"))
    work.spawn()
    work.until(began(work, "thread"), "the job")
    assert work.stop() == 0
    assert "ending without threads that go on: asyncio_" in work.log
    assert states(work) == {1: "available"}


def test_a_job_that_closes_every_file_ends_the_program(make: Make) -> None:
    work = make()
    dispatch(work.url, job("CloseAll"))
    work.spawn()
    assert work.ended() == 1
    assert states(work) == {1: "executing"}  # it runs again after its lease


def test_a_hang_up_changes_nothing(make: Make) -> None:
    work = make()
    work.spawn()
    work.until(lambda: "working on" in work.log, "the start")
    work.send(signal.SIGHUP)
    work.until(lambda: "SIGHUP changes nothing here" in work.log, "what it says of it")
    dispatch(work.url, job("Note", text="still here"))
    work.until(lambda: len(notes(work)) == 1, "a job")
    assert work.stop() == 0


def test_a_hang_up_during_the_start_changes_nothing_either(make: Make) -> None:
    work = make()
    waiting = "from pathlib import Path\nimport time\nPath('importing').touch()\n"
    waiting += "while not Path('go').exists():\n    time.sleep(0.01)\n"
    (work.folder / "app.py").write_text(waiting + APP)
    work.spawn()
    work.until((work.folder / "importing").exists, "the import")
    work.send(signal.SIGHUP)
    (work.folder / "go").touch()
    work.until(lambda: "SIGHUP changes nothing here" in work.log, "what it says of it")
    assert work.stop() == 0


def test_systemd_is_told(make: Make, tmp_path: Path) -> None:
    work = make()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(120)
        work.spawn(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="2000000")
        told: list[str] = []

        def hear(text: str) -> None:
            while text not in told:
                told.extend(manager.recv(4096).decode().splitlines())

        hear("READY=1")
        hear("STATUS=0 jobs run, 0 attempts ended")
        told.clear()
        hear("WATCHDOG=1")
        assert "STOPPING=1" not in told
        work.send(signal.SIGTERM)
        hear("STOPPING=1")
        assert work.ended() == 0


# When it can't


def test_a_store_that_can_not_be_used_ends_it_with_1(make_on_file: Make) -> None:
    work = make_on_file()
    work.database.write_text("a shopping list, more than sixteen bytes of it")
    done = work.cli("work")
    assert done.returncode == 1
    assert "the database file is damaged" in done.stderr
    work.configure((work.folder / "edgeq.yaml").read_text().replace("edgeq.db", "gone/edgeq.db"))
    done = work.cli("work", "--drain")
    assert done.returncode == 1
    assert f"the folder {work.folder}/gone doesn't exist" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_is_removed_ends_it_with_1(make_on_file: Make) -> None:
    work = make_on_file()
    work.spawn()
    work.until(lambda: "working on" in work.log, "the start")
    dispatch(work.url, job("Wait", n=1))
    work.until(began(work, 1), "the job")
    for suffix in ("", "-wal", "-shm"):
        Path(f"{work.database}{suffix}").unlink(missing_ok=True)
    let_go(work, 1)
    assert work.ended() == 1
    assert "was removed or replaced while edgeq ran" in work.log


def test_a_wrong_configuration_ends_it_with_78(make: Make) -> None:
    work = make()
    work.configure((work.folder / "edgeq.yaml").read_text().replace("app:connect", "app:conect"))
    done = work.cli("work")
    assert done.returncode == 78
    assert "jobs.queues.apart.context: app has no 'conect'; did you mean 'connect'?" in done.stderr


@pytest.mark.parametrize("queue", ["inside", "apart"])
def test_draining_does_not_wait_for_a_context_that_can_not_be_made(make: Make, queue: str) -> None:
    work = make("default", queue, "--drain")
    (work.folder / "app.py").write_text(APP.replace('return "connected"', "raise OSError('nobody there')"))
    dispatch(work.url, job("Note", queue, text="no"), job("Note", text="yes"))
    work.spawn()
    assert work.ended() == 1
    assert f"jobs of {queue} can't be run now" in work.log
    assert "OSError: nobody there" in work.log
    assert work.sql("SELECT state, attempt FROM jobs ORDER BY id") == [("available", 0), ("completed", 1)]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--max-jobs 0", "0 is not in the range"),
        ("--max-time 5", "'5' is not a duration"),
        ("--timeout 0", "0 is less than 1ms"),
        ("--poll 1ms", "1ms is less than 10ms"),
        ("--grace -1s", "'-1s' is not a duration"),
        ("--concurrency many", "'many' is not a valid integer"),
        ("--max-attempts 5000", "not in the range"),
        ("default ../other", "must be a name of up to 64 letters, digits, '_', '-' and '.', not '../other'"),
    ],
)
def test_wrong_usage_is_told(make: Make, words: str, told: str) -> None:
    done = make().cli("work", *words.split())
    assert done.returncode == 2
    assert told in done.stderr
