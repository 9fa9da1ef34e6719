"""Texts and values that are filled in for each message."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.clock import Clock
from edgeq.errors import RejectedMessage
from edgeq.events import NESTING_MAX
from edgeq.intake.context import MessageContext
from edgeq.intake.template import compile_text, compile_value
from edgeq.mqtt.delivery import Delivery


def message(payload: Any = b"{}", kind: str = "json", **params: Any) -> MessageContext:
    raw = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
    return MessageContext(Clock(), Delivery("a/b", raw, received_at=1), "a/{x}", params, kind)


def text(template: str, ctx: MessageContext) -> str:
    return compile_text(template, ctx.params)(ctx)


def value(template: Any, ctx: MessageContext) -> Any:
    return compile_value(template, ctx.params)(ctx)


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{device}", "d-1"),
        ("{device}:{payload.seq}", "d-1:7"),
        ("{number}", "-5"),
        ("{payload.deep.name}", "x"),
        ("{payload.list.1}", "second"),
        ("{payload.yes} {payload.no}", "true false"),
        ("{payload.float}", "1.5"),
        ("{payload.big}", str(2**70)),
        ("{topic}", "a/b"),
        ("{{{device}}}", "{d-1}"),
        ("{{device}}", "{device}"),
        ("ünï {device}", "ünï d-1"),
    ],
)
def test_a_text_is_filled_in(template: str, filled: str) -> None:
    payload = {
        "seq": 7, "deep": {"name": "x"}, "list": ["first", "second"], "yes": True, "no": False, "float": 1.5,
        "big": 2**70,
    }  # fmt: skip
    assert text(template, message(payload, device="d-1", number=-5)) == filled


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{payload.absent}", "missing_field"),
        ("{payload.list.2}", "missing_field"),
        ("{payload.list.-1}", "missing_field"),
        ("{payload.list.²}", "missing_field"),
        ("{payload.text.length}", "missing_field"),
        ("{payload.nothing}", "missing_field"),
        ("{payload.list}", "missing_field"),
        ("{payload.object}", "missing_field"),
        ("{payload}", "missing_field"),
        ("{payload.null}", "bad_text"),
    ],
)
def test_what_the_payload_does_not_have_as_a_text_is_rejected(template: str, reason: str) -> None:
    payload: dict[str, Any] = {"list": [1, 2], "text": "abc", "nothing": None, "object": {}, "null": "a\0b"}
    with pytest.raises(RejectedMessage) as caught:
        text(f"{template}!", message(payload))
    assert caught.value.reason == reason


@pytest.mark.parametrize("payload", [b"5", b'"text"', b"[1]", b"null", b"true"])
def test_a_field_of_a_payload_that_is_no_object_is_missing(payload: bytes) -> None:
    with pytest.raises(RejectedMessage, match="no field 'value'"):
        text("{payload.value}", message(payload))


def test_the_payload_itself() -> None:
    assert text("{payload}", message(b"21.5")) == "21.5"
    assert text("{payload}", message(b"\xc3\xa4", "text")) == "ä"
    assert value("{payload}", message(b"[1]")) == [1]
    with pytest.raises(RejectedMessage):
        text("{payload}", message(b"raw", "raw"))


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{devcie}", "did you mean 'device'"),
        ("{value}", "{payload.name}"),
        ("{}", "not a parameter"),
        ("{payload.}", "empty name"),
        ("{payload..x}", "empty name"),
        ("{device", "lone '{'"),
        ("device}", "lone '}'"),
        ("{{device}", "lone '}'"),
        ("a\0b", "null character"),
        ("\ud800", "surrogate"),
    ],
)
def test_an_impossible_text_is_refused_when_it_is_loaded(template: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        compile_text(template, ["device"])


def test_a_value_keeps_the_type_of_a_single_placeholder() -> None:
    ctx = message({"t": 21.5, "ok": True, "list": [1]}, device="d-1")
    built = value({"celsius": "{payload.t}", "ok": "{ok}", "all": ["{list}", "x{t}"], "n": 5, "who": "{device}"}, ctx)
    assert built == {"celsius": 21.5, "ok": True, "all": [[1], "x21.5"], "n": 5, "who": "d-1"}


def test_in_a_value_a_parameter_of_the_topic_goes_before_a_field() -> None:
    assert value("{device}", message({"device": "field"}, device="parameter")) == "parameter"
    assert value("{device}", message({"device": "field"})) == "field"


def test_values_are_checked_when_they_are_loaded() -> None:
    for template in ({"a": "{x"}, {"a": [{"b": "}"}]}, {"a\0": 1}, ["{a..b}"]):
        with pytest.raises(ValueError, match=r"lone|null|not a parameter"):
            compile_value(template, [])


@given(st.text(max_size=40), st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
def test_any_text_is_refused_when_loaded_or_filled_in_or_rejected(template: str, payload: dict[str, str]) -> None:
    try:
        fill = compile_text(template, ["device"])
    except ValueError:
        return
    try:
        filled = fill(message(payload, device="d-1"))
    except RejectedMessage:
        return
    assert "\0" not in filled
    filled.encode()


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"{", b"nonsense", b"NaN", b'{"a": NaN}', b"Infinity", b"1e999", b"\xff", b'"\xed\xa0\x80"',
        b'"\\ud800 lone"', b"\xef\xbb\xbf{}", b'{"a":1}{"b":2}', b"'single'", b'"\0"', b"1" * 5000,
        nested(NESTING_MAX + 1), nested(900), nested(100_000), b'{"a":' * 101 + b"1" + b"}" * 101,
    ],
)  # fmt: skip
def test_what_is_not_json_is_undecodable(payload: bytes) -> None:
    with pytest.raises(RejectedMessage) as caught:
        message(payload).json()
    assert caught.value.reason == "undecodable"


@pytest.mark.parametrize(
    "payload", [nested(NESTING_MAX), b"[" + b"[]," * 500 + b"{}]", b'"' + b"[" * 500 + b'"', b' {"a": 1e3}\n']
)
def test_json_may_be_nested_and_wide(payload: bytes) -> None:
    assert message(payload).json() == msgspec.json.decode(payload)


def test_text_must_be_utf_8() -> None:
    assert message("grün".encode(), "text").text() == "grün"
    with pytest.raises(RejectedMessage) as caught:
        message(b"gr\xfcn", "text").text()
    assert caught.value.reason == "undecodable"
