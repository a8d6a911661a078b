"""The client with the virtual board's model of the stub, through the board's boot ROM, on the board's own clock."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest

from espmon.board.board import Board
from espmon.board.own_stub import plain, stuffed
from espmon.board.settings import BoardSettings
from espmon.bootloader.actions import Action, Discard, Note, Now, Receive, Send, SetBaud, SetLines, Wait
from espmon.bootloader.errors import LoaderProblem
from espmon.bootloader.loader import StubPayload
from espmon.bootloader.loaders import LOADERS
from espmon.bootloader.resets import HARD, SEQUENCES
from espmon.bootloader.session import Session, SessionPlan, read_mac
from espmon.bootloader.stub import rungs
from espmon.bootloader.stub.client import OwnStub
from espmon.bootloader.stub.errors import FlashProtected
from espmon.bootloader.stub.protocol import Frame, decode, encode
from espmon.bootloader.write import Region, write_regions
from tests.stub.interpreter import Interpreter
from tests.stub.sessions import some

BLANK = b"\xff"


class Bench(Interpreter):
    """A virtual board without a wall clock, and an interpreter of actions in front of it."""

    def __init__(self, flash: bytes = b"", **settings: Any) -> None:
        self.cells = bytearray(flash.ljust(4 << 20, BLANK))
        self.board = Board(BoardSettings(chip="esp8266", **settings), self.cells)
        self.now = 0.0
        self.notes: list[object] = []

    def _pass(self, until: float, *, stop: bool = False) -> None:
        while self.now < until and not (stop and self.board.host_waiting):
            event = self.board.next_event()
            self.now = until if event is None else min(until, max(event, self.now + 1e-6))
            self.board.advance(self.now)

    def perform(self, action: Action) -> Any:
        board = self.board
        match action:
            case Send(data):
                board.host_write(data)
            case Receive(timeout_s):
                self._pass(self.now + timeout_s, stop=True)
                return board.host_read()
            case Wait(seconds):
                self._pass(self.now + seconds)
            case Discard():
                return board.host_read()
            case Now():
                return self.now
            case SetBaud(rate):
                self._pass(max(self.now, board.sending_until))
                board.set_rate(rate)
            case SetLines(dtr, rts):
                board.set_lines(dtr, rts)
            case Note(fact):
                self.notes.append(fact)
            case _:
                raise AssertionError(action)
        return None


def plan(rate: int, **more: Any) -> SessionPlan:
    return SessionPlan(sequences=SEQUENCES["unix"], hard_reset=HARD, rate=rate, rungs=rungs(), **more)


def opened(bench: Bench, rate: int = 460800) -> tuple[Session, OwnStub]:
    session = Session(plan(rate))
    stub = bench.run(session.open())
    assert isinstance(stub, OwnStub), bench.notes
    return session, stub


def test_two_ideas_of_a_frame_agree() -> None:
    chance = random.Random(3)
    for size in (0, 1, 252, 253, 254, 255, 600, 4096):
        for body in (chance.randbytes(size), bytes(size), b"\x01" * size):
            wire = stuffed(frame_bytes(body))
            assert wire == encode(9, 8, 7, body)
            assert decode(wire[:-1]) == Frame(9, 8, 7, body)
            assert plain(wire[:-1]) == frame_bytes(body)


def frame_bytes(body: bytes) -> bytes:
    return bytes((9, 8, 7, 0)) + body


@pytest.mark.parametrize("rate", [74880, 115200, 460800, 921600])
def test_everything(rate: int) -> None:
    old = random.Random(1).randbytes(0x30000)
    bench = Bench(old)
    session, stub = opened(bench, rate)
    assert stub.link.rate == rate
    assert session.flash_size == 4 << 20
    content = some(random.Random(2), 90_001)
    bench.run(stub.write(0x8000, content))
    size = -(-len(content) // 4096) * 4096
    assert bench.cells[0x8000 : 0x8000 + size] == content.ljust(size, BLANK)
    assert bench.cells[:0x8000] == old[:0x8000]
    assert bench.run(stub.md5(0x8000, len(content))) == hashlib.md5(content).digest()
    assert bench.run(stub.differing(0, old[:0xA000])) == [0x8000, 0x9000]
    assert bench.run(stub.read(0x7FFF, 5000)) == old[0x7FFF:0x8000] + content[:4999]
    bench.run(stub.erase(0, 0x30000))
    assert bytes(bench.cells) == BLANK * (4 << 20)
    assert bench.run(stub.change_rate(115200, "asked"))
    assert bench.run(session.leave())


def test_image_and_start_without_lines() -> None:
    from espmon.board.live import small_image

    image = small_image("esp8266")
    bench = Bench(random.Random(1).randbytes(0x8000))
    session, stub = opened(bench)
    done = bench.run(
        session.run(lambda loader: write_regions(loader, [Region(offset=0, content=image, image=True)], 0))
    )
    assert done.verified
    boots = bench.board.machine.boots
    bench.run(stub.start_application())
    bench.perform(SetBaud(74880))
    bench.perform(Wait(0.5))
    assert bench.board.machine.boots == boots, "no reset"
    assert b"load 0x" in bench.board.host_read()


@pytest.mark.parametrize("fault", ["lose", "corrupt", "duplicate", "drop_bytes"])
@pytest.mark.parametrize("chance", [0.03, 0.15])
def test_bad_links(fault: str, chance: float) -> None:
    content = some(random.Random(7), 60_000)
    region = Region(offset=0x10000, content=content)
    reported = 0
    for seed in range(4):
        bench = Bench(seed=seed, **{fault: chance})
        session = Session(plan(460800))
        try:
            done = bench.run(session.run(lambda loader: write_regions(loader, [region], 0)))
            if not done.verified:  # the stub was given up, the ROM wrote it and cannot read; that is told
                reported += 1
                continue
            assert bench.cells[0x10000 : 0x10000 + len(content)] == content
        except LoaderProblem:
            reported += 1
    assert reported <= 1


def test_stub_that_does_not_start_is_tried_twice_then_the_rom() -> None:
    bench = Bench(stub="silent")
    session = Session(plan(115200))
    loader = bench.run(session.open())
    assert loader.kind == "rom"
    assert sum("detail='espmon'" in str(note) for note in bench.notes) == 2


def test_order_of_the_ladder() -> None:
    payload = StubPayload(name="espressif", entry=0x4010C504, text=b"", text_start=0x4010C500)
    session = Session(plan(115200, stubs={"esp8266": payload}))
    assert [rung.name for rung in session._rungs(LOADERS["esp8266"])] == ["espmon", "espmon", "espressif", "espressif"]


def test_crystal_of_40_mhz() -> None:
    bench = Bench(xtal=40)
    _, stub = opened(bench, 921600)
    assert stub.hello.divider == round(80e6 / 921600)
    bench.run(stub.write(0, b"\x5a" * 5000))
    assert bench.run(stub.change_rate(115200, "asked"))
    assert bench.run(stub.read(0, 5000)) == b"\x5a" * 5000


def test_a_stub_left_running_is_met_again_where_no_line_resets_the_board() -> None:
    bench = Bench(boot_low=True, wiring="none")
    first = Session(SessionPlan(sequences=SEQUENCES["no-lines"], rate=460800, rungs=rungs()))
    stub = bench.run(first.open())
    assert stub.kind == "espmon"
    bench.run(stub.write(0x1000, b"\x11" * 4096))
    # That session ends here, without a word. The next one starts at 115200.
    again = Session(SessionPlan(sequences=SEQUENCES["no-lines"], rate=460800, rungs=rungs()))
    stub = bench.run(again.open())
    assert stub.kind == "espmon"
    assert stub.link.rate == 460800
    assert bench.run(stub.read(0x1000, 4)) == b"\x11" * 4
    assert bench.run(read_mac(stub)) == "5c:cf:7f:e5:90:01"


def test_protected_chip() -> None:
    bench = Bench()
    _, stub = opened(bench)
    bench.board.flash.status = 0x1C
    bench.run(stub.refresh())
    bench.run(stub.write(0, b"\x55" * 4096))
    assert bench.cells[:4096] == b"\x55" * 4096
    bench.board.flash.status = 0x1C
    bench.board.flash.writable = False
    bench.run(stub.refresh())
    with pytest.raises(FlashProtected):
        bench.run(stub.erase(0, 4096))


def test_power_cut_in_a_write() -> None:
    """The supply goes for good after some bytes; with power again the next session completes."""
    from espmon.board.live import small_image

    new = small_image("esp8266", bytes(range(256)) * 80)
    old = b"\xe9" + random.Random(1).randbytes(0x5FFF)
    region = Region(offset=0, content=new, image=True)
    for cut in (1, 300, 5000, 12_000, 20_000):
        bench = Bench(old, cut_at=cut)
        with pytest.raises(LoaderProblem):
            bench.run(Session(plan(460800)).run(lambda loader: write_regions(loader, [region], 0)))
        assert bench.cells[0] != 0xE9 or bench.cells[: len(new)] == new
        bench.board.power(True)
        bench.perform(Wait(0.2))
        assert bench.run(Session(plan(460800)).run(lambda loader: write_regions(loader, [region], 0))).verified
        assert bench.cells[: len(new)] == new
