"""A board, a wire and an adapter in virtual time, for whoever follows rates: no clock, no thread.

    python -m tests.uart.live [one] [two] [styles] [loop] [--draws N] [--seconds S] [--start RATE]

prints how long `RateWatch` takes to readable text, how many lines of a run are right, which boots are told, and what went wrong.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from espmon.uart.banner import Banner
from espmon.uart.watch import ChangeRate, Clear, Garbled, RateWatch, Verdict
from tests.uart import sim, texts

DELIVERY_S = 0.016  # what USB adapters gather before they deliver
CHANGE_S = 0.003  # how long a change of rate takes


@dataclass(frozen=True)
class Adapter:
    """Between the line and the program: delivers every `latency` seconds, and at once whenever `packet` bytes are there;
    `refuses` some rates, and sets others than asked for (`sets`: asked -> set); its driver `counts` framing errors, each
    or, as FTDI's does, once a `packet`."""

    latency: float = DELIVERY_S
    packet: int | None = None
    refuses: frozenset[int] = frozenset()
    sets: tuple[tuple[int, int], ...] = ()
    counts: bool = False
    counts_packets: bool = False


@dataclass
class Session:
    """What came of one run: the text, the banners, and each change of rate with its time."""

    watch: RateWatch
    text: bytearray = field(default_factory=bytearray)
    banners: list[Banner] = field(default_factory=list)
    #: when each of `banners` was told
    banner_times: list[float] = field(default_factory=list)
    changes: list[tuple[float, int, str]] = field(default_factory=list)
    #: (time, received at, sent at) of each stretch whose rate was told
    told: list[tuple[float, int, int]] = field(default_factory=list)
    everything: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)
    line_times: list[tuple[float, int]] = field(default_factory=list)

    def take(self, verdicts: list[Verdict], now: float = 0.0) -> ChangeRate | None:
        wanted = None
        before = len(self.text)
        for verdict in verdicts:
            match verdict:
                case Clear(data=data):
                    self.text += data
                    self.everything += data
                case Garbled(data=data, stretches=stretches, received_at=received_at):
                    self.everything += data
                    self.banners += [b for s in stretches for b in s.banners]
                    self.banner_times += [now for s in stretches for b in s.banners]
                    self.told += [(now, received_at, s.sent_at) for s in stretches if s.sent_at is not None]
                case ChangeRate():
                    wanted = verdict
        if len(self.text) > before:
            self.line_times.append((now, len(self.text)))
        return wanted


def run(
    watch: RateWatch,
    toggles: list[float],
    receiver: sim.Receiver,
    until: float,
    clock_error: float = 0.0,
    resets: dict[float, float] | None = None,
    adapter: Adapter = Adapter(),
) -> Session:
    """Lets `watch` listen to the line until the time `until`. `resets`: times at which espmon resets the board."""
    session = Session(watch)
    todo = sorted(resets or ())
    really = watch.rate
    damaged: list[float] = []

    told = [0, 0]  # framing errors of the line, what the driver has counted

    def counted() -> int | None:
        if adapter.counts_packets:
            told[1] += len(damaged) > told[0]
            told[0] = len(damaged)
            return told[1]
        return len(damaged) if adapter.counts else None

    def listen(start: float) -> Iterator[tuple[int, float]]:
        return sim.receive_timed(toggles, really * (1 + clock_error), receiver, start, damaged)

    source = listen(0.0)
    waiting: tuple[int, float] | None = next(source, None)

    def change(wish: ChangeRate, now: float) -> None:
        nonlocal source, waiting, really
        session.changes.append((now, wish.rate, wish.why))
        if wish.rate in adapter.refuses:
            return
        late = bytearray()
        while waiting is not None and waiting[1] <= now + CHANGE_S:  # still received at the old rate
            late.append(waiting[0])
            waiting = next(source, None)
        really = dict(adapter.sets).get(wish.rate, wish.rate)
        watch.rate_set(wish.rate, now)
        if late:
            session.received += late
            session.take(watch.feed(bytes(late), now + CHANGE_S, counted()), now + CHANGE_S)
        source = listen(now + CHANGE_S)
        waiting = next(source, None)

    now = 0.0
    while now < until:
        now += adapter.latency
        if todo and now >= todo[0]:
            todo.pop(0)
            wish = session.take(watch.before_reset(now), now)
            watch.board_reset(now)
            if wish is not None:
                change(wish, now)
        while True:
            chunk = bytearray()
            at = now
            while waiting is not None and waiting[1] <= now and (adapter.packet is None or len(chunk) < adapter.packet):
                chunk.append(waiting[0])
                if len(chunk) == adapter.packet:
                    at = waiting[1]
                waiting = next(source, None)
            wish = None
            if chunk:
                session.received += chunk
                wish = session.take(watch.feed(bytes(chunk), at, counted()), at)
            if watch.next_deadline is not None and watch.next_deadline <= at:
                wish = session.take(watch.tick(at), at) or wish
            if wish is not None:
                change(wish, at)
            if not chunk or waiting is None or waiting[1] > now:
                break
    session.take(watch.close(now), now)
    return session


