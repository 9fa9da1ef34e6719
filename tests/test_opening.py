"""Which store `store.url` opens, what that needs, what it warns of, and what it never shows."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.appliance import Appliance
from support.commands import Edgeq, commands
from support.postgres import Postgres

from edgeq.config.load import load, redacted
from edgeq.config.schema import Config
from edgeq.config.schema import Store as Settings
from edgeq.store.opening import _usable, local_base, local_bases

SECRET = "geheim%2F1"
AWAY = f"postgresql://me:{SECRET}@127.0.0.1:1/site?password=geheim2&connect_timeout=1"


def site(url: str = "postgresql://db.example.net/site", gateway: str = "barn-1") -> Config:
    return Config(gateway=gateway, store=Settings(url=url))


@pytest.fixture
def edgeq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Edgeq]:
    yield from commands(f"gateway: g\nstore: {{url: '{AWAY}'}}\n", tmp_path, monkeypatch, capsys)


# The driver


def test_who_uses_a_file_does_not_pay_for_the_driver(tmp_path: Path) -> None:
    (tmp_path / "edgeq.yaml").write_text("gateway: g\n")
    text = """
import contextlib, sys
from edgeq.cli.main import main
for words in (["check"], ["status"], ["jobs", "list"]):
    with contextlib.suppress(SystemExit):
        main(words)
assert not [name for name in sys.modules if name.startswith("psycopg")]
"""
    done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_without_the_driver_one_line_says_what_to_install(edgeq: Edgeq, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("psycopg", "edgeq.store.postgres"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    told = "a store on PostgreSQL needs the extra 'postgres' (pip install 'edgeq[postgres]')"
    for words, status in ((("check",), 78), (("run",), 78), (("jobs", "list"), 1), (("db", "copy", "a.db", AWAY), 1)):
        done = edgeq(*words)
        assert (done.status, told in done.err) == (status, True), done.err


def test_an_option_that_the_driver_does_not_know_is_a_mistake(edgeq: Edgeq, tmp_path: Path) -> None:
    (tmp_path / "edgeq.yaml").write_text(f"store:\n  url: '{AWAY}&nosuch=1'\n")
    done = edgeq("check")
    assert done.status == 78
    assert "edgeq.yaml:2: store.url: PostgreSQL's driver doesn't understand the url: " in done.err
    assert "nosuch" in done.err
    assert "geheim" not in done.out + done.err


# Secrets


def test_no_command_shows_the_password(edgeq: Edgeq, tmp_path: Path) -> None:
    for words in (["check"], ["status"], ["status", "--json"], ["jobs", "list"], ["emit", "a"], ["run", "--once"]):
        done = edgeq(*words)
        assert "database site at 127.0.0.1:1" in done.out + done.err
        assert "geheim" not in done.out + done.err, words
    assert "geheim" not in str(redacted(load("edgeq.yaml")))


def test_a_password_that_the_server_refuses_is_not_logged(
    tmp_path: Path, own_postgres: Callable[..., Postgres]
) -> None:
    server = own_postgres()
    server.sql(server.url, "CREATE ROLE me LOGIN PASSWORD 'another'")
    (server.folder / "data" / "pg_hba.conf").write_text("host all postgres all trust\nhost all me all scram-sha-256\n")
    server.restart()
    edgeq = Appliance(tmp_path, f"gateway: g\nstore: {{url: 'postgresql://me:{SECRET}@127.0.0.1:{server.port}/d'}}\n")
    edgeq.spawn()
    assert edgeq.ended() == 1
    assert "authentication failed" in edgeq.log
    assert "geheim" not in edgeq.log


# What an operator is warned of


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes", "synchronous_commit"])
def test_a_server_that_may_lose_what_was_acknowledged_is_warned_of(
    setting: str, tmp_path: Path, own_postgres: Callable[..., Postgres]
) -> None:
    server = own_postgres(**{setting: "off"})
    url = server.fresh_database()
    edgeq = Appliance(tmp_path, f"gateway: g\nmqtt: {{url: 'mqtt://127.0.0.1:1'}}\nstore: {{url: '{url}'}}\n")
    edgeq.spawn(RUNTIME_DIRECTORY=str(tmp_path))
    told = f"the server's {setting} is off"
    edgeq.until(lambda: told in edgeq.log, "the warning")
    assert told in edgeq.cli("check").stderr
    edgeq.kill()


# Local files


def test_local_files_lie_beside_a_database_file(tmp_path: Path) -> None:
    assert list(local_bases(site(f"{tmp_path}/a.db"))) == [f"{tmp_path}/a.db"]
    assert local_base(site(f"{tmp_path}/a.db")) == f"{tmp_path}/a.db"


def test_for_a_server_they_lie_in_the_first_folder_that_can_be_had(tmp_path: Path) -> None:
    environ = {"RUNTIME_DIRECTORY": f"{tmp_path}/one:{tmp_path}/two", "XDG_RUNTIME_DIR": f"{tmp_path}/user"}
    bases = list(local_bases(site(), environ))
    assert [str(Path(base).parent) for base in bases[:3]] == [f"{tmp_path}/one", "/run/edgeq", f"{tmp_path}/user/edgeq"]
    assert bases[3].startswith(f"{tempfile.gettempdir()}/edgeq-{os.geteuid()}/")
    assert local_base(site(), environ) == bases[0]
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o700
    other = [site("postgresql://db.example.net/other"), site(gateway="barn-2")]
    assert len({bases[0], *(local_base(each, environ) for each in other)}) == 3
    assert local_base(site("postgresql://u:secret@db.example.net/site"), environ) == bases[0]
    long = [local_base(site(gateway="ä" * 100 + end), environ) for end in "xy"]
    assert len({*long}) == 2
    assert all(len(os.path.basename(each).encode()) < 60 for each in long), "no room for it in a socket's address"


def test_a_folder_of_a_stranger_is_not_used(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a folder that is another's")
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 12345, 12345)
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    (tmp_path / "file").touch()
    assert [_usable(tmp_path / name) for name in ("theirs", "link", "file", "mine")] == [False, False, False, True]


def test_looking_for_an_appliance_makes_no_folder(
    edgeq: Edgeq, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{tmp_path}/nowhere")
    assert "is not running" in edgeq("status").out
    assert not (tmp_path / "nowhere").exists()
