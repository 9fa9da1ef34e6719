"""Home Assistant as far as MQTT discovery goes, written down from its documentation: what it refuses, which entities it
has, and what these show. Its templates are Jinja's, and are filled by Jinja here, too."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

_TOPIC = re.compile(r"(?P<component>\w+)/(?:(?P<node_id>[a-zA-Z0-9_-]+)/)?(?P<object_id>[a-zA-Z0-9_-]+)/config")
_ABBREVIATIONS = {
    "avty": "availability", "avty_mode": "availability_mode", "cmps": "components", "dev": "device", "o": "origin",
    "dev_cla": "device_class", "ent_cat": "entity_category", "json_attr_t": "json_attributes_topic",
    "json_attr_tpl": "json_attributes_template", "p": "platform", "stat_cla": "state_class", "stat_t": "state_topic",
    "t": "topic", "uniq_id": "unique_id", "unit_of_meas": "unit_of_measurement", "val_tpl": "value_template",
}  # fmt: skip
_OF_DEVICES = {
    "cu": "configuration_url", "ids": "identifiers", "mdl": "model", "mf": "manufacturer", "sw": "sw_version",
}  # fmt: skip
_OF_ORIGINS = {"sw": "sw_version", "url": "support_url"}


class Refused(AssertionError):
    """Home Assistant would not take this."""


def need(condition: object, why: str) -> None:
    if not condition:
        raise Refused(why)


def full(values: Any, names: dict[str, str]) -> dict[str, Any]:
    need(isinstance(values, dict), f"{values!r} is no mapping")
    need(not any(names.get(key) in values for key in values), "a key stands in full and abbreviated")
    return {names.get(key, key): value for key, value in values.items()}


def text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def topic_to_subscribe(value: Any) -> bool:
    return text(value) and "\0" not in value and len(value.encode()) <= 65535


def url(value: Any) -> bool:
    return text(value) and bool(re.match(r"(https?|homeassistant)://[^/]+", value))


_SENSOR_UNITS = {
    "temperature": {"°C", "°F", "K"},
    "data_size": {"bit", "kbit", "Mbit", "Gbit", "B", "kB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB"},
    "timestamp": {None},
    None: None,
}
_BINARY_CLASSES = {None, "problem", "connectivity", "running", "safety", "update"}
_ENTITY: dict[str, Callable[[Any], bool]] = {
    "platform": lambda value: value in ("sensor", "binary_sensor"),
    "name": text,
    "unique_id": text,
    "state_topic": topic_to_subscribe,
    "value_template": text,
    "json_attributes_topic": topic_to_subscribe,
    "json_attributes_template": text,
    "entity_category": lambda value: value in ("config", "diagnostic"),
    "device_class": lambda value: True,  # below
}
_SENSOR = _ENTITY | {
    "unit_of_measurement": text,
    "state_class": lambda value: value in ("measurement", "total", "total_increasing"),
}
_BINARY_SENSOR = _ENTITY | {"payload_on": text, "payload_off": text}
_DEVICE: dict[str, Callable[[Any], bool]] = {
    "identifiers": lambda value: text(value) or (isinstance(value, list) and bool(value) and all(map(text, value))),
    **dict.fromkeys(("name", "manufacturer", "model", "sw_version"), text),
    "configuration_url": url,
}
_ORIGIN: dict[str, Callable[[Any], bool]] = {"name": text, "sw_version": text, "support_url": url}


def check(what: str, values: dict[str, Any], keys: dict[str, Callable[[Any], bool]], required: Iterable[str]) -> None:
    for key in required:
        need(key in values, f"{what}: {key} is missing")
    for key, value in values.items():
        need(key in keys, f"{what}: {key} is not known, and would be ignored")
        need(keys[key](value), f"{what}: {key} can't be {value!r}")


def component(key: str, values: Any) -> dict[str, Any] | None:
    """A component's settings; None when it is to be removed."""
    need(re.fullmatch(r"[a-zA-Z0-9_-]+", key), f"{key!r} is no id of a component")
    settings = full(values, _ABBREVIATIONS)
    if settings.keys() == {"platform"}:
        return None
    is_sensor = settings.get("platform") == "sensor"
    check(key, settings, _SENSOR if is_sensor else _BINARY_SENSOR, ("platform", "unique_id", "state_topic"))
    kind, unit = settings.get("device_class"), settings.get("unit_of_measurement")
    if is_sensor:
        need(kind in _SENSOR_UNITS, f"{key}: a sensor has no device class {kind}")
        units = _SENSOR_UNITS[kind]
        need(units is None or unit in units, f"{key}: a {kind} can't be in {unit}")
    else:
        need(kind in _BINARY_CLASSES, f"{key}: a binary sensor has no device class {kind}")
    return settings


