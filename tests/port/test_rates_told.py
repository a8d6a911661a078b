"""A rate that the adapter refuses or rounds is told, and the port keeps the one that holds."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from espmon.errors import PortNotFound, PortProblem
from espmon.port import SerialPort


def test_a_rounded_rate_is_told() -> None:
    port = SerialPort("sim://esp8266?round_rates=1", 250_000)
    port.open()
    try:
        assert port.rate.asked == 250_000
        assert port.rate.got == 230_400
        assert port.set_baud(115_200).off_by == 0.0
    finally:
        port.dispose()


def test_a_refused_rate_leaves_the_port_as_it_was() -> None:
    port = SerialPort("sim://esp8266?refuse_above=500000", 115_200)
    port.open()
    try:
        with pytest.raises(PortProblem, match="refuses 1000000 baud"):
            port.set_baud(1_000_000)
        assert port.is_open
        assert port.baud == 115_200
        assert port.rate.got == 115_200
        assert port.set_baud(57_600).got == 57_600
    finally:
        port.dispose()


@pytest.mark.parametrize(("options", "counts"), [("counts_errors=1", True), ("", False)])
def test_damaged_bytes_are_counted_where_the_adapter_does(options: str, counts: bool) -> None:
    port = SerialPort(f"sim://esp8266?speed=50&{options}", 38_400)
    assert port.damaged() is None, "it is not open"
    port.open()
    try:
        before = port.damaged()
        assert before == (0 if counts else None)
        deadline = time.monotonic() + 20
        heard = 0
        while heard < 200 and time.monotonic() < deadline:  # a boot ROM at 74880 and an application at 115200
            heard += len(port.read(0.1))
        after = port.damaged()
        assert heard >= 200
        assert after is None if not counts else after is not None and after > 20
    finally:
        port.dispose()


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo terminals")
def test_a_pseudo_terminal_counts_no_damaged_bytes() -> None:
    import os

    master, slave = os.openpty()
    port = SerialPort(os.ttyname(slave), 115_200)
    port.open()
    try:
        assert port.damaged() is None
    finally:
        port.dispose()
        os.close(slave)
        os.close(master)


def test_a_rate_refused_at_opening_is_not_called_a_missing_port() -> None:
    port = SerialPort("sim://esp8266?refuse_above=500000", 1_000_000)
    with pytest.raises(PortProblem, match="1000000 baud") as caught:
        port.open()
    assert not isinstance(caught.value, PortNotFound)


@pytest.mark.skipif(sys.platform == "win32", reason="ptys are POSIX")
def test_a_tty_that_refuses_a_special_rate_is_no_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    import serial.serialposix as posix

    master, slave = os.openpty()

    def refuses(self: object, rate: int) -> None:
        # what pyserial makes of EINVAL from TCSETS2
        raise ValueError(f"Failed to set custom baud rate ({rate}): [Errno 22] Invalid argument")

    monkeypatch.setattr(posix.PlatformSpecific, "_set_special_baudrate", refuses)
    port = SerialPort(os.ttyname(slave), 74_880)
    try:
        with pytest.raises(PortProblem, match="refuses 74880 baud"):
            port.open()
        assert not port.is_open
    finally:
        port.dispose()
        os.close(master)
        os.close(slave)
