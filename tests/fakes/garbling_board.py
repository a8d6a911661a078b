"""A board on a pseudo terminal whose line is physical: what it sends arrives as the rate that the program has set receives it.

Linux only (the rate is read back as a number). Real time: for whole programs.
"""

from __future__ import annotations

import array
import fcntl
import os
import select
import struct
import threading
import time
from collections.abc import Iterable

from espmon.board.line import ReceiverShape, Wire
from tests.fakes.watched_pty import PtyBoard

_TCGETS2 = 0x802C542A  # Linux: struct termios2 with the rates as numbers
_STEP_S = 0.016  # what USB adapters gather


class GarblingBoard(PtyBoard):
    """Sends `parts` (data, baud, seconds of silence afterwards), from :meth:`begin` on."""

    def __init__(self, parts: Iterable[tuple[bytes, float, float]], shape: ReceiverShape) -> None:
        super().__init__()
        self._parts = iter(parts)
        self._wire = Wire(shape)
        #: what the program wrote to the board
        self.written = b""
        #: (seconds since the beginning, rate) of each rate that the program set
        self.rates: list[tuple[float, int]] = []
        self.done = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._talk, daemon=True)
        self.begun = 0.0

    def begin(self) -> None:
        self.begun = time.monotonic()
        self._thread.start()

    def rate(self) -> int:
        termios2 = array.array("B", bytes(44))
        fcntl.ioctl(self.master, _TCGETS2, termios2)
        return int(struct.unpack_from("<I", termios2, 40)[0])

    def _talk(self) -> None:
        sent_until = 0.0
        while not self._stop.is_set():
            now = time.monotonic() - self.begun
            rate = self.rate()
            if not self.rates or self.rates[-1][1] != rate:
                self.rates.append((now, rate))
            while sent_until <= now:
                part = next(self._parts, None)
                if part is None:
                    self.done.set()
                    break
                data, baud, pause = part
                sent_until = max(self._wire.send(sent_until, baud, data), sent_until) + pause
            if heard := self._wire.receive(now, rate):
                self.say(heard)
            if select.select([self.master], [], [], 0)[0]:
                self.written += os.read(self.master, 4096)
            time.sleep(_STEP_S)

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5)
        self.unplug()
