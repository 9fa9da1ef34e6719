"""docs/terminal.md: every line in one folder and in its order."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.readme import PAGES, Terminals, code, followed, printed, shows, steps, table
from support.terminal import Terminal

SECTION = followed(PAGES["docs/terminal.md"])


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    made = Terminals(tmp_path)
    yield made
    made.kill()


def test_every_line_does_what_it_says(terminals: Terminals) -> None:
    typed = []
    shown = printed(SECTION)
    for line, _ in steps(SECTION, terminals.folder):
        if line.startswith("edgeq doctor"):
            out = terminals.type(line, status=1)
            assert line in ("edgeq doctor", "edgeq doctor --thorough --json")
            if "--json" in line:
                assert all(json.loads(each)["state"] for each in out.splitlines())
        elif line == "edgeq status --watch":
            with Terminal("status", "--watch", folder=terminals.folder) as terminal:
                terminal.until("edgeq is not running")
                terminal.press("q")
                assert terminal.end() == 0
            out = ""
        elif line.startswith(". "):
            bash = shutil.which("bash")
            assert bash is not None
            done = subprocess.run([bash, "-c", f"{line} && complete -p edgeq"], cwd=terminals.folder, text=True,
                                  capture_output=True, check=True)  # fmt: skip
            out = done.stdout
            assert out.endswith(" edgeq\n")
        else:
            out = terminals.type(line)
        if len(typed) in shown:
            assert shows(out, shown[len(typed)])
        typed.append(line)
    assert len(typed) == 6


def test_each_shell_of_the_table_is_one(terminals: Terminals) -> None:
    for shell, _ in table(SECTION):
        assert "edgeq" in terminals.type(f"edgeq completion {shell}")
    assert all(code(where) for _, where in table(SECTION))