def app_lines(rng: random.Random, seconds: float, per_second: float = 1000.0) -> list[bytes]:
    """Plain lines for about `seconds` at `per_second` bytes per second."""
    return texts.lines("plain", rng, seconds, per_second)


def talk(lines: list[bytes], baud: float, per_second: float = 1000.0) -> list[tuple[bytes, float, float]]:
    """The lines as parts for :func:`sim.wire`, paced."""
    return [(line, baud, max(0.0, len(line) / per_second - 10 * len(line) / baud)) for line in lines]


def lines_found(session: Session, lines: list[bytes]) -> int:
    """How many of the lines stand in the text, whole and on lines of their own."""
    return whole_lines(session.text, lines)


def whole_lines(text: bytes | bytearray, lines: list[bytes]) -> int:
    """How many of the lines stand in `text`, whole and on lines of their own; as often as they do."""
    shown: dict[bytes, int] = {}
    for line in bytes(text).split(b"\n"):
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


RATES = (
    9600, 19200, 38400, 57600, 74880, 115200, 230400, 250000, 256000, 460800, 500000, 576000, 921600, 1000000, 1500000, 2000000,
)  # fmt: skip
"""The rates that the thresholds are about; 250000 and 256000 are one."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a person at the screen got of one run. Lines are counted whole."""

    seconds: float  # from the first bit sent to the first right line shown; the whole run when there was none
    sent: int
    received: int  # right lines among the bytes as they were received
    shown: int  # right lines in what was shown as text
    changes: int
    left: int  # changes away from the board's rate
    ended_at: int
    right_end: bool
    wrong_sent_at: int  # stretches said to come at a rate that the board never sent at
    boots: int = 0  # banners that can be told at the rate that was listened at
    reported: int = 0
    wrong_causes: int = 0
    invented: int = 0
    first_told: bool | None = None


def _same(a: float, b: float) -> bool:
    return abs(a / b - 1) < 0.035


def outcome(
    session: Session,
    lines: list[bytes],
    rate: int,
    begun: float,
    seconds: float,
    boots: list[tuple[float, int, float]] | None = None,
    start: int = 115200,
    rom: bool = False,
) -> Outcome:
    """`boots`: (time, cause, sent at) of each banner; `rom`: the board also talks at the ROM's rate."""
    wanted = {line.rstrip(b"\r\n") for line in lines}
    first, end = seconds, 0
    for line in bytes(session.text).splitlines(keepends=True):
        end += len(line)
        if line.rstrip(b"\r\n") in wanted:
            first = next((now for now, size in session.line_times if size >= end), seconds) - begun
            break
    now_at, left = start, 0
    for _, wish, _ in session.changes:
        left += _same(now_at, rate) and not _same(wish, rate)
        now_at = wish
    rates = [rate, *([sim.ROM_RATE] if rom else [])]
    tellable = reported = wrong = 0
    first_told: bool | None = None
    free = list(zip(session.banner_times, session.banners, strict=True))
    for n, (at, cause, sent_at) in enumerate(boots or ()):
        heard_at = [start] + [wish for when, wish, _ in session.changes if when <= at]
        if _same(sent_at, heard_at[-1]):
            continue  # plain text
        match = next(((t, b) for t, b in free if at - 0.01 <= t <= at + 5.0), None)
        if match is not None:
            free.remove(match)
            wrong += match[1].cause not in (cause, None)
        if 30_000 <= heard_at[-1] <= 480_000:
            tellable += 1
            reported += match is not None
            if n == 0:
                first_told = match is not None
    return Outcome(
        seconds=first,
        sent=len(lines),
        received=whole_lines(session.received, lines),
        shown=whole_lines(session.text, lines),
        changes=len(session.changes),
        left=left,
        ended_at=session.watch.rate,
        right_end=_same(session.watch.rate, rate),
        wrong_sent_at=sum(not any(_same(told, r) for r in rates) for _, _, told in session.told),
        boots=tellable,
        reported=reported,
        wrong_causes=wrong,
        invented=len(free),
        first_told=first_told,
    )


