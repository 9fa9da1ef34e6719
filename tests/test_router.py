"""Routes from YAML and Python, and every mistake in them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.intake import table_of

from edgeq.clock import Clock
from edgeq.config.load import load
from edgeq.config.schema import Route
from edgeq.errors import Problem
from edgeq.intake.router import Router
from edgeq.intake.table import TOPICS_CACHED, RouteTable, compile_routes
from edgeq.jobs.job import resolve


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Path]:
    """A folder on sys.path for modules named `shed_...`."""
    sys.path.insert(0, str(tmp_path))
    yield tmp_path
    sys.path.remove(str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("shed_")]:
        del sys.modules[name]


def compiled(folder: Path, yaml: str, *routers: Router) -> tuple[RouteTable, list[Problem]]:
    path = folder / "edgeq.yaml"
    path.write_text(yaml)
    problems: list[Problem] = []
    table = compile_routes(load(str(path), environ={}), routers, resolve, Clock().monotonic, problems)
    return table, problems


def labels(table: RouteTable, topic: str) -> list[str]:
    return [route.label for route, _ in table.lookup(topic).routes]


def nothing(ctx: Any, **params: Any) -> None:
    """A controller."""


def test_every_route_that_matches_once_in_the_order_of_the_file_then_pythons() -> None:
    first, second = Router(), Router()
    first.on("a/+")(nothing)
    second.on("a/b")(nothing)
    table = table_of(
        [Route(topic="a/#", emit="x"), Route(topic="b/#", emit="x"), Route(topic="+/b", emit="x")], [first, second]
    )
    assert labels(table, "a/b") == ["a/#", "+/b", "a/+", "a/b"]
    assert labels(table, "a/b/c") == ["a/#"]
    assert labels(table, "c/d") == []
    assert labels(table, "a/b") == ["a/#", "+/b", "a/+", "a/b"]  # from the cache


def test_parameters_are_typed_and_a_level_that_does_not_fit_does_not_match() -> None:
    table = table_of([Route(topic="pumps/{pump:int}/{rest:#}", emit="x"), Route(topic="pumps/{name}/state", emit="x")])
    assert [params for _, params in table.lookup("pumps/7/a/b").routes] == [{"pump": 7, "rest": "a/b"}]
    assert [params for _, params in table.lookup("pumps/seven/state").routes] == [{"name": "seven"}]
    assert [params for _, params in table.lookup("pumps/7/state").routes] == [
        {"pump": 7, "rest": "state"},
        {"name": "7"},
    ]
    assert not table.lookup(f"pumps/{2**63}/x").routes


def test_topics_with_many_levels_and_the_brokers_own() -> None:
    table = table_of([Route(topic="#", emit="x"), Route(topic="{rest:#}", emit="x"), Route(topic="$SYS/#", emit="x")])
    deep = "/".join(["level"] * 200)
    assert labels(table, deep) == ["#", "{rest:#}"]
    assert table.lookup(deep).routes[1][1] == {"rest": deep}
    assert labels(table, "$SYS/broker/uptime") == ["$SYS/#"]


def test_a_cache_of_topics_that_strangers_can_fill_does_not_grow_without_end() -> None:
    table = table_of([Route(topic="#", emit="x")])
    for number in range(2 * TOPICS_CACHED):
        assert table.lookup(f"t/{number}").routes
    assert len(table._cache) <= TOPICS_CACHED
    long = "x" * 60_000
    assert table.lookup(long).routes
    assert long not in table._cache


def test_filters_have_the_highest_qos_of_their_routes() -> None:
    table = table_of(
        [
            Route(topic="a/{x}", emit="x", qos=0),
            Route(topic="a/+", emit="x", qos=2),
            Route(topic="b", emit="x", qos=0, max_payload=5),  # type: ignore[arg-type]
        ]
    )
    assert table.filters() == {"a/+": 1, "b": 0}
    assert table.payload_bytes_max() == 256 * 1024


def test_routes_with_one_topic_have_names_of_their_own() -> None:
    table = table_of([Route(topic="a", emit="x"), Route(topic="b", emit="x"), Route(topic="a", emit="y")])
    assert [route.label for route in table.routes] == ["a", "b", "a (2)"]


def test_groups_put_their_prefix_before_and_nest() -> None:
    router = Router(prefix="/site/")
    router.on("top")(nothing)
    with router.group("pumps/{pump}") as pumps:
        pumps.on("state")(nothing)
        with pumps.group("motor") as motor:
            motor.on("{metric}/#")(nothing)
        with pumps.group() as same:
            same.on("alarm")(nothing)
    assert [route.label for route in table_of([], [router]).routes] == [
        "site/top",
        "site/pumps/{pump}/state",
        "site/pumps/{pump}/motor/{metric}/#",
        "site/pumps/{pump}/alarm",
    ]


def test_the_decorated_function_stays_what_it_was() -> None:
    assert Router().on("a")(nothing) is nothing


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("qos", 3, "qos: must be 0, 1 or 2, not 3"),
        ("payload", "xml", "payload: must be json, text or raw, not 'xml'"),
        ("retained", "keep", "retained: must be skip or handle"),
        ("timeout", "5", "no unit"),
        ("timeout", "0s", "timeout: must be more than 0"),
        ("timeout", None, "timeout"),
        ("max_payload", "many", "max_payload"),
        ("limit", {"rate": "fast"}, "limit.rate: must be a rate"),
        ("limit", {"rate": "1/s", "bust": 5}, "limit.bust: unknown key"),
        ("limit", {"rate": "1/s", "burst": 0}, "limit.burst: must be at least 1"),
        ("limit", "5/s", "limit: must be a mapping"),
    ],
)
def test_a_value_that_cannot_be_is_refused_where_it_is_written(key: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=r"^route 'a'") as caught:
        Router().on("a", **{key: value})
    assert said in str(caught.value)


def test_middleware_must_be_async() -> None:
    def late(ctx: Any, call_next: Any) -> None:
        """Would never be awaited."""

    for make in (
        lambda: Router(middleware=[late]),  # type: ignore[list-item]
        lambda: Router().on("a", middleware=[late]),  # type: ignore[list-item]
        lambda: Router().group("a", middleware=[late]).__enter__(),  # type: ignore[list-item]
    ):
        with pytest.raises(ValueError, match="async def"):
            make()


def test_a_controller_named_in_yaml_is_imported(app: Path) -> None:
    (app / "shed_controllers.py").write_text("class Doors:\n    @staticmethod\n    def opened(ctx, door): ...\n")
    table, problems = compiled(app, "routes: [{topic: 'doors/{door}', controller: 'shed_controllers:Doors.opened'}]")
    assert not problems
    assert not table.lookup("doors/front").inline


MISTAKES = """\
routes:
  - topic: sensors/{device}/#/x
    emit: reading
  - topic: sensors/{device}
    emit: "{metric}.reading"
    subject: "{devcie}"
    dedup: "{payload.}"
    description: "}"
    occurred_at: "{ts"
    data:
      a: "{x"
  - topic: doors/{door}
    emit:
      map: "{dor}"
      to: {open: door.opened}
  - topic: doors/{door}
    emit:
      map: "{payload}"
      to: {open: ""}
  - topic: a
    dispatch: shed_jobs:Nothing
    dedup: "{payload.id}"
  - topic: a
    emit: x
    limit: {rate: 1/s, key: "{device}"}
  - topic: "{class}/x"
    emit: x
  - topic: a
    emit: ""
