"""`sim://` as pyserial sees it: boots, text, crashes, lines, and errors in plain words."""

from __future__ import annotations

import time

import pytest
import serial

from espmon.board.urls.protocol_sim import settings_of


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serial, "protocol_handler_packages", [*serial.protocol_handler_packages, "espmon.board.urls"])


def opened(url: str, baud: int = 115200) -> serial.SerialBase:
    port = serial.serial_for_url(url, do_not_open=True, timeout=0.05, baudrate=baud)
    port.dtr = port.rts = False
    port.open()
    return port


def read_until(port: serial.SerialBase, text: bytes, seconds: float = 20.0) -> bytes:
    out, end = b"", time.monotonic() + seconds
    while text not in out and time.monotonic() < end:
        out += port.read(4096)
    assert text in out, out[-300:]
    return out


def test_crash_at_the_application_rate() -> None:
    with opened("sim://esp8266?crash=load&speed=20") as port:
        out = read_until(port, b"<<<stack<<<")
    assert b"weather station 1.2.0" in out
    assert b"Exception (28)" in out
    assert b"ets Jan" not in out  # the ROM's banner is garbage at this rate


def test_banner_at_the_rom_rate() -> None:
    with opened("sim://esp8266?speed=5", 74880) as port:
        out = read_until(port, b"csum 0x")
    assert out.startswith(b"\r\n ets Jan  8 2013,rst cause:1, boot mode:(3,6)\r\n\r\nload 0x40100000, len ")


def test_lines_reset_like_a_nodemcu() -> None:
    with opened("sim://esp8266?app=silent", 74880) as port:
        read_until(port, b"rst cause:1, boot mode:(3,6)")
        port.rts = True
        time.sleep(0.05)
        port.rts = False
        read_until(port, b"rst cause:2, boot mode:(3,6)")
        port.rts = True
        time.sleep(0.05)
        port.dtr = True  # both: EN is released already
        port.rts = False
        read_until(port, b"rst cause:2, boot mode:(1,6)")


@pytest.mark.parametrize(
    "url", ["sim://esp9000", "sim://esp8266?crsh=load", "sim://esp8266?crash=maybe", "sim://esp8266?speed=fast"]
)
def test_bad_urls_are_told(url: str) -> None:
    with pytest.raises(serial.SerialException, match="virtual board"):
        opened(url)


def test_parameters_reach_the_board() -> None:
    settings, flash = settings_of("sim://esp32c3?flash-size=8M&lose=1%25&flash=/tmp/x.bin")
    assert (settings.chip, settings.flash_size, settings.lose) == ("esp32c3", 8 << 20, 0.01)
    assert str(flash).endswith("x.bin")


def test_two_boards_at_once() -> None:
    with opened("sim://esp8266?speed=20") as one, opened("sim://esp32c3?speed=20") as two:
        assert b"report 1" in read_until(one, b"report 1")
        assert b"esp32c3" in read_until(two, b"report 1")
