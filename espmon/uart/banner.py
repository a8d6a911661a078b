"""Reading the ESP8266 boot ROM's banner out of bytes that were received at another rate.

The ROM can print 448 banners (7 reset causes, 8 x 8 boot modes). A search over pairs (received byte, falling edge of a
hypothetical banner) finds which of them, if any, makes a receiver hear these bytes: cost 0 for a byte that the model
allows, :data:`WRONG_BYTE` and more for one that it doesn't, :data:`LOST_BYTE` for one too many or too few. The fixed
words before the cause find the banner and tell which receiver and clock error fit; the three digits are branched only
where a frame first sees them; a digit is said only when every other value costs :data:`MARGIN` more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from espmon.uart.wire import BITS_PER_CHAR, NOTHING, RECEIVERS, Reception, waveform

ROM_RATE = 74880
"""How people name the rate of a 26 MHz ESP8266's ROM; 52 MHz / 694 = 74928 is what it sends."""

CAUSES = 7
MODES = 8

WRONG_BYTE = 25
WRONG_BIT = 10
LOST_BYTE = 100
#: a digit is told when each other value costs this much more (docs/design/uart.md: half of one wrong byte)
MARGIN = 12
_DOUBT = 0.1
#: a banner is rejected when it costs more per byte: cut, interrupted, or no banner
WORST_PER_BYTE = 9.0
#: the same for the fixed words before the first digit, which any other text misses by 30 and more
WORST_PREFIX_PER_BYTE = 13.0
#: the same for one of which no digit at all can be told
_WORST_SPEECHLESS = 4.0
_WORST_TAIL_PER_BYTE = 5.0
#: a pattern of fewer different bytes is no banner: receivers that lose damaged bytes make anything of it. At six times the
#: ROM's rate a banner has two or more, at lower rates many.
_FEWEST_BYTES, _FEWEST_FAST = 4, 2
#: receive rates below hear too few bytes of a banner, above hear only falling edges ("anything" fits all zeros)
LOWEST_RATE, HIGHEST_RATE = 30_000, 480_000

_BANNER = b"\r\n ets Jan  8 2013,rst cause:0, boot mode:(0,0)\r\n\r\n"
_CAUSE_AT = _BANNER.index(b"0,")
_X_AT = _BANNER.index(b"0,0")
_Y_AT = _X_AT + 2
_WAVE = waveform(_BANNER)
_PREFIX_END = BITS_PER_CHAR * _CAUSE_AT
# digits 0..7 are 0x30 | value: a value is or-ed into the waveform of "0", past the start bit
_SHIFTS = (BITS_PER_CHAR * _CAUSE_AT + 1, BITS_PER_CHAR * _X_AT + 1, BITS_PER_CHAR * _Y_AT + 1)
_FINISH = BITS_PER_CHAR * (_Y_AT + 2)
_AFTER_DIGITS = _BANNER[_Y_AT + 1 :]

# What follows a banner and what it says: (text, causes, first mode digits) that are possible with it.
_ALL_CAUSES = frozenset(range(CAUSES))
_ALL_MODES = frozenset(range(MODES))
# Cause 4 says `wdt reset`, cause 0 `unknown reset`: not they, when something else follows.
_SPEECHLESS = _ALL_CAUSES - {0, 4}
_SDIO = frozenset({4, 5, 6, 7})
_TAILS: tuple[tuple[tuple[bytes, ...], frozenset[int], frozenset[int]], ...] = (
    ((b"load 0x40",), _SPEECHLESS, frozenset({3})),
    ((b"load 0x3f",), _SPEECHLESS, frozenset({3})),
    ((b"load 0x00",), _SPEECHLESS, frozenset({3})),
    ((b"wdt reset\r\n", b"load 0x40"), frozenset({4}), frozenset({3})),
    ((b"wdt reset\r\n", b"load 0x3f"), frozenset({4}), frozenset({3})),
    ((b"wdt reset\r\n", b"waiting for"), frozenset({4}), _SDIO),
    ((b"wdt reset\r\n", b"ets_main.c"), frozenset({4}), frozenset({0, 2, 3})),
    ((b"wdt reset\r\n",), frozenset({4}), _ALL_MODES),
    ((b"waiting for host",), _SPEECHLESS, _SDIO),
    ((b"ets_main.c",), _SPEECHLESS, frozenset({0, 2, 3})),
    ((b"unknown reset\r\n", b"load 0x40"), _ALL_CAUSES - {1, 2, 4}, frozenset({3})),
    ((b"unknown reset\r\n", b"waiting for"), _ALL_CAUSES - {1, 2, 4}, _SDIO),
    # after an unknown cause the ROM stops with `ets_main.c`, whatever the mode
    ((b"unknown reset\r\n", b"ets_main.c"), _ALL_CAUSES - {1, 2, 4}, _ALL_MODES),
    ((b"unknown reset\r\n",), _ALL_CAUSES - {1, 2, 4}, _ALL_MODES),
)

