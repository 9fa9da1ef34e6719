"""YAML as people and their enemies write it: clear mistakes with file:line, and nothing but ConfigError."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

import edgeq.config.load as loading
from edgeq.config.files import FILE_BYTES_MAX
from edgeq.config.load import LEVELS_MAX, NODES_MAX, load
from edgeq.config.schema import Config
from edgeq.errors import ConfigError

LOADERS = [pytest.param(yaml.SafeLoader, id="python")]
if yaml.__with_libyaml__:
    LOADERS.append(pytest.param(yaml.CSafeLoader, id="libyaml"))


@pytest.fixture(params=LOADERS)
def either_loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of PyYAML's parsers: not every machine has the fast one."""
    monkeypatch.setattr(loading, "_LOADER", request.param)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(text: str | bytes) -> list[str]:
    Path("f.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load("f.yaml", environ={})
    return [str(problem) for problem in caught.value.problems]


def config(text: str) -> Config:
    Path("f.yaml").write_text(text)
    return load("f.yaml", environ={}).config


@pytest.mark.usefixtures("folder", "either_loader")
@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("gateway: g\n\tmqtt: x", 2, "isn't YAML.*indent with spaces, not tabs"),
        ("mqtt: {url: ${X}}", 1, "isn't YAML.*needs quotes"),
        ("gateway: g\nmqtt: {url: x\nlog:\n", 3, "isn't YAML.*line 2"),
        ("gateway: a: b", 1, "isn't YAML"),
        ("gateway: *g", 1, "names no anchor"),
        ("app: &a {path: *a}", 1, "names no anchor that ends before it"),
        ("gateway: @g", 1, "isn't YAML.*needs quotes"),
        ("gateway: g\n---\ngateway: h", 2, "second document"),
        ("- a\n- b", 1, "must be a mapping at the top"),
        ("just text", 1, "must be a mapping at the top"),
        ("gateway: g\n? [a]\n: b", 2, "can't be a key"),
        ("gateway: g\nmqtt:\n  {x}: b", 3, "can't be a key.*needs quotes"),
        ("gateway: g\n: x", 2, "isn't YAML"),
        ("?\n: x", 1, "a key is missing"),
        ("mqtt: !!python/object:os.system {}", 1, "mqtt: tags .* aren't supported"),
        ("gateway: !env HOME", 1, "gateway: tags .* aren't supported.*needs quotes"),
        ("gateway: g\nlog: {<<: 5}", 2, "<< must name a mapping"),
        ('gateway: "\\UFFFFFFFF"', 1, "isn't YAML"),
        ('gateway: "\\uD800"', 1, "isn't YAML|surrogate"),
        ("gateway: a\x00b", 1, r"U\+0000 can't stand in YAML"),
        ("a: b\ngateway: \x1b[31m", 2, r"U\+001B can't stand in YAML"),
        ("%YAML " + "1" * 5000 + ".1\n--- {}", 1, "isn't YAML"),
    ],
)
def test_what_isnt_yaml_is_said_with_its_line(text: str, line: int, words: str) -> None:
    found = problems(text)
    assert len(found) == 1
    assert found[0].startswith(f"f.yaml:{line}: ")
    assert re.search(words, found[0], re.S), found


@pytest.mark.usefixtures("folder", "either_loader")
def test_a_key_set_twice_is_a_mistake() -> None:
    assert problems("mqtt:\n  group: a\nlog: {}\nmqtt: {}\nroutes:\n- topic: x\n  emit: e\n  topic: y") == [
        "f.yaml:4: mqtt: is set already at f.yaml:1",
        "f.yaml:8: routes[0].topic: is set already at f.yaml:6",
    ]


@pytest.mark.usefixtures("folder")
def test_files_that_are_no_text() -> None:
    assert problems(b"gateway: g\n\xff\xfe") == ["f.yaml: is not UTF-8 (line 2)"]
    assert problems("gateway: g".encode("utf-16")) == ["f.yaml: is not UTF-8 (line 1)"]
    assert problems("#" * (FILE_BYTES_MAX + 1)) == ["f.yaml: is larger than 1024 KiB"]
    with pytest.raises(ConfigError, match="is a folder, not a file"):
        load(".", environ={})
    with pytest.raises(ConfigError, match="has an impossible name"):
        load("a\0b", environ={})
    with pytest.raises(ConfigError, match="there is no such file"):
        load("f.yaml/x", environ={})
    with pytest.raises(ConfigError, match="is not a regular file"):
        load("/dev/zero", environ={})


@pytest.mark.usefixtures("folder", "either_loader")
def test_anchors_and_merge_keys_work() -> None:
    loaded = config(
        "routes:\n"
        "- &base {topic: a, emit: e, timeout: 1s, tags: &tags [x]}\n"
        "- {<<: *base, topic: b}\n"
        "- {<<: [{topic: c, emit: f}, *base], tags: [y]}\n"
        "- {topic: d, emit: g, tags: *tags}\n"
        'channels: {c: {kind: log, "<": 1}}'
    )
    assert [(r.topic, r.emit, float(r.timeout), r.tags) for r in loaded.routes] == [
        ("a", "e", 1.0, ["x"]), ("b", "e", 1.0, ["x"]), ("c", "f", 1.0, ["y"]), ("d", "g", 5.0, ["x"])
    ]  # fmt: skip


