"""The thresholds once more, on `tests.uart.sim2`: ``python -m tests.uart.measure2 [banners|logs|islands] ...``.

`banners`: one boot per capture, in one of the scenarios of :data:`SCENARIOS`. `islands`: several boots and an application
at the receiver's rate in one capture, through the whole of `read_capture`. `logs`: text at one rate heard at another.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from espmon.uart.banner import BannerReader
from espmon.uart.capture import read_capture
from tests.tools.train_rates import logs
from tests.uart import sim2
from tests.uart.measure import LISTENING, RATES, Result
from tests.uart.sim2 import Part

#: Which first mode digits can go with what follows. Silence is no proof against 3: a capture may have been started or cut
#: anywhere. `ets_main.c` counts for 0 and 2 as well, for one document says so.
POSSIBLE = {
    "load": {3}, "host": {4, 5, 6, 7}, "silent": {0, 1, 2, 3}, "empty": {0, 2, 3}, "unknown": set(range(8)),
}  # fmt: skip


@dataclass(frozen=True)
class Scenario:
    uart: Callable[[random.Random], sim2.Uart]
    error: float
    damage: Callable[[bytes, random.Random], bytes] | None = None
    #: digits are compared with the truth, but none is expected
    hopeless: bool = False


def _begin_inside(heard: bytes, rng: random.Random) -> bytes:
    return heard[rng.randrange(1, max(2, len(heard) // 2)) :]


def _end_inside(heard: bytes, rng: random.Random) -> bytes:
    return heard[: rng.randrange(len(heard) // 4, max(len(heard) // 4 + 1, len(heard)))]


def _lost(heard: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 2))):
        heard = sim2.lose(heard, rng, rng.choice((None, None, 32, 62)))
    return heard


def _struck(heard: bytes, rng: random.Random) -> bytes:
    """Bytes damaged, doubled or put in by noise on the line."""
    out = bytearray(heard)
    for _ in range(rng.choice((1, 2, 4))):
        at = rng.randrange(max(1, len(out)))
        kind = rng.randrange(3)
        if kind == 0:
            out[at : at + 1] = bytes((rng.randrange(256),))
        elif kind == 1:
            out[at:at] = rng.randbytes(rng.randrange(1, 4))
        else:
            del out[at : at + 1]
    return bytes(out)


SCENARIOS = {
    "plain": Scenario(sim2.plain_uart, 0.02),
    "wide": Scenario(sim2.plain_uart, 0.05),
    "strange": Scenario(sim2.strange_uart, 0.03, hopeless=True),
    "begun": Scenario(sim2.plain_uart, 0.02, _begin_inside, True),
    "cut": Scenario(sim2.plain_uart, 0.02, _end_inside, True),
    "lost": Scenario(sim2.plain_uart, 0.02, _lost, True),
    "struck": Scenario(sim2.plain_uart, 0.02, _struck, True),
    "mixed": Scenario(sim2.strange_uart, 0.05, lambda h, r: r.choice((_begin_inside, _end_inside, _lost, _struck))(h, r), True),
}


def one(rng: random.Random, rate: int, scenario: Scenario) -> tuple[bytes, tuple[int, int, int], tuple[bool, bool, bool], sim2.Uart, float]:
    value = (rng.choice((1, 2, 4, 2, 4, 0, 3, 5, 6)), rng.choice((1, 3, 7, 3, 3, 0, 2, 4, 5, 6)), rng.randrange(8))
    uart, error = scenario.uart(rng), 1 + rng.uniform(-scenario.error, scenario.error)
    parts, after = sim2.boot(*value, rng)
    if rng.random() < 0.6:
        parts.append(Part(sim2.application(rng), rate * error, 0.01))
    if rng.random() < 0.4:
        parts.insert(0, Part(sim2.application(rng, 3), rate * error, rng.choice((0.0, 0.003, 0.05))))
    banner = next(n for n, p in enumerate(parts) if b"rst cause" in p.text)
    seed = rng.random()

    def heard(v: tuple[int, int, int]) -> bytes:
        text = b"\r\n ets Jan  8 2013,rst cause:%d, boot mode:(%d,%d)\r\n\r\n" % v
        now = [*parts[:banner], replace(parts[banner], text=text), *parts[banner + 1 :]]
        return sim2.receive(now, rate * error, uart, random.Random(seed))

    truth = heard(value)
    told = []
    causes = {4} if value[0] == 4 else {0} if value[0] == 0 else {1, 2, 3, 5, 6}
    for n, rivals in ((0, causes), (1, POSSIBLE[after]), (2, set(range(8)))):
        alike = ((*value[:n], v, *value[n + 1 :]) for v in rivals if v != value[n])
        told.append(not scenario.hopeless and not any(heard((v[0], v[1], v[2])) == truth for v in alike))
    if scenario.damage:
        truth = scenario.damage(truth, rng)
    return truth, value, (told[0], told[1], told[2]), uart, error


def measure(name: str, rate: int, draws: int, seed: int, verbose: bool = False) -> Result:
    rng = random.Random(f"second/{name}/{seed}/{rate}")
    result = Result()
    for n in range(draws):
        heard, value, told, uart, error = one(rng, rate, SCENARIOS[name])
        begun = time.process_time()
        found = BannerReader(rate).read(heard)
        result.seconds += time.process_time() - begun
        result.received += len(heard)
        result.invented += max(0, len(found) - 1)
        result.missed += not found
        said = (found[0].cause, found[0].x, found[0].y) if found else (None, None, None)
        for score, s, v, t in zip((result.cause, result.x, result.y), said, value, told, strict=True):
            score.add(s, v, t)
        wrong = any(s is not None and s != v for s, v in zip(said, value, strict=True))
        if verbose and (wrong or len(found) > 1 or any(t and s is None for s, t in zip(said, told, strict=True))):
            print("WRONG" if wrong else "short", n, value, said, told, found[:1], uart, f"{error:.4f}", heard.hex() if wrong else "")
    return result


def banners(names: list[str], rates: list[int], draws: int, seed: int, verbose: bool) -> None:
    for name in names:
        said = wrong = 0
        for rate in rates:
            r = measure(name, rate, draws, seed, verbose)
            print(f"{name} {rate}: {r.seconds / draws * 1000:.0f} ms CPU each, missed {r.missed} invented {r.invented} of {draws}", flush=True)
            for digit in ("cause", "x", "y"):
                score = getattr(r, digit)
                said += score.right + score.wrong
                wrong += score.wrong
                print(f"        {digit:6s}{score.row()}")
        print(f"{name}: {wrong} of {said} digits said are wrong ({100 * wrong / max(1, said):.2f} %); of all {100 * wrong / (3 * draws * len(rates)):.2f} %")


def islands(rates: list[int], draws: int, seed: int, verbose: bool) -> int:
    """Captures of several boots between an application's lines: (boots sent, found, wrong digits, invented)."""
    rng = random.Random(f"islands/{seed}")
    sent = found = wrong = invented = other = 0
    for n in range(draws):
        rate = rng.choice(rates)
        error = 1 + rng.uniform(-0.02, 0.02)
        parts: list[Part] = []
        values: list[tuple[int, int, int]] = []
        for _ in range(rng.randrange(1, 5)):
            parts.append(Part(sim2.application(rng, rng.randrange(4, 20)), rate * error, rng.choice((0.0, 0.002, 0.05))))
            value = (rng.choice((1, 2, 4)), rng.choice((3, 3, 3, 1, 7)), rng.choice((6, 7, rng.randrange(8))))
            boot, _ = sim2.boot(*value, rng)
            parts += boot
            parts[-1] = replace(parts[-1], silence=0.01)
            values.append(value)
        parts.append(Part(sim2.application(rng, 12), rate * error))
        uart = sim2.plain_uart(rng)
        heard = sim2.receive(parts, rate * error, uart, rng)
        stretches = read_capture(heard, rate)
        banners = [b for s in stretches for b in s.banners]
        sent += len(values)
        found += min(len(banners), len(values))
        invented += max(0, len(banners) - len(values))
        strange = [s for s in stretches if s.sent_at != 74880]
        other += bool(strange)
        if len(banners) == len(values):
            bad = sum(s is not None and s != v for b, value in zip(banners, values, strict=True) for s, v in zip((b.cause, b.x, b.y), value, strict=True))
            wrong += bad
        else:
            bad = 0
        if verbose and (bad or len(banners) != len(values) or strange):
            print(n, rate, values, [(b.start, b.end, b.cause, b.x, b.y) for b in banners], [(s.start, s.end, s.sent_at) for s in strange], len(heard), uart)
    print(f"islands: {found} of {sent} boots found, {wrong} wrong digits, {invented} invented, {other} of {draws} captures with another wrong rate")
    return wrong + invented


