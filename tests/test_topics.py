"""Topic filters and templates against a naive matcher, and the filters to subscribe to."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.mqtt.topics import (
    BYTES_MAX,
    Template,
    check_filter,
    check_topic,
    covers,
    merge,
    overlaps,
)

WORDS = st.sampled_from(["a", "b", "c", "", "$SYS", "$x"])
TOPICS = st.lists(WORDS, min_size=1, max_size=4).filter(lambda levels: levels != [""])
HEADS = st.lists(st.sampled_from(["a", "b", "", "+", "+", "$SYS"]), max_size=4)


@st.composite
def topic_filters(draw: st.DrawFn) -> str:
    levels = draw(HEADS)
    if not levels or draw(st.booleans()):
        levels = [*levels, "#"]
    text = "/".join(levels)
    return text or "+"


def naive(topic_filter: str, topic: str) -> bool:
    """MQTT 4.7 as one regular expression."""
    if topic.startswith("$") and topic_filter[0] in "+#":
        return False
    if topic_filter == "#":
        return True
    body, open_end = (topic_filter[:-2], True) if topic_filter.endswith("/#") else (topic_filter, False)
    pattern = "/".join("[^/]*" if level == "+" else re.escape(level) for level in body.split("/"))
    return re.fullmatch(pattern + ("(/.*)?" if open_end else ""), topic, re.DOTALL) is not None


@given(topic_filters(), TOPICS)
def test_a_filter_matches_what_mqtt_says(topic_filter: str, levels: list[str]) -> None:
    matched = Template.parse(topic_filter).match(levels) is not None
    assert matched == naive(topic_filter, "/".join(levels))


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_text_is_a_template_or_a_value_error(text: str, topic: str) -> None:
    try:
        template = Template.parse(text)
    except ValueError:
        return
    check_filter(template.filter)
    template.match(topic.split("/"))


@pytest.mark.parametrize(
    ("text", "topic", "values"),
    [
        ("sensors/{device}/{metric}", "sensors/f-1/temp", {"device": "f-1", "metric": "temp"}),
        ("sensors/{device}/{metric}", "sensors/f-1", None),
        ("sensors/{device}", "sensors/", {"device": ""}),
        ("line/{n:int}", "line/-07", {"n": -7}),
        ("line/{n:int}", "line/7x", None),
        ("line/{n:int}", "line/", None),
        ("line/{n:int}", "line/٣", None),  # a digit, but not an ASCII one
        ("line/{n:int}", "line/9223372036854775807", {"n": 2**63 - 1}),
        ("line/{n:int}", "line/9223372036854775808", None),
        ("line/{n:int}", "line/" + "9" * 5000, None),
        ("pumps/{pump}/{rest:#}", "pumps/p1/a/b", {"pump": "p1", "rest": "a/b"}),
        ("pumps/{pump}/{rest:#}", "pumps/p1", {"pump": "p1", "rest": ""}),
        ("pumps/{pump}/{rest:#}", "pumps", None),
        ("pumps/{pump}/#", "pumps/p1/a/b", {"pump": "p1"}),
        ("{all:#}", "a/b", {"all": "a/b"}),
        ("{all:#}", "$SYS/uptime", None),
        ("{first}/uptime", "$SYS/uptime", None),
        ("$SYS/{name}", "$SYS/uptime", {"name": "uptime"}),
        ("a.b/c*/(d)|?", "a.b/c*/(d)|?", {}),
        ("a.b", "aXb", None),
        ("/{x}//", "/1//", {"x": "1"}),
    ],
)
def test_a_template_gives_its_parameters(text: str, topic: str, values: dict[str, object] | None) -> None:
    assert Template.parse(text).match(topic.split("/")) == values


def test_a_template_names_what_to_subscribe_to() -> None:
    template = Template.parse("a/{b}/+/{c:int}/{d:#}")
    assert template.filter == "a/+/+/+/#"
    assert template.names == ("b", "c", "d")
    assert template.text == "a/{b}/+/{c:int}/{d:#}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("a/{x}/{x}", "two parameters named 'x'"),
        ("{x}/{x:#}", "two parameters named 'x'"),
        ("dev-{id}", "takes a whole level: 'dev-{id}'"),
        ("a/{id}{x}", "takes a whole level"),
        ("a/{id:float}", "unknown type"),
        ("a/{id:}", "unknown type"),
        ("a/{rest:#}/b", "must be the last level"),
        ("a/#/b", "'#' must be the last level"),
        ("a/#/{rest:#}", "'#' must be the last level"),
        ("a/{}", "can't be the name"),
        ("a/{1x}", "can't be the name"),
        ("a/{class}", "can't be the name"),
        ("a/{x", "is not a parameter"),
        ("a/x}", "is not a parameter"),
        ("a/b#", "'#' must be a whole level"),
        ("a+/b", "'+' must be a whole level"),
        ("$share/g/a", "set mqtt.group"),
        ("a\0b", "U+0000"),
        ("a/\x1f", "U+001F, at which brokers may end the connection"),
        ("\ufdd0", "U+FDD0"),
        ("\U0010ffff/a", "U+10FFFF"),
        ("a\ud800", "surrogate"),
        ("a" * (BYTES_MAX + 1), "65536 bytes"),
        ("é" * 32768, "65536 bytes"),
    ],
)
def test_a_bad_template_says_why(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        Template.parse(text)


def test_the_longest_filter_is_allowed() -> None:
    assert Template.parse("a" * BYTES_MAX).match(["a" * BYTES_MAX]) == {}


def test_one_publishes_to_names_not_filters() -> None:
    check_topic("$SYS/a")
    for wrong in ("a/+", "a/#", "", "a\0"):
        with pytest.raises(ValueError, match=r"wildcard|empty|U\+0000"):
            check_topic(wrong)


@given(topic_filters(), topic_filters(), TOPICS)
def test_covers_and_overlaps_tell_the_truth(one: str, other: str, levels: list[str]) -> None:
    topic = "/".join(levels)
    if covers(one, other) and naive(other, topic):
        assert naive(one, topic)
    if naive(one, topic) and naive(other, topic):
        assert overlaps(one, other)
        assert overlaps(other, one)


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ("#", "a/b", True),
        ("#", "$SYS/b", False),
        ("+/b", "$SYS/b", False),
        ("a/#", "a", True),
        ("a/#", "a/#", True),
        ("a/+", "a/#", False),
        ("a/+/#", "a/#", False),
        ("+/#", "#", True),
        ("a/+", "a/b", True),
        ("a/b", "a/+", False),
        ("a/+", "a", False),
    ],
)
def test_covers(wide: str, narrow: str, expected: bool) -> None:
    assert covers(wide, narrow) is expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a/+/c", "a/b/#", True),
        ("a/+", "a", False),
        ("a/#", "a", True),
        ("+/b", "$SYS/b", False),
        ("a/b", "a/c", False),
    ],
)
def test_overlaps(one: str, other: str, expected: bool) -> None:
    assert overlaps(one, other) is overlaps(other, one) is expected


@given(st.dictionaries(topic_filters(), st.integers(0, 1), max_size=5), TOPICS)
def test_merged_filters_match_each_topic_once(filters: dict[str, int], levels: list[str]) -> None:
    topic = "/".join(levels)
    merged = merge(filters)
    wanted = [qos for topic_filter, qos in filters.items() if naive(topic_filter, topic)]
    got = [qos for topic_filter, qos in merged.items() if naive(topic_filter, topic)]
    assert len(got) <= 1
    if wanted:
        assert got[0] >= max(wanted)


@given(st.dictionaries(topic_filters(), st.integers(0, 1), max_size=5))
def test_merging_is_independent_of_the_order_and_widens_only_what_overlaps(filters: dict[str, int]) -> None:
    merged = merge(filters)
    backwards = merge(dict(reversed(filters.items())))
    assert {_plain(name): qos for name, qos in merged.items()} == {_plain(name): qos for name, qos in backwards.items()}
    for name in merged:
        inside = [given_name for given_name in filters if covers(name, given_name)]
        assert inside
        if len(inside) == 1:
            assert name == inside[0]


def _plain(topic_filter: str) -> str:
    return "#" if topic_filter == "+/#" else topic_filter  # two names of one thing


@pytest.mark.parametrize(
    ("filters", "merged"),
    [
        ({"a/+": 1, "b/+": 0}, {"a/+": 1, "b/+": 0}),
        ({"a/b": 1, "a/#": 0}, {"a/#": 1}),
        ({"a/+/c": 1, "a/b/#": 0}, {"a/+/#": 1}),
        ({"a/+/c": 0, "a/b/+": 0}, {"a/+/+": 0}),
        ({"a/+": 0, "a/b/#": 0}, {"a/+/#": 0}),
        ({"#": 0, "$SYS/#": 0}, {"#": 0, "$SYS/#": 0}),
        ({"a/+/c": 0, "a/b/#": 0, "a/x/y/z": 1}, {"a/+/#": 1}),
    ],
)
def test_the_narrowest_cover(filters: dict[str, int], merged: dict[str, int]) -> None:
    assert merge(filters) == merged
