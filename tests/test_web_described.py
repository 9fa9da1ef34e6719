"""The interface describes itself: each path is described, and each that is described answers as it says."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.interface import Interface
from support.stores import SqliteDatabase

from edgeq.web.server import Page, WebServer

EXAMPLES = {"id": "1", "name": "default", "type": "a", "field": "value"}
# For people, and described nowhere.
PAGES = {"/", "/static/<name>", "/ack/<token>"}


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Interface]:
    async with SqliteDatabase(tmp_path).opened() as store, Interface(tmp_path, store) as made:
        yield made


async def test_each_path_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Page] = []

    def noted(self: WebServer, listen: str, clock: object, pages: list[Page]) -> None:
        served.extend(pages)
        made(self, listen, clock, pages)  # type: ignore[arg-type]

    made = WebServer.__init__
    monkeypatch.setattr(WebServer, "__init__", noted)
    async with SqliteDatabase(tmp_path).opened() as store, Interface(tmp_path, store) as web:
        paths = (await web.get("/api/openapi.json"))["paths"]
    expected = {(page.path, method) for page in served if page.path not in PAGES for method in page.methods}
    assert {(re.sub("[{}]", _bracket, path), method.upper()) for path in paths for method in paths[path]} == expected
    assert len(expected) > 30


def _bracket(found: re.Match[str]) -> str:
    return {"{": "<", "}": ">"}[found[0]]


async def test_each_described_path_answers_as_it_says(web: Interface) -> None:
    await web.ask("POST", "/api/events", {"type": "a", "data": {"value": 1}})
    described = await web.get("/api/openapi.json")
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if path == "/api/stream":  # it has no end: see test_web_server
                continue
            answer = await web.ask(method.upper(), _example(path, operation), {"token": "wrong"})
            said = operation["responses"].get(str(answer.status))
            assert said is not None, (method, path, answer)
            assert answer.status not in (421, 500, 503), (method, path, answer)
            (media,) = said["content"]
            assert answer.headers["Content-Type"].partition(";")[0] == media
            if media == "application/json":
                _check(answer.said, said["content"][media]["schema"], described, f"{method} {path}")


def _example(path: str, operation: dict[str, Any]) -> str:
    query = []
    for each in operation["parameters"]:
        if each["in"] == "path":
            path = path.replace(f"{{{each['name']}}}", EXAMPLES[each["name"]])
        elif each["in"] == "query" and each["required"]:
            query.append(f"{each['name']}={EXAMPLES[each['name']]}")
    return f"{path}?{'&'.join(query)}" if query else path


TYPES = {
    "object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
    "null": type(None),
}  # fmt: skip


def _check(value: Any, schema: dict[str, Any], described: dict[str, Any], where: str) -> None:
    """That a value is what a schema says, as far as ours say anything."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        _check(value, described["components"]["schemas"][name], described, where)
        return
    if "anyOf" in schema:
        fits = [each for each in schema["anyOf"] if "$ref" in each or isinstance(value, TYPES[each["type"]])]
        assert fits, f"{where}: {value!r} is none of {schema}"
        return
    if "type" in schema:
        assert isinstance(value, TYPES[schema["type"]]), f"{where}: {value!r} is no {schema['type']}"
    for name in schema.get("required", ()):
        assert name in value, f"{where}: no {name}"
    for name, inner in schema.get("properties", {}).items():
        if name in value:
            _check(value[name], inner, described, f"{where}.{name}")
    if "properties" in schema:
        assert set(value) <= set(schema["properties"]), f"{where}: {set(value) - set(schema['properties'])}"
    for number, each in enumerate(value if isinstance(schema.get("items"), dict) else ()):
        _check(each, schema["items"], described, f"{where}[{number}]")


async def test_the_description_is_whole(web: Interface) -> None:
    described = await web.get("/api/openapi.json")
    assert described["openapi"] == "3.1.0"
    text = json.dumps(described)
    for name in re.findall(r'"#/components/schemas/([^"]+)"', text):
        assert name in described["components"]["schemas"]
    operations = [each for methods in described["paths"].values() for each in methods.values()]
    assert len({each["operationId"] for each in operations}) == len(operations)
    assert all(each["summary"].endswith(".") for each in operations)
    limit = next(each for each in described["paths"]["/api/events"]["get"]["parameters"] if each["name"] == "limit")
    assert limit["schema"] == {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}
    content = described["paths"]["/api/events"]["post"]["requestBody"]["content"]
    taken = content["application/json"]["schema"]
    for sent in (
        {"type": "a", "data": {"value": 1}, "tags": ["b"], "occurred_at": "2026-01-01T00:00:00Z"},
        [{"type": "a"}],
    ):
        _check(sent, taken, described, "an event")
        assert (await web.ask("POST", "/api/events", sent)).status == 200
    assert content["application/x-ndjson"]["schema"]["type"] == "string"
