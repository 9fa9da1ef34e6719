"""Which routes a notification goes by, and that mistakes in them are told, all at once and where they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.couriers import contract, event, routes

from edgeq.clock import Clock
from edgeq.config.load import load_to_plan
from edgeq.errors import ConfigError
from edgeq.events import Event
from edgeq.notifications.match import Facts
from edgeq.notifications.policy import Policy
from edgeq.plan import make_plan
from edgeq.telemetry.metrics import Metrics

CHANNELS = ["phone", "mail", "siren"]


def channels_for(policy: Policy, event: Event, severity: str) -> list[str]:
    return [name for _, names in policy.find(Facts.of(event, severity)) for name in names]


def test_without_routes_every_channel_gets_everything() -> None:
    assert channels_for(Policy([], CHANNELS), event(), "debug") == CHANNELS
    assert channels_for(Policy([], []), event(), "critical") == []


def test_the_first_route_that_matches_says_where_to() -> None:
    policy = Policy(
        routes({"match": {"severity": "critical"}, "channels": ["phone", "siren"]}, {"channels": ["mail"]}), CHANNELS
    )
    assert channels_for(policy, event(), "critical") == ["phone", "siren"]
    assert channels_for(policy, event(), "warning") == ["mail"]


def test_continue_goes_on_and_a_channel_belongs_to_the_first() -> None:
    policy = Policy(
        routes(
            {"match": {"severity": ["critical", "warning"]}, "channels": ["phone", "mail"], "continue": True},
            {"match": {"types": ["window.*"]}, "channels": ["siren"], "continue": True},
            {"channels": ["mail"]},
            {"channels": ["siren"]},
        ),
        CHANNELS,
    )
    assert channels_for(policy, event(), "critical") == ["phone", "mail"]
    assert channels_for(policy, event("window.opened"), "info") == ["siren", "mail"]


@pytest.mark.parametrize(
    ("match", "fits"),
    [
        ({}, True),
        ({"types": ["door.*"]}, True),
        ({"types": ["window.*", "*.opened"]}, True),
        ({"types": ["door"]}, False),
        ({"types": ["door?opened"]}, False),
        ({"subject": "fr*t"}, True),
        ({"subject": "back"}, False),
        ({"subject": ""}, False),
        ({"tags": ["night", "notification"]}, True),
        ({"tags": ["night", "day"]}, False),
        ({"severity": "info"}, True),
        ({"severity": ["warning", "critical"]}, False),
        ({"types": ["door.*"], "tags": ["day"]}, False),
        ({"contract": "*"}, False),
        ({"data": {"room": 3}}, True),
        ({"data": {"room": "3"}}, False),
        ({"data": {"room": {"above": 2, "below": 4}, "lock.open": True}}, True),
        ({"data": {"lock.open": {"exists": False}}}, False),
        ({"data": {"nothing": {"not": 1}}}, True),
    ],
)
def test_all_that_is_given_must_match(match: dict[str, object], fits: bool) -> None:
    policy = Policy(routes({"match": match, "channels": ["mail"]}), CHANNELS)
    data = {"room": 3, "lock": {"open": True}, "contract": "cold"}
    found = channels_for(policy, event(tags=("notification", "night"), data=data), "info")
    assert found == (["mail"] if fits else [])


@pytest.mark.parametrize(
    ("name", "asked", "fits"),
    [
        ("cold", "cold", True),
        ("cold", "c*", True),
        ("cold", "", False),
        ("", "*", False),
        (None, "*", False),
        (7, "7", True),
    ],
)
def test_a_contract_is_one_that_an_event_of_contracts_names(name: object, asked: str, fits: bool) -> None:
    policy = Policy(routes({"match": {"contract": asked}, "channels": ["mail"]}), CHANNELS)
    assert bool(policy.find(Facts.of(contract("violated", contract=name), "info"))) == fits


@pytest.mark.parametrize("data_json", ["", "[", "null", "[1]", '"text"', "7"])
def test_odd_data_fits_no_condition_on_it(data_json: str) -> None:
    odd = Event(1, "contract.violated", "s", None, data_json, "[]", "", 0, 0, None, None)
    policy = Policy(routes({"match": {"data": {"a": 1}}, "channels": ["mail"]}), CHANNELS)
    assert policy.find(Facts.of(odd, "info")) == []


def ids(*written: dict[str, Any]) -> list[str]:
    policy = Policy(routes(*({"channels": ["mail"], "continue": True, **each} for each in written)), CHANNELS)
    facts = Facts(type="a", subject="b", severity="info", contract="c", data={"x": 1, "y": 2})
    return [route.id for route, _ in policy.find(facts)]


def test_an_id_is_that_of_the_match_wherever_and_however_it_stands() -> None:
    (first,) = ids({"match": {"severity": "info", "data": {"x": 1, "y": 2}}})
    (same,) = ids({"match": {"data": {"y": 2, "x": 1}, "severity": ["info"]}, "repeat": ["1h"], "channels": ["phone"]})
    assert first == same
    assert ids({"match": {"subject": "b"}}, {"match": {"severity": "info", "data": {"x": 1, "y": 2}}})[1] == first
    assert len({*ids({}, {}, {"match": {"types": ["a"]}}, {"match": {"types": ["*"]}})}) == 4


BAD = """\
channels: {phone: {kind: log}, mail: {kind: log}}
notifications:
  routes:
    - match:
        data: {room: {abov: 3}, "a..b": 1}
      channels: [phone]
      group_by: [tpye, data., subject]
      quiet: {times: ["22:00-06:00", "25:00-26:00"], days: [sat, sun-mo], timezone: Europe/Berln}
      failover: [mial]
      escalate:
        - {after: 5m, channels: [phone, fone]}
    - channels: [phone]
      quiet: "00:00-24:00"
      group_by: [type]
      ttl: 30s
    - channels: [phone]
      quiet: noon
    - {channels: [phone], quiet: {times: []}}
    - {channels: [phone], quiet: {times: "22:00-06:00", days: [x]}}
