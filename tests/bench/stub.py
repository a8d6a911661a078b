"""espmon's stub against esptool on the same board: full writes, three damaged sectors, reading, a map of 4 MB.

The board is the virtual one on a pseudo-terminal, and the rig as well where ``ESPMON_RIG`` names it (tests/stub/rig.py).
Timed is what happens between a board that waits in download mode and the verified result: for espmon the whole session
(SYNC, upload, compare, write, verify) inside this process; for esptool its process less the time of `esptool version`,
which starts the same interpreter and imports the same modules. Runs alternate; the median counts.

"of the wire" is bytes sent or received x 10 / rate / time.
"""

from __future__ import annotations

import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from espmon.bootloader.actions import SetLines, Steps
from espmon.bootloader.resets import ResetSequence
from espmon.bootloader.session import Session, SessionPlan
from espmon.bootloader.stub import rungs
from espmon.bootloader.stub.client import OwnStub
from espmon.bootloader.write import Region, write_regions
from tests.bench.rows import Row

# The board waits in download mode already, as it does for esptool's `--before no-reset`; the lines stay as they are.
HELD = ResetSequence("held", (SetLines(False, False),))
SIZE = 300 * 1024
READ = 256 * 1024
FLASH = 4 << 20
LIMITS = {115200: "<= 0.97", 460800: "<= 0.85", 921600: "<= 0.70"}
# How often each pair runs; the slow ones take a minute as it is.
REPEATS = {115200: 1, 460800: 3, 921600: 3}


def firmware(size: int, seed: int) -> bytes:
    """Bytes that deflate like firmware does, to about 0.72: instructions (noise) and what repeats between them."""
    chance = random.Random(seed)
    words = [chance.randbytes(chance.randrange(3, 24)) for _ in range(200)]
    out = bytearray()
    while len(out) < size:
        out += chance.randbytes(chance.randrange(8, 40))
        out += chance.choice(words)
    return b"\xe9" + bytes(out[1:size])


def esptool(device: Path, rate: int, *command: str) -> tuple[float, str]:
    """Seconds and output of one esptool process on a board in download mode."""
    line = [sys.executable, "-m", "esptool", "--chip", "esp8266", "--port", str(device), "--baud", str(rate)]
    start = time.perf_counter()
    done = subprocess.run(
        [*line, "--before", "no-reset", "--after", "no-reset", *command],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    took = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"esptool {' '.join(command)}: {done.stdout[-600:]}{done.stderr[-600:]}")
    return took, done.stdout


def start_up() -> float:
    """Seconds that esptool takes to start and do nothing."""

    def one() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "esptool", "version"], capture_output=True, check=True)
        return time.perf_counter() - start

    return statistics.median(one() for _ in range(3))


class Pair:
    """One board, ours and theirs in turn."""

    def __init__(self, board: Any, rate: int, idle: float) -> None:
        self.board = board
        self.rate = rate
        self.idle = idle
        self.wire = 0.0
        self.said = ""

    def ours(self, operation: Callable[[OwnStub], Steps[Any]]) -> float:
        """Seconds of a whole session around `operation`; `wire` is the fraction that our bytes took of the operation."""
        self.board.download()
        session = Session(SessionPlan(sequences=(HELD,), rate=self.rate, first_rate=self.rate, rungs=rungs()))

        def steps() -> Steps[tuple[float, int]]:
            loader = yield from session.open()
            if not isinstance(loader, OwnStub):
                raise RuntimeError(f"the stub did not start: {self.board.notes[-5:]}")
            begun = time.perf_counter()
            sent = loader.wire_bytes
            yield from operation(loader)
            return time.perf_counter() - begun, loader.wire_bytes - sent

        start = time.perf_counter()
        inner, sent = self.board.run(steps())
        self.wire = sent * 10 / self.rate / inner
        return time.perf_counter() - start

    def theirs(self, *command: str) -> float:
        """Seconds of esptool doing the same. On a machine that is too busy for the board's clock it fails now and then."""
        for attempt in range(3):
            self.board.download()
            try:
                took, self.said = esptool(self.board.pty, self.rate, *command)
                return took - self.idle
            except RuntimeError:
                if attempt == 2:
                    raise
        raise AssertionError("unreachable")

    def compare(self, ours: Callable[[], float], theirs: Callable[[], float], repeats: int) -> tuple[float, float]:
        """Medians of alternating runs."""
        pairs = [(ours(), theirs()) for _ in range(repeats)]
        return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)


def boards() -> Iterator[tuple[str, Callable[[bytes], AbstractContextManager[Any]]]]:
    """The boards that are there: name and how to make one with a flash content."""
    if sys.platform == "linux":
        from tests.stub.pty_board import PtyBoard

        yield "virtual board", PtyBoard
    if os.environ.get("ESPMON_RIG"):
        from tests.stub.rig import Rig

        folder = Path(tempfile.mkdtemp())
        yield "rig", lambda flash: Rig(folder, flash)


