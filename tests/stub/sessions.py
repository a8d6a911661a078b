"""Random sessions between the real client and the real stub over a bad wire: flash right or an error reported.

python -m tests.stub.sessions [count] [first seed]
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from espmon.bootloader.actions import Steps
from espmon.bootloader.errors import LoaderProblem
from espmon.bootloader.link import Link
from espmon.bootloader.loaders import LOADERS
from espmon.bootloader.stub.client import _NOBODY, OwnStub
from tests.stub.desk import FLASH_SIZE, Desk, Faults, command

SECTOR = 4096
FAULTS = (0.0, 0.01, 0.05, 0.1, 0.2, 0.35)
RATES = ((74880, 694), (115200, 451), (460800, 113), (921600, 56))


def meet(rate: int) -> Steps[OwnStub]:
    """A client that found the stub running at `rate`."""
    stub = OwnStub(Link(rate), LOADERS["esp8266"], _NOBODY)
    stub._clock = 52_000_000
    for _ in range(20):
        if (yield from stub._answers(1, 0.5)):
            return stub
    raise AssertionError("a stub that runs does not answer at all")


def some(chance: random.Random, size: int) -> bytes:
    """Content as flash has it: random, text-like, zeros, blank."""
    out = b""
    while len(out) < size:
        n = chance.choice((100, 1000, 4096, 9000))
        out += chance.choice(
            (chance.randbytes(n), b"the quick brown fox %d " % chance.randrange(99) * (n // 20), bytes(n), b"\xff" * n)
        )
    return out[:size]


def session(desk: Desk, seed: int) -> Counter[str]:
    """One session; asserts what must hold whatever the wire does."""
    chance = random.Random(seed)
    outcome: Counter[str] = Counter()
    # Now and then whole 64 KB blocks take part.
    large = chance.random() < 0.04
    size = FLASH_SIZE if large else 0xE000
    model = bytearray(b"\xff" * size)
    used = chance.randrange(1, size // SECTOR if large else 9) * SECTOR
    model[:used] = some(chance, used)
    desk.chip()
    desk.put(0, bytes(model))
    rate, divider = chance.choice(RATES)
    desk.rates(rate, divider, chance.choice((1000, 4000, 16000)))
    desk.reset()
    desk.faults = None
    stub = desk.run(meet(rate))
    desk.faults = Faults(seed, chance.choice(FAULTS))
    for _ in range(chance.randrange(1, 4)):
        at = chance.choice((0, chance.randrange(0, 8))) * SECTOR
        count = chance.randrange(16, 48) if large else chance.randrange(1, 5)
        what = chance.choice(("write", "write", "write", "read", "md5", "differing", "erase", "rate"))
        before = bytes(model)
        try:
            if what == "write":
                content = some(chance, count * SECTOR - chance.choice((0, 0, 1, 1000)))
                whole = content.ljust(count * SECTOR, b"\xff")
                model[at : at + len(whole)] = whole
                desk.run(stub.write(at, content))
            elif what == "erase":
                model[at : at + count * SECTOR] = b"\xff" * (count * SECTOR)
                desk.run(stub.erase(at, count * SECTOR))
            elif what == "read":
                skip = chance.choice((0, 3, 4095))
                assert desk.run(stub.read(at + skip, count * SECTOR - skip)) == model[at + skip : at + count * SECTOR]
            elif what == "md5":
                length = count * SECTOR - chance.choice((0, 5))
                assert desk.run(stub.md5(at, length)) == hashlib.md5(model[at : at + length]).digest()
            elif what == "differing":
                other = bytearray(model[at : at + count * SECTOR])
                other[0] ^= 1
                assert desk.run(stub.differing(at, bytes(other))) == [at]
            else:
                desk.run(stub.change_rate(chance.choice(RATES)[0], "asked"))
            outcome[what] += 1
        except LoaderProblem as error:
            if len(sys.argv) > 3:
                print(seed, desk.faults.rate, error)
            outcome[what + " reported an error"] += 1
            held = desk.flash(at, count * SECTOR)
            if what == "write":
                sure = stub.taken
                assert held[:sure] == whole[:sure], "bytes counted as taken are not there"
            # Only what was asked for was touched.
            flash = bytearray(desk.flash(0, size))
            flash[at : at + count * SECTOR] = before[at : at + count * SECTOR]
            assert flash == before, "other sectors changed"
            outcome["faults"] += desk.faults.count
            return outcome
    assert desk.flash(0, size) == model, "reported as done, and flash holds something else"
    outcome["faults"] += desk.faults.count
    outcome["resent"] += stub.resent
    outcome["naks"] += stub.naks
    return outcome


def campaign(count: int, first: int = 0) -> Counter[str]:
    """`count` sessions, one process."""
    outcome: Counter[str] = Counter()
    with Desk() as desk:
        for seed in range(first, first + count):
            try:
                outcome += session(desk, seed)
            except BaseException:
                print(f"seed {seed}", file=sys.stderr)
                raise
    return outcome


def in_lanes(count: int, lanes: int) -> Counter[str]:
    """The same in several processes."""
    if lanes == 1:
        return campaign(count)
    share = -(-count // lanes)
    command()  # skips here, where no program can be built
    with ProcessPoolExecutor(lanes, mp_context=get_context("spawn")) as pool:
        return sum(pool.map(campaign, [share] * lanes, range(0, share * lanes, share)), Counter())


if __name__ == "__main__":
    print(dict(campaign(int(sys.argv[1]) if len(sys.argv) > 1 else 1000, int(sys.argv[2]) if len(sys.argv) > 2 else 0)))
