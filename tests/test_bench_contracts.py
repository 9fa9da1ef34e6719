"""What the bench of contracts says of the contracts that it measures is so."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest
from support.benches import bench

from edgeq.contracts.judge import Judge


@pytest.fixture(name="bench")
def _bench() -> Iterator[ModuleType]:
    with bench("contracts") as module:
        yield module


@pytest.mark.parametrize("wide", [False, True])
def test_each_contract_has_a_where_of_its_own_that_holds_of_as_many_events_as_it_says(
    bench: ModuleType, wide: bool
) -> None:
    contracts = bench.loaded(bench.mappings(300, wide=wide))
    events = list(bench.made(1, 3000))
    assert len(contracts) == 300
    assert {contract.kind for contract in contracts} == {kind["kind"] for kind in bench.KINDS}
    assert all(bench.publish_packet("sensors/device-9", event.data_json.encode(), event.id) for event in events)
    for contract in contracts[1:]:  # the first is the tracer
        share = sum(contract.fits_where(event) for event in events) / len(events)
        assert share == 1 if wide else 0.002 < share < 0.025, contract.keys.where
    assert len({repr((contract.kind, contract.keys.where)) for contract in contracts}) == 300


def test_only_the_tracer_is_violated(bench: ModuleType) -> None:
    judge = Judge(bench.loaded(bench.mappings(60, wide=True)))
    with judge.turn() as turn:
        for event in bench.made(1, 2000):
            turn.observe(event, trusted=True)
    assert turn.verdicts == []
    assert turn.skipped == []
    assert len(judge.instances) == 59 * bench.DEVICES


def test_the_judge_alone(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    bench.judges(12, 1)
    _, _, narrow, wide, *_ = capsys.readouterr().out.splitlines()
    assert narrow.split()[0] == "narrow"
    assert wide.split()[0] == "wide"
    assert all(float(figure) > 0 for figure in [*narrow.split()[1:], *wide.split()[1:]])
