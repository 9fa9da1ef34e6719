"""Who may import what, what only one file may know, and that importing a module does nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "edgeq"
MODULES = sorted(PACKAGE.rglob("*.py"))

WALL_CLOCKS = {
    "datetime.date.today",
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
    "time.ctime",
    "time.gmtime",
    "time.localtime",
    "time.time",
    "time.time_ns",
}

# Imports every module and prints what one of them did at that moment, beyond defining things: the innermost module
# that is being run answers for it, unless the import machinery stands between.
WATCH = """
import importlib, os, pkgutil, sys, threading

def blame(what):
    frame = sys._getframe(2)
    while frame and not frame.f_code.co_filename.startswith("<frozen importlib"):
        if frame.f_code.co_name == "<module>" and f"{os.sep}edgeq{os.sep}" in frame.f_code.co_filename:
            print(frame.f_code.co_filename, frame.f_lineno, what)
            return
        frame = frame.f_back

class Environ(type(os.environ)):
    def __getitem__(self, key):
        if key not in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):  # click looks for translations of its help
            blame(f"reads the environment: {key}")
        return super().__getitem__(key)

DOINGS = ("open", "os.", "socket.", "sqlite3.", "subprocess.")
os.environ.__class__ = Environ
sys.addaudithook(lambda event, args: blame(f"{event}{args}") if event.startswith(DOINGS) else None)
import edgeq
for module in pkgutil.walk_packages(edgeq.__path__, "edgeq."):
    importlib.import_module(module.name)
for thread in threading.enumerate()[1:]:
    print("a thread runs:", thread)
"""


def run(program: str) -> str:
    """What a fresh Python prints that runs `program`."""
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of all that the code refers to through an import: `dt.now` as `datetime.datetime.now`."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            dotted = ast.unparse(node)
            first, _, rest = dotted.partition(".")
            yield node.lineno, f"{known.get(first, first)}.{rest}"


def test_imports_keep_to_the_layers_and_fences() -> None:
    linter = "from importlinter.cli import lint_imports_command as run; run(['--no-logo', '--no-cache'])"
    done = subprocess.run([sys.executable, "-c", linter], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_one_file_reads_the_wall_clock() -> None:
    readers = {
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in MODULES
        for line, name in names(ast.parse(path.read_text()))
        if name in WALL_CLOCKS and path != PACKAGE / "clock.py"
    }
    assert not readers


def test_only_one_file_knows_what_systemd_puts_into_the_environment() -> None:
    words = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
    knowing = {path for path in MODULES if any(word in path.read_text() for word in words)}
    assert knowing == {PACKAGE / "telemetry" / "systemd.py"}


def test_every_module_says_what_it_is_for() -> None:
    assert not [path.relative_to(ROOT) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))]


def test_importing_a_module_does_nothing() -> None:
    assert run(WATCH) == ""


@pytest.mark.parametrize(
    "library", ["amqtt", "edgeq.contracts.rate", "email", "http.client", "psycopg", "rich", "shutil"]
)
def test_a_gateway_does_not_pay_for_libraries_that_it_does_not_use(library: str) -> None:
    assert run(f"import sys, edgeq.cli.main, edgeq.cli.run; print({library!r} in sys.modules)") == "False\n"


def test_a_gateway_with_a_file_imports_no_other_driver_and_whoever_wants_one_can(tmp_path: Path) -> None:
    drivers = ["MySQLdb", "psycopg2", "psycopg2cffi", "pymysql", "pysqlite3"]
    for name in drivers:
        (tmp_path / f"{name}.py").touch()
    drivers.append("psycopg")
    program = f"""
import importlib, sys
sys.path.insert(0, {str(tmp_path)!r})
import edgeq.cli.main, edgeq.cli.run
from edgeq.store.making import ensure
ensure({str(tmp_path / "edgeq.db")!r})
print([name for name in {drivers} if name in sys.modules])
print([importlib.import_module(name).__name__ for name in {drivers}])
"""
    assert run(program) == f"[]\n{drivers}\n"


def test_urllib_is_whole_for_whoever_wants_it() -> None:
    assert run("import edgeq.mqtt.client, urllib.request; print(urllib.request.getproxies)").startswith("<function")


def test_paho_has_what_it_needs_to_look_for_a_proxy_where_one_is_set(tmp_path: Path) -> None:
    (tmp_path / "socks.py").touch()
    program = (
        f"import os, sys; sys.path.insert(0, {str(tmp_path)!r}); os.environ['mqtt_proxy'] = 'http://proxy'; "
        "import edgeq.mqtt.client, urllib; print(urllib.request, edgeq.mqtt.client.paho.socks)"
    )
    assert "urllib/request.py" in (said := run(program))
    assert "socks.py" in said
