"""Templates of notifications: what they make of events, what they refuse, and that nothing in an event breaks them."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.couriers import Desk, desk, event
from support.stores import Database

from edgeq.clock import MICROSECONDS, Clock
from edgeq.config.load import load
from edgeq.errors import ConfigError
from edgeq.events import Event, to_json
from edgeq.notifications.channels.fill import compile_value
from edgeq.notifications.functions import FUNCTIONS, Now, Place
from edgeq.notifications.template import NAMES, TEMPLATE_CHARACTERS_MAX, Template, TemplateError
from edgeq.notifications.text import BODY_BYTES_MAX, TITLE_CHARACTERS_MAX, Text, render
from edgeq.plan import make_plan
from edgeq.telemetry.metrics import Metrics
from edgeq.testing.clock import NOON
from edgeq.zones import zone

SAMPLE = Path(__file__).parent.parent / "config" / "edgeq.yaml"
BARN = Place("barn", zone("Europe/Berlin"))
MINUTE = 60 * MICROSECONDS

DATA = {
    "contract": "cold", "kind": "threshold", "severity": "critical", "message": "freezer-1 is too warm", "episode": 3,
    "since": NOON - 90 * MINUTE, "observed": -10.04, "reminder": 2, "reason": "door",
    "room": {"name": "cellar", "doors": ["front", "back"]}, "n": 1, "zero": 0, "yes": True, "nothing": None,
    "empty": "", "ts": NOON // MICROSECONDS + 60, "uptime": 7500, "whole": 21.0, "tiny": -0.01, "big": 2**63,
    "at": "2026-01-01T12:30:00+01:00",
}  # fmt: skip


def warm(data: object = DATA, *, type: str = "contract.violated") -> Event:  # noqa: A002
    tags, description = '["contract","cold"]', "cold: it is warm"
    return Event(5, type, "freezer-1", "sensors/1", to_json(data), tags, description, NOON, NOON, None, None)


def filled(template: str, of: Event | None = None) -> Text:
    """With a body by that template."""
    return render(of or warm(), body=Template(template), place=BARN)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("{{observed}}", "{observed}"),
        ("{type} {subject} {severity} {message}", "contract.violated freezer-1 critical freezer-1 is too warm"),
        ("{description} / {tags} / {topic}", "cold: it is warm / contract, cold / sensors/1"),
        ("{contract} {episode} {observed} {reason} {number}", "cold 3 -10.04 door 2"),
        ("{gateway}: {occurred_at}, since {since} ({duration})",
         "barn: 2026-01-01 13:00, since 2026-01-01 11:30 (1h 30m)"),
        ("{data.room.name} {data.room.doors.1} {data.room}", 'cellar back {"name":"cellar","doors":["front","back"]}'),
        ("{data.yes} {data.zero} {data.whole}<{data.empty}>", "true 0 21<>"),
        ("{observed|round:1} {observed|round:0} {data.n|round:2}", "-10.0 -10 1.00"),
        ("{data.tiny|round:1} {data.zero|round:0}", "0.0 0"),
        ("{since|time:'%H:%M'} {since|time} {occurred_at|time:\"%d.%m.%Y %%\"}", "11:30 2026-01-01 11:30 01.01.2026 %"),
        ("{data.ts|time:'%H:%M'} {data.at|time:'%H:%M'}", "13:01 12:30"),
        ("{since|ago}; {data.ts|ago}; {occurred_at|ago}", "1h 30m ago; in 1m; 0s ago"),
        ("{duration|duration} {data.uptime|duration} {data.zero|duration}", "1h 30m 2h 5m 0s"),
        ("{severity|upper} {contract|capital} {topic|upper|lower}", "CRITICAL Cold sensors/1"),
        ("{subject|cut:4} {subject|cut:9} {subject|cut:1}", "fre… freezer-1 …"),
        ("{data.gone|default:'?'} {data.nothing|default:\"it's\"} {data.n|default:'?'}", "? it's 1"),
        ("{data.gone|default:''}{data.gone|upper|default:'a'|upper}", "A"),
        ("{data.room|json} {message|json} {since|json} {data.yes|json}",
         '{"name":"cellar","doors":["front","back"]} "freezer-1 is too warm" "2026-01-01T10:30:00.000Z" true'),
        ("{duration|json}", "5400.0"),
        ("{data.n} {data.n|plural:'door','doors'}, 0 {data.zero|plural:'door', \"doors\"}", "1 door, 0 doors"),
        ("{ subject | upper | cut : 4 }", "FRE…"),
        ("one\n{subject}", "one\nfreezer-1"),
    ],
)  # fmt: skip
def test_what_a_template_makes_of_an_event(template: str, text: str) -> None:
    made = filled(template)
    assert (made.body, made.gaps) == (text, ())


@pytest.mark.parametrize(
    ("template", "text", "gaps"),
    [
        ("{data.x}", "[no data.x]", ["data.x"]),
        ("{data.nothing} {data.room.doors.2}", "[no data.nothing] [no data.room.doors.2]",
         ["data.nothing", "data.room.doors.2"]),
        ("{data.x|upper|cut:3}", "[no data.x]", ["data.x"]),
        ("{data.room|round:1}", "[no number in data.room]", ["number in data.room"]),
        ("{data.yes|plural:'a','b'}", "[no number in data.yes]", ["number in data.yes"]),
        ("{subject|time}", "[no time in subject]", ["time in subject"]),
        ("{data.room|ago}", "[no time in data.room]", ["time in data.room"]),
        ("{observed|duration}", "[no length of time in observed]", ["length of time in observed"]),
        ("{subject|round:1|default:'-'}", "-", []),
        ("{data.subject.__class__} {data.room.keys}", "[no data.subject.__class__] [no data.room.keys]",
         ["data.subject.__class__", "data.room.keys"]),
    ],
)  # fmt: skip
def test_what_an_event_lacks_is_a_gap_that_one_sees(template: str, text: str, gaps: list[str]) -> None:
    made = filled(template)
    assert (made.body, list(made.gaps)) == (text, gaps)


def test_other_events_have_nothing_that_only_contracts_tell() -> None:
    made = filled("{contract}{episode}{observed}{since}{duration}{reason}{number}", warm(type="door.opened"))
    assert len(made.gaps) == 7
    bare = Event(5, "door.opened", "", None, "{}", "[]", "", NOON, NOON, None, None)
    assert filled("{subject} {topic} {tags} {severity} {message}", bare).body == (
        "[no subject] [no topic] [no tags] info door.opened"
    )
    assert render(bare, title=Template("{subject|default:''}"), place=BARN).title == "door.opened"
    years = [Event(5, "x", "", None, "{}", "[]", "", at, NOON, None, None) for at in (-(2**63), 2**63 - 1)]
    assert [filled("{occurred_at}", each).body for each in years] == ["1-01-02 00:53", "9999-12-31 00:59"]
    assert filled("{message}", event("notification", data={"title": "Tank low"})).body == "Tank low"


def test_what_stands_in_an_event_is_no_template() -> None:
    data = {"a": "{subject} {data.b|upper} {{", "b": "%s %(x)s {0.__class__}"}
    assert filled("{data.a}{data.b}", warm(data)).body == data["a"] + data["b"]


@pytest.mark.parametrize(
    ("template", "message", "hint"),
    [
        ("a {subjct}", "line 1, column 4: there is no 'subjct'; fields of", "did you mean 'subject'?"),
        ("a\nbc {type|uper}", "line 2, column 10: there is no function 'uper'", "did you mean 'upper'?"),
        ("{", "line 1, column 1: has a lone '{'; write it twice", ""),
        ("a\n }", "line 2, column 2: has a lone '}'", ""),
        ("{}", "line 1, column 2: there is no ''", "there is: type,"),
        ("{data.}", "line 1, column 2: there is no 'data.'", ""),
        ("{subject.x}", "line 1, column 2: there is no 'subject.x'", "did you mean 'subject'?"),
        ("{subject.__class__}", "there is no 'subject.__class__'", ""),
        ("{0}", "there is no '0'", ""),
        ("{type!r}", "there is no 'type!r'", "did you mean 'type'?"),
        ("{type:>9}", "there is no 'type:>9'", ""),
        ("{type|}", "line 1, column 7: a function is missing behind '|'", "there is: round,"),
        ("{type|upper|}", "line 1, column 13: a function is missing", ""),
        ("{type|cut}", "line 1, column 7: cut takes 1 argument", ""),
        ("{type|cut:'x'}", "line 1, column 11: cut takes a whole number from 1 to 16384", ""),
        ("{type|cut:0}", "cut takes a whole number from 1 to", ""),
        ("{type|cut:1,2}", "cut takes 1 argument", ""),
        ("{type|cut:}", "line 1, column 11: cut wants a number, or a text in quotes", "such as 1 or '?'"),
        ("{type|cut:1,}", "cut wants a number, or a text in quotes", ""),
        ("{type|cut:1x}", "cut wants a number", ""),
        ("{type|default:?}", "default wants a number, or a text in quotes", ""),
        ("{type|default:1}", "default takes a text in quotes", ""),
        ("{type|default:'a}", "default wants", ""),
        ("{type|upper:1}", "line 1, column 7: upper takes no arguments", ""),
        ("{type|upper lower}", "line 1, column 13: unexpected 'l': functions are parted by '|'", ""),
        ("{observed|round:10}", "round takes a whole number from 0 to 9", ""),
        ("{observed|round:-1}", "round takes a whole number from 0 to 9", ""),
        ("{since|time:'%Q'}", "line 1, column 13: time knows no '%Q'; there is %H %M", ""),
        ("{since|time:'%'}", "time knows no '%'", ""),
        ("{since|time:'%-d'}", "time knows no '%-'", ""),
        ("{since|time:'a','b'}", "time takes at most 1 argument", ""),
        ("{data.n|plural:'door'}", "plural takes 2 arguments", ""),
        ("x" * (TEMPLATE_CHARACTERS_MAX + 1), "it has 8193 characters; at most 8192", ""),
    ],
)
def test_a_mistake_is_told_with_its_line_and_column(template: str, message: str, hint: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(template)
    assert message in caught.value.message
    assert hint in caught.value.hint
    Template("x" * TEMPLATE_CHARACTERS_MAX)


def test_a_mistake_in_a_route_is_told_at_load_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "edgeq.yaml"
    path.write_text(
        "channels: {a: {kind: log}}\n"
        "notifications:\n"
        "  routes:\n"
        "    - channels: [a]\n"
        "      title: '{subjct}'\n"
        "      body: |\n"
        "        All is well.\n"
        "        {since|tim}\n"
        "    - channels: [a]\n"
        "      title: '{data.a|cut:40} fits'\n"
    )

    async def publish(*_: Any, **__: Any) -> None: ...

    with pytest.raises(ConfigError) as caught:
        make_plan(load(str(path), environ={}), publish=publish, clock=Clock(), metrics=Metrics())
    first, second = map(str, caught.value.problems)
    where = "notifications.routes[0]"
    assert first.startswith(f"{path}:5: {where}.title: must be a template: line 1, column 2: there is no 'subjct'")
    assert first.endswith("(did you mean 'subject'?)")
    assert second.startswith(
        f"{path}:6: {where}.body: must be a template: line 2, column 8: there is no function 'tim'"
    )
    assert second.endswith("(did you mean 'time'?)")


def test_the_sample_names_all_that_a_template_may_hold() -> None:
    text = SAMPLE.read_text()
    told = text[text.index("# What it says, where") : text.index('#title: "{severity')]
    names, _, functions = told.replace("#", " ").partition("Behind a name, functions may follow:")
    assert set(NAMES) <= set(re.findall(r"\w+", names))
    assert set(FUNCTIONS) <= set(re.findall(r"\w+", functions))
    (shown,) = re.findall(r"#body: \|\n((?: +#.*\n)+?) +# What has the same", text)
    Template(shown.replace("#", ""))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("since", "observed", "duration_seconds", "reminder", "severity", "message", "episode")
CALLS = [
    "round:2", "time", "time:'%d %B %H:%M:%S'", "ago", "duration", "upper", "lower", "capital", "cut:5", "json",
    "default:'?'", "plural:'a','b'",
]  # fmt: skip
EVERYTHING = Template("".join(f"{{{name}|{call}}} {{{name}}}\n" for name in (*NAMES, "data.x") for call in CALLS))


def test_everything_means_every_function() -> None:
    assert {call.partition(":")[0] for call in CALLS} == set(FUNCTIONS)


@settings(max_examples=40)
@given(
    st.fixed_dictionaries(
        {"x": json_values, "contract": st.just("c") | json_values},
        optional=dict.fromkeys(FIELDS, json_values),
    )
    | json_values,
    st.text(),
    st.text(),
    st.integers(-(2**63), 2**63 - 1),
)  # fmt: skip
def test_whatever_an_event_holds_there_is_a_bounded_text(data: Any, subject: str, description: str, at: int) -> None:
    try:
        encoded = to_json(data)
    except ValueError:
        encoded = "no JSON"
    for kind in ("contract.violated", "contract.resolved", "door.opened"):
        told = Event(1, kind, subject, None, encoded, "[]", description, at, at, None, None)
        for text in (render(told, EVERYTHING, EVERYTHING, place=BARN), render(told, place=BARN)):
            assert len(text.title) <= TITLE_CHARACTERS_MAX
            assert len(text.body.encode()) <= BODY_BYTES_MAX
            assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e\ud800-\udfff]", text.title + text.body)


def test_a_huge_value_named_often_stays_bounded() -> None:
    of = warm({"x": "y" * 5_000_000, "contract": "c"})
    text, gaps = Template("{data.x}" * 1000).fill(lambda path: "y" * 5_000_000, Now(NOON, BARN))
    assert len(text) <= 6 * 16 * 1024
    assert gaps == []
    assert len(filled("{data.x}" * 1000, of).body.encode()) <= BODY_BYTES_MAX


@given(st.text(alphabet="{}|:,'\"a1 %\n.datsubjec") | st.text())
def test_any_text_is_a_template_or_told_to_be_none(text: str) -> None:
    mistake = ""
    try:
        template = Template(text)
    except TemplateError as error:
        mistake = error.message
    if mistake:
        assert re.match(r"line \d+, column \d+: ", mistake)
    else:
        render(warm(), template, template, place=BARN)


def test_bodies_of_webhooks_have_the_functions_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    fields = {"id": 5, "title": "Tank low", "raised_at": "2026-01-01T12:00:00.000Z", "detail": {"data": {"n": 2.25}}}
    body = {"n": "{detail.data.n}", "text": "{title|upper} {detail.data.n|round:1}", "at": "{raised_at|time:'%H:%M'}",
            "ago": ["{raised_at|ago}"], "gone": "{detail.x|default:'-'}{detail.x}"}  # fmt: skip
    assert compile_value(body)(fields) == {
        "n": 2.25, "text": "TANK LOW 2.2", "at": "21:00", "ago": ["0s ago"], "gone": "-[no detail.x]",
    }  # fmt: skip


@pytest.fixture
async def box(database: Database) -> AsyncIterator[Desk]:
    written: list[dict[str, Any]] = [
        {"channels": ["phone"], "title": "{severity|upper}: {message}", "body": "{data.room}", "repeat": ["15m"],
         "continue": True},
        {"channels": ["mail"]},
    ]  # fmt: skip
    async with desk(database, *written) as made:
        yield made


async def test_each_route_tells_in_its_own_words(box: Desk, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="edgeq.courier"):
        await box.happens("violated")
        await box.happens("resolved", message="all is well", room="B2")
    rows = {(row.channel, row.kind): row for row in await box.rows()}
    assert rows["phone", "alert"].title == "WARNING: f1 violated"
    assert rows["phone", "alert"].body == "[no data.room]"
    assert rows["phone", "resolved"].title == "WARNING: all is well"
    assert rows["phone", "resolved"].body == "B2"
    assert rows["mail", "alert"].title == "f1 violated"
    assert box.metrics.template_gaps.total() == 1
    assert "notifications.routes[0]: event 1 (contract.violated) has no data.room" in caplog.text


async def test_a_reminder_says_it_in_the_words_of_the_alert(box: Desk) -> None:
    await box.happens("violated")
    await box.sent()
    await box.pass_time(16 * 60)
    (reminder,) = [row for row in await box.rows() if row.kind == "reminder"]
    assert reminder.title == "WARNING: f1 violated (reminder 1, for 15m)"