"""


def test_each_mistake_is_told_with_its_place(app: Path) -> None:
    (app / "shed_jobs.py").write_text("")
    _, problems = compiled(app, MISTAKES)
    told = {(problem.where.rpartition("/")[2], problem.path): problem.message for problem in problems}
    wanted = {
        ("edgeq.yaml:2", "routes[0].topic"): "'#' must be the last level",
        ("edgeq.yaml:6", "routes[1].subject"): "did you mean 'device'?",
        ("edgeq.yaml:7", "routes[1].dedup"): "empty name",
        ("edgeq.yaml:8", "routes[1].description"): "lone '}'",
        ("edgeq.yaml:9", "routes[1].occurred_at"): "lone '{'",
        ("edgeq.yaml:10", "routes[1].data"): "lone '{'",
        ("edgeq.yaml:13", "routes[2].emit"): "did you mean 'door'?",
        ("edgeq.yaml:17", "routes[3].emit"): "empty",
        ("edgeq.yaml:21", "routes[4].dispatch"): "shed_jobs has no",
        ("edgeq.yaml:22", "routes[4].dedup"): "goes with emit",
        ("edgeq.yaml:25", "routes[5].limit.key"): "not a parameter",
        ("edgeq.yaml:26", "routes[6].topic"): "can't be the name of a parameter",
        ("edgeq.yaml:29", "routes[7].emit"): "is empty",
    }
    assert set(told) == set(wanted)
    assert [key for key, said in wanted.items() if said not in told[key]] == []


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("shed_controllers", "package.module:name"),
        ("shed_controllers:", "package.module:name"),
        ("shed_nowhere:pump", "there is no module 'shed_nowhere'"),
        ("shed_controllers:pumpp", "did you mean 'pump'?"),
        ("shed_controllers:Doors.opened", "shed_controllers has no 'Doors.opened'"),
        ("shed_controllers:NUMBER", "no function"),
        ("shed_controllers:pump", "pump must take (ctx, pump): missing a required argument: 'door'"),
        ("shed_controllers:bare", "bare must take (ctx, pump)"),
        ("shed_broken:pump", "shed_broken.py:2: NameError"),
        ("shed_syntax:pump", "shed_syntax.py:1: SyntaxError"),
        ("shed_needs:pump", "No module named 'shed_absent'"),
        ("shed_exits:pump", "SystemExit"),
    ],
)
def test_a_controller_that_cannot_be_called_is_told_before_anything_runs(app: Path, reference: str, said: str) -> None:
    (app / "shed_controllers.py").write_text(
        "NUMBER = 5\ndef pump(ctx, pump, door): ...\ndef bare(): ...\n",
    )
    (app / "shed_broken.py").write_text("\nundefined\n")
    (app / "shed_syntax.py").write_text("def (:\n")
    (app / "shed_needs.py").write_text("import shed_absent\n")
    (app / "shed_exits.py").write_text("raise SystemExit(3)\n")
    _, problems = compiled(app, f"routes:\n  - topic: pumps/{{pump}}\n    controller: '{reference}'\n")
    [problem] = problems
    assert problem.where.endswith("edgeq.yaml:3")
    assert problem.path == "routes[0].controller"
    assert said in problem.message


def test_a_mistake_in_python_names_the_function(app: Path) -> None:
    router = Router()

    @router.on("pumps/{pump}")
    def without_pump(ctx: Any) -> None: ...

    @router.on("pumps/#/x")
    async def bad_topic(ctx: Any) -> None: ...

    _, problems = compiled(app, "", router)
    line = without_pump.__code__.co_firstlineno
    assert [(problem.where, problem.path) for problem in problems] == [
        (f"{__file__}:{line}", "route 'pumps/{pump}'.controller"),
        (f"{__file__}:{line + 3}", "route 'pumps/#/x'.topic"),
    ]
    assert "without_pump must take (ctx, pump)" in problems[0].message