"""


def problems(folder: Path, text: str) -> list[str]:
    path = folder / "edgeq.yaml"
    path.write_text(text)

    async def publish(*_: Any, **__: Any) -> None: ...

    with pytest.raises(ConfigError) as raised:
        make_plan(load_to_plan(str(path), environ={}), publish=publish, clock=Clock(), metrics=Metrics())
    return [str(problem).replace(f"{path}:", "") for problem in raised.value.problems]


def test_every_mistake_with_its_place(tmp_path: Path) -> None:
    assert problems(tmp_path, BAD) == [
        "5: notifications.routes[0].match.data.room.abov: unknown key (did you mean 'above'?)",
        '5: notifications.routes[0].match.data."a..b": must be a field of the event\'s data, such as value or '
        "battery.level",
        "7: notifications.routes[0].group_by[0]: must be type, subject, severity, contract, tags or data.FIELD "
        "(did you mean 'type'?)",
        "7: notifications.routes[0].group_by[1]: must be a field of the event's data, such as value or battery.level",
        '8: notifications.routes[0].quiet.times[1]: must be times of day such as "08:00-17:30", over midnight '
        '"22:00-06:00"',
        "8: notifications.routes[0].quiet.days[1]: must be a day or a range of days, such as sat or mon-fri "
        "(did you mean 'mon'?)",
        "8: notifications.routes[0].quiet.timezone: must be a time zone such as Europe/Berlin: there is no time zone "
        "'Europe/Berln' (did you mean 'Europe/Berlin'?)",
        "9: notifications.routes[0].failover[0]: there is no channel 'mial' (did you mean 'mail'?)",
        "11: notifications.routes[0].escalate[0].channels[1]: there is no channel 'fone' (did you mean 'phone'?)",
        "13: notifications.routes[1].quiet: must end at some time: nothing but what is critical would ever be told",
        "15: notifications.routes[1].ttl: must be more than group_wait (30s): nothing would ever be sent",
        '17: notifications.routes[2].quiet: must be times of day such as "08:00-17:30", over midnight "22:00-06:00"',
        "18: notifications.routes[3].quiet.times: must not be empty",
        "19: notifications.routes[4].quiet.days[0]: must be a day or a range of days, such as sat or mon-fri "
        "(there is: mon, tue, wed, thu, fri, sat, sun)",
    ]


def test_an_unknown_key_is_told_with_what_was_meant(tmp_path: Path) -> None:
    text = "channels: {phone: {kind: log}}\nnotifications:\n  routes:\n    - {channels: [phone], gruop_by: []}\n"
    assert problems(tmp_path, text) == ["4: notifications.routes[0].gruop_by: unknown key (did you mean 'group_by'?)"]
