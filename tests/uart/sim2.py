"""A second sender, wire and receiver, apart from `tests.uart.sim` and from `espmon.uart`: events in continuous time.

Where `sim` looks at a list of toggles at whole ticks, this one walks through pulses (level, length) in seconds, and its
receiver is made of what data sheets name: a base clock, an oversampling counter fed by a fractional divider, a vote of one,
three or five samples, a start bit that is checked or not, what happens after a stop bit that was low, a FIFO that can
overrun and a host that can lose a transfer. Draws are wider than anything the decoder was tuned on.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

ROM_RATE = 52e6 / 694


@dataclass(frozen=True)
class Part:
    """Text that is sent without a pause, and the silence after it in seconds."""

    text: bytes
    rate: float
    silence: float = 0.0


@dataclass(frozen=True)
class Uart:
    """A receiving UART as its data sheet would describe it.

    `votes`: 1, 3 or 5 samples around `centre` (in bits). `checked`: the start bit must be low in its middle.
    `ready`: how much of the stop bit has passed when the next start is looked for. `broken`: after a low stop bit wait
    for a high line ("wait"), take the stop bit as the next start bit ("start"), or look on at once ("level").
    `damaged`: what becomes of such a byte: "keep", "zero", "lose". `jitter`: standard deviation of each of the sender's edges, in its bits.
    """

    oversampling: int = 16
    clock: float = 48e6
    centre: float = 0.5
    votes: int = 1
    checked: bool = False
    ready: float | None = None
    broken: str = "wait"
    damaged: str = "keep"
    jitter: float = 0.0  # of the sender's edges, in its bits


class _Line:
    """A list of pulses that is read forwards only, with a little room to look back."""

    def __init__(self, parts: Iterable[Part], jitter: float, rng: random.Random) -> None:
        self.edges: list[float] = [0.0]  # times of changes; the line is high before edges[1]
        now, level = 2e-3, True
        for part in parts:
            bit = 1 / part.rate
            for char in part.text:
                frame = char << 1 | 0x200
                for k in range(10):
                    wanted = bool(frame >> k & 1)
                    if wanted != level:
                        at = now + k * bit + (rng.gauss(0, jitter * bit) if jitter else 0.0)
                        self.edges.append(max(at, self.edges[-1] + 1e-9))
                        level = wanted
                now += 10 * bit
            now += part.silence
        self.end = now
        self._at = 0

    def high(self, t: float) -> bool:
        at = self._at
        edges = self.edges
        while at + 1 < len(edges) and edges[at + 1] <= t:
            at += 1
        while at > 0 and edges[at] > t:
            at -= 1
        self._at = at
        return at % 2 == 0

    def next_fall(self, t: float) -> float | None:
        """The next high-to-low change after `t`."""
        self.high(t)
        at = self._at + 1
        if at % 2 == 0:
            at += 1
        return self.edges[at] if at < len(self.edges) else None


def receive(parts: Iterable[Part], rate: float, uart: Uart, rng: random.Random) -> bytes:
    """The bytes that `uart`, set to `rate`, makes of the parts."""
    return bytes(byte for byte, _ in timed(parts, rate, uart, rng))


def timed(parts: Iterable[Part], rate: float, uart: Uart, rng: random.Random) -> list[tuple[int, float]]:
    line = _Line(parts, uart.jitter, rng)
    osr = uart.oversampling
    while osr > 4 and uart.clock < 1.5 * rate * osr:  # no clock for that: adapters sample more coarsely then
        osr //= 2
    divider = max(1.0, uart.clock / (rate * osr))  # base clocks per tick, fractional
    start_phase = rng.random()

    def tick_time(n: int) -> float:
        # a fractional divider ends each tick on a whole base clock
        return (int(n * divider + start_phase * divider)) / uart.clock

    def tick_after(t: float) -> int:
        n = int((t * uart.clock - start_phase * divider) / divider)
        while tick_time(n) <= t:
            n += 1
        return n

    middle = max(1, min(osr - 1, round(osr * uart.centre)))
    around = {1: (0,), 3: (-1, 0, 1), 5: (-2, -1, 0, 1, 2)}[uart.votes if osr >= 3 * uart.votes else 1]

    def bit(n: int) -> bool:
        return sum(line.high(tick_time(n + k)) for k in around) * 2 > len(around)

    out: list[tuple[int, float]] = []
    now = 0.0
    start: int | None = None
    while True:
        if start is None:
            fall = line.next_fall(now)
            if fall is None:
                return out
            start = tick_after(fall)
            if line.high(tick_time(start)):  # the pulse fell between two ticks
                now, start = fall, None
                continue
        if uart.checked and bit(start + osr // 2):
            now, start = tick_time(start + osr // 2), None
            continue
        byte = 0
        for k in range(8):
            byte |= bit(start + osr * (k + 1) + middle) << k
        stop = start + osr * 9 + middle
        good = bit(stop)
        if good or uart.damaged == "keep":
            out.append((byte, tick_time(stop)))
        elif uart.damaged == "zero":
            out.append((0, tick_time(stop)))
        start = None
        if good:
            free = stop if uart.ready is None else start_of_ready(stop, middle, osr, uart.ready)
            now = tick_time(free)
            if not line.high(now) and free > stop:
                start = free  # the next start bit has already begun: it is seen late
        elif uart.broken == "start":
            start = stop - middle  # the stop bit was the next start bit
            now = tick_time(stop)
        elif uart.broken == "level" and not line.high(tick_time(stop + 1)):
            start = stop + 1
        else:
            now = tick_time(stop)
        if now > line.end + 1:
            return out


def start_of_ready(stop: int, middle: int, osr: int, ready: float) -> int:
    """The tick at which `ready` of the stop bit has passed, not before its sample."""
    return max(stop, stop - middle + round(osr * ready))


def lose(received: bytes, rng: random.Random, chunk: int | None = None) -> bytes:
    """A FIFO that overran (a run of bytes) or a host that lost a transfer."""
    if not received:
        return received
    size = chunk or rng.randrange(1, 9)
    at = rng.randrange(len(received))
    if chunk:
        at -= at % chunk
    return received[:at] + received[at + size :]


def plain_uart(rng: random.Random) -> Uart:
    """What adapters do that people use: any oversampling from 8 on, samples near the middle, damaged bytes kept."""
    osr = rng.choice((8, 16, 16, 16, 32))
    return Uart(
        oversampling=osr,
        clock=rng.choice((12e6, 24e6, 48e6, 48e6, 60e6)),
        centre=rng.choice((0.44, 0.5, 0.5, 0.56)) if osr >= 16 else 0.5,
        votes=rng.choice((1, 3, 3)),
        checked=rng.random() < 0.5,
        jitter=rng.choice((0.0, 0.005, 0.01)),
    )


def strange_uart(rng: random.Random) -> Uart:
    """Any receiver that could be sold: coarse or early or late sampling, other habits after damage."""
    osr = rng.choice((4, 5, 6, 8, 10, 12, 13, 16, 24, 32))
    return Uart(
        oversampling=osr,
        clock=rng.choice((7.3728e6, 12e6, 24e6, 48e6, 60e6)),
        centre=rng.uniform(0.38, 0.68),
        votes=rng.choice((1, 1, 3, 5)),
        checked=rng.random() < 0.5,
        ready=rng.choice((None, None, None, 0.75, 1.0)),
        broken=rng.choice(("wait", "wait", "start", "level")),
        damaged=rng.choice(("keep", "keep", "keep", "zero", "lose")),
        jitter=rng.choice((0.0, 0.01, 0.03)),
    )


def loads(rng: random.Random) -> list[bytes]:
    """What the ROM prints while it loads an image, and what its first stage says at the ROM's rate, as real boards do."""
    kind = rng.choice(("eboot", "eboot", "sdk", "boot17", "rtos", "bad", "flash"))

    def load(address: int, size: int, room: int, tail: int, total: int) -> bytes:
        return b"load 0x%08x, len %d, room %d \r\ntail %d\r\nchksum 0x%02x\r\n" % (address, size, room, tail, total)

    if kind == "eboot":
        total = rng.choice((0x2D, 0x2E, 0xEF, rng.randrange(256)))
        size = rng.choice((1384, 3424, 3456, 3584, 3664))
        out = [load(0x4010F000, size, 16, size % 16, total)]
        if rng.random() < 0.5:
            out.append(load(0x3FFF20B8, 40, 8, 0, total := rng.randrange(256)))
        out += [b"csum 0x%02x\r\n" % total, b"v%08x\r\n" % rng.randrange(0x2000, 0x90000)]
        return [*out, rng.choice((b"~ld\r\n", b"@cp:0\r\nld\r\n", b"~ld\n"))]
    if kind in ("sdk", "boot17", "rtos"):
        sizes = [rng.randrange(400, 33000) for _ in range(3)]
        at = 0x3FFE8000
        total = rng.randrange(256)
        out = [load(0x40100000, sizes[0], 16, sizes[0] % 16, rng.randrange(256))]
        for n, size in enumerate(sizes[1:]):
            out.append(load(at, size, rng.choice((4, 8)), size % 16, total if n else rng.randrange(256)))
            at += size
        out.append(b"csum 0x%02x\r\n" % total)
        if kind == "boot17":
            out.append(
                b"\r\n2nd boot version : 1.7(5d6f877)\r\n  SPI Speed      : 40MHz\r\n  SPI Mode       : QIO\r\n"
                b"  SPI Flash Size & Map: 32Mbit(512KB+512KB)\r\njump to run user%d @ 1000\r\n\r\n" % rng.choice((1, 2))
            )
            out.append(b"rf cal sector: 1020\r\nfreq trace enable 0\r\nrf[112] : 00\xff"[:-1] + b"\r\n")
        if kind == "rtos":
            out.append(b"I (47) boot: ESP-IDF v3.1-dev 2nd stage bootloader\r\nI (47) boot: compile time 13:35:10\r\n")
        return out
    if kind == "bad":
        return [load(0x40100000, 31320, 16, 8, 0xEF), load(0, 0, 0, 0, 0xEF), b"csum 0xef\r\ncsum err\r\n", b"ets_main.c "]
    return [b"ets_main.c "]  # empty flash


