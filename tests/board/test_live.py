"""The board on a clock that the test turns, and its flash in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from espmon.board.image import read_image
from espmon.board.live import LiveBoard, new_flash, open_flash, small_image
from espmon.board.nor import NorFlash
from espmon.board.settings import BoardSettings
from espmon.board.silicon import SILICON
from espmon.errors import InputUnreadable

SMALL = 1 << 16


class Clock:
    """A wall clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("speed", "patience", "lived"), [(1.0, 0.0, 10.0), (20.0, 0.0, 200.0), (1.0, 0.05, 0.05), (2.0, 0.05, 0.1)]
)
def test_clock(speed: float, patience: float, lived: float) -> None:
    clock = Clock()
    live = LiveBoard(BoardSettings(app="silent", speed=speed, patience=patience), clock=clock)
    clock.now += 10
    live.catch_up()
    assert live.board.now == pytest.approx(lived)


def test_flash_file_is_made_grown_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "flash.bin"
    settings = BoardSettings(flash_size=SMALL)
    cells = open_flash(path, settings)
    assert path.read_bytes() == b"\xff" * SMALL
    NorFlash(cells).program(0x1234, b"kept")
    assert path.read_bytes()[0x1234:0x1238] == b"kept"
    path = tmp_path / "short.bin"
    path.write_bytes(b"short")
    open_flash(path, settings)
    assert path.read_bytes() == b"short".ljust(SMALL, b"\xff")


def test_flash_file_that_cannot_be_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputUnreadable) as told:
        open_flash(tmp_path / "no" / "such.bin", BoardSettings(flash_size=SMALL))
    assert told.value.hint


@pytest.mark.parametrize("chip", SILICON)
def test_new_flash_boots(chip: str) -> None:
    settings = BoardSettings(chip=chip)
    assert read_image(NorFlash(new_flash(settings)), SILICON[chip]).fault is None
    assert small_image(chip)[0] == 0xE9


def test_mmap_and_bytearray_are_the_same_flash(tmp_path: Path) -> None:
    settings = BoardSettings(flash_size=SMALL)
    path = tmp_path / "flash.bin"
    mapped, plain = NorFlash(open_flash(path, settings)), NorFlash(bytearray(b"\xff") * SMALL)
    for flash in (mapped, plain):
        flash.program(0xFF0, bytes(range(32)))
        flash.program(0xFFE, b"\x0f\x0f")  # bits only go to 0, and pages may be crossed
        flash.erase_sector(0x1001)
        flash.program(SMALL - 2, b"wrap")
    assert path.read_bytes() == bytes(plain.cells[:])
    assert plain.read(0, 2) == b"ap"
    assert plain.read(0xFFE, 2) == bytes([0x0E & 0x0F, 0x0F])
