"""The client with the stub's own source at the other end: what chips do that are not as they should be, and leaving."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

import pytest

from espmon.bootloader.errors import FlashDiffers, LoaderProblem, NeedsStub
from espmon.bootloader.loader import Meter
from espmon.bootloader.notes import Stage, Transferred
from espmon.bootloader.packets import words
from espmon.bootloader.session import is_esp8285, read_mac
from espmon.bootloader.stub.client import OwnStub, _settle
from espmon.bootloader.stub.errors import FlashProtected, FlashSilent, StubRefused, StubSilent
from espmon.bootloader.stub.protocol import (
    LEAVE_BOOT,
    LEAVE_RESET,
    LEAVE_RETURN,
    REPLY,
    Op,
    Status,
    encode,
    parse_hello,
)
from espmon.bootloader.write import Region, write_regions
from tests.stub.desk import FLASH_SIZE, Desk, Faults, PowerCut, StubLeft
from tests.stub.sessions import meet, some

CONTENT = some(random.Random(5), 30_000)
PADDED = CONTENT.ljust(0x8000, b"\xff")


@pytest.fixture
def desk() -> Iterator[Desk]:
    with Desk() as made:
        made.rates(921600, 56)
        yield made


def running(desk: Desk) -> OwnStub:
    stub: OwnStub = desk.run(meet(921600))
    return stub


def test_hello(desk: Desk) -> None:
    stub = running(desk)
    assert stub.hello.flash_id == 0x1240EF
    assert stub.hello.flash_size == FLASH_SIZE
    assert stub.hello.divider == 56
    assert not stub.hello.protected
    assert desk.run(stub.flash_id()) == 0x1240EF


@pytest.mark.parametrize(
    "content", [CONTENT, random.Random(1).randbytes(20_000), bytes(20_000)], ids=["mixed", "raw", "zeros"]
)
def test_write_then_everything_that_looks(desk: Desk, content: bytes) -> None:
    desk.put(0, random.Random(2).randbytes(0x10000))
    stub = running(desk)
    around = desk.flash()
    meter = Meter("write", 0x8000)
    desk.run(stub.write(0x1000, content, meter))
    size = -(-len(content) // 4096) * 4096
    held = desk.flash()
    assert held[0x1000 : 0x1000 + size] == content.ljust(size, b"\xff")
    assert held[:0x1000] + held[0x1000 + size :] == around[:0x1000] + around[0x1000 + size :]
    assert stub.taken == size
    assert meter.done == size
    assert desk.run(stub.md5(0x1000, len(content))) == hashlib.md5(content).digest()
    assert desk.run(stub.differing(0x1000, content)) == []
    other = bytearray(content)
    other[0] ^= 0x80
    other[-1] ^= 1
    assert desk.run(stub.differing(0x1000, bytes(other))) == [0x1000, 0x1000 + size - 4096]
    assert desk.run(stub.read(0x1234, len(content) - 0x300)) == content[0x234 : len(content) - 0xCC]
    assert stub.resent == 0


def test_what_is_there_already_is_not_touched(desk: Desk) -> None:
    desk.put(0x1000, PADDED)
    stub = running(desk)
    before = desk.changes()
    desk.run(stub.write(0x1000, CONTENT))
    assert desk.changes() == before


def test_only_clearing_bits_needs_no_erase(desk: Desk) -> None:
    desk.put(0, b"\xff" * 4096)
    stub = running(desk)
    before = desk.changes()
    desk.run(stub.write(0, b"\x55" * 64))
    assert desk.changes() == before + 1, "one program, no erase"


def test_whole_blocks(desk: Desk) -> None:
    desk.put(0, random.Random(3).randbytes(FLASH_SIZE))
    stub = running(desk)
    content = some(random.Random(4), 0x28000)
    desk.run(stub.write(0x8000, content))
    assert desk.flash(0x8000, len(content)) == content
    before = desk.changes()
    desk.run(stub.erase(0, FLASH_SIZE))
    assert desk.changes() == before + 4, "four blocks of 64 KB"
    assert desk.flash() == b"\xff" * FLASH_SIZE
    desk.run(stub.erase_chip())
    assert desk.changes() == before + 4, "blank sectors are left alone"


def test_blank_sectors_are_read_for_nothing(desk: Desk) -> None:
    stub = running(desk)
    start = desk.now_us
    assert desk.run(stub.read(0, FLASH_SIZE)) == b"\xff" * FLASH_SIZE
    assert (desk.now_us - start) / 1e6 < 0.1 * FLASH_SIZE * 10 / 921600


def test_silent_chip(desk: Desk) -> None:
    desk.chip(silent=True)
    stub = running(desk)
    assert stub.hello.flash_id == 0
    with pytest.raises(FlashSilent):
        desk.run(stub.write(0, CONTENT))
    for steps in (stub.map(0, 4), stub.read(0, 4096), stub.md5(0, 100)):
        with pytest.raises(StubRefused) as refused:
            desk.run(steps)
        assert refused.value.status == Status.NO_CHIP


def test_chip_in_deep_power_down_is_woken(desk: Desk) -> None:
    desk.chip(asleep=True)
    desk.reset()
    stub = running(desk)
    assert stub.hello.flash_id == 0x1240EF
    desk.run(stub.write(0, CONTENT))
    assert desk.flash(0, len(CONTENT)) == CONTENT


def test_unknown_id_is_not_guessed_at_but_a_size_can_be_given(desk: Desk) -> None:
    desk.chip(0x77_4055)
    stub = running(desk)
    assert stub.hello.flash_size == 0
    with pytest.raises(FlashSilent, match="0x774055"):
        desk.run(stub.write(0, CONTENT))
    desk.run(stub.attach(FLASH_SIZE))
    desk.run(stub.write(0, CONTENT))
    assert desk.flash(0, len(CONTENT)) == CONTENT


def test_id_of_another_scheme_gives_the_size(desk: Desk) -> None:
    """Adesto counts in its second byte; the stub does not know that, the client does."""
    desk.chip(0x01431F)
    stub = running(desk)
    assert stub.hello.flash_size == 0
    desk.run(_settle(stub))
    assert stub.hello.flash_size == FLASH_SIZE
    desk.run(stub.write(0, CONTENT))
    assert desk.flash(0, len(CONTENT)) == CONTENT


def test_protected_chip_is_unlocked_and_that_is_told(desk: Desk) -> None:
    desk.chip(status=0x1C)
    stub = running(desk)
    assert stub.hello.protected
    desk.run(stub.write(0, CONTENT))
    assert desk.flash(0, len(CONTENT)) == CONTENT
    assert Stage("unlock", "flash status 0x1c") in desk.notes


def test_chip_that_stays_protected(desk: Desk) -> None:
    desk.chip(status=0x1C, keeps_protection=True)
    stub = running(desk)
    with pytest.raises(FlashProtected, match="0x1c"):
        desk.run(stub.write(0, CONTENT))
    with pytest.raises(FlashProtected):
        desk.run(stub.erase(0, 4096))
    assert desk.flash() == b"\xff" * FLASH_SIZE


def test_chip_that_takes_no_write_enable(desk: Desk) -> None:
    desk.chip(never_enabled=True)
    stub = running(desk)
    with pytest.raises(StubRefused) as refused:
        desk.run(stub.write(0, CONTENT))
    assert refused.value.status == Status.PROTECTED


def test_chip_that_stays_busy(desk: Desk) -> None:
    desk.chip(stuck=True)
    stub = running(desk)
    with pytest.raises(LoaderProblem):
        desk.run(stub.write(0, CONTENT))


def test_worn_out_cell_is_reported(desk: Desk) -> None:
    desk.put(0x2000, b"\x00")
    desk.chip(bad_cell=0x2000)
    stub = running(desk)
    content = b"\xaa" * 0x4000
    with pytest.raises(FlashDiffers) as differs:
        desk.run(stub.write(0, content))
    assert differs.value.sectors[0] == 0x2000
    assert stub.taken == 0x2000, "what is before the bad sector is there"


def test_beyond_the_end_is_refused(desk: Desk) -> None:
    stub = running(desk)
    with pytest.raises(StubRefused) as refused:
        desk.run(stub.erase(FLASH_SIZE - 4096, 8192))
    assert refused.value.status == Status.RANGE
    with pytest.raises(StubRefused):
        desk.run(stub.read(FLASH_SIZE, 4096))
    with pytest.raises(StubRefused):
        desk.run(stub.md5(0xFFFFF000, 0x2000))


@pytest.mark.parametrize(
    "frame",
    [
        encode(0x33, 1),
        encode(Op.WRITE, 1, 0, words(0, 4096)),
        encode(Op.ERASE, 1),
        encode(Op.LEAVE, 1),
        encode(Op.RATE, 1),
        encode(Op.MAP, 1, 0, b"odd"),
        encode(Op.LEAVE, 1, 0, words(1, 2)),
    ],
)
def test_malformed_commands_are_answered(desk: Desk, frame: bytes) -> None:
    stub = running(desk)

    def ask() -> object:
        yield from stub._send(frame)
        return (yield from stub._frame(1.0))

    answer = desk.run(ask())  # type: ignore[arg-type]
    assert answer.op == frame_op(frame) | REPLY
    assert answer.argument == Status.COMMAND


def frame_op(frame: bytes) -> int:
    """First byte of a frame that begins with no zero."""
    return frame[1]


def test_rates(desk: Desk) -> None:
    stub = running(desk)
    for rate in (74880, 115200, 460800, 2_000_000, 921600):
        assert desk.run(stub.change_rate(rate, "asked"))
        assert stub.link.rate == rate
    assert not desk.run(stub.change_rate(5_000_000, "asked")), "52 MHz has no such divider"
    assert stub.link.rate == 921600


def test_rate_that_the_line_does_not_carry_falls_back(desk: Desk) -> None:
    stub = running(desk)
    desk.faults = DeadAbove(1_000_000)
    stub.link.rate = 921600
    assert not desk.run(stub.change_rate(2_000_000, "asked"))
    assert stub.link.rate == 921600
    desk.faults = None
    assert desk.run(stub.resync())


class DeadAbove(Faults):
    """A line that damages everything once the other side has changed its rate."""

    def __init__(self, rate: int) -> None:
        super().__init__(0, 1.0)
        self.limit = rate
        self.frames = 0

    def through(self, data: bytes) -> bytes:
        # The RATE command and its answer are the last that get through, and what comes after it has gone back.
        self.frames += data.count(b"\0")
        return data if self.frames <= 2 or self.frames > 16 else b"\x55" * len(data)


def test_fuses_come_with_hello(desk: Desk) -> None:
    stub = running(desk)
    assert desk.run(read_mac(stub)) == "5c:cf:7f:12:34:56"
    assert not desk.run(is_esp8285(stub))
    with pytest.raises(NeedsStub):
        desk.run(stub.read_register(0x60000000))


@pytest.mark.parametrize("how", [LEAVE_RETURN, LEAVE_RESET, LEAVE_BOOT])
def test_leaving(desk: Desk, how: int) -> None:
    stub = running(desk)

    def leave() -> object:
        yield from stub.leave(how)
        return (yield from stub.resync())

    with pytest.raises(StubLeft) as left:
        desk.run(leave())  # type: ignore[arg-type]
    assert left.value.how == how


def test_silence_has_an_end(desk: Desk) -> None:
    stub = running(desk)
    desk.faults = DeafLine(0, 1.0)
    with pytest.raises(StubSilent):
        desk.run(stub.md5(0, 4096))
    with pytest.raises(LoaderProblem):
        desk.run(stub.write(0, CONTENT))
    with pytest.raises(StubSilent):
        desk.run(stub.read(0, 4096))


class DeafLine(Faults):
    """Nothing arrives."""

    def through(self, data: bytes) -> bytes:
        return b""


def test_a_host_that_vanishes_in_a_write_is_given_up(desk: Desk) -> None:
    """The stub leaves the write after its time limit and serves the next host."""
    stub = running(desk)

    def begin_and_stop() -> object:
        yield from stub._send(encode(Op.WRITE, 9, 0, words(0, 0x4000, 0)), encode(Op.DATA, 9, 0, bytes(4096)))
        frame = yield from stub._frame(12.0)
        while frame is not None and frame.op != Op.END:
            frame = yield from stub._frame(12.0)
        return frame

    end = desk.run(begin_and_stop())  # type: ignore[arg-type]
    assert end is not None
    assert end.argument == Status.SILENCE
    desk.run(stub.write(0, CONTENT))
    assert desk.flash(0, len(CONTENT)) == CONTENT


def test_stray_text_is_kept_as_heard(desk: Desk) -> None:
    stub = running(desk)
    desk.buffer += b"\r\n ets Jan  8 2013,rst cause:4, boot mode:(3,6)\r\n\r\nwdt reset\r\n\0"
    desk.run(stub.refresh())
    assert stub.link.boot_text == "rst cause:4"


def test_progress_is_told(desk: Desk) -> None:
    stub = running(desk)
    desk.run(stub.write(0, CONTENT, Meter("write", 0x8000)))
    told = [n for n in desk.notes if isinstance(n, Transferred)]
    assert [n.done for n in told] == list(range(0x1000, 0x9000, 0x1000))


def test_parse_hello_wants_a_hello() -> None:
    from espmon.bootloader.stub.protocol import Frame

    assert parse_hello(Frame(Op.HELLO | REPLY, 0, 1, b"short")) is None
    assert parse_hello(Frame(Op.MAP | REPLY, 0, 1, bytes(56))) is None


def image(size: int) -> bytes:
    """Something with the magic byte of an image."""
    return b"\xe9" + random.Random(6).randbytes(size - 1)


def test_power_cut_at_every_change_of_flash(desk: Desk) -> None:
    """Whatever change of flash the power goes at: sector 0 never has the magic byte unless all is there, and the next run
    completes."""
    old, new = image(0x5000), b"\xe9" + some(random.Random(8), 0x4FFF)
    region = Region(offset=0, content=new, image=True)
    cut = 0
    while True:
        desk.put(0, old.ljust(0x8000, b"\xff"))
        desk.chip(cut=cut)
        desk.reset()
        stub = running(desk)
        try:
            desk.run(write_regions(stub, [region], 0))
            break
        except PowerCut:
            held = desk.flash(0, 0x5000)
            assert held in (old, new) or held[0] != 0xE9, f"cut at {cut}: half an image that boots"
        desk.reset()
        stub = running(desk)
        assert desk.run(write_regions(stub, [region], 0)).verified
        assert desk.flash(0, 0x5000) == new
        cut += 1 if cut < 12 else 7
    assert cut > 50
