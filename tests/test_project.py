"""The project itself: clean code, a wheel that installs, and scripts that say what they lack."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command: str | Path, cwd: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
    """The ended command, with what it printed."""
    return subprocess.run(command, cwd=cwd, env={**os.environ, **environ}, capture_output=True, text=True)


@pytest.mark.parametrize("command", ["ruff format --diff", "ruff check", "mypy"])
def test_the_code_is_clean(command: str) -> None:
    done = run(sys.executable, "-m", *command.split())
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the project, as building leaves files behind."""
    copy = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "edgeq", copy / "edgeq", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    done = run(*pip, "--wheel-dir", copy / "dist", copy)
    assert done.returncode == 0, done.stderr
    (path,) = (copy / "dist").iterdir()
    return path


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "edgeq").rglob("*") if path.is_file()}
    expected = {name for name in files if "__pycache__" not in name}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
        assert any(name.endswith("/licenses/LICENSE") for name in archive.namelist())
    assert packed == expected
    assert {"edgeq/py.typed", "edgeq/store/migrations/sqlite/0001_first_tables.py"} <= packed
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "\nRequires-Python: >=3.11\n" in metadata


def test_the_source_archive_holds_what_the_readme_speaks_of(tmp_path: Path) -> None:
    copy = tmp_path / "source"
    folders = ("config", "docs", "edgeq", "scripts", "systemd", "tests")
    for name in folders:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "constraints.txt"):
        shutil.copy(ROOT / name, copy)
    build = "from setuptools import build_meta; print(build_meta.build_sdist('dist'))"
    done = run(sys.executable, "-c", build, cwd=copy)
    assert done.returncode == 0, done.stderr
    (path,) = (copy / "dist").iterdir()
    with tarfile.open(path) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    there = {path.relative_to(ROOT) for name in folders for path in (ROOT / name).rglob("*") if path.is_file()}
    assert {str(path) for path in there if "__pycache__" not in path.parts} - packed == set()
    assert {"README.md", "LICENSE", "constraints.txt", "scripts/demo", "docs/jobs.md"} <= packed


