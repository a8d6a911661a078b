"""The program itself on a pseudo terminal whose board is garbled by the rate that was set: ``python -m tests.uart.real``.

Real time, one process per run: few runs. The wide measurement is `tests.uart.live`, in virtual time. Linux only.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import time

from espmon.board.line import ReceiverShape
from tests.fakes.garbling_board import GarblingBoard
from tests.fakes.watched_pty import Espmon
from tests.uart import live, sim, texts

_BOOT = re.compile(r"rst cause (\d)")


def shape(rng: random.Random) -> ReceiverShape:
    osr = rng.choice((8, 16))
    return ReceiverShape(
        oversampling=osr,
        tick=rng.choice((7, 8, 9)) if osr == 16 else rng.choice((4, 4, 3)),
        majority=rng.random() < 0.5,
        phase=rng.random(),
        clock_error=rng.uniform(-0.015, 0.015),
    )


def watch(baud: int, seconds: float, style: str, rom: bool, seed: int) -> tuple[float, float, int, int, list[tuple[float, int]], int]:
    """(seconds to the first right line, share of lines shown, boots sent, boots shown, rates set, bytes written to the board)."""
    rng = random.Random(f"{baud}/{seed}/{style}/{rom}")
    parts: list[tuple[bytes, float, float]] = []
    lines: list[bytes] = []
    boots = 0
    total = 0.0
    while total < seconds:
        new: list[tuple[bytes, float, float]] = []
        if rom:
            boots += 1
            new += [*sim.banner(rng.choice((1, 2, 4)), 3, rng.randrange(8), rng), (b"", sim.ROM_RATE, 0.1)]
        some = texts.lines(style, rng, min(seconds, 3.0), min(1000.0, baud / 11))
        lines += some
        new += live.talk(some, baud)
        total += sum(10 * len(data) / rate + pause for data, rate, pause in new)
        parts += new
    board = GarblingBoard(parts, shape(rng))
    monitor = Espmon(board.name)
    wanted = {line.rstrip() for line in lines}
    first = 99.0
    try:
        live_since = time.monotonic()
        while board.rate() != 115200 and time.monotonic() < live_since + 10:  # the program has opened the port
            time.sleep(0.01)
        time.sleep(0.3)
        board.begin()
        end = time.monotonic() + total + 1.5
        while time.monotonic() < end:
            time.sleep(0.02)
            if first == 99.0 and any(line.rstrip() in wanted for line in monitor.text.encode().split(b"\n")):
                first = time.monotonic() - board.begun
        shown = monitor.text
    finally:
        monitor.close()
        board.close()
    found = live.whole_lines(shown.encode(), lines)
    return first, found / len(lines), boots, len(_BOOT.findall(shown)), board.rates, len(board.written)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", type=int, nargs="*", default=list(live.RATES))
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--style", default="plain")
    parser.add_argument("--rom", action="store_true", help="a boot ROM at 74880 every 3 s")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    shares = []
    for baud in args.rates:
        first, share, boots, told, rates, written = watch(baud, args.seconds, args.style, args.rom, args.seed)
        shares.append(100 * share)
        set_to = " ".join(f"{rate}@{at:.2f}" for at, rate in rates)
        print(f"{baud:8d}: right lines after {first:5.2f} s, {100 * share:5.1f} % of lines shown, boots {told}/{boots}, {written} bytes written, rates {set_to}", flush=True)
    print(f"mean {statistics.mean(shares):.1f} %, worst {min(shares):.1f} %")


if __name__ == "__main__":
    main()
