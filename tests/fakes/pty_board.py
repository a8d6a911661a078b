"""``python -m tests.fakes.pty_board CHIP FLASH [PARAMETER=VALUE ...]``: a virtual board on a pseudo terminal, waiting in download mode.

A pty has no modem lines, and its writer is not slowed to any rate; the rate that the client sets is read back from it.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import struct
import sys
import tty
from pathlib import Path

from espmon.board.live import LiveBoard, open_flash
from espmon.board.settings import BoardSettings, settings_from

_TCGETS2 = 0x802C542A  # Linux: struct termios2 with the rates as numbers


def main(chip: str, flash: str, *pairs: str) -> None:
    """Serve until killed."""
    named = [(name, value) for name, _, value in (pair.partition("=") for pair in pairs)]
    settings = settings_from(named, BoardSettings(chip=chip, boot_low=True))
    live = LiveBoard(settings, open_flash(Path(flash), settings))
    # A program that waits for some earlier pty to come back would open the first free number: leave a few to it.
    spare = [os.openpty() for _ in range(8)]
    master, slave = spare.pop()
    tty.setraw(slave)
    os.set_blocking(master, False)
    print(os.ttyname(slave), flush=True)
    rate = 0
    waiting = b""
    while True:
        readable, _, _ = select.select([master], [master] if waiting else [], [], 0.001)
        termios2 = array.array("B", bytes(44))
        fcntl.ioctl(master, _TCGETS2, termios2)
        (now,) = struct.unpack_from("<I", termios2, 40)
        with live.changed:
            live.catch_up()
            if now and now != rate:
                rate = now
                live.board.set_rate(rate)
            if readable:
                live.board.host_write(os.read(master, 65536))
            waiting += live.board.host_read()
        if waiting:
            with contextlib.suppress(BlockingIOError):
                waiting = waiting[os.write(master, waiting) :]


if __name__ == "__main__":
    main(*sys.argv[1:])
