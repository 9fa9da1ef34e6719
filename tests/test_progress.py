"""Long work says on a terminal how far it is, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.terminal import Terminal

# Ends what it prints on standard output, and shows that it stays apart from the bar.
WORK = """
from edgeq.cli.progress import progress
with progress("beans", {total}) as advance:
    for count in range(3):
        print("a bean")
        advance(100)
print("done")
"""


@pytest.mark.parametrize(("total", "shown"), [(300, "300/300"), (None, "300/?")])
def test_a_terminal_has_a_bar_and_what_is_printed_stays_whole(tmp_path: Path, total: int | None, shown: str) -> None:
    program = [sys.executable, "-c", WORK.format(total=total)]
    with Terminal(command=program, folder=tmp_path) as terminal:
        assert terminal.end() == 0
        assert "beans" in terminal.text
        assert shown in terminal.text
        assert terminal.text.count("a bean") == 3
        assert terminal.text.rstrip().endswith("done")


def test_a_pipe_beside_a_terminal_gets_what_is_printed_and_nothing_of_the_bar(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with out.open("wb") as file:
        program = [sys.executable, "-c", WORK.format(total=300)]
        with Terminal(command=program, folder=tmp_path, output=file.fileno()) as terminal:
            assert terminal.end() == 0
            assert "300/300" in terminal.text
            assert "a bean" not in terminal.text
    assert out.read_text() == "a bean\na bean\na bean\ndone\n"


def test_without_a_terminal_there_is_nothing_and_rich_is_not_imported() -> None:
    program = WORK.format(total=300) + "import sys; print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "False"
