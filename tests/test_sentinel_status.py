"""What a running appliance says of events that its contracts couldn't judge."""

from __future__ import annotations

from pathlib import Path

from support.appliance import Appliance
from support.mosquitto import Mosquitto, Peer

CONFIGURATION = """\
gateway: gw
mqtt: {{url: "{url}"}}
store: {{url: edgeq.db}}
routes:
  - {{topic: "t/{{n}}", emit: reading, subject: "{{n}}"}}
contracts:
  - {{name: cold, kind: threshold, of: reading, above: 5}}
  - {{name: other, kind: threshold, of: reading, above: 5, where: {{value: {{exists: false}}}}}}
"""


def test_what_cannot_be_judged_is_shown(tmp_path: Path, broker: Mosquitto) -> None:
    edgeq = Appliance(tmp_path / "edgeq", CONFIGURATION.format(url=broker.url))
    try:
        edgeq.start()
        with Peer(broker.port) as peer:
            peer.publish_many([("t/a", '{"value": 3}'), ("t/a", '{"value": "warm"}'), ("t/b", "{}")])
        edgeq.until(lambda: "other" in [each["contract"] for each in edgeq.status()["contracts"]], "the skips")
        status = edgeq.status()
        shown = edgeq.cli("status").stdout
    finally:
        edgeq.kill()
    keys = ("contract", "skipped", "last_skipped")  # how it stands may have been stored by now, or not
    assert [{key: each[key] for key in keys} for each in status["contracts"]] == [
        {
            "contract": "cold", "skipped": {"missing_field": 1, "not_a_number": 1},
            "last_skipped": {"event_id": 3, "reason": "missing_field", "subject": "b"},
        },
        {
            "contract": "other", "skipped": {"missing_field": 1},
            "last_skipped": {"event_id": 3, "reason": "missing_field", "subject": "b"},
        },
    ]  # fmt: skip
    assert status["counters"]["edgeq_contract_skipped_total"] == {"cold": 2, "other": 1}
    (line,) = [each for each in shown.splitlines() if each.startswith("contract      cold: ")]
    assert line.endswith("; skipped 1 missing_field, 1 not_a_number, the last one event 3 of b")