def boot(cause: int, x: int, y: int, rng: random.Random, rate: float = ROM_RATE) -> tuple[list[Part], str]:
    """One boot of the ROM as a disassembly of it and the boards' own texts have it; and what follows in one word.

    Causes 1, 2 and 4 set the boot up from the strap; cause 4 says `wdt reset` first; cause 0 says `unknown reset`,
    `ets_main.c` and stops. Modes 0 and 1 wait in silence, mode 2 jumps into RAM in silence, 4 to 7 wait for an SDIO host.
    """
    pause = lambda: rng.choice((0.0, 0.0, 1e-4, 4e-4, 2e-3, 9e-3))  # noqa: E731
    parts = [Part(b"\r\n ets Jan  8 2013,rst cause:%d, boot mode:(%d,%d)\r\n\r\n" % (cause, x, y), rate, pause())]
    if cause == 0:
        return [*parts, Part(b"unknown reset\r\n", rate, pause()), Part(b"ets_main.c ", rate, 0.05)], "unknown"
    if cause == 4:
        parts.append(Part(b"wdt reset\r\n", rate, pause()))
    if x == 3:
        after = loads(rng)
        parts += [Part(text, rate, pause()) for text in after]
        return parts, "empty" if after == [b"ets_main.c "] else "load"
    if x >= 4:
        parts.append(Part(b"waiting for host\r\n", rate, 0.02))
        return parts, "host"
    return parts, "silent"