@pytest.mark.timeout(600)
def test_the_wheel_installs_with_what_it_needs_and_nothing_else(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--retries", "0")
    done = run(*pip, "--constraint", ROOT / "constraints.txt", wheel)
    if "from versions: none" in done.stderr:
        pytest.skip(f"not installed, because no package index can be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    edgeq = tmp_path / "venv" / "bin" / "edgeq"
    version = run(edgeq, "--version", cwd=tmp_path)
    assert (version.returncode, version.stdout.split()[-1:]) == (0, [PROJECT["version"]]), version.stderr
    # Every command's module can be imported: what it needs is among the dependencies.
    for command in re.findall(r"^  ([a-z-]+) ", run(edgeq, "--help", cwd=tmp_path).stdout, re.MULTILINE):
        done = run(edgeq, command, "--help", cwd=tmp_path)
        assert done.returncode == 0, f"{command}: {done.stderr}"


def test_every_library_that_is_needed_has_its_version_in_the_constraints() -> None:
    needed = [
        *PROJECT["dependencies"],
        *(line for extra in PROJECT["optional-dependencies"].values() for line in extra),
    ]
    pinned = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    assert names(needed) - names(pinned) == {"edgeq"}


def names(requirements: list[str]) -> set[str]:
    """The names of distributions, without their versions and extras, in their one normal form."""
    return {re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", line)[0]).lower() for line in requirements}


class Machine:
    """A copy of the scripts on a machine with a chosen Python, a few programs, and no right to install anything."""

    def __init__(self, place: Path) -> None:
        self.project = place / "a project"
        self.programs = place / "bin"
        self.calls = place / "calls"
        for name in ("scripts", ".ci"):
            shutil.copytree(ROOT / name, self.project / name)
        for name in ("pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.project)
        self.programs.mkdir()
        for name in ("basename", "bash", "cat", "dirname", "env", "flock", "id", "readlink", "rm", "sed", "sha256sum"):
            (self.programs / name).symlink_to(shutil.which(name) or name)

    def add(self, path: Path, body: str) -> None:
        """Put a shell script there as a program."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def add_environment(self, pip: str = "") -> None:
        """Put an environment there in which `pip` is run for pip; `calls` notes what its programs are called with."""
        note = f'for word in "$@"; do printf \'<%s>\' "$word"; done >> {self.calls}; echo >> {self.calls}'
        asked = 'case "$1" in -V|-c) exit 0;; esac'  # which version, and is there a module
        body = f'{asked}\n{note}\ncase "$2" in pip) {pip or ":"};; pytest) exit 7;; esac'
        self.add(self.project / ".venv" / "bin" / "python", body)
        self.add(self.project / ".venv" / "bin" / "edgeq", f"{note}\nexit 7")

    def called(self) -> list[str]:
        """What programs of the environment were called with, since this was asked the last time."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        self.calls.unlink(missing_ok=True)
        return lines

    def start(self, script: str, *args: str) -> subprocess.Popen[str]:
        """Run a script, from somewhere else, with nothing but the machine's programs."""
        command = ["bash", str(self.project / script), *args]
        environ = {"PATH": str(self.programs), "HOME": "/nonexistent"}
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd="/", env=environ, stdout=pipe, stderr=pipe, stdin=subprocess.DEVNULL, text=True
        )

    def run(self, script: str, *args: str) -> tuple[int, str]:
        """A script's exit status, and everything it printed."""
        process = self.start(script, *args)
        out, err = process.communicate()
        return process.returncode, out + err


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_environment_is_made_once(machine: Machine) -> None:
    machine.add_environment()
    assert machine.run("scripts/env", "demo")[0] == 0
    first = machine.called()
    assert (
        first[-1]
        == "<-m><pip><install><--quiet><--constraint><constraints.txt><--no-build-isolation><--editable><.[demo]>"
    )
    assert machine.run("scripts/env", "demo") == (0, "")
    assert machine.called() == []
    (machine.project / "constraints.txt").write_text("# changed\n")
    assert machine.run("scripts/env", "demo")[0] == 0
    assert machine.called() == first


def test_what_the_tests_need_is_enough_for_the_demo(machine: Machine) -> None:
    machine.add_environment()
    machine.run("scripts/env")
    machine.called()
    assert machine.run("scripts/env", "demo") == (0, "")
    assert machine.called() == []


def test_a_failed_installation_is_said_and_tried_again(machine: Machine) -> None:
    machine.add_environment(pip="echo no network >&2; exit 1")
    status, said = machine.run("scripts/demo")
    assert status == 1
    assert "no network\nedgeq: could not install edgeq[demo]" in said
    machine.add_environment()
    machine.called()
    assert machine.run("scripts/demo", "--seconds", "3", "two words")[0] == 7
    assert machine.called()[-1] == "<demo><--seconds><3><two words>"


def test_of_two_runs_at_once_one_makes_the_environment(machine: Machine, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "begun")
    os.mkfifo(tmp_path / "go_on")
    machine.add_environment(pip=f"echo > {tmp_path}/begun; read line < {tmp_path}/go_on")
    with machine.start("scripts/env") as first:
        (tmp_path / "begun").read_text()
        with machine.start("scripts/env") as second:
            assert second.stderr is not None
            assert second.stderr.readline() == "edgeq: waiting for another run that makes .venv\n"
            machine.add_environment()
            (tmp_path / "go_on").write_text("\n")
    assert (first.returncode, second.returncode) == (0, 0)
    assert len(machine.called()) == 2, "setuptools, and edgeq"


@pytest.mark.parametrize(("body", "said"), [('[ "$1" = -V ] && echo Python 3.9.2', "Python 3.9.2"), (None, "none")])
def test_a_python_that_is_too_old_is_said(machine: Machine, body: str | None, said: str) -> None:
    if body:
        machine.add(machine.programs / "python3", body)
    status, printed = machine.run("scripts/demo")
    assert status == 1
    assert f"edgeq needs Python 3.11 or newer; here is {said}." in printed


def test_without_a_way_to_make_an_environment_the_package_to_install_is_named(machine: Machine) -> None:
    lacks = 'case "$2" in "import ensurepip"|"import pip"|"import virtualenv") exit 1;; esac'
    machine.add(machine.programs / "python3", f'{lacks}\nexec {sys.executable} "$@"')
    status, said = machine.run("scripts/demo")
    assert status == 1
    assert "Do: sudo apt install python{}.{}-venv".format(*sys.version_info) in said


@pytest.mark.parametrize("script", ["scripts/test", ".ci/run"])
def test_the_tests_run_without_programs_that_some_of_them_need(machine: Machine, script: str) -> None:
    machine.add_environment()
    status, said = machine.run(script)
    assert status == 7, "the status of pytest"
    assert machine.called()[-1] == "<-m><pytest><--numprocesses><3><--dist><loadfile>"
    assert "strace is not installed: the tests with injected disk errors are not run. To have it: sudo apt" in said


def test_a_bench_is_run_by_its_name(machine: Machine) -> None:
    machine.add_environment()
    (machine.project / "scripts" / "benches").mkdir(exist_ok=True)
    (machine.project / "scripts" / "benches" / "speed.py").write_text('"""How fast."""\n')
    assert machine.run("scripts/bench", "speed", "--minutes", "1")[0] == 0
    assert machine.called()[-1] == f"<{machine.project}/scripts/benches/speed.py><--minutes><1>"
    status, said = machine.run("scripts/bench", "sped")
    assert status == 2
    assert re.search(r"there is no bench 'sped'.*^speed +How fast\.", said, re.DOTALL | re.MULTILINE)
