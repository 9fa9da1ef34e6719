"""The power is cut, for real as far as the disk knows: nothing that was acknowledged is missing (G1).

After each cut the disk has only what was synced. What the broker keeps for the session it sends again; so what it has
acknowledged to the sender, and is not an event once edgeq has caught up, was acknowledged by edgeq and is lost.
`POWER_CUTS=200` in the environment cuts more often than the suite does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.appliance import Appliance
from support.load import ECHO, ROUTE, WINDOW, Load
from support.mosquitto import Mosquitto
from support.power import UNTIL_THE_TEST_ENDS, Disk, NoDiskError
from support.power_site import Site

CUTS = int(os.environ.get("POWER_CUTS", "20"))

CONFIGURATION = """\
gateway: power
mqtt: {{url: "{url}", receive_maximum: {window}}}
store: {{url: {database}, durability: {durability}}}
app: {{path: ., modules: [echo]}}
routes:
{route}
processors:
  echo: {{kind: "echo:Echo", start: beginning}}
"""

pytestmark = pytest.mark.timeout(120 + 15 * CUTS)


@pytest.fixture
def site(tmp_path: Path, broker: Mosquitto) -> Iterator[Callable[[str], Site]]:
    """Makes a site with the given durability, whose session the broker knows."""
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(Disk(tmp_path))
        except NoDiskError as error:
            pytest.skip(str(error))

        def make(durability: str) -> Site:
            database = disk.folder / "edgeq.db"
            configuration = CONFIGURATION.format(
                url=broker.url, window=WINDOW, database=database, durability=durability, route=ROUTE
            )
            edgeq = Appliance(tmp_path / "edgeq", configuration)
            (edgeq.folder / "echo.py").write_text(ECHO)
            edgeq.database = database
            edgeq.command = (*UNTIL_THE_TEST_ENDS, *edgeq.command)
            stack.callback(edgeq.kill)
            edgeq.start()
            edgeq.until(lambda: "Sending SUBACK to edgeq-power" in broker.log, "the subscription")
            load = Load(broker.port, durability)
            stack.callback(load.close)
            return Site(edgeq, disk, load)

        yield make


def test_after_power_cuts_nothing_that_was_acknowledged_is_missing(site: Callable[[str], Site]) -> None:
    here = site("full")
    for _ in range(CUTS):
        here.cut_under_load()
        while here.flip(0.25):
            here.cut_while_starting()
        here.catch_up()
    print(here.figures())
    assert here.lost == set(), "acknowledged messages are missing"
    assert here.taken_back == set(), "events that a reader had seen are gone"


def test_power_cuts_while_the_database_is_made(site: Callable[[str], Site]) -> None:
    here = site("full")
    lost: set[int] = set()
    for _ in range(CUTS // 2):
        here.change_disk()
        here.load.send(50)
        here.cut_while_starting()
        here.catch_up()
        lost |= here.lost
        named = {key for (key,) in here.edgeq.sql("SELECT key FROM meta")}
        assert named >= {"store_id", "schema_version"}, "the store is half made"
    print(here.figures())
    assert lost == set(), "acknowledged messages are missing"


def test_with_durability_normal_a_power_cut_takes_acknowledged_messages(site: Callable[[str], Site]) -> None:
    """If it doesn't, the tests above prove nothing."""
    here = site("normal")
    while here.cuts < CUTS and not (here.lost and here.taken_back):
        here.cut_under_load()
        here.catch_up()
    print(here.figures())
    assert here.lost, "this disk keeps what was not synced"
    assert here.taken_back, "this disk keeps what was not synced"