def board_with_one_rate(
    sent: int, seed: int, seconds: float = 30.0, start: int = 115200, style: str = "plain", per_second: float = 1000.0, adapter: Adapter = Adapter()
) -> tuple[Session, Outcome]:
    rng = random.Random(f"{sent}/{seed}/{style}")
    lines = texts.lines(style, rng, seconds, min(per_second, sent / 11))
    receiver, error = sim.usual_receiver(rng), rng.uniform(-0.015, 0.015)
    session = run(RateWatch(start), sim.wire(talk(lines, sent, per_second), 0.2), receiver, seconds + 0.5, error, adapter=adapter)
    return session, outcome(session, lines, sent, 0.2, seconds, start=start)


def board_with_two_rates(
    app: int, seed: int, seconds: float = 30.0, start: int = 115200, style: str = "plain", period: float | None = None
) -> tuple[Session, Outcome]:
    """An ESP8266 that restarts every `period` seconds (None: drawn, 0.5 to 6), its ROM at 74880, its application at `app`."""
    rng = random.Random(f"{app}/{seed}/{style}/two")
    period = period or math.exp(rng.uniform(math.log(0.5), math.log(6)))
    parts: list[tuple[bytes, float, float]] = []
    boots: list[tuple[float, int, float]] = []
    sent: list[bytes] = []
    at = 0.1
    while at < seconds:
        cause = rng.choice((1, 2, 2, 4, 4, 4))
        new = [*sim.banner(cause, 3, rng.randrange(8), rng), (b"", 74880.0, rng.uniform(0.02, 0.2))]
        boots.append((at, cause, sim.ROM_RATE))
        lines = texts.lines(style, rng, period, min(1000.0, app / 11))
        sent += lines
        new += [*talk(lines, app), (b"", app, rng.uniform(0.0, 0.1))]
        parts += new
        at += sum(10 * len(data) / rate + pause for data, rate, pause in new)
    receiver, error = sim.usual_receiver(rng), rng.uniform(-0.015, 0.015)
    session = run(RateWatch(start), sim.wire(parts, 0.1), receiver, at + 0.5, error)
    return session, outcome(session, sent, app, 0.1, at, boots, start, rom=True)


def board_that_says_little(
    sent: int, seed: int, seconds: float = 120.0, start: int = 115200, every: float = 5.0
) -> tuple[Session, Outcome]:
    rng = random.Random(f"{sent}/{seed}/sparse")
    lines = texts.lines("plain", rng, seconds / every, 30.0)
    receiver, error = sim.usual_receiver(rng), rng.uniform(-0.015, 0.015)
    session = run(RateWatch(start), sim.wire([(line, sent, every) for line in lines], 0.2), receiver, seconds, error)
    return session, outcome(session, lines, sent, 0.2, seconds, start=start)


def board_that_changes(
    first: int, second: int, seed: int, each: float = 10.0, adapter: Adapter = Adapter()
) -> tuple[Session, Outcome]:
    """`first`, `second` and `first` again, without a pause; the watch begins at `first`."""
    rng = random.Random(f"{first}/{second}/{seed}")
    parts: list[tuple[bytes, float, float]] = []
    lines: list[bytes] = []
    for rate in (first, second, first):
        some = texts.lines("plain", rng, each, min(1000.0, rate / 11))
        lines += some
        parts += talk(some, rate)
    receiver, error = sim.usual_receiver(rng), rng.uniform(-0.015, 0.015)
    session = run(RateWatch(first), sim.wire(parts, 0.2), receiver, 3 * each + 1, error, adapter=adapter)
    # changes away from `first` are asked for here
    return session, replace(outcome(session, lines, first, 0.2, 3 * each, start=first), left=0, wrong_sent_at=0)


CHANGING = ((115200, 9600), (9600, 115200), (115200, 57600), (57600, 115200), (115200, 921600), (921600, 115200), (115200, 230400), (74880, 115200), (115200, 74880), (460800, 9600), (115200, 2000000))

ADAPTERS = {
    "every byte by itself": Adapter(latency=0.001, packet=1),
    "62 bytes or 16 ms": Adapter(latency=0.016, packet=62),
    "every 100 ms": Adapter(latency=0.1),
    "refuses 921600 and above": Adapter(refuses=frozenset((921600, 1000000, 1152000, 1500000, 2000000))),
    "256000 for 250000": Adapter(sets=((250000, 256000), (256000, 250000), (576000, 571429), (460800, 461538), (921600, 923076))),
}


