"""A board, a wire and an adapter in virtual time, for whoever follows rates: no clock, no thread.

    python -m tests.uart.live [--boots 1000]

prints how long `RateWatch` takes to readable text per rate, and follows a crash-looping ESP8266.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field

from espmon.uart.banner import Banner
from espmon.uart.watch import ChangeRate, Clear, Garbled, RateWatch, Verdict
from tests.uart import sim

DELIVERY_S = 0.016  # what USB adapters gather before they deliver
CHANGE_S = 0.003  # how long a change of rate takes


@dataclass
class Session:
    """What came of one run: the text, the banners, and each change of rate with its time."""

    watch: RateWatch
    text: bytearray = field(default_factory=bytearray)
    banners: list[Banner] = field(default_factory=list)
    changes: list[tuple[float, int, str]] = field(default_factory=list)
    everything: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)
    line_times: list[tuple[float, int]] = field(default_factory=list)

    def take(self, verdicts: list[Verdict]) -> int | None:
        wanted = None
        for verdict in verdicts:
            match verdict:
                case Clear(data=data):
                    self.text += data
                    self.everything += data
                case Garbled(data=data, stretches=stretches):
                    self.everything += data
                    self.banners += [b for s in stretches for b in s.banners]
                case ChangeRate(rate=rate):
                    wanted = rate
        return wanted


def run(
    watch: RateWatch,
    toggles: list[float],
    receiver: sim.Receiver,
    until: float,
    clock_error: float = 0.0,
    resets: dict[float, float] | None = None,
) -> Session:
    """Lets `watch` listen to the line until the time `until`. `resets`: times at which espmon resets the board."""
    session = Session(watch)
    todo = sorted(resets or ())

    def listen(start: float) -> Iterator[tuple[int, float]]:
        return sim.receive_timed(toggles, watch.rate * (1 + clock_error), receiver, start)

    source = listen(0.0)
    waiting: tuple[int, float] | None = next(source, None)
    now = 0.0
    while now < until:
        now += DELIVERY_S
        wanted = None
        if todo and now >= todo[0]:
            todo.pop(0)
            wanted = session.take(watch.before_reset(now))
            watch.board_reset(now)
        chunk = bytearray()
        while waiting is not None and waiting[1] <= now:
            chunk.append(waiting[0])
            waiting = next(source, None)
        if chunk:
            session.received += chunk
            before = len(session.text)
            wanted = session.take(watch.feed(bytes(chunk), now)) or wanted
            if len(session.text) > before:
                session.line_times.append((now, len(session.text)))
        if watch.next_deadline is not None and watch.next_deadline <= now:
            before = len(session.text)
            wanted = session.take(watch.tick(now)) or wanted
            if len(session.text) > before:
                session.line_times.append((now, len(session.text)))
        if wanted is not None:
            session.changes.append((now, wanted, ""))
            late = bytearray()
            while waiting is not None and waiting[1] <= now + CHANGE_S:  # still received at the old rate
                late.append(waiting[0])
                waiting = next(source, None)
            watch.rate_set(wanted, now)
            if late:
                session.received += late
                session.take(watch.feed(bytes(late), now + CHANGE_S))
            source = listen(now + CHANGE_S)
            waiting = next(source, None)
    session.take(watch.close(now))
    return session


LINES = (
    b"[%d] temperature 22.%d C, humidity 48 %%\r\n", b"I (%d) wifi: station connected, rssi -6%d\r\n",
    b"loop %d free heap 3123%d\r\n", b"mqtt: published sensors/kitchen/%d ok%d\r\n",
)  # fmt: skip


def app_lines(rng: random.Random, seconds: float, per_second: float = 1000.0) -> list[bytes]:
    """Lines for about `seconds` at `per_second` bytes per second."""
    out: list[bytes] = []
    size = 0
    while size < seconds * per_second:
        line = rng.choice(LINES) % (rng.randrange(10000), rng.randrange(10))
        out.append(line)
        size += len(line)
    return out


def talk(lines: list[bytes], baud: float, per_second: float = 1000.0) -> list[tuple[bytes, float, float]]:
    """The lines as parts for :func:`sim.wire`, paced."""
    return [(line, baud, max(0.0, len(line) / per_second - 10 * len(line) / baud)) for line in lines]


def lines_found(session: Session, lines: list[bytes]) -> int:
    """How many of the lines stand in the text, whole and on lines of their own."""
    shown: dict[bytes, int] = {}
    for line in bytes(session.text).split(b"\n"):
        shown[line.rstrip(b"\r")] = shown.get(line.rstrip(b"\r"), 0) + 1
    found = 0
    for line in lines:
        bare = line.rstrip(b"\r\n")
        if shown.get(bare, 0):
            shown[bare] -= 1
            found += 1
    return found


def one_rate(sent: int, seed: int, seconds: float = 8.0, start: int = 115200) -> tuple[Session, float | None, int]:
    """(session, seconds to the first right line, bytes sent until then) for a board that talks at one rate."""
    rng = random.Random(f"{sent}/{seed}")
    lines = app_lines(rng, seconds)
    session = run(
        RateWatch(start), sim.wire(talk(lines, sent), 0.2), sim.usual_receiver(rng), seconds + 0.4, rng.uniform(-0.015, 0.015)
    )
    wanted = {line.rstrip() for line in lines}
    end = 0
    for line in bytes(session.text).splitlines(keepends=True):
        end += len(line)
        if line.rstrip() in wanted:
            at = next((now for now, size in session.line_times if size >= end), seconds)
            return session, at - 0.2, int((at - 0.2) * 1000)
    return session, None, 0


def crash_loop(
    boots: int, seed: int, app: int = 115200, per_boot: float = 0.4, software: float = 0.0
) -> tuple[Session, list[int], list[bytes]]:
    """(session, causes printed, application lines) of a board that restarts again and again."""
    rng = random.Random(seed)
    parts: list[tuple[bytes, float, float]] = []
    causes: list[int] = []
    sent: list[bytes] = []
    for _ in range(boots):
        cause = rng.choice((1, 2, 2, 4, 4, 4))
        causes.append(cause)
        rom = sim.banner(cause, 3, rng.randrange(8), rng)
        if rng.random() < software:  # after a software restart the ROM talks at the application's rate
            rom = [(data, float(app), pause) for data, _, pause in rom]
        parts += rom
        parts.append((b"", 74880.0, rng.uniform(0.03, 0.2)))
        lines = app_lines(rng, per_boot, 1200)
        sent += lines
        parts += talk(lines, app, 4000)
        parts[-1] = (parts[-1][0], parts[-1][1], rng.uniform(0.005, 0.1))
    seconds = sum(len(d) * 10 / r + p for d, r, p in parts)
    session = run(RateWatch(115200), sim.wire(parts, 0.1), sim.usual_receiver(rng), seconds + 0.5, rng.uniform(-0.015, 0.015))
    return session, causes, sent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--boots", type=int, default=200)
    parser.add_argument("--start", type=int, default=115200)
    args = parser.parse_args()
    print("sent at    seconds to right text, median / slowest of 12   changes   right lines   ended at")
    for sent in (9600, 19200, 38400, 57600, 74880, 115200, 230400, 250000, 460800, 500000, 576000, 921600, 1000000, 1500000, 2000000):
        times, changes, share, ends = [], [], [], set()
        for seed in range(12):
            session, seconds, _ = one_rate(sent, seed, start=args.start)
            rng = random.Random(f"{sent}/{seed}")
            lines = app_lines(rng, 8.0)
            times.append(seconds if seconds is not None else 99.0)
            changes.append(len(session.changes))
            share.append(lines_found(session, lines) / len(lines))
            ends.add(session.watch.rate)
        print(f"{sent:8d}   {statistics.median(times):5.2f} / {max(times):5.2f}   {max(changes)}   {100 * statistics.mean(share):5.1f} % (worst {100 * min(share):5.1f})   {sorted(ends)}")
    for app in (115200, 74880, 230400, 57600, 921600):
        session, causes, lines = crash_loop(args.boots, 1, app)
        told = [b.cause for b in session.banners]
        print(
            f"crash loop, application at {app}: {len(causes)} boots, {len(told)} banners read, "
            f"{sum(a == b for a, b in zip(told, causes, strict=False))} causes in place, "
            f"lines {lines_found(session, lines)}/{len(lines)}, changes {session.changes[:6]}"
        )


if __name__ == "__main__":
    main()
