"""Templates of routes and of notifications against a slow model; and texts that want to take a parser's time."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import JSON, fuzz

from edgeq.clock import Clock
from edgeq.errors import RejectedMessage
from edgeq.events import Event, to_json
from edgeq.intake.context import MessageContext
from edgeq.intake.template import compile_text, compile_value
from edgeq.mqtt.delivery import Delivery
from edgeq.mqtt.topics import Template as TopicTemplate
from edgeq.notifications.functions import FUNCTIONS, Now, Place
from edgeq.notifications.template import TEMPLATE_CHARACTERS_MAX, Template, TemplateError
from edgeq.notifications.text import BODY_BYTES_MAX, render

NAMES = st.sampled_from(["a", "b", "c", "0", "1", "__class__", "__init__", "__globals__", "format", "keys", "a b", "é"])
PATHS = st.lists(NAMES, min_size=1, max_size=4)
TELLING = st.sampled_from(["\0", "{a}", "{payload.a}", "{{", "{data.a|json}", "%s", "${HOME}"])
SCALARS = st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats(allow_nan=False, allow_infinity=False)
TREES: st.SearchStrategy[Any] = st.recursive(
    TELLING | TELLING | TELLING | st.text(max_size=6) | SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
PLAIN = st.text(max_size=5).filter(lambda text: "\0" not in text)


def places(tree: Any) -> list[list[str]]:
    """The path of every value, as a template names it."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [[str(step), *rest] for step, inner in items for rest in ([], *places(inner))]


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[str | list[str]], Any]:
    """The pieces of a template, and what it is filled in from; most of the paths lead to something."""
    tree = draw(st.dictionaries(NAMES, TREES, max_size=3) | TREES)
    paths = st.sampled_from(there) | PATHS if (there := places(tree)) else PATHS
    return draw(st.lists(PLAIN | paths, max_size=6)), tree


def written(pieces: Sequence[str | list[str]], head: str) -> str:
    """The pieces as a template."""
    doubled = [each.replace("{", "{{").replace("}", "}}") if isinstance(each, str) else each for each in pieces]
    return "".join(each if isinstance(each, str) else f"{{{'.'.join([head, *each])}}}" for each in doubled)


def found(tree: Any, path: list[str]) -> Any:
    """What is at a path: only keys of objects and numbers of lists, never an attribute. Raises LookupError."""
    for step in path:
        if isinstance(tree, list):
            if not step.isdecimal():
                raise LookupError(step)
            tree = tree[int(step)]
        elif isinstance(tree, dict):
            tree = tree[step]
        else:
            raise LookupError(step)
    return tree


def plain(value: Any) -> str:
    """As a text. Raises LookupError for what is none."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, list | dict) or "\0" in str(value):
        raise LookupError(value)
    return str(value)


@fuzz(400)
@given(cases())
def test_a_route_fills_in_what_is_there_and_nothing_else(case: tuple[list[str | list[str]], Any]) -> None:
    pieces, payload = case
    ctx = MessageContext(Clock(), Delivery("t", msgspec.json.encode(payload), received_at=1), "t", {})
    template = written(pieces, "payload")
    fill = compile_text(template, [])
    try:
        expected = "".join(each if isinstance(each, str) else plain(found(payload, each)) for each in pieces)
    except LookupError:
        expected = None
    try:
        assert fill(ctx) == expected
    except RejectedMessage:
        assert expected is None
    try:
        value = compile_value({"is": template}, [])(ctx)
    except RejectedMessage:
        assert expected is None or len(pieces) == 1
    else:
        to_json(value)


@fuzz(400)
@given(cases())
def test_a_notification_fills_in_what_is_there_or_a_gap(case: tuple[list[str | list[str]], Any]) -> None:
    pieces, data = case
    missing = []

    def text(piece: str | list[str]) -> str:
        if isinstance(piece, str):
            return piece
        try:
            value = found(data, piece)
        except LookupError:
            value = None
        if value is None:
            missing.append(".".join(["data", *piece]))
            return f"[no {missing[-1]}]"
        if isinstance(value, str):
            return value
        whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
        return str(int(value)) if whole else to_json(value)

    def get(path: tuple[str, ...]) -> Any:
        try:
            return found(data, list(path[1:]))
        except LookupError:
            return None

    filled, gaps = Template(written(pieces, "data")).fill(get, Now(0, Place()))
    assert filled == "".join(map(text, pieces))
    assert gaps == missing


CALLS = st.lists(
    st.builds(
        lambda name, arguments: f"{name}:{','.join(arguments)}" if arguments else name,
        st.sampled_from([*FUNCTIONS, "eval", "__class__"]),
        st.lists(st.sampled_from(["1", "9", "-1", "99999999999", "'x'", '"%H:%M"', "'%Q'", "''", "x"]), max_size=3),
    ),
    max_size=4,
).map(lambda calls: "".join(f"|{call}" for call in calls))
EXPRESSIONS = st.builds(
    lambda name, calls: f"{{{name}{calls}}}",
    st.sampled_from(["data.a", "subject", "occurred_at", "since", "data"]),
    CALLS,
)


@fuzz(400)
@given(
    st.lists(EXPRESSIONS | PLAIN, max_size=4).map("".join), JSON, st.text(max_size=9), st.integers(-(2**63), 2**63 - 1)
)
def test_functions_take_any_value(text: str, value: Any, subject: str, at: int) -> None:
    try:
        template = Template(text)
    except TemplateError as error:
        mistake = error.message
    else:
        data = to_json({"a": value, "since": value})
        event = Event(1, "contract.violated", subject, None, data, "[]", "", at, at, None, None)
        assert len(render(event, template, template).body.encode()) <= BODY_BYTES_MAX
        return
    assert re.match(r"line \d+, column \d+: ", mistake)


FRAGMENTS = st.sampled_from(
    [
        "{",
        "}",
        "{{",
        "{data.a",
        "|",
        "{data.a|cut:",
        "'",
        '"',
        " ",
        "\t",
        ",",
        "1",
        "1,",
        "'',",
        "|cut:1",
        "{data." + "a.",
        "a",
    ]
)
READERS: list[Callable[[str], object]] = [
    Template,
    TopicTemplate.parse,
    lambda text: compile_text(text, ["a"]),
    lambda text: Template(f"{{data.a|cut:{text}"),
]


@fuzz(150)
@given(FRAGMENTS, FRAGMENTS, FRAGMENTS, st.sampled_from(READERS))
def test_no_text_takes_a_parser_s_time(first: str, again: str, last: str, read: Callable[[str], object]) -> None:
    """One that took the square of the length, or more, would not end here."""
    text = f"{first}{again * (TEMPLATE_CHARACTERS_MAX // len(again) - 20)}{last}"
    try:
        read(text)
    except ValueError:
        return
