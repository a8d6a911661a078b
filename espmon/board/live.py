"""The virtual board on the wall clock: flash file, time, and the demo firmware from the package.

There is no thread: the board catches up with the wall clock whenever somebody looks at it. One lock lets a reader and a
writer share it.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

from espmon.board.board import Board
from espmon.board.demo import crash_logs, demo_image
from espmon.board.idf import NAME, Partition, partition_table
from espmon.board.nor import Cells
from espmon.board.settings import BoardSettings
from espmon.board.silicon import SILICON
from espmon.errors import InputUnreadable

SLICE = 0.02  # seconds of wall time after which a waiting reader looks again, when nothing is announced


def small_image(
    chip: str, text: bytes = b"espmon virtual board\0", *, digest: bool = False, size_code: int | None = None
) -> bytes:
    """A valid image for `chip` that holds `text` (a multiple of 4 is made of it) as its one segment.

    `digest`: with the SHA-256 that ESP-IDF appends (ESP32 family). `size_code`: the header's nibble for the flash size;
    4 MiB without.
    """
    silicon = SILICON[chip]
    content = text + b"\0" * (-len(text) % 4)
    address = silicon.chip.code_ranges[1][0]
    if size_code is None:
        size_code = 2 if silicon.chip.image_chip_id is not None else 4
    out = struct.pack("<BBBBI", 0xE9, 1, 2, size_code << 4, address)
    if silicon.chip.image_chip_id is not None:
        out += struct.pack("<B3xHB2H4xB", 0xEE, silicon.chip.image_chip_id, 0, 0, 0xFFFF, digest)
    out += struct.pack("<II", address, len(content)) + content
    check = 0xEF
    for byte in content:
        check ^= byte
    out += b"\0" * (15 - len(out) % 16) + bytes([check])
    return out + hashlib.sha256(out).digest() if digest and silicon.chip.image_chip_id is not None else out


def idf_pieces(chip: str, slot_size: int = 0x60000) -> list[tuple[int, bytes]]:
    """(offset, bytes) of what an ESP-IDF project flashes to an ESP32-family `chip`: boot loader, partition table, application."""
    noise = random.Random(chip)
    code = bytes(noise.choices(range(256), k=22_000))  # a few sectors each, so that one may be damaged and not another
    table = [
        Partition(kind=1, subtype=2, offset=0x9000, size=0x4000, label="nvs"),
        Partition(kind=1, subtype=0, offset=0xD000, size=0x2000, label="otadata"),
        Partition(kind=1, subtype=1, offset=0xF000, size=0x1000, label="phy_init"),
        Partition(kind=0, subtype=0x10, offset=0x10000, size=slot_size, label="ota_0"),
        Partition(kind=0, subtype=0x11, offset=0x10000 + slot_size, size=slot_size, label="ota_1"),
    ]
    return [
        (
            SILICON[chip].chip.boot_offset,
            small_image(chip, b"ESP-IDF v5.1.2 " + NAME + b"\0" + code[:15_000], digest=True, size_code=0),  # 1 MiB: fits all
        ),
        (0x8000, partition_table(table)),
        (0x10000, small_image(chip, b"espmon virtual application\0" + code, digest=True, size_code=0)),
    ]


def new_flash(settings: BoardSettings) -> bytearray:
    """The content of a flash as the settings say: FF everywhere, or the chip's demo image in place."""
    cells = bytearray(b"\xff") * settings.flash_size
    if settings.image == "idf" and settings.chip != "esp8266":
        for offset, content in idf_pieces(settings.chip):
            cells[offset : offset + len(content)] = content
    elif settings.image != "blank":
        offset = SILICON[settings.chip].chip.boot_offset
        image = demo_image() if settings.chip == "esp8266" else small_image(settings.chip)
        cells[offset : offset + len(image)] = image
        if settings.chip == "esp8266":
            cells[-0x4000] = 0x05  # RF data
    return cells


def open_flash(path: Path, settings: BoardSettings) -> Cells:
    """Map the flash image `path` (made blank when missing; grown with FF when shorter than the flash).

    Every change is in the file at once. Raises InputUnreadable.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if size < settings.flash_size:
                os.lseek(descriptor, size, os.SEEK_SET)
                os.write(descriptor, b"\xff" * (settings.flash_size - size))
            return mmap.mmap(descriptor, settings.flash_size)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise InputUnreadable(
            f"{path}: {error.strerror if isinstance(error, OSError) else error}", "name a file that can be written"
        ) from error


class LiveBoard:
    """A :class:`Board` that follows the wall clock, `settings.speed` times as fast."""

    def __init__(
        self, settings: BoardSettings, cells: Cells | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings = settings
        self.board = Board(settings, new_flash(settings) if cells is None else cells, logs=crash_logs())
        self.changed = threading.Condition()
        self._clock = clock
        self._looked = clock()
        self._lived = 0.0  # seconds of the board

    def catch_up(self) -> None:
        """Let the board live until now. Hold `changed` while calling.

        With `patience` set, a host that is held up does not lose what the board says meanwhile: the board waits for it.
        """
        now = self._clock()
        gone, self._looked = now - self._looked, now
        if self.settings.patience:
            gone = min(gone, self.settings.patience)
        self._lived += gone * self.settings.speed
        self.board.advance(self._lived)

    def wait(self, seconds: float) -> None:
        """Sleep until the board may have something new, at most `seconds` of wall time. Hold `changed`."""
        at = self.board.next_event()
        if at is not None:
            until = (at - self.board.now) / self.settings.speed
            seconds = min(seconds, max(until, 0.0005))
        if self.settings.patience:
            seconds = min(seconds, self.settings.patience / 2)
        if seconds > 0:
            self.changed.wait(seconds)
