"""The doctor on ports that cannot be used, and what it tells of those that can."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from espmon.app.doctor import ACTIVE_STEPS, describe, examine
from espmon.app.flashing import FlashOptions, LinkMemory
from espmon.bootloader.diagnosis import Evidence, RateQuality


def test_a_missing_port(tmp_path: Path) -> None:
    found = examine(str(tmp_path / "ttyUSB9"), active=True, memory=LinkMemory())
    assert not found.measured
    assert [f.code for f in found.findings] == ["port-missing"]


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo terminals on Windows")
def test_a_held_port_names_its_holder() -> None:
    import fcntl

    master, slave = os.openpty()
    name = os.ttyname(slave)
    fcntl.flock(slave, fcntl.LOCK_EX)
    try:
        found = examine(name, active=False, memory=LinkMemory())
    finally:
        os.close(slave)
        os.close(master)
    assert not found.measured
    assert found.findings[0].code == "port-busy"


def test_a_url_that_nobody_serves() -> None:
    found = examine("socket://127.0.0.1:9", active=False, memory=LinkMemory())
    assert not found.measured
    assert found.findings


def test_without_active_everything_that_was_left_out_is_listed() -> None:
    found = examine("sim://esp8266?speed=3", active=False, memory=LinkMemory(), seconds=1.0)
    assert found.measured
    assert found.left_out == ACTIVE_STEPS
    assert found.findings[0].code == "alive"


def test_a_board_in_its_loader_already() -> None:
    options = FlashOptions(before="none", flash_baud=115200)
    found = examine("sim://esp32?boot_low=1&speed=3", active=True, options=options, memory=LinkMemory(), seconds=0.5)
    assert found.evidence.sync == "rom"
    assert any("answers (esp32)" in fact for fact in found.facts)


def test_every_measurement_becomes_a_sentence() -> None:
    text = "\n".join(
        describe(
            Evidence(
                idle_bytes=5,
                unreadable=True,
                reset_bytes=0,
                download_bytes=3,
                echoed=True,
                stuck_bit=3,
                sync="stub",
                chip="esp32",
                secure="boot",
                flash_id=0x1640EF,
                flash_size=4 << 20,
                aliased=True,
                image_fault="cut off",
                rates=(RateQuality(115200, 24, 20, 2),),
                stalled=True,
                failure="gave-up",
            )
        )
    )
    for part in ("no text at any usual rate", "nothing happened", "came back", "bit 3", "by a stub", "security: boot",
                 "contents repeat", "cut off", "20 of 24 exchanges, 2 damaged", "takes no bytes", "gave-up"):  # fmt: skip
        assert part in text