def device(payload: bytes) -> dict[str, Any]:
    """The whole message of a device, with all keys in full; a component that goes is None. Raises Refused."""
    found = full(json.loads(payload), _ABBREVIATIONS)
    known = {"device", "origin", "components", "availability", "availability_mode", "qos"}
    need(found.keys() <= known, f"unknown keys {found.keys() - known}")
    found["device"] = full(found["device"], _OF_DEVICES)
    check("device", found["device"], _DEVICE, ("identifiers", "name"))
    found["origin"] = full(found["origin"], _OF_ORIGINS)
    check("origin", found["origin"], _ORIGIN, ("name",))
    need(found.get("qos", 0) in (0, 1, 2), "a QoS of its own kind")
    need(found.get("availability_mode", "latest") in ("all", "any", "latest"), "an unknown availability_mode")
    found["availability"] = [full(each, _ABBREVIATIONS) for each in found.get("availability", [])]
    for each in found["availability"]:
        check("availability", each, {"topic": topic_to_subscribe}, ("topic",))
    need(isinstance(found["components"], dict), "components are a mapping")
    found["components"] = {key: component(key, values) for key, values in found["components"].items()}
    return found


class Entity:
    """What stands in Home Assistant."""

    def __init__(self, home: HomeAssistant, message: dict[str, Any], settings: dict[str, Any]) -> None:
        self._home = home
        self.settings = settings
        self.device = message["device"]
        self._availability = [each["topic"] for each in message["availability"]]
        self._mode = message.get("availability_mode", "latest")

    @property
    def state(self) -> str:
        """As it is shown: `unavailable`, `unknown`, `on`, `off`, or a sensor's value."""
        seen = [self._home.topics.get(topic) == b"online" for topic in self._availability]
        if not (any(seen) if self._mode == "any" else all(seen)):
            return "unavailable"
        payload = self._home.topics.get(self.settings["state_topic"])
        if payload is None:
            return "unknown"
        value = self._filled(self.settings.get("value_template", "{{ value }}"), payload)
        if value == "None":
            return "unknown"
        if self.settings["platform"] == "sensor":
            return value
        shown = {self.settings.get("payload_on", "ON"): "on", self.settings.get("payload_off", "OFF"): "off"}
        need(value in shown, f"{value!r} is no payload of this binary sensor")
        return shown[value]

    @property
    def availability(self) -> list[str]:
        """The topics that say whether it is available."""
        return self._availability

    @property
    def attributes(self) -> dict[str, Any]:
        payload = self._home.topics[self.settings["json_attributes_topic"]]
        found = json.loads(self._filled(self.settings.get("json_attributes_template", "{{ value }}"), payload))
        need(isinstance(found, dict), "attributes are a mapping")
        return dict(found)

    @staticmethod
    def _filled(template: str, payload: bytes) -> str:
        jinja = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
        return jinja.from_string(template).render(value=payload.decode(), value_json=json.loads(payload)).strip()


class HomeAssistant:
    """Is fed what it would get, and has the entities that it would have. `topics` is what came last."""

    def __init__(self, prefix: str = "homeassistant") -> None:
        self._prefix = prefix
        self.topics: dict[str, bytes] = {}
        self._entities: dict[tuple[str, str], Entity] = {}

    def feed(self, topic: str, payload: bytes) -> None:
        """Take one message. Raises Refused."""
        if payload:
            self.topics[topic] = payload
        else:
            self.topics.pop(topic, None)
        if not topic.startswith(f"{self._prefix}/") or not topic.endswith("/config"):
            return
        found = _TOPIC.fullmatch(topic.removeprefix(f"{self._prefix}/"))
        need(found, f"{topic} is no topic of discovery")
        assert found is not None
        need(found["component"] == "device", "this one knows devices only")
        if not payload:
            self._entities = {key: entity for key, entity in self._entities.items() if key[0] != topic}
            return
        message = device(payload)
        for key, settings in message["components"].items():
            if settings is None:
                self._entities.pop((topic, key), None)
            else:
                self._entities[topic, key] = Entity(self, message, settings)
        ids = [entity.settings["unique_id"] for entity in self._entities.values()]
        need(len(ids) == len(set(ids)), "two entities have the same unique_id")

    def named(self, name: str) -> Entity:
        """The one entity of this name."""
        (found,) = (entity for entity in self._entities.values() if entity.settings["name"] == name)
        return found

    @property
    def names(self) -> list[str]:
        """The names of all entities."""
        return sorted(entity.settings["name"] for entity in self._entities.values())
