"""The demo firmware: what is committed is what the source builds, and its dumps are what it really prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from espmon.board.demo import CRASHES, crash_logs, demo_elf, demo_image
from espmon.board.image import read_image
from espmon.board.nor import NorFlash
from espmon.board.silicon import SILICON
from tests.board import demo_firmware


def steady(log: bytes) -> bytes:
    """The watchdog strikes anywhere in a loop of a few instructions: its epc1 is not compared."""
    return re.sub(rb"(Exception \(4\):\r\nepc1=)0x[0-9a-f]{8}", rb"\1*", log)


@pytest.mark.peer
def test_source_builds_the_committed_elf(tmp_path: Path) -> None:
    missing = demo_firmware.missing_tools()
    if missing:
        pytest.skip(f"{missing} is not installed")
    if demo_firmware.compiler_version() != demo_firmware.COMPILER:
        pytest.skip(
            f"gcc {demo_firmware.compiler_version()} is not {demo_firmware.COMPILER}, with which the ELF was made"
        )
    elf = demo_firmware.build(tmp_path)
    assert elf.read_bytes() == demo_elf().read_bytes()
    assert demo_firmware.flash_image(elf) == demo_image()


@pytest.mark.peer
@pytest.mark.parametrize("crash", CRASHES)
def test_dump_is_what_the_elf_prints(crash: str) -> None:
    missing = demo_firmware.missing_tools()
    if missing:
        pytest.skip(f"{missing} is not installed")
    assert steady(demo_firmware.run(demo_elf(), crash)) == steady(crash_logs()[crash])


def test_committed_image_boots() -> None:
    image = read_image(NorFlash(bytearray(demo_image().ljust(1 << 20, b"\xff"))), SILICON["esp8266"])
    assert image.fault is None
    assert image.entry == 0x40100114 or image.entry in range(0x40100000, 0x40101000)


@pytest.mark.parametrize("crash", CRASHES)
def test_dump_has_the_exception_it_is_named_for(crash: str) -> None:
    number = {"load": 28, "store": 29, "illegal": 0, "divide": 6, "watchdog": 4, "memory": None}[crash]
    text = crash_logs()[crash].decode()
    found = re.search(r"Exception \((\d+)\):", text)
    assert (int(found[1]) if found else None) == number
    assert ">>>stack>>>" in text
    assert "<<<stack<<<" in text
