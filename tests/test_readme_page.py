"""docs/interface.md: what it has one type gives a page, and the page is as it says."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mosquitto import Mosquitto, free_port
from support.readme import PAGES, Terminals, section, steps, table

import edgeq.web

ALL = PAGES["docs/interface.md"]
HEAD = ALL[: ALL.index("\n## ")]
PAGE = section("## The page", ALL)
STATIC = Path(edgeq.web.__file__).parent / "static"


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    made = Terminals(tmp_path)
    yield made
    made.kill()


def test_its_lines_make_a_page_that_changes_things_with_the_token(terminals: Terminals, broker: Mosquitto) -> None:
    port = free_port()
    for line, _ in steps(HEAD.replace("```yaml", "```text"), terminals.folder):
        terminals.type(line)
    written = HEAD.partition("```yaml\n")[2].partition("```")[0].replace("8321", str(port))
    (terminals.folder / "edgeq.yaml").write_text(
        f"mqtt: {{url: '{broker.url}'}}\nchannels: {{it: {{kind: log}}}}\n{written}"
    )
    terminals.type("edgeq run")
    address = f"http://127.0.0.1:{port}"
    with urllib.request.urlopen(f"{address}/", timeout=30) as page:
        assert b"<title>edgeq</title>" in page.read()
    pause = urllib.request.Request(f"{address}/api/processors/courier/pause", method="POST")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(pause, timeout=30)
    pause.add_header("Authorization", f"Bearer {(terminals.folder / 'web-token').read_text().strip()}")
    urllib.request.urlopen(pause, timeout=30).close()
    assert "paused" in terminals.type("edgeq processors list")
    assert (terminals.folder / "web-token").stat().st_mode & 0o077 == 0
    terminals.stop()


def test_its_table_has_the_views_of_the_page_in_their_order() -> None:
    views = re.search(r"const VIEWS = \{(.*?)\};", (STATIC / "app.js").read_text(), re.DOTALL)
    assert views is not None
    names = [each.split(":")[-1].strip() for each in views[1].split(",") if each.strip()]
    titles = [re.search(r'title = "(.*)"', (STATIC / f"view_{name}.js").read_text())[1] for name in names]
    assert [row[0] for row in table(PAGE)] == titles


def test_it_names_one_port() -> None:
    assert set(re.findall(r"\d{4,}", ALL)) == {"8321"}
