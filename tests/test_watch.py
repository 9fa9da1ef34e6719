"""`edgeq status --watch` on a terminal: what it shows, its keys, another size, another appliance, and its end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.appliance import Appliance
from support.mosquitto import Mosquitto, Peer
from support.terminal import Terminal, plain

from edgeq.cli.watch import sparkline

CONFIGURATION = """\
gateway: g
mqtt: {{url: "{url}"}}
routes: [{{topic: "sensors/{{device}}", emit: reading}}]
channels: {{screen: {{kind: log}}}}
"""


@pytest.fixture
def edgeq(tmp_path: Path) -> Iterator[Appliance]:
    """Not started, and its broker isn't there."""
    made = Appliance(tmp_path, CONFIGURATION.format(url="mqtt://127.0.0.1:1"))
    yield made
    made.kill()


def watch(edgeq: Appliance, *words: str, **options: int) -> Terminal:
    return Terminal("status", "--watch", "--interval", "200ms", *words, folder=edgeq.folder, **options)  # type: ignore[arg-type]


def pictures(terminal: Terminal) -> list[str]:
    """Each whole screen that was drawn since the last key, without colours."""
    return [plain(each) for each in terminal.raw.split("\x1b[H")[1:]]


def _width(picture: str) -> int:
    return max(map(len, picture.splitlines()))


def test_it_is_redrawn_until_q_and_the_terminal_is_as_it_was(edgeq: Appliance) -> None:
    with watch(edgeq) as terminal:
        terminal.until("edgeq is not running", "there is no database")
        assert "\x1b[?1049h" in terminal.raw, "it has the other screen"
        before = len(pictures(terminal))
        terminal.until(lambda text: len(pictures(terminal)) > before + 2)
        terminal.press("q")
        assert terminal.end() == 0
        assert "\x1b[?1049l" in terminal.raw
        assert "\x1b[?25h" in terminal.raw, "the cursor is there again"


def test_what_is_wrong_comes_first_and_in_red(edgeq: Appliance) -> None:
    edgeq.spawn()
    edgeq.until(lambda: edgeq.status().get("processors"), "its cursor")
    with watch(edgeq) as terminal:
        words = ("running as process", "nothing listens at 127.0.0.1:1", "lag courier", "gateway  ")

        def shown() -> list[str]:
            """The pictures that have it all; the last one may not be whole yet."""
            return [each for each in pictures(terminal)[:-1] if all(word in each for word in words)]

        terminal.until(lambda text: shown() != [])
        assert shown()[-1].index("broker  ") < shown()[-1].index("gateway  ")
        assert "\x1b[1;31mbroker " in terminal.raw


def test_p_holds_it_and_goes_on(edgeq: Appliance) -> None:
    with watch(edgeq) as terminal:
        terminal.until("edgeq is not running")
        terminal.press("p")
        terminal.until("edgeq status, held", "p goes on")
        edgeq.spawn()
        edgeq.until(lambda: edgeq.status().get("pid"), "its start")
        terminal.resize(100, 30)
        terminal.until("edgeq status, held")
        assert "running as process" not in terminal.text, "held, it shows what it showed"
        terminal.press("p")
        terminal.until("running as process")


def test_another_size_is_drawn_at_once(edgeq: Appliance) -> None:
    with watch(edgeq, "--interval", "1h") as terminal:
        terminal.until("edgeq is not running")
        terminal.resize(30, 10)
        terminal.until(lambda text: any("…" in each and _width(each) <= 30 for each in pictures(terminal)))
        terminal.resize(100, 3)
        terminal.until("more lines")


def test_it_survives_the_end_and_the_start_of_the_appliance(edgeq: Appliance) -> None:
    edgeq.spawn()
    edgeq.until(lambda: edgeq.status().get("pid"), "its start")
    assert edgeq.process is not None
    first = edgeq.process.pid
    with watch(edgeq) as terminal:
        terminal.until(f"running as process {first}")
        edgeq.kill()
        terminal.until("edgeq is not running")
        edgeq.spawn()
        second = edgeq.process.pid
        assert second != first
        terminal.until(f"running as process {second}")
        terminal.press("q")
        assert terminal.end() == 0


def test_rates_and_lag_over_time(broker: Mosquitto, edgeq: Appliance) -> None:
    edgeq.configure(CONFIGURATION.format(url=broker.url))
    edgeq.start()
    with watch(edgeq) as terminal:
        terminal.until("messages/s  ", "lag courier")
        with Peer(broker.port) as sensor:
            sensor.publish_many([("sensors/a", '{"value": 1}')] * 20)
        terminal.until(lambda text: re.search(r"messages/s +[\d.]+ +\S*█", text) is not None)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_signals_leave_the_terminal_as_it_was(edgeq: Appliance, number: int, status: int) -> None:
    with watch(edgeq) as terminal:
        terminal.until("edgeq is not running")
        os.kill(terminal.process.pid, number)
        assert terminal.end() == status
        assert "\x1b[?1049l" in terminal.raw
        assert "Traceback" not in terminal.text


def test_a_pipe_gets_the_text_again_and_again(edgeq: Appliance) -> None:
    command = [sys.executable, "-m", "edgeq.cli.main", "status", "--watch", "--interval", "200ms"]
    with subprocess.Popen(command, cwd=edgeq.folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = [process.stdout.readline() for _ in range(6)]
        process.kill()
    assert seen[:3] == seen[3:]
    assert seen[0] == "gateway       g: edgeq is not running\n"
    assert seen[2] == "\n"
    assert "\x1b" not in "".join(seen)


def test_the_curve() -> None:
    assert sparkline([0, 0, 0]) == "▁▁▁"
    assert sparkline([0, 4, 8]) == "▁▅█"
    assert sparkline([0.0, 1.0], "._#") == ".#"
    assert sparkline([]) == ""
