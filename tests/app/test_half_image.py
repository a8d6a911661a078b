"""An interrupted write never boots half an image: asked of the ROM's own checks after every few bytes that flash took."""

from __future__ import annotations

from pathlib import Path

import pytest

from espmon.board.image import read_image
from espmon.board.live import small_image
from espmon.board.nor import NorFlash
from tests.app.recovery_rig import Bench, good_pieces

# Its one-byte checksum cannot tell any end that is missing: four bytes of it, like four of blank flash, make zero.
UNSEEN = b"\xaa\xaa\x55\x55" * 2500
STEP = 4  # bytes that a flash chip can be trusted to program together


class Witness:
    """Notes every change of a flash, to go through them once more."""

    def __init__(self, flash: NorFlash) -> None:
        self.changes: list[tuple[int, bytes | None, int]] = []  # address, what is programmed (None: erased), length
        program, erase = flash.program, flash._erase

        def watched_program(address: int, content: bytes) -> float:
            self.changes.append((address, bytes(content), len(content)))
            return program(address, content)

        def watched_erase(address: int, length: int, seconds: float) -> float:
            self.changes.append((address - address % length, None, length))
            return erase(address, length, seconds)

        flash.program = watched_program  # type: ignore[method-assign]
        flash._erase = watched_erase  # type: ignore[method-assign]

    def moments(self, cells: bytearray, near: range) -> list[bytes]:
        """The flash after each change; after each few bytes where `near` is programmed."""
        out = []
        flash = NorFlash(cells)
        for address, content, length in self.changes:
            if content is None:
                flash._erase(address, length, 0.0)
                out.append(bytes(cells))
                continue
            step = STEP if address < near.stop and address + length > near.start else length
            for at in range(0, length, step):
                flash.program(address + at, content[at : at + step])
                out.append(bytes(cells))
        return out



@pytest.mark.parametrize(
    ("chip", "settings"),
    [("esp8266", ""), ("esp32", "stub=silent"), ("esp32c3", "stub=silent")],  # espmon's own stub; the ROM alone
)
def test_no_moment_of_a_repair_leaves_an_image_that_starts_and_is_not_whole(tmp_path: Path, chip: str, settings: str) -> None:
    boot = good_pieces(chip)[0][0]
    pieces = [(boot, small_image(chip, UNSEEN, size_code=2 if chip == "esp8266" else 0)), *good_pieces(chip)[1:]]
    cells = bytearray(b"\xff" * (1 << 20))
    for offset, content in pieces:
        cells[offset : offset + len(content)] = content
    cells[boot + 0x24 : boot + 0x28] = b"\0\0\0\x01"  # its checksum is wrong: it loops
    start = bytearray(cells)
    bench = Bench(tmp_path, f"chip={chip}&{settings}" if settings else f"chip={chip}", cells=cells, pieces=pieces)
    witness = Witness(bench.board.flash)
    bench.recover(timeout_s=200.0)
    assert bench.repaired, bench.reasons()
    whole = pieces[0][1]
    moments = witness.moments(bytearray(start), range(boot, boot + 0x1000))
    assert len(moments) > 0x1000 // STEP
    for number, moment in enumerate(moments):
        if moment[boot : boot + 4] != b"\xff" * 4 and moment[boot : boot + len(whole)] != whole and moment[boot:] != start[boot:]:
            fault = read_image(NorFlash(bytearray(moment)), bench.board.silicon).fault
            assert fault is not None, f"after change {number} of {len(moments)} half an image would start"
    assert witness.changes
    assert read_image(NorFlash(bytearray(moments[-1])), bench.board.silicon).fault is None
