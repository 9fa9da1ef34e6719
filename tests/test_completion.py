"""Commands, options and names are completed in real shells; whatever is wrong, nothing is said to who is typing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.terminal import Terminal

CONFIGURATION = """\
jobs: {queues: {default: {}, video: {}}}
channels: {phone: {kind: log}, phantom: {kind: log}}
contracts: [{name: cold, kind: absence, of: x, every: 1m}]
"""
BIN = str(Path(sys.executable).parent)
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source <(edgeq completion bash)"),
    "zsh": (["zsh", "-f", "-i"], "autoload -U compinit; compinit -D -u; source <(edgeq completion zsh)"),
    "fish": (["fish", "--no-config", "-i"], "edgeq completion fish | source"),
}
TO_THE_BEGINNING = "\x01"


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Terminal]:
    """A shell in which edgeq is completed, in a folder with a configuration."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} isn't installed: apt-get install {request.param}")
    (tmp_path / "edgeq.yaml").write_text(CONFIGURATION)
    command, prepare = SHELLS[request.param]
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    with Terminal(command=command, folder=tmp_path, PATH=path, HOME=str(tmp_path), LC_ALL="C.UTF-8") as terminal:
        terminal.press(f"{prepare}; printf '[%s]' ready\r")
        terminal.until("[ready]")
        yield terminal


def typed(shell: Terminal, line: str, *expected: str) -> None:
    """Type a line, then have the shell print the words that it has come to."""
    shell.press(f"{line}{TO_THE_BEGINNING}printf '<%s>' \r")
    shell.until("".join(f"<{word}>" for word in expected))


def test_commands_options_and_names_are_completed(shell: Terminal) -> None:
    typed(shell, "edgeq proc\t", "edgeq", "processors")
    typed(shell, "edgeq processors pau\tcour\t", "edgeq", "processors", "pause", "courier")
    typed(shell, "edgeq work v\t", "edgeq", "work", "video")
    typed(shell, "edgeq jobs list --qu\td\t", "edgeq", "jobs", "list", "--queue", "default")
    typed(shell, "edgeq contracts explain c\t", "edgeq", "contracts", "explain", "cold")
    typed(shell, "edgeq notifications test phan\t", "edgeq", "notifications", "test", "phantom")
    assert "Traceback" not in shell.text


def test_files_are_completed_where_a_file_is_wanted(shell: Terminal) -> None:
    typed(shell, "edgeq check -c edg\t", "edgeq", "check", "-c", "edgeq.yaml")


def test_whatever_is_wrong_nothing_is_said(shell: Terminal, tmp_path: Path) -> None:
    (tmp_path / "edgeq.yaml").write_text("jobs: [\n")
    typed(shell, "edgeq work v\t", "edgeq", "work", "v")
    assert "rror" not in shell.text


@pytest.mark.parametrize("words", ["edgeq work ", "edgeq -c /no/such work ", "edgeq nonsense ", "edgeq jobs nonsense "])
@pytest.mark.parametrize("configuration", [None, "jobs: [\n", "jobs: 7\n", "contracts: [{}, 3]\n", "\x00\x1b[2J"])
def test_nothing_reaches_the_terminal_but_names(tmp_path: Path, words: str, configuration: str | None) -> None:
    if configuration is not None:
        (tmp_path / "edgeq.yaml").write_text(configuration)
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("EDGEQ_")},
        "_EDGEQ_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split())),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "edgeq.cli.main"], cwd=tmp_path, env=environ, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert all(line.startswith("plain,") for line in done.stdout.splitlines() if line)
    assert os.listdir(tmp_path) in ([], ["edgeq.yaml"]), "the store isn't asked, and not made"


def test_the_names_of_commands_cost_no_imports(tmp_path: Path) -> None:
    program = "import sys; from edgeq.cli.main import main\ntry: main()\nfinally: print('peewee' in sys.modules)"
    environ = {**os.environ, "_EDGEQ_COMPLETE": "bash_complete", "COMP_WORDS": "edgeq ", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    )
    assert "plain,status" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"
