"""A sender, a wire and a receiver for tests, tick by tick: written apart from `espmon.uart`, whose model it must not share.

The sender makes a list of times at which the line changes; the receiver looks at the line at ticks of its own clock.
Times are seconds. Nothing here is drawn at random unless a `random.Random` is handed in.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

ROM_RATE = 52_000_000 / 694  # what a 26 MHz ESP8266's ROM really sends: 74927.95 baud


@dataclass(frozen=True)
class Receiver:
    """One kind of UART: oversampling, the tick of the sample, and what it does with starts and framing errors."""

    oversampling: int = 16
    centre: int = 8
    majority: bool = False
    phase: float = 0.0
    verify_start: bool = False
    restart: str = "edge"  # after a framing error: "edge" waits for high, "level" takes the low as the next start
    late: bool = False  # ready only at the end of the stop bit, not in its middle
    on_error: str = "pass"  # bytes with framing errors: "pass", "blank" (NUL) or "drop"


def wire(parts: Iterable[tuple[bytes, float, float]], start: float = 0.001) -> list[float]:
    """Times at which the line toggles (it starts high) for parts (data, baud, seconds of silence afterwards)."""
    toggles: list[float] = []
    t = start
    for data, baud, pause in parts:
        bit = 1.0 / baud
        for byte in data:
            level = 1
            for k, wanted in enumerate((0, *((byte >> i) & 1 for i in range(8)), 1)):
                if wanted != level:
                    toggles.append(t + k * bit)
                    level = wanted
            t += 10 * bit
        t += pause
    return toggles


def receive(toggles: list[float], baud: float, receiver: Receiver) -> bytes:
    """The bytes that `receiver` makes of the line when its real rate is `baud`."""
    return bytes(b for b, _ in receive_timed(toggles, baud, receiver))


def receive_timed(
    toggles: list[float], baud: float, receiver: Receiver, start: float = 0.0, damaged: list[float] | None = None
) -> Iterator[tuple[int, float]]:
    """Each byte with the time at which it is complete; the receiver is switched on at `start`. When frames came without
    their stop bit is added to `damaged`."""
    osr = receiver.oversampling
    tick = 1.0 / (baud * osr)
    offset = receiver.phase * tick

    def low(n: int) -> bool:
        return bisect.bisect_right(toggles, n * tick + offset) % 2 == 1

    def bit_at(n: int) -> int:
        if receiver.majority:
            return 0 if low(n - 1) + low(n) + low(n + 1) >= 2 else 1
        return 0 if low(n) else 1

    n = int(start / tick)
    forced: int | None = None
    while True:
        if forced is not None:
            begin, forced = forced, None
        else:
            if low(n):  # wait for high first
                i = bisect.bisect_right(toggles, n * tick + offset)
                if i >= len(toggles):
                    return
                n = int((toggles[i] - offset) / tick) + 1
                if low(n):
                    continue
            i = bisect.bisect_right(toggles, n * tick + offset)
            if i >= len(toggles):
                return
            begin = int((toggles[i] - offset) / tick) + 1
            if not low(begin):  # a pulse shorter than a tick
                n = begin
                continue
        if receiver.verify_start and not low(begin + osr // 2):
            n = begin + osr // 2
            continue
        byte = 0
        for k in range(8):
            byte |= bit_at(begin + osr * (k + 1) + receiver.centre) << k
        stop = begin + osr * 9 + receiver.centre
        good = bit_at(stop) == 1
        if not good and damaged is not None:
            damaged.append(stop * tick + offset)
        if good or receiver.on_error == "pass":
            yield byte, stop * tick + offset
        elif receiver.on_error == "blank":
            yield 0, stop * tick + offset
        n = begin + osr * 10 if receiver.late else stop
        if not good and receiver.restart == "level" and low(stop):
            forced = stop
        elif receiver.late and good and low(n):
            forced = n


def usual_receiver(rng: random.Random) -> Receiver:
    """The family of section 3 of the facts: oversampling 8 or 16, centre 7..9 of 16, majority or not, any phase."""
    osr = rng.choice((8, 16))
    centre = rng.choice((7, 8, 9)) if osr == 16 else rng.choice((4, 4, 3))
    return Receiver(oversampling=osr, centre=centre, majority=rng.random() < 0.5, phase=rng.random())


def odd_receiver(rng: random.Random) -> Receiver:
    """Receivers that the decoder was not made for."""
    osr = rng.choice((8, 10, 13, 16, 16, 32))
    centre = round(osr * rng.uniform(0.42, 0.70))
    return Receiver(
        oversampling=osr,
        centre=centre,
        majority=rng.random() < 0.3,
        phase=rng.random(),
        verify_start=rng.random() < 0.5,
        restart=rng.choice(("edge", "edge", "level")),
        late=rng.random() < 0.2,
        on_error=rng.choice(("pass", "pass", "pass", "blank", "drop")),
    )


def banner(
    cause: int, x: int, y: int, rng: random.Random, loads: bool = True, empty: bool = False
) -> list[tuple[bytes, float, float]]:
    """The boot ROM's text as parts for :func:`wire` at the ROM's rate, with what follows each mode."""
    parts = [(b"\r\n ets Jan  8 2013,rst cause:%d, boot mode:(%d,%d)\r\n\r\n" % (cause, x, y), ROM_RATE, rng.choice((0, 2e-4, 3e-3)))]
    if cause == 4:
        parts.append((b"wdt reset\r\n", ROM_RATE, rng.choice((0, 1e-4))))
    if cause == 0:
        parts.append((b"unknown reset\r\n", ROM_RATE, rng.choice((0, 1e-4))))
    if x in (4, 5, 6, 7):
        parts.append((b"waiting for host\r\n", ROM_RATE, 0.01))
    elif x in (0, 2) or (x == 3 and empty):
        parts.append((b"ets_main.c \r\n", ROM_RATE, 0.01))
    elif x == 3 and loads:
        for address in (0x4010F000, 0x3FFE8000)[: rng.choice((1, 1, 2))]:
            total = rng.randrange(500, 4000)
            text = b"load 0x%08x, len %d, room 16 \r\ntail %d\r\nchksum 0x%02x\r\n" % (address, total, total % 16, rng.randrange(256))
            parts.append((text, ROM_RATE, rng.choice((0, 1e-3))))
        parts.append((b"csum 0x%02x\r\n" % rng.randrange(256), ROM_RATE, 0.005))
    return parts
