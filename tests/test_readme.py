"""The README's tour, done as it says, in an empty folder; and what it and docs/ name, link to and show is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import msgspec
import pytest
from support.readme import (
    FOLLOWED,
    PAGES,
    README,
    ROOT,
    Terminals,
    anchors,
    blocks,
    code,
    files,
    followed,
    links,
    section,
    steps,
    table,
)

from edgeq.config.schema import Config

TOUR = followed(section("## A tour in five minutes"))
TRY = followed(section("## Try it"))
TESTS = followed(section("## Working on it"))


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    made = Terminals(tmp_path)
    yield made
    made.kill()


# What a reader must see after typing a line of the tour, in the order of the tour.
SHOWN = {
    "edgeq events list": ["temperature.reading", "bed-1", '{"value": 21.5}'],
    "edgeq dead-letters list": ["undecodable", "greenhouse/bed-1/temperature", "not JSON"],
    "edgeq events list --tag contract": ["contract.violated", "contract.resolved", "not-too-hot"],
    "edgeq jobs list": ["greenhouse:Water", "completed", "bed-1"],
    "edgeq processors list": ["gardener", "courier", "sentinel"],
    "edgeq status": ["running", "connected", "sentinel"],
}


@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto_pub is not installed (mosquitto-clients)")
def test_the_tour_works_as_it_is_written(terminals: Terminals) -> None:
    typed = []
    for line, note in steps(TOUR, terminals.folder):
        if note == "restart":
            terminals.stop()
        typed.append(line)
        terminals.until(line, *SHOWN.get(line, []))
    assert set(SHOWN) <= set(typed)
    log = terminals.log.read_text()
    assert "Traceback" not in log
    terminals.stop()


def test_the_tour_shows_its_notifications(terminals: Terminals) -> None:
    """The sentence about the first terminal is true: violated and resolved are both logged by the channel."""
    pytest.importorskip("amqtt", reason="the extra 'demo' is not installed")
    written = files(TOUR)
    (terminals.folder / "conf.d").mkdir()
    (terminals.folder / "edgeq.yaml").write_text(written["edgeq.yaml"].replace(":18830", ""))
    (terminals.folder / "conf.d/promises.yaml").write_text(written["conf.d/promises.yaml"])
    terminals.type("edgeq run")
    terminals.type("edgeq emit temperature.reading --subject bed-1 --data '{\"value\": 33}'")
    terminals.wait_for("not-too-hot")
    terminals.type("edgeq emit temperature.reading --subject bed-1 --data '{\"value\": 24}'")
    terminals.wait_for("Resolved after")


def test_the_scripts_that_are_typed_are_there() -> None:
    typed = [line for line, _ in steps(TRY + TESTS, Path("/nonexistent"))]
    assert typed
    assert [line for line in typed if not os.access(ROOT / line.split()[0], os.X_OK)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_is_there(page: str) -> None:
    named = re.findall(r"`((?:config|docs|scripts|systemd)/[\w./@-]+)`", PAGES[page])
    assert [path for path in sorted(set(named)) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    lost = []
    for link in links(PAGES[page]):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        known = anchors(target.read_text()) if anchor and target.is_file() else {""}
        lost += [] if target.exists() and anchor in known else [link]
    assert lost == []


def test_the_figures_of_the_why_are_those_of_the_benches() -> None:
    bold = re.findall(r"\*\*([\d.,]+(?: \w+)?)\*\*", section("## Why"))
    assert len(bold) > 3
    assert [each for each in bold if not re.search(rf"(?<![\d.,]){re.escape(each)}\b", PAGES["docs/figures.md"])] == []


def test_the_readme_has_a_line_for_each_page() -> None:
    listed = [link for link in links(section("## Contents")) if not link.startswith("#")]
    assert sorted(listed) == sorted(page for page in PAGES if page != "README.md")
    assert len(README.splitlines()) <= 450, "a README is to be read"


def test_every_block_is_followed_by_a_test() -> None:
    """Each module with the blocks of a page says so by `followed`; this imports them all."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        if re.search(r"= followed\(", path.read_text()):
            import_module(f"support.{path.stem}" if path.parent.name == "support" else path.stem)
    assert [
        each for page in PAGES.values() for each in blocks(page) if not any(each in text for text in FOLLOWED)
    ] == []


def _help(*words: str) -> str:
    command = [sys.executable, "-m", "edgeq.cli.main", *words, "--help"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _commands(help_text: str) -> set[str]:
    return set(re.findall(r"^  ([a-z-]+) ", help_text.partition("Commands:")[2], re.MULTILINE))


def test_every_command_and_option_in_the_table_is_one() -> None:
    named: dict[str, set[str]] = {}
    for cell, _ in table(section("## Commands")):
        for words in code(cell):
            _, name, *rest = words.replace("[", "").replace("]", "").replace("…", "").split()
            verbs = {verb for word in rest for verb in word.split("\\|") if verb.islower() and word[0] != "-"}
            assert [option for option in rest if option.startswith("--") and option not in _help(name)] == []
            named.setdefault(name, set()).update(verbs)
    assert set(named) == _commands(_help()), "the table has every command"
    for name, verbs in named.items():
        known = _commands(shown := _help(name))
        assert verbs == known or not known, name
        assert all(verb in shown for verb in verbs), name


def test_every_part_of_the_configuration_is_in_the_table() -> None:
    told = [name for cell, *_ in table(section("## Configuration")) for name in code(cell)]
    assert sorted(told) == sorted(field.encode_name for field in msgspec.structs.fields(Config))


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_left_to_be_filled_in(page: str) -> None:
    assert not re.search(r"\{…\}|TODO|TBD", PAGES[page])