def whole_logs(draws: int, seed: int, verbose: bool, strange: bool = False) -> tuple[int, int, int]:
    """(right, wrong, silent): held-out logs and application text, every pair of rates that the facts call tellable."""
    rng = random.Random(f"logs2/{seed}")
    texts = [t for t in logs(True) if len(t) > 150]
    right = wrong = silent = 0
    rows: dict[tuple[object, ...], list[int]] = {}
    done = 0
    while done < draws:
        received, sent = rng.choice(LISTENING), rng.choice(RATES)
        if abs(sent / received - 1) < 0.05 or not 1 / 11 < sent / received < 5:
            continue
        done += 1
        text = rng.choice(texts) if rng.random() < 0.7 else sim2.application(rng, rng.randrange(8, 80))
        error = 1 + rng.uniform(-0.02, 0.02)
        parts = []
        lines = text.splitlines(keepends=True)
        while lines:
            many = rng.choice((1, 1, 2, 5, 20))
            parts.append(Part(b"".join(lines[:many]), sent * error, rng.choice((0.0, 1e-4, 3e-3, 0.03))))
            lines = lines[many:]
        uart = (sim2.strange_uart if strange else sim2.plain_uart)(rng)
        heard = sim2.receive(parts, received, uart, rng)
        told = [s for s in read_capture(heard, received) if s.sent_at]
        rates = {s.sent_at for s in told}
        good = bool(told) and all(abs((s.sent_at or 1) / sent - 1) < 0.035 for s in told)
        right += good
        wrong += bool(rates) and not good
        silent += not rates
        for key in ((received, sent), ("checked", uart.checked, sent > received), ("own text", text not in texts), ("short", len(heard) < 100)):
            row = rows.setdefault(key, [0, 0, 0])
            row[0 if good else 1 if rates else 2] += 1
        if verbose and not good:
            from espmon.uart.rate import guess

            print(f"{sent} -> {received}: {[(s.start, s.end, s.sent_at) for s in told]} of {len(heard)} {uart}; {guess(heard, received)}")
    if verbose:
        for pair, row in sorted(rows.items(), key=str):
            if row[1] or row[2]:
                print(pair, row)
    n = max(1, right + wrong + silent)
    print(f"whole logs: right {100 * right / n:.1f} % wrong {100 * wrong / n:.1f} % silent {100 * silent / n:.1f} % of {n}")
    return right, wrong, silent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="?", default="banners")
    parser.add_argument("--draws", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rates", default="38400,57600,76800,115200,230400,250000,460800")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS))
    parser.add_argument("--strange", action="store_true")
    parser.add_argument("-v", action="store_true")
    args = parser.parse_args()
    rates = [int(r) for r in args.rates.split(",")]
    if args.what == "logs":
        whole_logs(args.draws, args.seed, args.v, args.strange)
    elif args.what == "islands":
        islands(rates, args.draws, args.seed, args.v)
    else:
        banners(args.scenarios.split(","), rates, args.draws, args.seed, args.v)


if __name__ == "__main__":
    main()
