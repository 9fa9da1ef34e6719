"""`edgeq doctor`: what is not right, and what to do about it."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections import Counter

import click
import msgspec

from ..clock import Clock
from ..doctor.case import Case
from ..doctor.checks import CHECKS, examine
from ..doctor.finding import Finding, State
from ..telemetry.log import printable
from .common import as_json, configured, load_config
from .printing import say, say_json
from .progress import progress

_COLOURS: dict[State, str] = {"ok": "32", "warn": "33", "bad": "31;1", "unknown": "36"}
_WORDS: dict[State, str] = {"ok": "fine", "warn": "to look at", "bad": "wrong", "unknown": "not to be seen"}
_INDENT = 24


@click.command()
@click.option("--thorough", is_flag=True, help="Also what takes long, such as how many messages the broker keeps.")
@as_json
@configured
def doctor(thorough: bool, json_lines: bool) -> int:
    """Say what is not right, and what to do about it.

    Looks at the configuration, the service, the store, the disk, the broker, the clock and the machine, whether or not
    edgeq runs. Changes nothing. What needs other rights is unknown: sudo edgeq doctor sees all. Ends with 1 when
    something is wrong, with 0 otherwise.
    """
    case = Case(loaded=load_config(), clock=Clock(), thorough=thorough)
    counts: Counter[State] = Counter()
    with progress("looking", len(CHECKS)) as advance:
        for name, findings in examine(case):
            advance(1)
            for finding in findings:
                counts[finding.state] += 1
                if json_lines:
                    say_json({"check": name, **msgspec.structs.asdict(finding)})
                else:
                    _say(name, finding)
    if not json_lines:
        say(", ".join(f"{counts[state]} {word}" for state, word in _WORDS.items() if counts[state]))
    return 1 if counts["bad"] else 0


def _say(name: str, finding: Finding) -> None:
    """A line, and one below for each of why and what to do; folded on a terminal."""
    terminal = sys.stdout.isatty()
    width = max(20, shutil.get_terminal_size().columns - _INDENT - 1) if terminal else None
    told = [finding.what, finding.why, f"do: {finding.do}" if finding.do else ""]
    lines = [line for text in told for line in _folded(printable(text, keep=""), width)]
    state = f"{finding.state:<8}"
    if terminal and not os.environ.get("NO_COLOR"):
        state = f"\x1b[{_COLOURS[finding.state]}m{state}\x1b[0m"
    print(f"{state} {name:<14} {lines[0]}")
    for line in lines[1:]:
        print(" " * _INDENT + line)


def _folded(text: str, width: int | None) -> list[str]:
    if width is None:
        return [text] if text else []
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
