"""Channel `exec`: programs that behave, and programs that don't."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from support.outbox import outbox
from support.programs import script
from support.stores import Database
from support.targets import until
from test_channels_config import build as built
from test_channels_kinds import build
from test_channels_webhook import await_threads_gone

from edgeq.clock import Clock
from edgeq.notifications.channels import Channel, Outcome, Retry, Sent
from edgeq.notifications.channels.program import SAID_BYTES_MAX, Ended, run
from edgeq.testing.channels import notification


def program(folder: Path, text: str, *arguments: str, **keys: Any) -> Channel:
    return build(kind="exec", command=[str(script(folder, text)), *arguments], **keys)


async def ended(folder: Path, text: str, **keys: Any) -> Outcome:
    return await program(folder, text, **keys).send(notification())


async def test_the_notification_comes_as_json_on_standard_input_and_arguments_as_they_are(tmp_path: Path) -> None:
    text = f'cat > {tmp_path}/in; printf "%s|" "$@" > {tmp_path}/arguments'
    odd = ["$HOME; touch oops", "two words", "*", "é", ""]
    assert await program(tmp_path, text, *odd).send(notification(kind="resolved")) == Sent()
    assert json.loads((tmp_path / "in").read_text()) == notification(kind="resolved").as_dict()
    assert (tmp_path / "arguments").read_text() == "|".join([*odd, ""]), "a shell had its hands on them"


async def test_what_it_printed_last_is_the_answer(tmp_path: Path) -> None:
    outcome = await ended(tmp_path, "echo dialling; printf 'taken \\033[31mas 17\\n\\n'; echo oh >&2")
    assert isinstance(outcome, Sent)
    assert outcome.answer == "taken [31mas 17"


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("exit 75", Retry("exit status 75", target_down=True)),
        ("echo no modem >&2; exit 75", Retry("exit status 75: no modem", target_down=True)),
        ("echo first >&2; echo 'no such number' >&2; exit 1", Retry("exit status 1: no such number")),
        ("echo only this; exit 3", Retry("exit status 3: only this")),
        ("exit 255", Retry("exit status 255")),
        ("kill -SEGV $$", Retry("ended by signal 11")),
        ("exec 0<&-; exit 0", Sent()),
    ],
)
async def test_its_exit_status_says_what_came_of_it(tmp_path: Path, text: str, outcome: Outcome) -> None:
    assert await ended(tmp_path, text) == outcome


async def test_it_gets_little_of_what_edgeq_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQTT_PASSWORD", "s3cret")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    monkeypatch.setenv("LANG", "C.UTF-8")
    with (tmp_path / "open").open("w") as kept:
        os.set_inheritable(kept.fileno(), True)
        code = (
            "import json, os; "
            f"json.dump([dict(os.environ), os.getcwd(), os.listdir('/proc/self/fd')], open('{tmp_path}/seen', 'w'))"
        )
        assert await build(kind="exec", command=[sys.executable, "-c", code]).send(notification()) == Sent()
    environment, folder, descriptors = json.loads((tmp_path / "seen").read_text())
    assert environment["LANG"] == "C.UTF-8"
    assert "/usr/bin" in environment["PATH"]
    assert not set(environment) - {"HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "TZ", "USER"}
    assert folder == "/"
    assert len(descriptors) <= 5  # the three, the file that is written and the folder that is listed


async def test_at_the_timeout_it_is_killed_with_what_it_has_started(tmp_path: Path) -> None:
    text = f"sleep 600 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/parent; trap '' TERM; wait; sleep 600"
    parent = tmp_path / "parent"
    for seconds in (1, 10, 40):  # a busy machine may need longer than a second to start it
        outcome = await ended(tmp_path, text, timeout=f"{seconds}s")
        assert outcome == Retry(f"no answer within {seconds}s"), "the notification may be to blame: the attempt counts"
        if parent.exists() and parent.read_text():
            break
    await until(lambda: not any(alive(tmp_path / name) for name in ("child", "parent")))
    await_threads_gone()


def alive(file: Path) -> bool:
    stat = Path(f"/proc/{file.read_text().strip()}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_what_it_leaves_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    assert await ended(tmp_path, f"sleep 600 & echo $! > {tmp_path}/child; echo done", timeout="60s") == Sent()
    assert alive(tmp_path / "child")
    os.kill(int((tmp_path / "child").read_text()), 9)


async def test_output_without_end_is_read_and_forgotten(tmp_path: Path) -> None:
    code = "import sys\nfor _ in range(400): sys.stderr.write('x' * 49_999 + '\\n')\nsys.exit('the end')"
    outcome = await build(kind="exec", command=[sys.executable, "-c", code]).send(notification())
    assert outcome == Retry("exit status 1: the end")
    kept: list[Ended] = []

    def judge(end: Ended) -> Outcome:
        kept.append(end)
        return Sent()

    await run([sys.executable, "-c", code], b"", judge, timeout_seconds=120, environment={})
    assert len(kept[0].err) <= SAID_BYTES_MAX
    long = await ended(tmp_path, "head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 1")
    assert isinstance(long, Retry)
    assert len(long.reason) < 400


async def test_one_that_reads_nothing_may_do_so(tmp_path: Path) -> None:
    body = "x" * 200_000  # more than a pipe holds
    assert await program(tmp_path, "exit 0").send(notification(body=body)) == Sent()


async def test_one_that_is_gone_or_spoilt_makes_the_channel_wait(tmp_path: Path) -> None:
    channel = program(tmp_path, "exit 0")
    file = tmp_path / "program"
    for spoil, words in (
        (lambda: file.chmod(0o644), "Permission denied"),
        (lambda: (file.chmod(0o755), file.write_bytes(b"\x7fELF nonsense")), "Exec format error"),
        (file.unlink, "No such file or directory"),
        (file.mkdir, "Permission denied"),
    ):
        spoil()
        outcome = await channel.send(notification())
        assert isinstance(outcome, Retry)
        assert outcome.target_down
        assert outcome.reason == f"{file} can't be run: {words}"


async def test_a_hundred_leave_nothing_behind(tmp_path: Path) -> None:
    channel = program(tmp_path, "read line; [ ${#line} -gt 10 ]")
    await channel.send(notification())
    await_threads_gone()
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        assert await channel.send(notification()) == Sent()
    await_threads_gone()
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert not zombies()


def zombies() -> list[str]:
    """The children of this process that nobody has waited for."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if (state, parent) == ("Z", str(os.getpid())):
                found.append(stat.parent.name)
    return found


