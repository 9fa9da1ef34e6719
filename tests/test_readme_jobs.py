"""docs/jobs.md: every block and line, in one folder and in its order; and its tables and figures are true."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.readme import PAGES, ROOT, Terminals, code, followed, section, steps, table

from edgeq import Job, Queue
from edgeq.config import schema
from edgeq.context import How
from edgeq.jobs import settings
from edgeq.jobs.isolation import pool
from edgeq.jobs.schedules import schedule
from edgeq.jobs.sources.source import Source
from edgeq.store.job_records import AGE_SECONDS
from edgeq.work import GRACE_SECONDS

JOBS = followed(PAGES["docs/jobs.md"])

# Every line that the reader types, and what it must show.
TYPED = [
    ("edgeq jobs dispatch packing:PrintLabel order=7 copies=2", ["to queue labels as job 1"]),
    ("edgeq jobs dispatch packing:send_mail to=ops@example.net --delay 10m --unique-key reminder", ["as job 2"]),
    ("edgeq work --drain", []),
    ("edgeq jobs list", ["packing:PrintLabel  completed  1/3", "packing:send_mail   scheduled  0/5"]),
    ("edgeq jobs show 1", ["50% printing", 'result            {"copies":2}']),
    ("python order.py", ["available 2"]),
    ("edgeq work --drain", []),
    ("edgeq jobs list --kind packing:send_mail", ["customer-0@example.net", "packer@example.net", "completed"]),
    ("edgeq work labels --max-jobs 10 --max-time 1s --concurrency 2", []),
    ("edgeq work --drain --timeout 10s --max-attempts 2", []),
    ("edgeq queues", ["labels   0     0      0        0        0          0     3"]),
    ("edgeq queues pause labels", ["labels is paused"]),
    ("edgeq queues resume labels", ["labels goes on"]),
    ("edgeq jobs dispatch crm:update_customer customer=1", ["as job 9"]),
    ("edgeq jobs dispatch crm:update_customer customer=2", ["as job 10"]),
    ("edgeq jobs dispatch crm:update_customer customer=3", ["as job 11"]),
    ("edgeq jobs dispatch crm:update_customer customer=4", ["as job 12"]),
    ("edgeq work --drain", []),
    (
        "edgeq jobs list --kind crm:update_customer",
        [
            "crm:update_customer  completed  1/5", "crm:update_customer  dead       1/5", "there is no customer 2",
            "crm:update_customer  retryable  1/5", "too many requests", "crm:update_customer  scheduled  0/5",
        ],
    ),
    ("edgeq queues breakers", []),  # what stands there depends on which of the four ended last
    ("edgeq jobs dispatch clips:convert clip=door.mp4", ["to queue video as job 13"]),
    ("edgeq jobs dispatch clips:convert clip=endless.mp4", ["to queue video as job 14"]),
    ("edgeq work video --drain", []),
    ("edgeq jobs list --queue video", ["clips:convert  completed  1/1", "took longer than 2s, and its process"]),
    ("edgeq check", ["queues      3: default, labels, video", "schedules   2: nightly, sync"]),
    ("edgeq schedules", ["02:00:00+0", "every 15m", "crm:update_customer"]),
    ("mkdir incoming && touch incoming/a.mp4 incoming/b.mp4", []),
    ("edgeq work video --max-jobs 2", []),
    ("edgeq jobs list --queue video", ['{"clip":"incoming/a.mp4"}', '{"clip":"incoming/b.mp4"}']),
    ("edgeq jobs list --state dead", ["clips:convert", "crm:update_customer"]),
    ("edgeq jobs show 14", ["reason            timeout", 'while clip == "endless.mp4":']),
    ("edgeq jobs retry --reason timeout", ["1 to run again"]),
    ("edgeq jobs cancel 2", ["1 cancelled"]),
    ("edgeq jobs purge --state cancelled", ["1 deleted"]),
    ("python -m pytest -q tests", ["3 passed"]),
]  # fmt: skip


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    made = Terminals(tmp_path)
    yield made
    made.kill()


@pytest.mark.timeout(300)  # it types three dozen commands
def test_it_works_as_it_is_written(terminals: Terminals) -> None:
    typed = []
    for (line, _), (expected, shown) in zip(steps(JOBS, terminals.folder), TYPED, strict=True):
        typed.append(line)
        assert line == expected
        out = terminals.type(line)
        for text in shown:
            assert text in out, f"{line}\n{out}"
    with Queue(terminals.folder / "edgeq.db") as queue:
        (mail,) = [each for each in queue.find(kind="packing:send_mail") if "packer@" in each.args]
        assert '"parent"' in (mail.options or ""), "the callback of the label"
        assert [each.state for each in queue.find(kind="packing:PrintLabel")] == ["completed"] * 3


def test_the_attributes_of_a_class_are_those_of_the_table() -> None:
    rows = table(section("## Defining", JOBS))
    told = {code(name)[0]: ast.literal_eval(code(default)[0]) for name, default, _ in rows}
    assert told == {name: getattr(Job, name) for name in settings.NAMES}
    meanings = {code(name)[0]: meaning for name, _, meaning in rows}
    assert settings.PRIORITIES == {"high": 10, "normal": 0, "low": -10}
    assert "these words are 10, 0 and -10" in meanings["priority"]
    assert f"-{settings.PRIORITY_MAX} to {settings.PRIORITY_MAX}" in meanings["priority"]
    assert f"1 to {settings.ATTEMPTS_MAX}" in meanings["max_attempts"]


def test_the_keywords_of_a_dispatch_are_those_of_the_table() -> None:
    told = {re.match(r"\w+", word).group() for cell, _ in table(section("## Dispatching", JOBS)) for word in code(cell)}  # type: ignore[union-attr]
    taken = set(inspect.signature(Queue.dispatch).parameters) - {"self", "job", "how", "connection"}
    assert told == taken | set(How.__annotations__)


def test_the_reasons_for_which_jobs_die_are_all_told() -> None:
    text = section("## Keeping", JOBS)
    told = set(re.findall(r"`(\w+)`", text[text.index("the reason:") : text.index("`edgeq jobs retry`")]))
    source = "".join(
        path.read_text() for folder in ("jobs", "store") for path in sorted((ROOT / "edgeq" / folder).rglob("*.py"))
    )
    given = re.findall(r'(?:Failed|Broken)\(\s*"(\w+)"', source) + re.findall(r'Buried\(\s*job, "(\w+)"', source)
    assert told == set(given)


@pytest.mark.parametrize(
    ("title", "text", "true"),
    [
        ("## Running", "six seconds of waiting", AGE_SECONDS == 6.0),
        ("## Running", "less than two minutes after it", AGE_SECONDS * (10 - -10) == 120.0),
        ("## Running", "`concurrency` (default 2)", schema.Queue().concurrency == 2),
        ("## Running", "`lease` (default 60s)", schema.Queue().lease == 60.0),
        ("## Running", "has 10 seconds to end", GRACE_SECONDS == 10.0),
        ("## In a process of its own", "ends when idle for five minutes", pool.IDLE_SECONDS == 300.0),
        ("## Schedules", "`all` does each (1000 at most)", schedule.RUNS_MAX == 1000),
        ("## Sources", "a third of `at_most`", "at_most // 3" in inspect.getsource(Source)),
        (
            "## Keeping",
            "Completed and cancelled jobs are deleted after 7 days and dead ones after 90",
            [age / 86400 for age in schema.Retention().by_state().values()] == [7, 7, 90],
        ),
    ],
)  # fmt: skip
def test_the_figures_in_the_text_are_true(title: str, text: str, true: bool) -> None:
    assert text in " ".join(section(title, JOBS).split())
    assert true