C2_BOOT = (
    b"ESP-ROM:esp8684-api2-20220127\r\nBuild:Jan 27 2022\r\nrst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)\r\n"
    b"SPIWP:0xee\r\nmode:DIO, clock div:2\r\nload:0x3fcd5820,len:0x16e0\r\nload:0x403acb70,len:0x8a8\r\n"
    b"load:0x403aeb70,len:0x2b98\r\nentry 0x403acb70\r\n"
)


def application(rng: random.Random, lines: int = 6) -> bytes:
    """Text of an application that is in no corpus."""
    out = b""
    for _ in range(lines):
        out += rng.choice(
            (
                b"[%06d] heap=%d rssi=-%d\r\n" % (rng.randrange(999999), rng.randrange(50000), rng.randrange(40, 90)),
                b"publish home/%s/temp %d.%02d ok\r\n" % (rng.choice((b"attic", b"cellar", b"garage")), rng.randrange(40), rng.randrange(100)),
                b"D %d.%03d loop took %d us\r\n" % (rng.randrange(99), rng.randrange(1000), rng.randrange(20000)),
                b'{"id":%d,"v":[%d,%d,%d]}\r\n' % (rng.randrange(99), *(rng.randrange(1024) for _ in range(3))),
                b"connected with MyNet, channel %d\r\ndhcp client start...\r\n" % rng.randrange(1, 14),
                b"relay %d -> %s\r\n" % (rng.randrange(4), rng.choice((b"ON", b"OFF"))),
                b"> \r\n",
            )
        )
    return out
