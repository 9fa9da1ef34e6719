"""`edgeq doctor` and the machine: disk, clock, memory, heat, as the files of a machine made for the test say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.doctors import Patient, states

from edgeq.config.schema import Retention
from edgeq.doctor import clocks, disk, machine
from edgeq.testing import FakeClock
from edgeq.units import Size

PI = "24 1 179:2 / / rw,noatime shared:1 - ext4 /dev/mmcblk0p2 rw\n"


@pytest.fixture
def patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Patient:
    monkeypatch.chdir(tmp_path)
    return Patient(tmp_path)


def mounted(patient: Patient, kind: str, options: str = "rw,noatime", device: str = "179:2") -> None:
    """Have the database on a file system of this kind, on the second partition of an SD card."""
    patient.put("proc/self/mountinfo", PI + f"30 24 {device} / {patient.folder} {options} - {kind} /dev/mmcblk0p2 rw\n")
    card = patient.root / "sys/devices/soc/mmc0/block/mmcblk0/mmcblk0p2"
    card.mkdir(parents=True, exist_ok=True)
    link = patient.root / "sys/dev/block/179:2"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(card)


# The disk


@pytest.mark.parametrize(
    ("kind", "state", "said"),
    [
        ("ext4", "ok", "(ext4, on an SD card or eMMC)"),
        ("tmpfs", "bad", "the database is in memory"),
        ("overlay", "bad", "the next boot forgets it"),
        ("nfs4", "bad", "SQLite's locks"),
        ("9p", "bad", "SQLite's locks"),
    ],
)
def test_the_kind_of_file_system(patient: Patient, kind: str, state: str, said: str) -> None:
    mounted(patient, kind)
    assert states(patient.found(disk.file_system)) == [state]
    assert said in patient.told(disk.file_system)


@pytest.mark.parametrize(
    ("options", "state", "said"),
    [
        ("rw,noatime", [], ""),
        ("rw,relatime", [], ""),
        ("rw", ["warn"], "add noatime"),
        ("ro,noatime", ["bad"], "mount -o remount,rw"),
        ("rw,noatime,nobarrier", ["bad"], "without barriers"),
    ],
)
def test_how_the_file_system_is_mounted(patient: Patient, options: str, state: list[str], said: str) -> None:
    mounted(patient, "ext4", options)
    assert states(patient.found(disk.options)) == state
    assert said in patient.told(disk.options)


def test_what_is_mounted_last_on_a_place_counts_and_names_may_have_spaces(patient: Patient, tmp_path: Path) -> None:
    line = "30 24 0:40 / {} rw,noatime - {} none rw\n"
    lines = [PI, line.format(tmp_path, "ext4"), line.format(tmp_path, "tmpfs"), "nonsense\n"]
    patient.put("proc/self/mountinfo", "".join(lines))
    assert states(patient.found(disk.file_system)) == ["bad"]
    (mount,) = disk.mounts(line.format("/my\\040disk", "ext4"))
    assert mount.place == "/my disk"


def test_errors_of_the_card(patient: Patient) -> None:
    mounted(patient, "ext4")
    assert states(patient.found(disk.errors)) == ["unknown"]
    patient.put("sys/fs/ext4/mmcblk0p2/errors_count", "0\n")
    assert states(patient.found(disk.errors)) == ["ok"]
    patient.put("sys/fs/ext4/mmcblk0p2/errors_count", "3\n")
    assert "bad: the file system of" in patient.told(disk.errors)
    assert "has had 3 errors" in patient.told(disk.errors)


def test_room_on_the_disk_is_compared_with_what_the_configuration_allows(tmp_path: Path) -> None:
    there = os.statvfs(tmp_path)
    free = there.f_bavail * there.f_frsize
    patient = Patient(tmp_path, f"store: {{retention: {{max_size: 4MiB, min_free_disk: {Size(2**20)}}}}}\n")
    assert set(states(patient.found(disk.space))) <= {"ok", "bad"}, "of a disk that is really full nobody knows here"
    patient.configure(f"store: {{retention: {{max_size: {free * 2}}}}}\n")
    assert "warn: the database may grow to" in patient.told(disk.space)
    patient.configure(f"store: {{retention: {{min_free_disk: {free * 2}}}}}\n")
    assert "the oldest events are deleted, read or not" in patient.told(disk.space)
    assert states(patient.found(disk.space)) == ["bad"]


def test_a_store_on_a_server_has_no_disk_here(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    patient = Patient(tmp_path, "store: {url: postgresql://localhost/x}\n")
    for look in (disk.space, disk.file_system, disk.options, disk.errors):
        assert patient.found(look) == []


def test_the_defaults_leave_more_than_the_least(patient: Patient) -> None:
    assert Retention().min_free_disk > disk.FREE_BYTES_MIN


# The clock


class Clocks(FakeClock):
    """A clock that says of itself whether it is right."""

    right: bool | None = True

    def synchronised(self) -> bool | None:
        """See Clock."""
        return self.right


@pytest.mark.parametrize(("right", "state"), [(True, "ok"), (False, "warn"), (None, "unknown")])
def test_whether_the_clock_is_right(patient: Patient, right: bool | None, state: str) -> None:
    clock = Clocks()
    clock.right = right
    patient.clock = clock
    assert states(patient.found(clocks.synchronised)) == [state]


def test_a_clock_of_the_past_is_wrong_whatever_it_says(patient: Patient) -> None:
    patient.clock = Clocks(1_000_000)
    assert "bad: the clock says 1970-01-01T00:00:01" in patient.told(clocks.synchronised)


def test_a_machine_without_a_clock_that_runs_on(patient: Patient) -> None:
    assert "add an RTC module" in patient.told(clocks.kept)
    patient.put("sys/class/rtc/rtc0/name", "ds1307\n")
    assert states(patient.found(clocks.kept)) == ["ok"]


# Memory, heat, load


def test_memory(patient: Patient) -> None:
    assert states(patient.found(machine.memory)) == ["unknown"]
    lines = "MemTotal: 500000 kB\nMemAvailable: {} kB\nSwapTotal: 200000 kB\nSwapFree: {} kB\n"
    patient.put("proc/meminfo", lines.format(300_000, 200_000))
    assert states(patient.found(machine.memory)) == ["ok"]
    patient.put("proc/meminfo", lines.format(30_000, 100_000))
    patient.put("proc/swaps", "Filename Type Size Used Priority\n/var/swap file 200000 100000 -2\n")
    told = patient.told(machine.memory)
    assert "warn: only 29.3MiB of memory are free" in told
    assert "are swapped out to /var/swap | that wears the card" in told


@pytest.mark.parametrize(
    ("bits", "said"),
    [
        ("0", ""),
        ("1", "the power supply is too weak, now"),
        ("50000", "the power supply was too weak at times since the boot"),
        ("4", "the processor is slowed down, now"),
        ("80000", "the processor was slowed down at times"),
        ("nonsense", ""),
    ],
)
def test_what_the_firmware_of_a_pi_says(patient: Patient, bits: str, said: str) -> None:
    patient.put("sys/devices/platform/soc/soc:firmware/get_throttled", f"{bits}\n")
    told = patient.told(machine.heat)
    assert said in told
    assert bool(told) == bool(said)


def test_heat(patient: Patient) -> None:
    patient.put("sys/class/thermal/thermal_zone0/temp", "45123\n")
    patient.put("sys/class/thermal/thermal_zone1/temp", "not a number\n")
    assert patient.told(machine.heat) == "ok: 45 °C |  | "
    patient.put("sys/class/thermal/thermal_zone1/temp", "83000\n")
    assert states(patient.found(machine.heat)) == ["warn"]


def test_load(patient: Patient) -> None:
    patient.put("proc/loadavg", "0.01 0.02 0.00 1/100 1234\n")
    assert states(patient.found(machine.load)) == ["ok"]
    patient.put("proc/loadavg", "0.01 9999.00 0.00 1/100 1234\n")
    assert states(patient.found(machine.load)) == ["warn"]
