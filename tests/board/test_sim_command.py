"""`espmon sim` as a process: what it says, what it refuses, and that the flash file stays."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import serial

from tests.board.test_esptool import ROOT, server

pytestmark = pytest.mark.timeout(60)


def refused(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "espmon", "sim", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    return done.stderr


def test_mistakes_are_told() -> None:
    assert "esp8266" in refused("esp8366")
    assert "Faults:" in refused("esp8266", "--fault", "speed=3")
    assert "Similar: swapped" in refused("esp8266", "--set", "swaped")
    assert "HOST:PORT" in refused("esp8266", "--rfc2217", "here")


def test_list_names_every_parameter() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "espmon", "sim", "--list"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    for name in ("crash", "flash_claims", "gpio15_high", "check_start"):
        assert f"\n{name} " in "\n" + done.stdout


@pytest.mark.filterwarnings(r"ignore:set(Daemon|Name)\(\):DeprecationWarning")  # pyserial's RFC 2217 client
def test_serves_one_client_after_the_other_and_keeps_the_flash(tmp_path: Path) -> None:
    """Baud rate, DTR and RTS travel; a second client finds the board where the first one left it."""
    flash = tmp_path / "flash.bin"
    with server("esp8266", flash) as url:
        assert flash.stat().st_size == 4 << 20
        for wanted in (b"boot mode:(3,6)\r\n\r\nets_main.c", b"boot mode:(1,6)"):
            with serial.serial_for_url(url, baudrate=74880, timeout=0.2) as port:
                port.dtr = False
                port.rts = True
                port.dtr = b"(1," in wanted
                port.rts = False
                out, end = b"", time.monotonic() + 20
                while wanted not in out and time.monotonic() < end:
                    out += port.read(port.in_waiting or 1)
                assert wanted in out
    with flash.open("r+b") as image:
        image.seek(0x5000)
        image.write(b"kept")
    with server("esp8266", flash):
        pass
    assert flash.read_bytes()[0x5000:0x5004] == b"kept"
