"""A device that answers everything with well-formed nonsense: every operation of the client ends, and in bounded time."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from espmon.bootloader.actions import Action, Discard, Note, Now, Receive, Send, SetBaud, Steps, Wait
from espmon.bootloader.errors import LoaderProblem
from espmon.bootloader.link import Link
from espmon.bootloader.loaders import LOADERS
from espmon.bootloader.stub.client import OwnStub, find
from espmon.bootloader.stub.protocol import REPLY, FrameReader, Hello, Op, encode
from tests.stub.interpreter import Interpreter

HELLO = Hello(
    version=1, window=16384, divider=451, flash_id=0x1640EF, status=0, flash_size=4 << 20,
    damaged=0, lost=0, overruns=0, framing=0, can_boot=True, fuses=(0, 0, 0, 0),
)  # fmt: skip
# Longer than any honest operation here could take, and the limits of the client together.
LIMIT_S = 400.0


class Nonsense(Interpreter):
    """The other end: knows which tags and commands came, and makes the most of it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now = 0.0
        self.reader = FrameReader()
        self.tags = [0]
        self.op = 1
        self.talks = self.chance.choice((0.0005, 0.01, 0.2))

    def _frame(self) -> bytes:
        chance = self.chance
        op = chance.choice(
            (self.op | REPLY, Op.NAK, Op.SECTOR, Op.END, Op.DATA | REPLY, Op.POLL | REPLY, chance.randrange(256))
        )
        argument = chance.choice((0, 0, 0, chance.randrange(14), chance.randrange(65536)))
        word = lambda: chance.choice((0, 0x1000, 0x2000, 4, chance.randrange(1 << 32)))  # noqa: E731
        body = chance.choice(
            (
                b"",
                chance.randbytes(chance.randrange(4200)),
                *(struct.pack("<I", word()) * n for n in (1, 2, 4, 5, 14, 65)),
            )
        )
        return encode(op, chance.choice(self.tags), argument, body[:4096])

    def perform(self, action: Action) -> Any:
        assert self.now < LIMIT_S, "no end in sight"
        match action:
            case Send(data):
                for frame in self.reader.feed(data)[1]:
                    self.tags = [*self.tags[-3:], frame.tag]
                    self.op = frame.op
            case Receive(timeout_s):
                if self.talks < timeout_s and self.chance.random() < 0.98:
                    self.now += self.talks
                    return b"".join(self._frame() for _ in range(self.chance.randrange(1, 4)))
                self.now += timeout_s
                return self.chance.choice((b"", b"noise"))
            case Wait(seconds):
                self.now += seconds
            case Discard():
                return b""
            case Now():
                return self.now
            case SetBaud() | Note():
                pass
            case _:
                raise AssertionError(action)
        return None


OPERATIONS: dict[str, Callable[[OwnStub], Steps[Any]]] = {
    "write": lambda s: s.write(0x1000, bytes(20_000)),
    "write noise": lambda s: s.write(0x1000, random.Random(1).randbytes(20_000)),
    "read": lambda s: s.read(0x1234, 30_000),
    "map": lambda s: s.map(0, 200),
    "differing": lambda s: s.differing(0, bytes(9000)),
    "md5": lambda s: s.md5(0, 4096),
    "erase": lambda s: s.erase(0, 0x20000),
    "rate": lambda s: s.change_rate(460800, "asked"),
    "resync": lambda s: s.resync(),
    "refresh": lambda s: s.refresh(),
    "leave": lambda s: s.start_application(),
    "find": lambda s: find(s.link, s.facts),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_ends(name: str) -> None:
    for seed in range(25):
        device = Nonsense(seed)
        stub = OwnStub(Link(115200), LOADERS["esp8266"], HELLO)
        with suppress(LoaderProblem):
            device.run(OPERATIONS[name](stub))
