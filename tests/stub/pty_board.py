"""The virtual board on a pseudo-terminal, for programs that want a device: no lines, but the rate is followed.

Linux only: the other end's rate is read with TCGETS2.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import struct
import threading
import time
import tty
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from espmon.board.live import LiveBoard
from espmon.board.settings import BoardSettings
from tests.stub.rig import Player

TCGETS2 = 0x802C542A


class PtyBoard(Player):
    """One board; `cells` is its flash."""

    def __init__(self, flash: bytes = b"", **settings: Any) -> None:
        self.cells = bytearray(flash.ljust(4 << 20, b"\xff"))
        self.live = LiveBoard(BoardSettings(chip="esp8266", **settings), self.cells)
        self.master, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(self.master, False)
        self.pty = Path(os.ttyname(slave))
        self.ending = False
        super().__init__(self.pty)
        os.close(slave)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.ending = True
        self.thread.join(5)
        self.port.close()
        os.close(self.master)

    def download(self) -> None:
        """Reset into download mode, as a finger on both buttons does."""
        with self.live.changed:
            for dtr, rts, seconds in ((False, True, 0.05), (True, False, 0.2), (False, False, 0.05)):
                self.live.catch_up()
                self.live.board.set_lines(dtr, rts)
                self.live.changed.wait(seconds)
        time.sleep(0.05)
        self.port.reset_input_buffer()

    def flash(self) -> bytes:
        """The flash's content."""
        return bytes(self.cells)

    def _serve(self) -> None:
        rate = 0
        out = b""
        while not self.ending:
            with self.live.changed:
                self.live.catch_up()
                event = self.live.board.next_event()
                wait = 0.02 if event is None else max(0.0, event - self.live.board.now)
                out += self.live.board.host_read()
            readable, _, _ = select.select([self.master], [self.master] if out else [], [], min(wait, 0.005))
            termios = array.array("B", bytes(44))
            fcntl.ioctl(self.master, TCGETS2, termios)
            now = struct.unpack_from("<I", termios, 40)[0]
            with self.live.changed:
                self.live.catch_up()
                if now and now != rate:
                    rate = now
                    self.live.board.set_rate(rate)
                if readable:
                    try:
                        self.live.board.host_write(os.read(self.master, 16384))
                    except OSError:
                        time.sleep(0.005)
            if out:
                with contextlib.suppress(BlockingIOError):
                    out = out[os.write(self.master, out[:4096]) :]
