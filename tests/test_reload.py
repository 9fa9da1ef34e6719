"""`edgeq reload`: the appliance that runs reads its configuration again, and no other process is touched."""

from __future__ import annotations

from pathlib import Path

from support.appliance import Appliance

CONFIGURATION = "gateway: g\nmqtt: {url: 'mqtt://127.0.0.1:1'}\nroutes:\n  - {topic: a, emit: x}\n"


def test_the_one_of_this_configuration_is_asked(tmp_path: Path) -> None:
    edgeq, other = Appliance(tmp_path / "a", CONFIGURATION), Appliance(tmp_path / "b", CONFIGURATION)
    edgeq.spawn()
    other.spawn()
    try:
        for each in (edgeq, other):
            each.until(lambda each=each: "is running" in each.log, "its start")  # type: ignore[misc]
        edgeq.configure(CONFIGURATION + "  - {topic: b, emit: y}\n")
        done = edgeq.cli("reload")
        assert edgeq.process is not None
        assert (done.returncode, done.stdout) == (0, f"process {edgeq.process.pid} reads its configuration again\n")
        edgeq.until(lambda: "the configuration was read again" in edgeq.log, "the new one")
        edgeq.until(lambda: [each["topic"] for each in edgeq.status()["routes"]] == ["a", "b"], "its routes")

        edgeq.configure(CONFIGURATION + "  - {topic: b}\n")
        wrong = edgeq.cli("reload")
        assert wrong.returncode == 78
        assert "edgeq.yaml:5: routes[1]: needs one of emit" in wrong.stderr
        assert edgeq.log.count("the configuration was read again") == 1
        assert "read again" not in other.log
    finally:
        edgeq.kill()
        other.kill()


def test_when_none_runs(tmp_path: Path) -> None:
    done = Appliance(tmp_path, CONFIGURATION).cli("reload")
    assert done.returncode == 1
    assert "no edgeq runs for this configuration (start it with: edgeq run)" in done.stderr