#: Clock errors (sender against receiver) that are tried: crystals and dividers are within 2 %, odd adapters within 5 %.
_ERRORS = (0.0, -0.005, 0.005, -0.01, 0.01, -0.015, 0.015, -0.02, 0.02)
_USUAL_RECEIVERS = 6
_ODD_RECEIVERS = range(7, len(RECEIVERS))
_WIDE_ERRORS = (-0.03, 0.03, -0.04, 0.04, -0.05, 0.05)
_ODD_ERRORS = (0.0, -0.01, 0.01, -0.02, 0.02)

# How the first look for a banner is made: three bytes in a row that the fixed words can make in a few receptions.
_SEED_ERRORS = (0.0, -0.015, 0.015, -0.035, 0.035)
_ODD_SEED_ERRORS = (0.0, -0.012, 0.012)
_SEEDS_NEEDED = 4
_SEED_SPAN = 40
# What looks like the fixed words must fit one of these receptions a little before all others are tried: every banner that
# was read in measurements does (receivers of both simulators, clock errors up to 5 %), and it is an eighth of the work.
_QUICK = (
    (0.0, 0), (-0.015, 0), (0.015, 0), (0.0, 4), (0.0, 1), (0.0, 2), (-0.03, 4), (0.03, 4), (-0.015, 4), (0.015, 4),
    *((error, r) for r in _ODD_RECEIVERS for error in (-0.01, 0.01)),
)  # fmt: skip
# Bytes made to look like banners must not cost more than they are worth. Work is counted in states of searches, 0.6 to 1
# million a second: so many at first, more for each byte that is read and for each byte of a banner that was found. When they
# are used up, only the receptions that fitted last are tried. Other bytes than those read last get some again, fewer each
# time that nothing comes of it.
_WORK, _WORK_PER_BYTE, _WORK_PER_BANNER_BYTE, _WORK_AGAIN = 500_000, 100, 1500, 200_000

_Labels = tuple[int, int, int]
_FREE: _Labels = (-1, -1, -1)
_State = tuple[float, _Labels]


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner:
    """One banner that was read. `start`, `end`: the received bytes it stands in. A digit that can't be told is None.

    `x_class`: the values that X can still have. `cost`: per byte, 0 is a perfect fit. `tail`: the words read after it.
    """

    start: int
    end: int
    cause: int | None
    x: int | None
    y: int | None
    x_class: frozenset[int]
    cost: float
    confidence: float
    tail: str | None = None
    error: float = 0.0


def _odd_receivers(received_at: int, sent_at: int) -> Sequence[int]:
    """Where a frame covers few bits, one that starts anywhere can be read as nearly anything."""
    return _ODD_RECEIVERS if received_at < 2.5 * sent_at else _ODD_RECEIVERS[:2]


