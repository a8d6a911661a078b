"""The thresholds of baud detection, measured: ``python -m tests.uart.measure [banners|logs|alarms] [--draws N] [--seed S]``.

Captures come from `tests.uart.sim`, whose receivers share no code with `espmon.uart`.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import dataclass, field

from espmon.uart.banner import Banner, BannerReader
from espmon.uart.capture import read_capture
from espmon.uart.rate import guess
from tests.tools.train_rates import logs, pieces
from tests.uart import sim
from tests.uart.right_rate import captures

Parts = list[tuple[bytes, float, float]]


def tails(value: tuple[int, int, int]) -> set[object]:
    """What can follow the banner, as far as the digits decide it. An empty flash makes mode 3 print what `sim` has modes 0
    and 2 print (docs/design/uart.md), so that text tells none of the three."""
    cause, x, _ = value
    after = {"ets_main", "load"} if x == 3 else {x if x == 1 else "host" if x >= 4 else "ets_main"}
    return {(cause == 4, cause == 0, text) for text in after}


@dataclass
class Score:
    right: int = 0
    wrong: int = 0
    silent: int = 0
    tellable: int = 0
    tellable_right: int = 0
    untellable: int = 0
    said_untellable: int = 0

    def add(self, said: int | None, truth: int, tellable: bool) -> None:
        self.right += said == truth
        self.wrong += said is not None and said != truth
        self.silent += said is None
        self.tellable += tellable
        self.tellable_right += tellable and said == truth
        self.untellable += not tellable
        self.said_untellable += not tellable and said is not None

    def row(self) -> str:
        n = max(1, self.right + self.wrong + self.silent)
        return (
            f"right {100 * self.right / n:5.1f} wrong {100 * self.wrong / n:4.1f} "
            f"tellable {self.tellable_right}/{self.tellable} ({100 * self.tellable_right / max(1, self.tellable):5.1f} %) "
            f"said-untellable {self.said_untellable}/{self.untellable}"
        )


@dataclass
class Result:
    cause: Score = field(default_factory=Score)
    x: Score = field(default_factory=Score)
    y: Score = field(default_factory=Score)
    invented: int = 0
    missed: int = 0
    seconds: float = 0.0
    received: int = 0


def one_capture(
    rng: random.Random, rate: int, value: tuple[int, int, int], receiver: sim.Receiver, error: float
) -> tuple[bytes, tuple[bool, bool, bool]]:
    """Received bytes of one boot, and whether each digit can be told from them at all."""
    before = rng.random() < 0.5
    app = b"".join(rng.choice((b"wifi: connected\r\n", b"sensor 1 = 22.5 C\r\n", b"loop\r\n")) for _ in range(3))
    state = rng.getstate()

    empty = value[1] in (0, 2)

    def heard(v: tuple[int, int, int]) -> bytes:
        rng.setstate(state)
        parts: Parts = [(app, rate * (1 + error), 0.02)] if before else []
        parts += sim.banner(*v, rng, empty=empty)
        parts[-1] = (parts[-1][0], parts[-1][1], 0.02)
        parts.append((app, rate * (1 + error), 0.01))
        return sim.receive(sim.wire(parts), rate * (1 + error), receiver)

    truth = heard(value)
    told = []
    for n, count in ((0, 7), (1, 8), (2, 8)):
        rivals = [(*value[:n], v, *value[n + 1 :]) for v in range(count) if v != value[n]]
        told.append(not any(tails(r) & tails(value) and heard(r) == truth for r in rivals))
    heard(value)
    return truth, (told[0], told[1], told[2])


def measure_banners(
    rate: int, draws: int, seed: int, odd: bool = False, verbose: bool = False, wide: bool = False
) -> Result:
    rng = random.Random(f"{seed}/{rate}/{odd}")
    result = Result()
    for n in range(draws):
        value = (rng.choice((1, 2, 4, 4, 2, 1, 0, 3, 5, 6)), rng.choice((1, 3, 7, 3, 3, 0, 2, 4, 5, 6)), rng.randrange(8))
        receiver = sim.odd_receiver(rng) if odd else sim.usual_receiver(rng)
        error = rng.uniform(-0.02, 0.02) * (2.5 if wide else 1)
        capture, told = one_capture(rng, rate, value, receiver, error)
        begun = time.perf_counter()
        found: list[Banner] = BannerReader(rate).read(capture)
        result.seconds += time.perf_counter() - begun
        result.received += len(capture)
        result.invented += max(0, len(found) - 1)
        result.missed += not found
        said = (found[0].cause, found[0].x, found[0].y) if found else (None, None, None)
        for score, s, v, t in zip((result.cause, result.x, result.y), said, value, told, strict=True):
            score.add(s, v, t)
        if verbose and any(s != v and (t or s is not None) for s, v, t in zip(said, value, told, strict=True)):
            print(n, value, said, told, found[0].cost if found else None, found[0].tail if found else None, receiver, f"{error:.4f}")
    return result


def banners(draws: int, seed: int, verbose: bool, rates: list[int], odd: bool, wide: bool) -> None:
    for rate in rates:
        r = measure_banners(rate, draws, seed, odd, verbose, wide)
        print(f"{rate:7d} {'odd ' if odd else ''}{r.seconds / draws * 1000:.0f} ms each, missed {r.missed} invented {r.invented}")
        for name in ("cause", "x", "y"):
            print(f"        {name:6s}{getattr(r, name).row()}")


RATES = (9600, 19200, 38400, 57600, 74880, 115200, 230400, 250000, 460800, 500000, 576000, 921600, 1000000, 1500000, 2000000)
LISTENING = (57600, 74880, 115200, 230400, 250000, 460800, 921600, 9600)


def log_capture(rng: random.Random, log: bytes, sent: int, received: int, odd: bool = False) -> bytes:
    """A whole log that was sent at one rate and received at another, with pauses between some lines."""
    error = 1 + rng.uniform(-0.015, 0.015)
    parts = [(p, sent * error, rng.choice((0.0, 0.001, 0.02))) for p in pieces(log, rng)]
    return sim.receive(sim.wire(parts), received, sim.odd_receiver(rng) if odd else sim.usual_receiver(rng))


def whole_logs(draws: int, seed: int, verbose: bool, held_out: bool = True) -> tuple[int, int, int]:
    """(right, wrong, silent) over pairs of rates whose ratio can be told (1/11 .. 5), on held-out logs."""
    rng = random.Random(f"logs/{seed}")
    texts = [t for t in logs(held_out) if len(t) > 150]
    right = wrong = silent = 0
    by_pair: dict[tuple[int, int], list[int]] = {}
    for _ in range(draws):
        received, sent = rng.choice(LISTENING), rng.choice(RATES)
        if abs(sent / received - 1) < 0.05 or not 1 / 11 < sent / received < 5:
            continue
        capture = log_capture(rng, rng.choice(texts), sent, received)
        told = [s for s in read_capture(capture, received) if s.sent_at]
        rates = {s.sent_at for s in told}
        good = len(rates) == 1 and all(abs((s.sent_at or 1) / sent - 1) < 0.035 for s in told)
        right += good
        wrong += bool(rates) and not good
        silent += not rates
        row = by_pair.setdefault((received, sent), [0, 0, 0])
        row[0 if good else 1 if rates else 2] += 1
        if verbose and not good:
            g = guess(capture, received)
            print(f"{sent} -> {received}: {[(s.start, s.end, s.sent_at) for s in told]} of {len(capture)}; guess {g}")
    if verbose:
        for pair, row in sorted(by_pair.items()):
            print(pair, row)
    n = max(1, right + wrong + silent)
    print(f"whole logs: right {100 * right / n:.1f} % wrong {100 * wrong / n:.1f} % silent {100 * silent / n:.1f} % of {n}")
    return right, wrong, silent


def alarms(seed: int, rates: list[int], verbose: bool) -> int:
    """How many right-rate and noise captures were said anything about."""
    false = total = 0
    for rate in rates:
        reader = BannerReader(rate)
        for name, capture in captures(seed):
            total += 1
            found = read_capture(capture, rate, reader)
            if found:
                false += 1
                g = guess(capture[found[0].start : found[0].end], rate)
                print(f"FALSE ALARM at {rate}: {name}: {found[0]} {g}")
    print(f"false alarms: {false} of {total}")
    return false


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="?", default="banners")
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rates", default="38400,57600,76800,115200,230400,250000,460800")
    parser.add_argument("--odd", action="store_true")
    parser.add_argument("--wide", action="store_true", help="clock errors up to 5 %%")
    parser.add_argument("-v", action="store_true")
    args = parser.parse_args()
    if args.what == "logs":
        whole_logs(args.draws, args.seed, args.v)
    elif args.what == "alarms":
        alarms(args.seed, [int(r) for r in args.rates.split(",")], args.v)
    elif args.what == "banners":
        banners(args.draws, args.seed, args.v, [int(r) for r in args.rates.split(",")], args.odd, args.wide)


if __name__ == "__main__":
    main()
