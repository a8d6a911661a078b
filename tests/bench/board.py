"""The virtual board's own cost: the wire bit by bit against its short cut, and a crash-looping board for 1,000 boots."""

from __future__ import annotations

import random
import statistics
import time

from espmon.board.board import Board
from espmon.board.demo import crash_logs
from espmon.board.line import ReceiverShape, Wire
from espmon.board.live import new_flash
from espmon.board.settings import settings_from
from tests.bench.rows import Row

BYTES = 50_000
BOOTS = 1000


def seconds_for(sent: float, received: float, *, exact: bool) -> float:
    """CPU seconds to carry BYTES random bytes."""
    payload = random.Random(1).randbytes(BYTES)
    wire, now = Wire(ReceiverShape(), exact=exact), 0.0
    start = time.process_time()
    for at in range(0, BYTES, 1000):
        now = wire.send(now, sent, payload[at : at + 1000])
        wire.receive(now, received)
    return time.process_time() - start


def boots(rate: int) -> tuple[float, float]:
    """(CPU seconds, seconds of the board) for BOOTS boots heard at `rate`."""
    settings = settings_from([("crash", "load"), ("pace", "0.1"), ("flash_size", "512k")])
    board = Board(settings, new_flash(settings), logs=crash_logs())
    board.set_rate(rate)
    start = time.process_time()
    while board.machine.boots < BOOTS:
        board.advance(board.now + 0.05)
        board.host_read()
    return time.process_time() - start, board.now


def run() -> list[Row]:
    rows = []
    short = statistics.median(seconds_for(115200, 115200, exact=False) for _ in range(5))
    for name, sent, received in (
        ("115200 heard at 115200, every bit", 115200, 115200),
        ("74880 heard at 115200", 74928, 115200),
        ("115200 heard at 74880", 115200, 74880),
        ("115200 heard at 921600", 115200, 921600),
    ):
        spent = statistics.median(seconds_for(sent, received, exact=True) for _ in range(5))
        rows.append(Row(name, BYTES / spent / 1000, "kB/s", spent / max(short, 1e-6), "the short cut"))
    for rate in (115200, 74880):
        spent, lived = boots(rate)
        rows.append(Row(f"{BOOTS} crashing boots heard at {rate}", spent, "s CPU", spent / lived, "the board's own time"))
    return rows