@pytest.mark.usefixtures("folder", "either_loader")
def test_lists_in_conf_d_dont_grow_what_an_anchor_shares(folder: Path) -> None:
    (folder / "conf.d").mkdir()
    (folder / "conf.d" / "a.yaml").write_text("channels: {a: {to: [z]}}")
    loaded = config("channels: {a: {to: &to [x]}, b: {to: *to}}")
    assert [section.data["to"] for section in loaded.channels.values()] == [["x", "z"], ["x"]]


def bomb(levels: int, width: int) -> str:
    lines = ["channels:", "  c0: &a0 {x: y}"]
    for level in range(1, levels):
        inner = ", ".join(f"k{i}: *a{level - 1}" for i in range(width))
        lines.append(f"  c{level}: &a{level} {{{inner}}}")
    return "\n".join(lines)


@pytest.mark.usefixtures("folder", "either_loader")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (bomb(30, 9), f"more than {NODES_MAX} values"),
        (bomb(70, 1), f"more than {LEVELS_MAX} deep"),
        ("routes: [" + "1," * (NODES_MAX + 1) + "]", f"more than {NODES_MAX} values"),
        ("routes: " + "[" * 5000, f"more than {LEVELS_MAX} deep"),
        ("routes: " + "{a: " * 5000, f"more than {LEVELS_MAX} deep"),
        ("routes:\n" + "".join(" " * i + "- \n" for i in range(1000)), f"more than {LEVELS_MAX} deep"),
        ("- " * 5000, f"more than {LEVELS_MAX} deep"),
    ],
    ids=["wide", "deep", "long", "brackets", "braces", "block", "dashes"],
)
def test_bombs_are_defused(text: str, words: str) -> None:
    found = problems(text)
    assert words in found[-1]
    assert len(found) < 10


@pytest.mark.usefixtures("folder")
def test_as_deep_as_may_be_is_loaded() -> None:
    assert config("channels: {a: {x: " + "[" * (LEVELS_MAX - 3) + "]" * (LEVELS_MAX - 3) + "}}").channels["a"].data["x"]


KEYS = st.sampled_from(
    [*Config.__struct_fields__, "url", "topic", "emit", "password_file", "<<", "kind", "match", "to", "limit"]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12),
    st.sampled_from(["${X}", "${X:-1}", "$${X}", "${", "10s", "1s..2s", "64KiB", "5/s", "mqtt://h", "yes", "~", "0o7"]),
)  # fmt: skip
TREES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)
FRAGMENTS = st.sampled_from(
    ["gateway", "mqtt", "url", "routes", "topic", ": ", ":\n", "\n", "  ", "- ", "{", "}", "[", "]", ",", "&a ", "*a",
     "<<", "!!str ", "!x", "'", '"', "|\n", ">\n", "#", "?", "---\n", "...\n", "%YAML 1.1\n", "\\u", "\\x", "\t",
     "${A}", "${", "\x85", "\u2028", "0x", "1e9", "@", "`", "\ufeff", "\ud7ff", "\U0001f600"]
)  # fmt: skip


def survives(path: Path, environ: dict[str, str]) -> None:
    """Loads, or raises ConfigError with something to print."""
    said = ""
    try:
        loaded = load(str(path), environ=environ)
    except ConfigError as error:
        said = str(error)
    else:
        assert isinstance(loaded.config, Config)
        said = str(loading.redacted(loaded))
    assert said.encode()


fuzz = settings(max_examples=150)


@pytest.mark.usefixtures("either_loader")
class TestNothingButConfigError:
    """Whatever the file or the environment holds."""

    def check(self, content: bytes, folder: Path) -> None:
        (folder / "f.yaml").write_bytes(content)
        survives(folder / "f.yaml", {"X": "x: {y", "EDGEQ_LOG__LEVEL": "info"})

    @fuzz
    @given(text=st.lists(FRAGMENTS | st.text(max_size=3), max_size=25).map("".join))
    @example(text="? &a\n: *a")
    @example(text="&a {<<: *a}")
    @example(text="{a: &a {<<: [*a]}}")
    @example(text="<<: {<<: {}}\n<<: []")
    def test_text(self, text: str, tmp_path: Path) -> None:
        self.check(text.encode("utf-8", "surrogatepass"), tmp_path)

    @fuzz
    @given(content=st.binary(max_size=60))
    def test_bytes(self, content: bytes, tmp_path: Path) -> None:
        self.check(content, tmp_path)

    @fuzz
    @given(tree=st.dictionaries(KEYS, TREES, max_size=6), flow=st.booleans())
    def test_well_formed_files(self, tree: dict[str, Any], flow: bool, tmp_path: Path) -> None:
        text = yaml.safe_dump(tree, allow_unicode=True, default_flow_style=flow)
        self.check(text.encode("utf-8", "surrogatepass"), tmp_path)

    @fuzz
    @given(environ=st.dictionaries(st.text(max_size=20).map("EDGEQ_{}".format), st.text(max_size=20), max_size=4))
    def test_the_environment(self, environ: dict[str, str], tmp_path: Path) -> None:
        (tmp_path / "f.yaml").write_text("gateway: g\nmqtt:\n  tls: {insecure: no}\nroutes: [{topic: a, emit: b}]")
        survives(tmp_path / "f.yaml", environ)


@pytest.mark.usefixtures("folder", "either_loader")
@pytest.mark.parametrize(
    "text", ["{hunter2}", "*hunter2", "!hunter2", "@hunter2", "a: hunter2", "[hunter2", "%hunter2"]
)
def test_a_password_that_yaml_takes_for_something_else_isnt_repeated(text: str) -> None:
    found = problems(f"mqtt:\n  username: u\n  password: {text}")
    assert len(found) == 1
    assert "hunter2" not in found[0]