@lru_cache(maxsize=16)  # more than the standard rates at which banners can be read
def _seeds(received_at: int, sent_at: int) -> dict[int, float]:
    """Three received bytes in a row -> the edge of the fixed words that the first of them can start at. Takes 0.15 s."""
    seeds: dict[int, float] = {}
    keys = [(error, r) for error in _SEED_ERRORS for r in (0, 1, 2, 4, 5, 6)]
    for error, receiver in keys + [(error, r) for error in _ODD_SEED_ERRORS for r in _odd_receivers(received_at, sent_at)]:
        reception = Reception(received_at / (sent_at * (1 + error)), RECEIVERS[receiver])
        steps: dict[float, tuple[tuple[int, float], ...]] = {}
        todo = [0.0]
        while todo:
            pos = todo.pop()
            if pos in steps or pos >= _PREFIX_END:
                continue
            steps[pos] = tuple(_bytes_from(reception, pos))
            todo.extend(p for _, p in steps[pos])
        for pos, first in steps.items():
            for a, p in first:
                for b, q in steps.get(p, ()):
                    for c, _ in steps.get(q, ()):
                        seeds.setdefault(a << 16 | b << 8 | c, pos)
    # zeros come of anything that is much slower, and of a line held low
    seeds.pop(0, None)
    return seeds


@lru_cache(maxsize=16)
def _line_ends(received_at: int, sent_at: int) -> frozenset[bytes]:
    ends = set()
    for error in (0.0, -0.02, 0.02):
        for receiver in range(_ODD_RECEIVERS[0]):
            reception = Reception(received_at / (sent_at * (1 + error)), RECEIVERS[receiver])
            for char in range(0x20, 0x7F):
                wave = waveform(bytes((0x30, char, 13, 10)))
                todo: list[tuple[float, bytes]] = [(0.0, b"")]
                seen = set(todo)
                while todo:
                    pos, before = todo.pop()
                    for byte, ahead in reception.frames_at(wave, pos):
                        pair = before[-1:] + (bytes((byte,)) if byte != NOTHING else b"")
                        if ahead < 0:
                            if len(pair) == 2:
                                ends.add(pair)
                        elif (pos + ahead, pair) not in seen:
                            seen.add((pos + ahead, pair))
                            todo.append((pos + ahead, pair))
    return frozenset(ends)


