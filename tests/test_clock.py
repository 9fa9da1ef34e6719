"""What the machine says of its clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeq import clock as module
from edgeq.clock import MICROSECONDS, Clock
from edgeq.testing import FakeClock


class TestBoot:
    """What names a boot of the machine."""

    def test_it_stays_the_same(self) -> None:
        assert Clock().boot() == Clock().boot()

    def test_the_kernel_says_it_and_else_the_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EDGEQ_BOOT_ID", "5804af5511cf497f8f3608cfce329548")
        monkeypatch.setattr(module, "_BOOT_ID", tmp_path / "boot_id")
        assert Clock().boot() == "5804af5511cf497f8f3608cfce329548"
        (tmp_path / "boot_id").write_text("0b1d2c3f-11cf-497f-8f36-08cfce329548\n")
        assert Clock().boot() == "0b1d2c3f11cf497f8f3608cfce329548"

    def test_where_nobody_says_it_there_is_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("EDGEQ_BOOT_ID", raising=False)
        monkeypatch.setattr(module, "_BOOT_ID", tmp_path / "boot_id")
        assert Clock().boot() == ""


def test_the_time_since_the_boot_is_no_less_than_what_is_not_stepped() -> None:
    clock = Clock()
    before = time.monotonic()
    assert before <= clock.since_boot() < clock.now() / MICROSECONDS


class TestSynchronised:
    """Whether the kernel takes its clock for right."""

    def test_it_can_be_asked_here(self) -> None:
        """It changes nothing: nobody but root may."""
        assert Clock().synchronised() in (True, False, None)

    @pytest.mark.parametrize(
        ("answer", "synchronised"),
        [
            (lambda buffer: 0, True),
            (lambda buffer: 1, True),  # a second is to be inserted
            (lambda buffer: 5, False),
            (lambda buffer: -1, None),  # forbidden
            (None, None),  # no such system
        ],
    )
    def test_its_answers(
        self, monkeypatch: pytest.MonkeyPatch, answer: Callable[[bytes], int] | None, synchronised: bool | None
    ) -> None:
        monkeypatch.setattr(module, "_adjtimex", lambda: answer)
        monkeypatch.setattr(module, "_TIMESYNC", Path("/nowhere"))
        assert Clock().synchronised() is synchronised

    def test_where_the_kernel_can_not_be_asked_timesyncd_may_know(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_adjtimex", lambda: lambda buffer: -1)
        monkeypatch.setattr(module, "_TIMESYNC", tmp_path)
        assert Clock().synchronised() is False
        (tmp_path / "synchronized").touch()
        assert Clock().synchronised() is True


def test_a_fake_clock_boots_when_it_is_told() -> None:
    clock = FakeClock(now=1_000_000)
    first, began = clock.boot(), clock.monotonic()
    assert (clock.boot(), clock.synchronised()) == (first, True)
    clock.reboot(60, synchronised=False)
    assert clock.boot() != first
    assert (clock.now(), clock.since_boot(), clock.synchronised()) == (61_000_000, 0, False)
    clock.advance(5)
    assert (clock.since_boot(), clock.monotonic() - began) == (5, 65)
    clock.synchronise()
    assert clock.synchronised()
