"""The payload itself on an emulated ESP8266 with the real boot ROM. Skipped where that is not set up (tests/stub/rig.py)."""

from __future__ import annotations

import contextlib
import hashlib
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import serial

from espmon.bootloader.session import Session
from espmon.bootloader.stub.client import OwnStub
from espmon.bootloader.stub.protocol import LEAVE_BOOT, LEAVE_RESET
from espmon.bootloader.write import Region, write_regions
from tests.stub import rig as rigs
from tests.stub.rig import Rig, plan
from tests.stub.sessions import some

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

RATES = (74880, 115200, 460800, 921600)
BLANK = b"\xff"


def opened(rig: Rig, rate: int) -> tuple[Session, OwnStub]:
    session = Session(plan(rate))
    stub = rig.run(session.open())
    assert isinstance(stub, OwnStub)
    return session, stub


def unharmed(rig: Rig, stub: OwnStub) -> None:
    """No byte was lost on the way to the stub, and the emulator kept up."""
    hello = rig.run(stub.refresh())
    assert (hello.lost, hello.overruns, hello.framing, hello.damaged) == (0, 0, 0, 0)
    assert stub.naks == 0


@pytest.mark.parametrize("rate", RATES)
def test_all_commands(tmp_path: Path, rate: int) -> None:
    old = random.Random(1).randbytes(0x20000)
    content = some(random.Random(2), 20_000 if rate < 400_000 else 100_000)
    size = -(-len(content) // 4096) * 4096
    with Rig(tmp_path, old) as rig:
        session, stub = opened(rig, rate)
        assert stub.link.rate == rate
        assert session.flash_size == 4 << 20
        assert stub.hello.can_boot
        # write deflated, then raw (random bytes do not deflate), with a dirty flash below
        rig.run(stub.write(0x3000, content))
        noise = random.Random(3).randbytes(8192)
        rig.run(stub.write(0x1000, noise))
        assert rig.run(stub.md5(0x3000, len(content))) == hashlib.md5(content).digest()
        assert rig.run(stub.differing(0x3000, content)) == []
        assert rig.run(stub.differing(0, old[:0x3000])) == [0x1000, 0x2000]
        assert rig.run(stub.read(0x1001, 5000)) == noise[1:5001]
        assert len(rig.run(stub.map(0, 1024))) == 1024
        rig.run(stub.erase(0x2000, 0x1000))
        held = rig.flash()
        wanted = bytearray(old.ljust(4 << 20, BLANK))
        wanted[0x1000:0x2000] = noise[:0x1000]
        wanted[0x2000:0x3000] = BLANK * 0x1000
        wanted[0x3000 : 0x3000 + size] = content.ljust(size, BLANK)
        assert held == wanted
        unharmed(rig, stub)
        for other in RATES:
            assert rig.run(stub.change_rate(other, "asked"))
            unharmed(rig, stub)


def test_crystal_of_40_mhz(tmp_path: Path) -> None:
    content = some(random.Random(6), 30_000)
    with Rig(tmp_path, b"", "--xtal", "40") as rig:
        _, stub = opened(rig, 921600)
        assert stub.hello.divider == 87, "80 MHz / 921600"
        rig.run(stub.write(0, content))
        for rate in RATES:
            assert rig.run(stub.change_rate(rate, "asked"))
        assert rig.run(stub.md5(0, len(content))) == hashlib.md5(content).digest()
        unharmed(rig, stub)


def test_rate_that_is_not_followed(tmp_path: Path) -> None:
    """The host asks for a rate and stays where it is: the stub comes back."""
    with Rig(tmp_path) as rig:
        _, stub = opened(rig, 115200)

        def ask_and_stay() -> object:
            from espmon.bootloader.packets import words
            from espmon.bootloader.stub.protocol import Op

            yield from stub._ask(Op.RATE, words(56))
            return (yield from stub._answers(60, 0.1))

        assert rig.run(ask_and_stay())  # type: ignore[arg-type]
        assert stub.hello.divider == 451


def heard_at_boot(rig: Rig, rate: int = 74880) -> str:
    """What the board says in the next half second."""
    rig.port.baudrate = rate
    end = time.monotonic() + 0.6
    heard = b""
    rig.port.timeout = 0.05
    while time.monotonic() < end:
        heard += rig.port.read(4096)
    return heard.decode("latin-1")


def image_that_the_rom_loads() -> bytes:
    """A valid image whose one segment jumps to itself: the ROM prints `load`, `tail`, `chksum` and starts it."""
    # j . (offset 0 from its own address): 0x06 0xff 0xff
    segment = bytes.fromhex("06ffff00") + bytes(60)
    head = b"\xe9\x01\x02\x40" + (0x40100000).to_bytes(4, "little")
    out = head + (0x40100000).to_bytes(4, "little") + len(segment).to_bytes(4, "little") + segment
    check = 0xEF
    for byte in segment:
        check ^= byte
    return out + bytes(15 - len(out) % 16) + bytes([check])


def test_application_starts_without_reset_line_or_strap(tmp_path: Path) -> None:
    with Rig(tmp_path, image_that_the_rom_loads(), "--download") as rig:
        _, stub = opened(rig, 74880)  # the ROM's own rate, so that its text is heard from the start
        rig.control("gpio0 0")  # the strap still says download
        before = rig.control("state")["cause"]
        rig.run(stub.leave(LEAVE_BOOT))
        text = heard_at_boot(rig)
        assert "load 0x40100000, len 64" in text, text
        assert "ets Jan" not in text, "no reset happened"
        state = rig.control("state")
        assert state["pc"].startswith("401000"), state
        assert state["cause"] == before


def test_software_reset(tmp_path: Path) -> None:
    with Rig(tmp_path, image_that_the_rom_loads()) as rig:
        _, stub = opened(rig, 74880)  # the ROM's own rate, so that its text is heard from the start
        rig.run(stub.leave(LEAVE_RESET))
        text = heard_at_boot(rig)
        assert ", boot mode:(3,6)" in text, text
        assert "load 0x40100000, len 64" in text, text


def test_leaving_with_the_lines(tmp_path: Path) -> None:
    with Rig(tmp_path, image_that_the_rom_loads()) as rig:
        session, _ = opened(rig, 460800)
        assert rig.run(session.leave())
        assert rig.control("state")["pc"].startswith("401000")


class Cut(Exception):
    """The moment has come."""


def test_power_cut_swept_over_a_write(tmp_path: Path) -> None:
    """Cut the power after more and more time of a write, start again: done each time, and never half an image."""
    image = image_that_the_rom_loads()
    old = (image + random.Random(4).randbytes(0x6000)).ljust(0x7000, BLANK)[:0x7000]
    new = (image + some(random.Random(5), 0x7000))[:0x7000]
    region = Region(offset=0, content=new, image=True)
    seen = set()
    with Rig(tmp_path, old) as rig:
        whole = timed(lambda: write(rig, region, None))
        steps = 14
        for step in range(steps):
            opened_session, stub = opened(rig, 460800)
            del opened_session
            rig.run(write_regions(stub, [Region(offset=0, content=old, image=True)], 0))
            write(rig, region, whole * step / steps)
            held = rig.flash()[: len(new)]
            assert held in (old, new) or held[0] != 0xE9, "half an image that boots"
            seen.add("old" if held == old else "new" if held == new else "half")
            write(rig, region, None)
            assert rig.flash()[: len(new)] == new
    assert "half" in seen


def timed(work: Callable[[], None]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def write(rig: Rig, region: Region, cut_after: float | None) -> None:
    """Open a session and write; power off and on after so many seconds of it."""
    _, stub = opened(rig, 460800)
    if cut_after is None:
        assert rig.run(write_regions(stub, [region], 0)).verified
        return
    end = time.monotonic() + cut_after

    def cut_short() -> object:
        steps = write_regions(stub, [region], 0)
        action = next(steps)
        while time.monotonic() < end:
            result = yield action
            try:
                action = steps.send(result)
            except StopIteration:
                return
        raise Cut

    with contextlib.suppress(Cut):
        rig.run(cut_short())  # type: ignore[arg-type]
    rig.control("power")
    assert isinstance(rig.port, serial.Serial)


def test_rig_is_asked_for_by_name() -> None:
    """So that a typing mistake in ESPMON_RIG is seen where somebody looks."""
    assert len(rigs.files()) == 3
