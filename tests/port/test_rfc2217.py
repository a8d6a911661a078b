"""Modem lines, which ptys don't have: what a server is told when we open, reset and close."""

import socket
import threading
import time

import pytest

from espmon.app.listener import download_sequence, reset_sequence
from espmon.errors import PortGone, PortNotFound
from espmon.port import SerialPort, run_steps
from tests.fakes.rfc2217_board import Rfc2217Board

# pyserial 3.5 still calls Thread.setDaemon
pytestmark = pytest.mark.filterwarnings("ignore:setDaemon:DeprecationWarning", "ignore:setName:DeprecationWarning")


@pytest.fixture
def board():
    board = Rfc2217Board()
    yield board
    board.close()


@pytest.fixture
def port(board):
    port = SerialPort(board.url, 115200)
    port.open()
    yield port
    port.dispose()


def read_all(port, count):
    got = b""
    limit = time.monotonic() + 20
    while len(got) < count and time.monotonic() < limit:
        got += port.read(0.5)
    return got


def test_opening_asserts_nothing_and_releases_rts_first(board, port):
    """With DTR released first, RTS alone would be asserted for 50 ms: that is a reset."""
    assert board.line.lines == [("rts", False), ("dtr", False)]
    assert board.line.baudrate == 115200
    assert ("purge", "in") not in board.line.told


def test_closing_moves_no_line(board):
    port = SerialPort(board.url)
    port.open()
    before = list(board.line.lines)
    port.dispose()
    assert board.line.lines == before


def test_bytes_survive_both_ways(board, port):
    everything = bytes(range(256)) * 8
    board.say(everything)
    assert read_all(port, len(everything)) == everything
    port.write(everything)
    limit = time.monotonic() + 20
    while bytes(board.line.heard) != everything and time.monotonic() < limit:
        time.sleep(0.01)
    assert bytes(board.line.heard) == everything


def test_a_reset_is_what_was_asked_for(board, port):
    board.line.told.clear()
    run_steps(port, reset_sequence(port).run())
    assert board.line.lines == [("dtr", False), ("rts", True), ("rts", False)]


def test_download_mode(board, port):
    board.line.told.clear()
    run_steps(port, download_sequence(port).run())
    changes = [("dtr", False), ("rts", True), ("dtr", True), ("rts", False), ("dtr", False)]
    assert board.line.lines == changes


def test_the_rate_is_sent(board, port):
    port.set_baud(74880)
    assert board.line.baudrate == 74880


def test_a_server_that_hangs_up_is_a_port_that_is_gone(board, port):
    board.hang_up()
    with pytest.raises(PortGone):
        for_ever(port)


def for_ever(port):
    while True:
        port.read(0.1)


def test_a_wake_ends_a_read(board, port):
    threading.Timer(0.05, port.wake).start()
    begun = time.monotonic()
    assert port.read(20) == b""
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("url", "says"),
    [("rfc2217://", "names no host and port"), ("socket://localhost", "names no host and port"), ("sim://nosuch", "no chip")],
)
def test_urls_that_cannot_be_are_told_without_python_words(url, says):
    with pytest.raises(PortNotFound) as told:
        SerialPort(url).open()
    assert says in told.value.message
    assert "NoneType" not in told.value.message


def test_a_server_that_speaks_another_language():
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(PortNotFound) as told:
        SerialPort(f"rfc2217://127.0.0.1:{server.getsockname()[1]}").open()
    assert "RFC 2217" in told.value.message
    assert "socket://" in (told.value.hint or "")


def test_both_lines_travel_in_one_piece(board, port):
    """A wait for the answer to the first would let a board leave reset before its boot pin is low."""
    sent = []
    raw_write = port._serial._internal_raw_write
    port._serial._internal_raw_write = lambda content: (sent.append(content), raw_write(content))
    board.line.told.clear()
    assert port.set_lines(True, False)
    assert len(sent) == 1
    assert board.line.lines == [("rts", False), ("dtr", True)]
    port.set_lines(rts=True)  # pyserial's own bookkeeping still fits
    assert board.line.lines[-1] == ("rts", True)
