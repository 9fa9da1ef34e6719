"""What a reload does to contracts that are gone."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from support.appliance import Appliance
from support.mosquitto import Mosquitto

WITH = """\
mqtt: {{url: "{url}"}}
contracts:
  - {{name: cold, kind: threshold, of: temperature.reading, above: 5}}
"""
WITHOUT = 'mqtt: {{url: "{url}"}}\n'


def test_the_last_contract_that_goes_is_closed(tmp_path: Path, mosquitto: Callable[..., Mosquitto]) -> None:
    broker = mosquitto()
    edgeq = Appliance(tmp_path / "a", WITH.format(url=broker.url))
    try:
        edgeq.start()
        emit = [
            sys.executable,
            "-m",
            "edgeq.cli.main",
            "emit",
            "temperature.reading",
            "--subject",
            "f",
            "--data",
            '{"value": 9}',
        ]
        subprocess.run(emit, cwd=edgeq.folder, check=True, capture_output=True)
        edgeq.until(lambda: edgeq.sql("SELECT state FROM contract_states") == [("violated",)], "a violation")
        edgeq.configure(WITHOUT.format(url=broker.url))
        assert edgeq.process is not None
        edgeq.process.send_signal(signal.SIGHUP)
        edgeq.until(lambda: edgeq.sql("SELECT state FROM contract_states") == [], "the state to go")
        (resolved,) = edgeq.sql("SELECT json_extract(data, '$.reason') FROM events WHERE type = 'contract.resolved'")
        assert resolved == ("removed",)
        assert edgeq.stop() == 0
    finally:
        edgeq.kill()