@dataclass
class Tally:
    """Outcomes, and whether they meet the thresholds of the live half."""

    outcomes: list[Outcome] = field(default_factory=list)

    def share(self, of: str, among: str) -> list[float]:
        return [100 * getattr(o, of) / max(1, getattr(o, among)) for o in self.outcomes]

    def total(self, name: str) -> int:
        return sum(getattr(o, name) for o in self.outcomes)

    def row(self, name: str) -> str:
        times = [o.seconds for o in self.outcomes]
        right = self.share("received", "sent")
        shown = 100 * self.total("shown") / max(1, self.total("received"))
        wrong = len(self.outcomes) - self.total("right_end")
        row = (
            f"{name:>16} {statistics.median(times):5.2f} /{max(times):6.2f}  {statistics.mean(right):5.1f} /{min(right):6.1f}"
            f"  {shown:5.1f}   {max(o.changes for o in self.outcomes)}   {self.total('left')}  {wrong}  {self.total('wrong_sent_at')}"
        )
        if self.total("boots"):
            firsts = [o.first_told for o in self.outcomes if o.first_told is not None]
            row += (
                f"   {100 * self.total('reported') / self.total('boots'):5.1f} of {self.total('boots')}"
                f"  {sum(firsts)}/{len(firsts)}  {self.total('wrong_causes')}"
            )
        return row + f"  {self.total('invented')}"


HEAD = (
    "                  seconds to   right lines   % of   most  left wrong wrong\n"
    "                 right lines  % of sent     them  chan- the  final sent  banners told  first  wrong in-\n"
    "                 median/slow  mean / worst  shown ges   rate rate  at    % of tellable told   cause vented"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["one", "two"], help="one, two (rates), styles, starts, adapters, sparse, changing, loop")
    parser.add_argument("--draws", type=int, default=12, help="runs per row")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--start", type=int, default=115200)
    parser.add_argument("--rates", type=int, nargs="*", default=list(RATES))
    parser.add_argument("--styles", nargs="*", default=None)
    parser.add_argument("--boots", type=int, default=200, help="of each crash loop")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    seeds = range(args.seed, args.seed + args.draws)
    seconds, start = args.seconds, args.start
    print(HEAD)

    def table(title: str, rows: Iterable[tuple[str, Iterable[Outcome]]]) -> None:
        print(f"-- {title}")
        whole = Tally()
        for name, outcomes in rows:
            tally = Tally(list(outcomes))
            whole.outcomes += tally.outcomes
            print(tally.row(name), flush=True)
        print(whole.row("all"), flush=True)

    for style in args.styles or (["plain"] if "styles" not in args.what else list(texts.STYLES)):
        if "one" in args.what or "styles" in args.what:
            table(
                f"one rate, {style}, {seconds:g} s, from {start}",
                ((str(r), (board_with_one_rate(r, s, seconds, start, style)[1] for s in seeds)) for r in args.rates),
            )
        if "two" in args.what:
            table(
                f"ROM at 74880 and an application, {style}, {seconds:g} s, from {start}",
                ((str(r), (board_with_two_rates(r, s, seconds, start, style)[1] for s in seeds)) for r in args.rates),
            )
    if "starts" in args.what:  # a remembered rate that is wrong now
        for begin in (9600, 57600, 74880, 460800, 921600, 2000000):
            table(
                f"one rate, plain, {seconds:g} s, from {begin}",
                ((str(r), (board_with_one_rate(r, s, seconds, begin)[1] for s in seeds)) for r in args.rates),
            )
    if "adapters" in args.what:
        for name, adapter in ADAPTERS.items():
            table(
                f"one rate, plain, {seconds:g} s, adapter: {name}",
                ((str(r), (board_with_one_rate(r, s, seconds, start, adapter=adapter)[1] for s in seeds)) for r in args.rates),
            )
    if "sparse" in args.what:
        table(
            "a line every 5 s for 120 s",
            ((str(r), (board_that_says_little(r, s)[1] for s in seeds)) for r in args.rates),
        )
    if "changing" in args.what:
        for title, adapter in (("", Adapter()), (", a driver that counts framing errors", Adapter(counts=True))):
            table(
                f"changes its rate twice, 10 s each{title}",
                ((f"{a} {b}", (board_that_changes(a, b, s, adapter=adapter)[1] for s in seeds)) for a, b in CHANGING),
            )
    if "loop" in args.what:
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
