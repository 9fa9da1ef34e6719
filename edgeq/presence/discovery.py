"""What Home Assistant is told, so that a gateway and its contracts appear there by themselves. Pure.

It is told by device: one message names all components of a device, which Home Assistant recommends where there are
several, and understands from 2024.11 on. The other form, a message for each component, would say the device again in
each, and be as many messages at each birth. Keys are abbreviated as it allows: a message of 300 contracts has 70 KB.

There are two messages: one of the gateway's own sensors, and one of the contracts, as these may belong to a group.
Both are about the same device where there is no group.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ..config.schema import Config
from ..mqtt.presence import below, state_topic
from ..version import edgeq_version
from .ids import all_safe, safe

MEMBERS_MAX = 50
QUEUES_MAX = 50

_PROBLEM = "{{{{ 'ON' if {problem} else 'OFF' }}}}"
_CONTRACT = "{{ {'violated': 'ON', 'ok': 'OFF'}.get(value_json.state, 'None') }}"
_CLOCK = "{{ 'None' if value_json.clock_synchronised is none else 'OFF' if value_json.clock_synchronised else 'ON' }}"


def config_topic(prefix: str, object_id: str) -> str:
    """Where the message of a device goes."""
    return f"{prefix}/device/{object_id}/config"


def device_id(name: str) -> str:
    """How Home Assistant knows the gateway, or group, of this name."""
    return f"edgeq_{safe(name)}"


def gateway_device(config: Config, *, temperature: bool) -> dict[str, Any]:
    """The gateway with its sensors, all of which read its `health`. `temperature`: it can be measured."""
    gateway = device_id(config.gateway)
    health = below(config.mqtt.status_topic, config.gateway, "health")

    def sensor(name: str, template: str, **more: Any) -> dict[str, Any]:
        return {"p": "sensor", "name": name, "stat_t": health, "val_tpl": template, **more}

    def problem(name: str, template: str, attributes: str = "") -> dict[str, Any]:
        shown = {"json_attr_t": health, "json_attr_tpl": attributes} if attributes else {}
        return {
            "p": "binary_sensor", "name": name, "dev_cla": "problem", "ent_cat": "diagnostic", "stat_t": health,
            "val_tpl": template, **shown,
        }  # fmt: skip

    parts = {
        "lag": sensor(
            "Lag", "{{ value_json.lag_events }}", unit_of_meas="events", stat_cla="measurement", json_attr_t=health,
            json_attr_tpl="{{ (value_json.processors or {}) | tojson }}",
        ),
        "dead_letters": sensor("Dead letters", "{{ value_json.dead_letters }}", stat_cla="measurement"),
        "messages": sensor(
            "Messages", "{{ value_json.messages_per_second }}", unit_of_meas="msg/s", stat_cla="measurement"
        ),
        "contracts_violated": sensor(
            "Contracts violated", "{{ value_json.contracts_violated }}", stat_cla="measurement"
        ),
        "store": problem(
            "Store", _PROBLEM.format(problem="not value_json.store.ok"), "{{ value_json.store | tojson }}"
        ),
        "clock": problem("Clock", _CLOCK),
        "disk_free": sensor(
            "Disk free", "{{ value_json.disk_free_bytes }}", dev_cla="data_size", unit_of_meas="B",
            stat_cla="measurement", ent_cat="diagnostic",
        ),
    }  # fmt: skip
    if temperature:
        parts["temperature"] = sensor(
            "Temperature", "{{ value_json.temperature }}", dev_cla="temperature", unit_of_meas="°C",
            stat_cla="measurement", ent_cat="diagnostic",
        )  # fmt: skip
    for name, key in all_safe(list(config.jobs.queues)[:QUEUES_MAX]).items():
        template = f"{{{{ ((value_json.queues or {{}}).get('{name}') or {{}}).get('waiting') }}}}"
        parts[f"queue_{key}"] = sensor(f"Queue {name}", template, unit_of_meas="jobs", stat_cla="measurement")
    for key, part in parts.items():
        part["uniq_id"] = f"{gateway}_{key}"
    return _device(config, config.gateway, [config.gateway], parts)


def contracts_device(config: Config, site: str, topics: Mapping[str, str], members: Collection[str]) -> dict[str, Any]:
    """The contracts, each as a binary sensor which is on while there is a problem, and unknown while nothing can be
    judged; `topics` says where each one's state is published, `members` are the gateways any of which may do so."""
    owner = device_id(site)
    parts = {
        f"contract_{key}": {
            "p": "binary_sensor", "name": name, "uniq_id": f"{owner}_contract_{key}", "dev_cla": "problem",
            "stat_t": topics[name], "val_tpl": _CONTRACT, "json_attr_t": topics[name],
        }
        for name, key in all_safe(topics).items()
    }  # fmt: skip
    return _device(config, site, members, parts)


def _device(config: Config, name: str, members: Iterable[str], parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    device = {"ids": [device_id(name)], "name": name, "mf": "edgeq", "mdl": "edgeq", "sw": edgeq_version()}
    if config.notifications.public_url is not None:
        device["cu"] = config.notifications.public_url
    return {
        "dev": device,
        "o": {"name": "edgeq", "sw": edgeq_version()},
        "avty": [{"t": state_topic(config.mqtt.status_topic, member)} for member in list(members)[:MEMBERS_MAX]],
        "avty_mode": "any",
        "qos": 1,
        "cmps": parts,
    }