class BannerReader:
    """Reads banners that were sent at `sent_at` and received at `received_at` baud. What all readers of these two rates need is made once."""

    def __init__(self, received_at: int, sent_at: int = ROM_RATE) -> None:
        self.received_at = received_at
        self.sent_at = sent_at
        self._receptions: dict[tuple[float, int], Reception] = {}
        self._best: list[tuple[float, int]] = []
        scaled = received_at * ROM_RATE / sent_at
        self._odd = _odd_receivers(received_at, sent_at)
        self._work = 0  # states of searches gone through
        self._most_work = _WORK
        self._begun, self._seen = b"", 0  # beginning and length of what was read last
        self._in_vain = 0  # reads that used all of it up since the last banner
        self._reached = 0  # how far a search has looked
        # places that are no banner whatever follows them, by their first bytes: live, the same bytes are read again and again
        self._none: dict[bytes, bytes] = {}
        #: False where nothing can be read, or everything is read as plain text
        self.able = LOWEST_RATE <= scaled <= HIGHEST_RATE and abs(scaled / ROM_RATE - 1) > 0.015

    # --- finding ---------------------------------------------------------------------------------------------------

    def _reception(self, error: float, receiver: int) -> Reception:
        key = (error, receiver)
        found = self._receptions.get(key)
        if found is None:
            ratio = self.received_at / (self.sent_at * (1 + error))
            found = self._receptions[key] = Reception(ratio, RECEIVERS[receiver])
        return found

    def candidates(self, received: bytes) -> Iterator[list[tuple[int, float]]]:
        """Places where the fixed words seem to stand: lists of (index of a byte, edge of the banner it may be)."""
        if not self.able or len(received) < 12:
            return
        seeds = _seeds(self.received_at, self.sent_at)
        key = received[0] << 8 | received[1]
        hits: list[tuple[int, float]] = []
        for i in range(2, len(received)):
            key = (key << 8 | received[i]) & 0xFFFFFF
            pos = seeds.get(key)
            if pos is not None:
                if hits and (i - 2 - hits[0][0] > _SEED_SPAN or pos < hits[-1][1] - 60):
                    if len(hits) >= _SEEDS_NEEDED:
                        yield hits
                    hits = []
                hits.append((i - 2, pos))
        if len(hits) >= _SEEDS_NEEDED:
            yield hits

    def read(self, received: bytes) -> list[Banner]:
        """Every banner in `received`, in order."""
        found: list[Banner] = []
        done = -1
        same = len(received) >= self._seen and received.startswith(self._begun)
        new = len(received) - (self._seen if same else 0)
        self._most_work = min(self._most_work + _WORK_PER_BYTE * new, self._work + _WORK)
        if not same:
            self._most_work = max(self._most_work, self._work + _WORK_AGAIN // (1 + self._in_vain))
        self._begun, self._seen = received[:64], len(received)
        for hits in self.candidates(received):
            if hits[0][0] < done:
                hits = [h for h in hits if h[0] >= done]
                if len(hits) < _SEEDS_NEEDED:
                    continue
            first = hits[0][0]
            settled = first + _SEED_SPAN + 3
            known = self._none.get(received[first : first + 16])
            if known is not None and received.startswith(known, first):
                continue
            work, self._reached = self._work, first
            banner = self._read_at(received, hits)
            if banner is not None:
                self._in_vain = 0
                self._most_work += min(self._work - work, _WORK_PER_BANNER_BYTE * (banner.end - banner.start))
                found.append(banner)
                done = banner.end
            elif self._work >= self._most_work:
                self._in_vain = min(self._in_vain + 1, 20)
            elif max(self._reached + 1, settled) < len(received):
                if len(self._none) >= 256:
                    self._none.clear()
                self._none[received[first : first + 16]] = received[first : max(self._reached + 1, settled)]
        return found

    def beginnings(self) -> frozenset[bytes]:
        """The first one or two bytes that are received of a banner."""
        if not self.able:
            return frozenset()
        starts = [key for key, pos in _seeds(self.received_at, self.sent_at).items() if pos == 0]
        return frozenset(b for key in starts for b in (bytes((key >> 16,)), bytes((key >> 16, key >> 8 & 255))))

    def line_ends(self) -> frozenset[bytes]:
        """The last two bytes that are received of a line of the ROM before the line falls idle, after any character."""
        return _line_ends(self.received_at, self.sent_at) if self.able else frozenset()

    # --- reading ---------------------------------------------------------------------------------------------------

    def _read_at(self, received: bytes, hits: list[tuple[int, float]]) -> Banner | None:
        first = hits[0][0]
        starts: dict[int, list[tuple[_State, float]]] = {}
        for i, pos in hits[:12]:
            # starting later in the words must cost, or the search would skip what doesn't fit
            starts.setdefault(i, []).append(((pos, _FREE), 8.0 * pos / BITS_PER_CHAR))
        end = min(len(received), first + 40 + int(6 * _SEED_SPAN * self.received_at / self.sent_at / 4))
        fits = self._fit_prefix(received, first, end, starts)
        if not fits:
            return None
        best = fits[0][0]
        totals: dict[_Labels, float] = {}
        ends: dict[tuple[float, int], dict[tuple[int, float], float]] = {}
        for cost, key in fits[:5]:
            if cost > best + 2 * WRONG_BYTE:
                break
            reception = self._reception(*key)
            finals = self._search(reception, received, first, end, starts, _FINISH, 60.0)
            for (i, pos, labels), total in finals.items():
                if total < totals.get(labels, 1e9):
                    totals[labels] = total
                at = ends.setdefault(key, {})
                if total < at.get((i, pos), 1e9):
                    at[i, pos] = total
        if not totals:
            return None
        lowest = min(totals.values())
        key = min(ends, key=lambda k: min(ends[k].values()))
        (last, _), _ = min(ends[key].items(), key=lambda item: item[1])
        length = max(1, last - first)
        fewest = _FEWEST_BYTES if self.received_at < 4.5 * self.sent_at else _FEWEST_FAST
        if lowest > WORST_PER_BYTE * length or len(set(received[first:last])) < fewest:
            return None
        causes, xs, ys = (self._marginal(totals, n) for n in range(3))
        tail = None
        for other in sorted(ends, key=lambda k: min(ends[k].values())):
            if min(ends[other].values()) > lowest + MARGIN:
                break
            tail = self._read_tail(received, other, ends[other])
            if tail is not None and len(tail[2]) < MODES:  # words that decide the mode
                break
        # a receiver that none of ours is like makes each digit doubtful
        limit = lowest + MARGIN + _DOUBT * lowest
        cause_set = {v for v, c in causes.items() if c < limit}
        x_set = {v for v, c in xs.items() if c < limit}
        y_set = {v for v, c in ys.items() if c < limit}
        others = [c for v, c in causes.items() if v not in cause_set]
        told = None
        if tail is not None:
            words, tail_causes, tail_modes, last = tail
            if cause_set & tail_causes and x_set & tail_modes:
                told = words.decode("ascii").split("\r\n")[0].strip()
                cause_set &= tail_causes
                x_set &= tail_modes
        per_byte = lowest / length
        if per_byte > _WORST_SPEECHLESS and len(cause_set) != 1 and len(x_set) != 1 and len(y_set) != 1:
            return None  # fits badly and says nothing: load lines look as much like it to a receiver that loses bytes
        gap = min(others, default=lowest + 60.0) - lowest
        confidence = max(0.05, min(0.99, 0.5 + 0.012 * min(gap, 40.0) - 0.05 * per_byte))
        return Banner(
            start=first,
            end=last,
            cause=cause_set.pop() if len(cause_set) == 1 else None,
            x=next(iter(x_set)) if len(x_set) == 1 else None,
            y=y_set.pop() if len(y_set) == 1 else None,
            x_class=frozenset(x_set),
            cost=per_byte,
            confidence=round(confidence, 2),
            tail=told,
            error=key[0],
        )

    @staticmethod
    def _marginal(totals: dict[_Labels, float], n: int) -> dict[int, float]:
        out: dict[int, float] = {}
        for labels, total in totals.items():
            if total < out.get(labels[n], 1e9):
                out[labels[n]] = total
        return out

    def _fit_prefix(
        self, received: bytes, first: int, end: int, starts: dict[int, list[tuple[_State, float]]]
    ) -> list[tuple[float, tuple[float, int]]]:
        """Costs of the fixed words per (clock error, receiver), best first, those only that fit at all."""

        def fit(keys: Iterable[tuple[float, int]]) -> list[tuple[float, tuple[float, int]]]:
            out = []
            for key in keys:
                finals = self._search(self._reception(*key), received, first, end, starts, _PREFIX_END, 110.0)
                if finals:
                    (i, _, _), cost = min(finals.items(), key=lambda item: item[1])
                    if cost <= WORST_PREFIX_PER_BYTE * max(8, i - first):
                        out.append((cost, key))
            return sorted(out)

        # the receiver doesn't change between two banners of one capture: try what fitted before
        used_up = self._work >= self._most_work
        fits = fit(self._best[:2] if used_up else self._best)
        if not fits and (used_up or not any(fit((key,)) for key in _QUICK if key[1] < _ODD_RECEIVERS[0] or key[1] in self._odd)):
            return []
        if not used_up and (not fits or fits[0][0] > WRONG_BYTE):
            usual = [(error, r) for error in _ERRORS for r in range(_USUAL_RECEIVERS)]
            fits = fit(usual)
            if not fits or fits[0][0] > 4 * WRONG_BYTE:
                fits += fit((error, r) for error in _ERRORS for r in range(_USUAL_RECEIVERS, _ODD_RECEIVERS[0]))
                fits += fit((error, r) for error in _WIDE_ERRORS for r in range(_ODD_RECEIVERS[0]))
                fits += fit((error, r) for error in _ODD_ERRORS for r in self._odd)
                fits.sort()
            if fits and fits[0][0] > WRONG_BYTE / 2:
                # between two clock errors that were tried
                tried = {key for _, key in fits}
                near = {
                    (round(error + by, 4), r) for _, (error, r) in fits[:3] for by in (-0.005, -0.0025, 0.0025, 0.005)
                }
                fits = sorted(fits + fit(sorted(near - tried)))
            if fits:
                self._best = [key for _, key in fits[:12]]
        # of those that fit as well, the middle one is nearest to the truth, which counts in the words after the banner
        same = [error for cost, (error, _) in fits if cost == fits[0][0]]
        middle = sum(same) / max(1, len(same))
        return sorted(fits, key=lambda fit: (fit[0], abs(fit[1][0] - middle), fit[1]))

    def _search(
        self,
        reception: Reception,
        received: bytes,
        first: int,
        end: int,
        starts: dict[int, list[tuple[_State, float]]],
        finish: int,
        beam: float,
    ) -> dict[tuple[int, float, _Labels], float]:
        """Cheapest costs at which a state passes the edge `finish`: {(byte index, edge, digits): cost}."""
        frames_at = reception.frames_at
        window = reception.window
        waves: dict[_Labels, int] = {_FREE: _WAVE}
        finals: dict[tuple[int, float, _Labels], float] = {}
        bound = 1e9
        current: dict[_State, float] = {}
        last_start = max(starts)
        steps = 0
        i = first
        for i in range(first, end):
            for state, cost in starts.get(i, ()):
                if cost < current.get(state, 1e9):
                    current[state] = cost
            if not current:
                if i > last_start:
                    break
                continue
            limit = min(min(current.values()) + beam, bound)
            wanted = received[i]
            following: dict[_State, float] = {}
            todo = [(pos, labels, cost) for (pos, labels), cost in current.items() if cost <= limit]
            while todo:
                pos, labels, cost = todo.pop()
                steps += 1
                if pos >= finish:
                    key = (i, pos, labels)
                    if cost < finals.get(key, 1e9):
                        finals[key] = cost
                        bound = min(bound, cost + beam)
                    continue
                # a digit becomes real when a frame first sees it
                unseen = labels.index(-1) if -1 in labels else 3
                if unseen < 3 and finish > _PREFIX_END and pos + window >= _SHIFTS[unseen]:
                    for value in range(CAUSES if unseen == 0 else MODES):
                        seen = [*labels]
                        seen[unseen] = value
                        todo.append((pos, (seen[0], seen[1], seen[2]), cost))
                    continue
                wave = waves.get(labels)
                if wave is None:
                    wave = _WAVE
                    for value, shift in zip(labels, _SHIFTS, strict=True):
                        if value > 0:
                            wave |= value << shift
                    waves[labels] = wave
                if cost + LOST_BYTE <= limit:
                    state = (pos, labels)
                    if cost + LOST_BYTE < following.get(state, 1e9):
                        following[state] = cost + LOST_BYTE
                for byte, ahead in frames_at(wave, pos):
                    if byte == NOTHING:
                        if ahead > 0:
                            todo.append((pos + ahead, labels, cost))
                        continue
                    if byte == wanted:
                        total = cost
                    else:
                        total = cost + WRONG_BYTE + WRONG_BIT * (byte ^ wanted).bit_count()
                        if cost + LOST_BYTE <= limit:
                            todo.append((pos + ahead, labels, cost + LOST_BYTE))
                        if total > limit:
                            continue
                    state = (pos + ahead, labels)
                    if total < following.get(state, 1e9):
                        following[state] = total
            current = following
        for (pos, labels), cost in current.items():
            if pos >= finish and cost < finals.get((end, pos, labels), 1e9):
                finals[end, pos, labels] = cost
        self._work += steps
        self._reached = max(self._reached, i)
        return finals

    def _read_tail(
        self, received: bytes, key: tuple[float, int], ends: dict[tuple[int, float], float]
    ) -> tuple[bytes, frozenset[int], frozenset[int], int] | None:
        """What stands after the banner: (words, causes, modes, end), or None when nothing known does."""
        reception = self._reception(*key)
        scored: list[tuple[float, int, int]] = []
        for n, (parts, _, _) in enumerate(_TAILS):
            fits = [
                fit
                for gaps in product((False, True), repeat=len(parts))
                if (fit := _follow(reception, received, ends, parts, gaps)) is not None
            ]
            if fits:
                per_byte, end, matched = min(fits)
                if per_byte <= _WORST_TAIL_PER_BYTE:
                    # longer words that fit as well say more
                    scored.append((per_byte - 0.25 * matched, n, end))
        if not scored:
            return None
        scored.sort()
        best, n, end = scored[0]
        parts, causes, modes = _TAILS[n]
        for cost, other, _ in scored[1:]:
            # others that fit about as well: only what all of them allow is known
            if cost <= best + 1.5 and parts[: len(_TAILS[other][0])] != _TAILS[other][0]:
                causes |= _TAILS[other][1]
                modes |= _TAILS[other][2]
        return parts[0], causes, modes, end


def _bytes_from(reception: Reception, pos: float) -> Iterator[tuple[int, float]]:
    """The bytes that can be the next one received from edge `pos` of the banner on, each with the edge after it."""
    todo = [pos]
    while todo:
        at = todo.pop()
        for byte, ahead in reception.frames_at(_WAVE, at):
            if byte != NOTHING:
                yield byte, at + ahead
            elif ahead > 0 and at < _PREFIX_END:
                todo.append(at + ahead)


def _follow(
    reception: Reception,
    received: bytes,
    ends: dict[tuple[int, float], float],
    parts: tuple[bytes, ...],
    gaps: tuple[bool, ...],
) -> tuple[float, int, int] | None:
    """How well the words of `parts` fit after the banner: (cost per byte, end, bytes matched).

    `gaps` tells before which part the line was idle; a pause of any length is the same to a receiver.
    """
    at = BITS_PER_CHAR * len(_BANNER)
    wave = _WAVE & ((1 << at) - 1)
    begins: list[int] = []
    for part, gap in zip(parts, gaps, strict=True):
        if gap:
            wave |= ((1 << 64) - 1) << at
            at += 64
        begins.append(at)
        size = BITS_PER_CHAR * len(part)
        wave |= (waveform(part) & ((1 << size) - 1)) << at
        at += size
    wave |= -1 << at
    # what a frame near the end sees after the words isn't known: stop two characters early
    finish = at - 2 * BITS_PER_CHAR
    lowest = min(ends.values())
    # (byte index, edge) -> (cost, byte index at which the words began)
    current = {(i, pos): (cost - lowest, i) for (i, pos), cost in ends.items() if cost <= lowest + 60}
    best: tuple[float, int, int] | None = None
    for _ in range(400):
        following: dict[tuple[int, float], tuple[float, int]] = {}
        todo = [(i, pos, cost, begun) for (i, pos), (cost, begun) in current.items()]
        while todo:
            i, pos, cost, begun = todo.pop()
            if pos >= finish:
                matched = max(1, i - begun)
                if best is None or cost / matched < best[0]:
                    best = (cost / matched, i, matched)
                continue
            if i >= len(received):
                continue
            wanted = received[i]
            for byte, ahead in reception.frames_at(wave, pos):
                to = pos + ahead if ahead >= 0 else next((b for b in begins if b > pos), finish)
                if byte == NOTHING:
                    todo.append((i, to, cost, begun))
                    continue
                total = cost if byte == wanted else cost + WRONG_BYTE + WRONG_BIT * (byte ^ wanted).bit_count()
                if total > 120:
                    continue
                state = (i + 1, to)
                if state not in following or total < following[state][0]:
                    following[state] = (total, i if pos < begins[0] <= to else begun)
        if not following:
            break
        current = following
    return best
