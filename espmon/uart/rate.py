"""From garbage to the sender's rate: which ratio of rates makes text look like these bytes?

``ratios.bin`` (made by ``tests/tools/train_rates.py``) holds one table for each of :data:`TABLES` ratios sender / receiver,
2.5 % apart: the cost, in steps of :data:`NATS_PER_STEP`, of each byte after each class of byte before it. The ratio whose
table makes the bytes cheapest wins, if it wins clearly, and if it beats a model that learns the bytes' own statistics
while reading them: that one is better at everything that is no text at a wrong rate (binary, UTF-8, compressed, noise).

Layout: ``UART``, tables (u16), classes (u16), one offset per table and the end (u32), little-endian; each table is
zlib-compressed, ``classes * 256`` bytes, row by class of the byte before.
"""

from __future__ import annotations

import math
import pkgutil
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

CLASSES = 16
NATS_PER_STEP = 0.2
TOP = 60
STEP = 0.025
"""Natural logarithm between the ratios of two tables."""
_SLOWEST = 1 / 12.8
_FASTEST = 17.6
_FIRST = round(math.log(_SLOWEST) / STEP)
TABLES = round(math.log(_FASTEST) / STEP) - _FIRST + 1

# The byte before decides what the next frame can be by where its stop sample fell: the last samples matter most.
CLASS_OF = bytes(b >> 4 for b in range(256))

STANDARD_RATES = (
    9600, 14400, 19200, 28800, 38400, 57600, 74880, 76800, 115200, 128000, 230400, 250000, 256000, 460800, 500000,
    576000, 921600, 1000000, 1152000, 1500000, 2000000,
)  # fmt: skip
"""Rates that boards send at, 74880 and Arduino's favourites among them."""

# What is rarely used needs more evidence, in nats.
_RARE = {14400: 4.0, 28800: 4.0, 76800: 5.0, 128000: 4.0, 256000: 2.0, 576000: 3.0, 1152000: 4.0}
_MIXUP_COST = 6.0

#: A 40 MHz configuration on a 26 MHz crystal sends 0.65 times, the reverse 1.54 times as fast as it means to.
CRYSTAL_FACTORS = (26 / 40, 40 / 26)
_MIXED_UP_RATES = (9600, 38400, 57600, 115200, 230400, 460800, 921600)


def ratio_of(n: int) -> float:
    """Sender's rate / receiver's rate of table `n`."""
    return math.exp((_FIRST + n) * STEP)


def table_for(ratio: float) -> int | None:
    """The table nearest to `ratio`, None when no table is near."""
    n = round(math.log(ratio) / STEP) - _FIRST
    return n if 0 <= n < TABLES else None


@cache
def _file() -> bytes:
    content = pkgutil.get_data("espmon.uart", "ratios.bin")
    if content is None or content[:4] != b"UART" or struct.unpack_from("<HH", content, 4) != (TABLES, CLASSES):
        raise RuntimeError("espmon/uart/ratios.bin does not belong to this version: python -m tests.tools.train_rates")
    return content


def packed(n: int) -> bytes:
    """The tables of ratio number `n` as they stand in the file."""
    content = _file()
    begin, end = struct.unpack_from("<II", content, 8 + 4 * n)
    return content[begin:end]


