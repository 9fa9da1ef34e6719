"""What the doctor's checks find, of a configuration and a machine made for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from edgeq.clock import Clock
from edgeq.config.load import load
from edgeq.doctor.case import Case
from edgeq.doctor.finding import Finding

Look = Callable[[Case], Iterable[Finding]]


class Patient:
    """A configuration in `folder`, on a machine whose files are below `folder/machine` (`put`)."""

    def __init__(self, folder: Path, configuration: str = "gateway: g\n") -> None:
        self.folder = folder
        self.root = folder / "machine"
        self.root.mkdir(exist_ok=True)
        self.clock = Clock()
        self.configure(configuration)

    def configure(self, configuration: str) -> None:
        """Write the configuration."""
        (self.folder / "edgeq.yaml").write_text(configuration)

    def put(self, path: str, text: str) -> Path:
        """Have a file on the machine."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def case(self, *, thorough: bool = False, real: bool = False) -> Case:
        """What is looked at; `real` is the machine that the test runs on."""
        loaded = load(str(self.folder / "edgeq.yaml"), environ={})
        return Case(loaded=loaded, clock=self.clock, thorough=thorough, root=Path("/") if real else self.root)

    def found(self, look: Look, *, thorough: bool = False, real: bool = False) -> list[Finding]:
        """What a check finds."""
        return list(look(self.case(thorough=thorough, real=real)))

    def told(self, look: Look, *, thorough: bool = False, real: bool = False) -> str:
        """The same as a text, a line each: `bad: what | why | do`."""
        found = self.found(look, thorough=thorough, real=real)
        return "\n".join(f"{each.state}: {each.what} | {each.why} | {each.do}" for each in found)


def states(found: Iterable[Finding]) -> list[str]:
    """How each is."""
    return [each.state for each in found]