def full_write(name: str, board: Any, rate: int, idle: float) -> Iterator[Row]:
    """All sectors differ."""
    pair = Pair(board, rate, idle)
    size = SIZE if rate > 200_000 else SIZE // 2
    images = [firmware(size, seed) for seed in (1, 2)]
    folder = Path(tempfile.mkdtemp())
    (folder / "theirs.bin").write_bytes(images[1])

    def ours() -> float:
        region = Region(offset=0x10000, content=images[0])
        return pair.ours(lambda stub: write_regions(stub, [region], 0))

    mine, other = pair.compare(
        ours, lambda: pair.theirs("write-flash", "0x10000", str(folder / "theirs.bin")), REPEATS[rate]
    )
    inner = re.search(r"in ([\d.]+) seconds", pair.said)
    ratio = len(zlib.compress(images[0], 9)) / size
    yield Row(
        f"{name}: write {size // 1024} KB ({ratio:.2f} deflated), {rate}", mine, "s", mine / other,
        f"esptool ({other:.2f} s, its own figure {inner[1] if inner else '?'} s)", LIMITS[rate],
    )  # fmt: skip
    yield Row(f"{name}: write, {rate}, of the wire", pair.wire, "")


def mend(name: str, board: Any, rate: int, idle: float) -> Iterator[Row]:
    """Three sectors of an image are damaged."""
    pair = Pair(board, rate, idle)
    image = firmware(SIZE, 3)
    folder = Path(tempfile.mkdtemp())
    (folder / "image.bin").write_bytes(image)
    damage = [0x10000 + at * 4096 for at in (5, 31, 70)]
    region = Region(offset=0x10000, content=image)

    def broken(seed: int) -> None:
        """Bring the image and the three bad sectors into flash."""
        noise = random.Random(seed)
        pair.ours(lambda stub: write_regions(stub, [region], 0))
        bad = [Region(offset=at, content=noise.randbytes(4096)) for at in damage]
        pair.ours(lambda stub: write_regions(stub, bad, 0))

    def ours() -> float:
        broken(1)
        return pair.ours(lambda stub: write_regions(stub, [region], 0))

    def theirs() -> float:
        broken(2)
        return pair.theirs("write-flash", "--skip-flashed", "0x10000", str(folder / "image.bin"))

    mine, other = pair.compare(ours, theirs, 1)
    yield Row(
        f"{name}: 3 bad sectors of {SIZE // 4096}, {rate}", mine, "s", mine / other,
        f"esptool --skip-flashed ({other:.2f} s)", "<= 0.12",
    )  # fmt: skip


def read(name: str, board: Any, rate: int, idle: float) -> Iterator[Row]:
    """A stretch that is not blank."""
    pair = Pair(board, rate, idle)
    size = READ if rate > 200_000 else READ // 2
    out = Path(tempfile.mkdtemp()) / "read.bin"
    mine, other = pair.compare(
        lambda: pair.ours(lambda stub: stub.read(0x200000, size)),
        lambda: pair.theirs("read-flash", "0x200000", str(size), str(out)),
        REPEATS[rate],
    )
    yield Row(f"{name}: read {size // 1024} KB, {rate}", mine, "s", mine / other, f"esptool ({other:.2f} s)", "<= 0.97")
    yield Row(f"{name}: read, {rate}, of the wire", size * 10 / rate / mine, "")


def flash_map(name: str, board: Any, rate: int, idle: float) -> Iterator[Row]:
    """Is the whole flash what a file says?"""
    pair = Pair(board, rate, idle)
    whole = Path(tempfile.mkdtemp()) / "whole.bin"
    whole.write_bytes(board.flash())
    content = whole.read_bytes()

    def compare(stub: OwnStub) -> Steps[None]:
        if (yield from stub.differing(0, content)):
            raise RuntimeError("the flash differs")

    mine, other = pair.compare(
        lambda: pair.ours(compare), lambda: pair.theirs("verify-flash", "0", str(whole)), REPEATS[rate]
    )
    yield Row(
        f"{name}: 4 MB compared, {rate}", mine, "s", mine / other, f"esptool verify-flash ({other:.2f} s)", "<= 0.30"
    )


def run() -> Iterator[Row]:
    """All rows, as they are measured."""
    idle = start_up()
    dirty = random.Random(9).randbytes(1 << 20)
    flash = dirty + b"\xff" * (1 << 20) + firmware(READ, 4) + b"\xff" * (FLASH - (2 << 20) - READ)
    rates = [int(r) for r in os.environ.get("ESPMON_BENCH_RATES", "115200 460800 921600").split()]
    for name, make in boards():
        with make(flash) as board:
            for rate in rates:
                yield from full_write(name, board, rate, idle)
                yield from read(name, board, rate, idle)
                if rate > 200_000:
                    yield from mend(name, board, rate, idle)
                    yield from flash_map(name, board, rate, idle)
