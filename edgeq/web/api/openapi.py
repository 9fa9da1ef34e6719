"""The description of the interface, made from the operations themselves when somebody first asks for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, TypedDict

import msgspec

from ...version import edgeq_version
from ..access import COOKIE
from ..operation import Call, Nothing, Operation
from ..replies import JSON, json_reply

OPENAPI = "3.1.0"

_REF = "#/components/schemas/{name}"
_LINES = {"type": "string", "description": "Of the same, one on each line."}
_ALWAYS = (431, 500, 503)
_OF_NEED = {"nothing": (), "read": (401, 403, 421, 429), "change": (401, 403, 421, 429)}
_ABOUT = """What edgeq knows, for programs; the status page is made of nothing else.

Times are integers, microseconds since 1970 UTC. Lists are the newest first: `next` of one page is `before` of the
following. Whatever changes something needs the token, as `Authorization: Bearer …` or by a session of
`POST /api/login`, with which a change needs the header `X-Edgeq: 1` as well. An error says in `error` what is wrong,
where, and what to do.
"""


class Failed(TypedDict):
    """What is wrong, where, and what to do."""

    error: str


def described(operations: Sequence[Operation]) -> Operation:
    """The operation that describes `operations`, and itself."""
    made: list[dict[str, Any]] = []

    async def answer(call: Call) -> Any:
        if not made:
            made.append(description([*operations, own]))
        return json_reply(made[0])

    own = Operation("GET", "/api/openapi.json", "This description.", answer, dict[str, Any], Nothing)
    return own


def description(operations: Sequence[Operation]) -> dict[str, Any]:
    """The OpenAPI document of `operations`."""
    types: list[Any] = [Failed]
    for each in operations:
        types += [each.gives, each.asks, *([] if each.body is None else [_taken(each)])]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    known = dict(zip(map(_key, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        paths.setdefault(_path(each.path), {})[each.method.lower()] = _operation(each, known, components)
    asked = {_name(known[_key(each.asks)]) for each in operations}
    return {
        "openapi": OPENAPI,
        "info": {"title": "edgeq", "version": edgeq_version(), "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in components.items() if name not in asked},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
            },
        },
    }


def _operation(each: Operation, known: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    refusals = {*each.refusals, *_OF_NEED[each.need], *_ALWAYS}
    parameters = _parameters(each, components[_name(known[_key(each.asks)])])
    found: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{each.method.lower()}{each.path}").strip("_"),
        "summary": each.summary,
        "parameters": parameters,
        "security": _security(each),
    }
    refusals.add(400)
    if each.body is not None:
        refusals |= {413, 415}
        schemas = {JSON: known[_key(_taken(each))]}
        content = {media: {"schema": schemas.get(media, _LINES)} for media in each.body_media if media}
        found["requestBody"] = {"required": True, "content": content}
    failed = {JSON: {"schema": known[_key(Failed)]}}
    answers: dict[str, Any] = {
        "200": {"description": "Done.", "content": {each.media: {"schema": known[_key(each.gives)]}}}
    }
    for status in sorted(refusals):
        answers[str(status)] = {"description": HTTPStatus(status).phrase, "content": failed}
    return {**found, "responses": answers}


def _taken(each: Operation) -> Any:
    return each.holds or each.body


def _parameters(each: Operation, record: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for name, schema in record.get("properties", {}).items():
        in_path = f"<{name}>" in each.path
        parameter = {
            "name": name,
            "in": "path" if in_path else "query",
            "required": in_path or name in record.get("required", ()),
            "schema": {key: value for key, value in schema.items() if key != "description"},
        }
        if "description" in schema:
            parameter["description"] = schema["description"]
        found.append(parameter)
    if each.need == "change":
        found.append(
            {
                "name": "X-Edgeq", "in": "header", "required": False, "schema": {"type": "string"},
                "description": "Must be 1 with a session.",
            }
        )  # fmt: skip
    return found


def _security(each: Operation) -> list[dict[str, list[str]]]:
    shown: list[dict[str, list[str]]] = [{"token": []}, {"session": []}]
    return {"nothing": [], "read": [{}, *shown], "change": shown}[each.need]


def _path(path: str) -> str:
    return path.replace("<", "{").replace(">", "}")


def _key(each: Any) -> str:
    return repr(each)


def _name(reference: dict[str, Any]) -> str:
    return str(reference["$ref"]).rpartition("/")[2]