@pytest.mark.parametrize(
    ("command", "key", "words"),
    [
        ([], ".command", "must not be empty"),
        (["/nonexistent/sms"], ".command", "must begin with a program that is there: /nonexistent/sms"),
        (["no-such-program-anywhere"], ".command", "must begin with a program that is there"),
        (["bin/sms"], ".command", "must begin with the whole path of a program"),
        (["/etc/passwd"], ".command", "must begin with a program that edgeq may execute: /etc/passwd (try chmod +x)"),
        (["/etc"], ".command", "must begin with a program that is there"),
        (["/bin/true", "a\0b"], ".command", "must not hold the character NUL"),
        ([""], ".command", "must begin with a program that is there"),
        ("/bin/true --now", ".command", "must be a list"),
        (["/bin/true", {"a": 1}], ".command[1]", "must be text"),
    ],
)
def test_a_program_that_cannot_be_run_is_a_mistake_in_the_configuration(command: Any, key: str, words: str) -> None:
    channels, problems = built(kind="exec", command=command)
    assert not channels
    (problem,) = problems
    assert (problem.where, problem.path) == ("edgeq.yaml:7", f"channels.it{key}")
    assert words in str(problem)


def test_a_program_of_the_system_needs_no_path() -> None:
    channels, problems = built(kind="exec", command=["true"])
    assert not problems
    assert channels["it"].kind == "exec"


async def test_over_an_outage_of_its_target_no_attempt_is_counted(tmp_path: Path, database: Database) -> None:
    away = tmp_path / "away"
    away.touch()
    channel = program(tmp_path, f"[ -e {away} ] && {{ echo no signal >&2; exit 75; }}; cat >> {tmp_path}/got")
    async with outbox(database, Clock()) as box:
        await box.start(channel, "sms")
        await box.queue("low", channel="sms")
        row = await box.failed("low")
        assert (row.state, row.attempt, row.error) == ("queued", 0, "exit status 75: no signal")
        assert not (tmp_path / "got").exists()
