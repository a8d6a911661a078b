"""Damages the ELF fixtures in every way that comes to mind and asks the symbolizer anyway.

``python -m tests.fuzz.symbolize [SECONDS] [SEED]``: truncations, flipped bytes over the whole file or one section, swapped
and repeated blocks, extreme values in headers. Nothing may raise, and no case may take longer than CASE_LIMIT_S of
processor time: that is what "never stops the monitor" means.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

from espmon.errors import ElfUnusable
from espmon.events import Address, Crash, StackDump
from espmon.symbolize import Symbolizer, index
from espmon.symbolize.elf import ElfFile
from tests.symbolize.fixtures import ELFS

# a fixture takes 10 ms whole; this much on a loaded machine means a loop that the damage made long
CASE_LIMIT_S = 3.0
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF0)


def damaged(body: bytes, picked: random.Random) -> bytes:
    """One damaged copy of `body`."""
    out = bytearray(body)
    size = len(out)
    sections = [s for s in ElfFile(Path("fixture"), body).sections if s.stored > 8]
    kind = picked.randrange(7)
    if kind == 0:
        return bytes(out[: picked.randrange(size)])
    if kind == 1:
        for _ in range(picked.choice((1, 1, 2, 8, 64))):
            out[picked.randrange(size)] ^= 1 << picked.randrange(8)
    elif kind == 2:
        for _ in range(picked.choice((1, 4, 32, 512))):
            out[picked.randrange(size)] = picked.randrange(256)
    elif kind == 3:  # within one section: debug information is where the loops are
        section = picked.choice([s for s in sections if s.name.startswith(".debug")] or sections)
        for _ in range(picked.choice((1, 2, 4, 16, 128))):
            out[section.offset + picked.randrange(section.stored)] = picked.choice((0, 1, 0x7F, 0x80, 0xFF, picked.randrange(256)))
    elif kind == 4:
        section = picked.choice(sections)
        at = section.offset + picked.randrange(section.stored - 4)
        out[at : at + 4] = picked.choice(_EXTREMES).to_bytes(4, "little")
    elif kind == 5:
        one, two = picked.choice(sections), picked.choice(sections)
        length = picked.randrange(1, min(one.stored, two.stored))
        out[two.offset : two.offset + length] = out[one.offset : one.offset + length]
    else:
        start = picked.randrange(0, 52)
        if picked.random() < 0.5:  # the section table stands at the end
            start = int.from_bytes(body[32:36], "little") + picked.randrange(size - int.from_bytes(body[32:36], "little") - 4)
        out[start : start + 4] = picked.choice(_EXTREMES).to_bytes(4, "little")
    return bytes(out)


def ask(path: Path, addresses: list[int], picked: random.Random) -> None:
    """Everything that a monitor would ask."""
    symbolizer = Symbolizer([path])
    for address in addresses:
        for frame in symbolizer.lookup(address, call_site=picked.random() < 0.5):
            for text in (frame.function, frame.file, frame.symbol):
                assert text is None or text.isprintable()
    words = tuple((0x3FFFF000 + 4 * at, picked.choice(addresses)) for at in range(24))
    stack = StackDump(words=words, code_words=tuple(Address(word) for _, word in words))
    chip = picked.choice(["esp8266", "esp32c3", None])
    registers = {"epc1": addresses[0]} if chip == "esp8266" else {"mepc": addresses[0], "ra": addresses[1], "sp": 0x3FFFF000}
    symbolizer.explain(Crash(kind="exception", chip=chip, registers={k: Address(v) for k, v in registers.items()}, stacks=(stack,)))
    assert isinstance(symbolizer.problems, list)
    try:
        opened = ElfFile.open(path)
    except ElfUnusable:
        return
    body = index.build(opened)
    loaded = index.Index(body, bytes.fromhex(opened.sha256))
    for address in addresses:
        loaded.frames(address)


def run(seconds: float | None, cases: int | None, seed: int) -> tuple[int, float]:
    """Runs until either limit; returns how many cases and the longest, in seconds of processor time."""
    done = 0
    longest = 0.0
    until = None if seconds is None else time.monotonic() + seconds
    bodies = [path.read_bytes() for path in ELFS]
    lists = []
    for path in ELFS:
        symbols = ElfFile.open(path).symbols
        lists.append([symbols[at].address + offset for at in range(len(symbols)) for offset in (0, 6)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged.elf"
        while (cases is None or done < cases) and (until is None or time.monotonic() < until):
            picked = random.Random(f"{seed}/{done}")
            which = picked.randrange(len(bodies))
            body = damaged(bodies[which], picked)
            path.write_bytes(body)
            start = time.process_time()
            try:
                ask(path, picked.sample(lists[which], 12), picked)
            except BaseException:
                print(f"seed {seed} case {done}: {ELFS[which].name}", file=sys.stderr)
                raise
            took = time.process_time() - start
            longest = max(longest, took)
            if took > CASE_LIMIT_S:
                raise AssertionError(f"seed {seed} case {done} took {took:.1f} s: {ELFS[which].name}")
            done += 1
    return done, longest


if __name__ == "__main__":
    count, worst = run(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0, None, int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    print(f"{count} damaged files, nothing raised, the longest took {worst * 1e3:.0f} ms")
