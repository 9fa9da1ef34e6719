"""From one version to the next on a booted Debian, back when anything is wrong, and off the machine.

`scripts/test systemd` runs these. After each test, nothing that the broker has acknowledged is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.gateway import Gateway, gateway_in, typed

pytestmark = [pytest.mark.timeout(1200)]

MIGRATIONS = "edgeq/store/migrations/sqlite"
MIGRATION = "def up(migrator, db):\n    db.execute_sql('CREATE TABLE {table} (id INTEGER PRIMARY KEY)')\n"
HANGS = """\
    with open("migrated", "w") as file:
        file.write(f"{os.getpid()}\\n")
    __import__("time").sleep(3600)
"""
EDITED = "mqtt: {receive_maximum: 900}\njobs: {queues: {video: {}}}\n"
UPGRADE = "sudo scripts/install --upgrade"
VERSIONS = "ls /opt/edgeq/versions; readlink /opt/edgeq/current"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """For all tests of this file, which go from version to version."""
    with gateway_in(tmp_path_factory.mktemp("upgraded")) as made:
        made.put("etc/edgeq/conf.d/edited.yaml", EDITED)
        made.shell("echo '# mine' >> /etc/edgeq/edgeq.yaml")
        made.shell("systemctl enable --now edgeq-worker@video; systemctl reload edgeq")
        yield made


@pytest.fixture
def gateway(machine: Gateway) -> Iterator[Gateway]:
    """It runs, and after the test nothing is missing, and the database is whole."""
    machine.until_connected()
    yield machine
    machine.until_connected()
    machine.nothing_is_missing()
    machine.shell("edgeq db check")


def changes(*changed: tuple[str, str, str], tables: tuple[str, ...] = ()) -> Callable[[Path], None]:
    """Another version: (file, what stands in it, what stands there instead), and migrations that make these tables."""

    def change(source: Path) -> None:
        for name, old, new in changed:
            text = (source / name).read_text()
            assert old in text, f"{name} has no {old}"
            (source / name).write_text(text.replace(old, new))
        for number, table in enumerate(tables):
            (source / MIGRATIONS / f"{9000 + number}_{table}.py").write_text(MIGRATION.format(table=table))

    return change


def configuration(gateway: Gateway) -> str:
    return gateway.shell("cd /etc/edgeq && find . -type f -not -name '*.new' -exec sha256sum {} + | sort")


def tables(gateway: Gateway) -> set[object]:
    return {name for (name,) in gateway.rows("SELECT name FROM sqlite_schema WHERE type = 'table'")}


def version(gateway: Gateway) -> str:
    return gateway.shell("edgeq --version").split()[-1]


def test_a_version_that_does_not_take_the_configuration_changes_nothing(gateway: Gateway) -> None:
    takes_less = ("edgeq/config/schema.py", "checks.between(1, 65_535)", "checks.between(1, 500)")
    gateway.put_wheels("0.1.1", changes(takes_less))
    before = gateway.show()["MainPID"], gateway.shell(VERSIONS), tables(gateway), configuration(gateway)
    said = gateway.install(typed(UPGRADE), check=False)
    assert "edited.yaml:1: mqtt.receive_maximum: must be between 1 and 500, not 900" in said
    assert "0.1.0-" in said
    assert "stays" in said
    assert (gateway.show()["MainPID"], gateway.shell(VERSIONS), tables(gateway), configuration(gateway)) == before
    assert not (gateway.root / "var/lib/edgeq/backups").exists(), "it ended before anything was touched"


def test_a_newer_version_takes_the_place_of_the_present_one_with_its_data(gateway: Gateway) -> None:
    gateway.put_wheels("0.2.0", changes(tables=("later",)))
    gateway.shell("echo '# new' >> /root/edgeq/config/edgeq.yaml")
    before, stored = configuration(gateway), gateway.stored()
    other = gateway.install(typed("sudo scripts/install --mosquitto"), check=False)
    assert "scripts/install --upgrade" in other, "without the word, it is only told of"
    assert version(gateway) == "0.1.0"
    gateway.install(typed(UPGRADE))
    assert version(gateway) == "0.2.0"
    assert "later" in tables(gateway)
    assert configuration(gateway) == before
    assert "# new" in (gateway.root / "etc/edgeq/edgeq.yaml.new").read_text(), "the sample lies beside it"
    assert stored <= gateway.stored()
    assert gateway.show("edgeq-worker@video")["ActiveState"] == "active"
    (backup,) = (gateway.root / "var/lib/edgeq/backups").iterdir()
    assert gateway.rows("PRAGMA integrity_check", f"backups/{backup.name}") == [("ok",)]
    assert not gateway.rows("SELECT 1 FROM sqlite_schema WHERE name = 'later'", f"backups/{backup.name}")


def test_a_version_that_does_not_start_goes_and_the_database_is_as_before(gateway: Gateway) -> None:
    fails = ("edgeq/cli/run.py", "    loaded = load_config_to_plan()\n", "    raise SystemExit(1)\n")
    gateway.put_wheels("0.3.0", changes(fails, tables=("later", "later_still")))
    before = configuration(gateway), tables(gateway)
    said = gateway.install(typed(UPGRADE), check=False)
    assert "0.2.0-" in said
    assert said.rstrip().endswith("was not taken")
    assert version(gateway) == "0.2.0"
    gateway.until_connected()
    assert (configuration(gateway), tables(gateway)) == before
    assert gateway.show("edgeq-worker@video")["ActiveState"] == "active"


def test_an_upgrade_that_is_killed_is_taken_back_by_the_next_run(gateway: Gateway) -> None:
    hangs = ("edgeq/cli/db/migrate.py", "    if before == after:\n", HANGS + "    if before == after:\n")
    gateway.put_wheels("0.4.0", changes(hangs, tables=("later", "later_still")))
    gateway.shell(f"cd /root/edgeq; {typed(UPGRADE)} --from /root/wheels > /root/said 2>&1 & echo $! > /root/pid")
    migrated = gateway.root / "var/lib/edgeq/migrated"
    gateway.until(lambda: migrated.exists() and migrated.read_text(), "the migration")
    assert "later_still" in tables(gateway)
    gateway.shell("kill -9 $(cat /root/pid) $(cat /var/lib/edgeq/migrated)")
    assert gateway.show()["ActiveState"] == "inactive"
    assert version(gateway) == "0.4.0"
    gateway.put_wheels("0.2.0")
    said = gateway.install(typed("sudo scripts/install --mosquitto"))
    assert "the upgrade to 0.4.0-" in said
    assert "was interrupted; going back to 0.2.0-" in said
    assert version(gateway) == "0.2.0"
    assert "later_still" not in tables(gateway)


def test_who_uninstalls_keeps_configuration_and_data_unless_all_is_to_go(machine: Gateway) -> None:
    """The last one: there is nothing left."""
    machine.until_connected()
    before, purge = configuration(machine), typed("sudo scripts/install --uninstall --purge")
    machine.shell(f"cd /root/edgeq && {purge.removesuffix(' --purge')}")
    gone = machine.shell("ls /opt/edgeq /usr/local/bin/edgeq; systemctl cat edgeq", check=False)
    assert gone.count("No such file") == 2
    assert "No files found" in gone
    assert configuration(machine) == before
    promised = machine.promised()
    machine.install(typed("sudo scripts/install --mosquitto"))
    machine.shell("systemctl enable --now edgeq")
    machine.until_connected()
    machine.nothing_is_missing()
    assert promised <= machine.stored(), "what was there, and what the broker kept meanwhile"
    assert configuration(machine) == before

    machine.shell(f"cd /root/edgeq && {purge}")
    elsewhere = " ".join(f"-not -path '{place}/*'" for place in ("/root", "/var/log", "/etc/mosquitto"))
    left = machine.shell(
        f"find / -xdev -iname '*edgeq*' {elsewhere}; getent passwd edgeq; getent group edgeq", check=False
    )
    assert left.split() == []
    assert machine.show("mosquitto")["ActiveState"] == "active"