@cache
def _tables(n: int) -> tuple[bytes, ...]:
    joined = zlib.decompress(packed(n))
    size = CLASSES * 256
    return tuple(joined[at : at + size] for at in range(0, len(joined), size))


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A rate that a board may send at. `meant`: what its firmware meant to send at, when the crystal is another one."""

    rate: int
    table: int
    prior: float
    meant: int | None = None


@cache
def candidates(received_at: int) -> tuple[Candidate, ...]:
    """Every rate that can be told when listening at `received_at`, that rate itself included."""
    out = []
    for rate in STANDARD_RATES:
        n = table_for(rate / received_at)
        if n is not None:
            out.append(Candidate(rate=rate, table=n, prior=_RARE.get(rate, 0.0)))
    for meant in _MIXED_UP_RATES:
        for factor in CRYSTAL_FACTORS:
            rate = round(meant * factor)
            if all(abs(rate / standard - 1) > 0.05 for standard in STANDARD_RATES):
                n = table_for(rate / received_at)
                if n is not None:
                    out.append(Candidate(rate=rate, table=n, prior=_MIXUP_COST, meant=meant))
    return tuple(out)


def cost(received: bytes, table: int) -> float:
    """Nats that table number `table` needs for the bytes, in the regime that fits them best."""
    steps = pairs(received)
    return min(sum(map(t.__getitem__, steps)) for t in _tables(table)) * NATS_PER_STEP


def own_rate_cost(received: bytes) -> float:
    """Nats for the bytes as text at the right rate, which may be in any language: the tables know only ASCII, so a byte
    above 0x7f costs no more than one of 128 that are equally likely, and one bit to say so."""
    table = table_for(1.0)
    assert table is not None
    high = int((math.log(128) + 0.7) / NATS_PER_STEP)
    steps = pairs(received)
    return min(sum(min(t[k], high) if k & 0x80 else t[k] for k in steps) for t in _tables(table)) * NATS_PER_STEP


def byte_costs(received: bytes, sent_at: int, received_at: int, before: int = 0) -> list[float] | None:
    """Nats for each byte, were it sent at `sent_at`, in the regime that fits all of them best; None for a ratio without
    tables. `before` is the byte in front of them."""
    n = table_for(sent_at / received_at)
    if n is None or not received:
        return None
    steps = pairs(received)
    steps[0] = CLASS_OF[before] << 8 | received[0]
    best = min(_tables(n), key=lambda t: sum(map(t.__getitem__, steps)))
    return [best[k] * NATS_PER_STEP for k in steps]


def pairs(received: bytes) -> list[int]:
    """Where each byte of `received` stands in a table, after the byte before it."""
    return [a >> 4 << 8 | b for a, b in zip(b"\0" + received, received, strict=False)]


def own_cost(received: bytes) -> float:
    """Nats that an order-0 model needs which starts knowing nothing and learns each byte after it was charged for it."""
    counts = [0] * 256
    total = 0.0
    for n, byte in enumerate(received):
        total -= math.log((counts[byte] + 0.5) / (n + 128.0))
        counts[byte] += 1
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """The sender's rate as the bytes tell it. `margin`: nats to the next other rate; `gain`: nats per byte by which the
    best table beats the bytes' own statistics; `order`: nats, all in all, by which it beats pure noise."""

    rate: int
    meant: int | None
    margin: float
    gain: float
    received: int
    order: float = 0.0
    second: int | None = None

    @property
    def confidence(self) -> float:
        """0 to 1, from the margin."""
        return round(1 - 0.5 * math.exp(-max(0.0, self.margin) / 10), 2)


def guess(received: bytes, received_at: int, limit: int = 2048, *, own: bool = True, faster: bool = True) -> Guess | None:
    """The likeliest rate, were these bytes text that was sent at some rate: `own` says whether `received_at` may be the one,
    `faster` whether a higher one may. Looks at up to `limit` bytes."""
    sample = received[:limit]
    if not sample:
        return None
    most = received_at * (99.0 if faster else 1.035)
    others = [c for c in candidates(received_at) if c.rate < most and (own or abs(c.rate / received_at - 1) > 0.035)]
    scored = [(cost(sample, c.table) + c.prior, c) for c in others]
    if own:
        table = table_for(1.0)
        assert table is not None
        scored.append((own_rate_cost(sample), Candidate(rate=received_at, table=table, prior=0.0)))
    scored.sort(key=lambda pair: (pair[0], pair[1].rate))
    if not scored:
        return None
    best_cost, best = scored[0]
    second = next(((s, c) for s, c in scored[1:] if abs(c.rate / best.rate - 1) > 0.035), None)
    return Guess(
        rate=best.rate,
        meant=best.meant,
        margin=(second[0] - best_cost) if second else 99.0,
        gain=(own_cost(sample) - best_cost) / len(sample),
        received=len(sample),
        order=len(sample) * math.log(256) - best_cost,
        second=second[1].rate if second else None,
    )


def rates_near(rate: int, among: Sequence[int] = STANDARD_RATES, tolerance: float = 0.035) -> int | None:
    """The standard rate within `tolerance` of `rate`, None when there is none."""
    best = min(among, key=lambda r: abs(r / rate - 1))
    return best if abs(best / rate - 1) <= tolerance else None
