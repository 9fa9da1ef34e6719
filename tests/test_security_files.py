"""What other users of the machine can read: nothing that edgeq writes, but for the numbers of its processes."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.appliance import Appliance
from support.mosquitto import Mosquitto

CONFIGURATION = """
gateway: gw
mqtt: {{url: "{url}"}}
store: {{url: edgeq.db, backup: {{to: backups, every: 1h}}}}
"""


def open_to_strangers(folder: Path) -> set[str]:
    """The files below a folder that everybody may read or change."""
    files = (path for path in folder.rglob("*") if not path.is_dir())
    return {str(path.relative_to(folder)) for path in files if path.lstat().st_mode & stat.S_IRWXO}


@pytest.fixture
def edgeq(tmp_path: Path, broker: Mosquitto) -> Iterator[Appliance]:
    """One that is started by hand, with the umask of most shells; its log is the shell's."""
    made = Appliance(tmp_path / "edgeq", CONFIGURATION.format(url=broker.url))
    made.command = ("sh", "-c", f"umask 022; exec {shlex.join(made.command)}")
    made.log_file = tmp_path / "edgeq.log"
    (made.folder / "backups").mkdir()
    yield made
    made.kill()


def test_the_database_its_log_and_its_backups_are_closed_to_strangers(edgeq: Appliance) -> None:
    edgeq.start()
    edgeq.until(lambda: list(edgeq.folder.glob("backups/*.db")), "a backup")
    before = {"edgeq.yaml", "edgeq.db-lock"}
    assert open_to_strangers(edgeq.folder) == before
    assert {path.name for path in edgeq.folder.iterdir()} >= {"edgeq.db", "edgeq.db-wal", "edgeq.db-control"}
    assert edgeq.stop() == 0
    assert edgeq.cli("db", "backup", "backups").returncode == 0
    assert open_to_strangers(edgeq.folder) == before
    assert (edgeq.folder / "edgeq.db-lock").read_text().strip().isdecimal()


def test_a_command_that_makes_the_database_closes_it(tmp_path: Path) -> None:
    (tmp_path / "edgeq.yaml").write_text("gateway: gw\nstore: {url: edgeq.db}\n")
    command = shlex.join([sys.executable, "-m", "edgeq.cli.main", "work", "--drain"])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EDGEQ_")}
    subprocess.run(["sh", "-c", f"umask 022; {command}"], cwd=tmp_path, env=environment, check=True, timeout=60)
    assert stat.S_IMODE((tmp_path / "edgeq.db").stat().st_mode) == 0o640
