"""Following a board's rate while it talks: which bytes are text, which were sent at another rate, when to change ours.

Sans-I/O: bytes and times come in, verdicts come out; whoever owns the port carries out :class:`ChangeRate` and answers
with :meth:`RateWatch.rate_set`. Clean text passes at once. Other bytes are held back until readable text follows, the
line falls silent, or there are enough of them to be told: a moment, never long. Here bytes are sorted and held; which
other rate to try, and when, is `espmon.uart.search`'s.

The rule that matters most: a rate that reads well is kept. An island of garbage in good text is a boot ROM, not a
reason to change; only garbage that goes on, with nothing readable between, is. Silence decides nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache

from espmon.uart.banner import ROM_RATE, BannerReader
from espmon.uart.capture import Stretch, boundary, garbage, read_capture
from espmon.uart.search import ROM_OVER_S, ChangeRate, RateSearch
from espmon.uart.wire import BITS_PER_CHAR, NOTHING, RECEIVERS, Reception, waveform

__all__ = ["SILENCE_S", "ChangeRate", "Clear", "Garbled", "RateWatch", "Verdict"]

_GOOD = bytes((*range(0x20, 0x7F), 9, 10, 13, 27, 8, 7, 12))
# A UTF-8 sequence that has not ended yet.
_UNFINISHED = re.compile(rb"(?:[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})\Z")

#: garbage is held at most until the line was silent this long, in seconds (four characters at 9600 baud are 4 ms;
#: USB adapters deliver every 16 ms)
SILENCE_S = 0.12
_HELD_MOST = 4096
_LONG_ISLAND = 200
#: text bytes after which a rate reads well
_WELL = 80
_ROM_TEXT = 500
#: the ROM's text is over after this line or after this long
_ROM_OVER = re.compile(rb"csum 0x[0-9a-f]{2}\r?\n|waiting for host\r?\n|ets_main\.c ?\r?\n|boot mode:\([0124-7],\d\)\r?\n\r?\n")
_ROM_LONGEST_S = 0.8


@dataclass(frozen=True, slots=True)
class Clear:
    """Bytes for whoever reads text: received at the right rate, or nothing better is known of them."""

    data: bytes
    at: float


@dataclass(frozen=True, slots=True)
class Garbled:
    """Bytes that were sent at another rate, as `stretches` (indices into `data`) tell."""

    data: bytes
    at: float
    received_at: int
    stretches: tuple[Stretch, ...]


Verdict = Clear | Garbled | ChangeRate


@cache
def _beginnings(received_at: int) -> frozenset[bytes]:
    """The first one or two bytes that are received of a boot ROM's banner. As `BannerReader.beginnings`, without its tables:
    a board that talks at one rate never needs those (6 ms)."""
    if not BannerReader(received_at).able:
        return frozenset()
    words = b"\r\n ets Jan"
    wave, end = waveform(words), BITS_PER_CHAR * len(words)
    out: set[bytes] = set()
    for error in (0.0, -0.015, 0.015, -0.035, 0.035):
        for receiver in RECEIVERS:
            reception = Reception(received_at / (ROM_RATE * (1 + error)), receiver)
            todo: list[tuple[float, bytes]] = [(0.0, b"")]
            seen = set(todo)
            while todo:
                at, heard = todo.pop()
                for byte, ahead in reception.frames_at(wave, at):
                    now = heard if byte == NOTHING else heard + bytes((byte,))
                    if now:
                        out.add(now)
                    following = (at + ahead, now)
                    if len(now) < 2 and ahead >= 0 and following[0] < end and following not in seen:
                        seen.add(following)
                        todo.append(following)
    return frozenset(out)


def _explained(stretches: list[Stretch], rate: int) -> list[Stretch]:
    """`stretches` as they stand when the port is about to be, or was just, set to `rate`: more is known of the sender than
    these bytes say, so what they say against it alone is not told."""
    return [
        s if s.banners or s.sent_at is None or abs(s.sent_at / rate - 1) < 0.035 else replace(s, sent_at=None) for s in stretches
    ]


class RateWatch:
    """Watches one port. `auto`: may ask for other rates. `two_rates`: the boot ROM is known to talk at 74880."""

    def __init__(self, rate: int, *, auto: bool = True, two_rates: bool = False) -> None:
        self.rate = rate
        self.auto = auto
        self.two_rates = two_rates
        #: the application's rate, once text was read at it
        self.settled: int | None = None
        self.next_deadline: float | None = None
        self._held = bytearray()
        self._held_at = 0.0
        self._arrivals: list[tuple[int, float]] = []  # (index into held, when the bytes from there on came)
        self._readers: dict[int, BannerReader] = {}
        self._left_over: list[Verdict] = []
        self._text = 0
        self._line_open = False
        self._calm = False  # text was read, and nothing is held, asked or suspected
        self._rom_until: float | None = None
        self._rom_text = bytearray()
        self._home = rate
        self._rate_before = rate
        self._search = RateSearch(rate)

    # --- what happens ----------------------------------------------------------------------------------------------

    @property
    def reads_well(self) -> bool:
        """True when text was read at this rate."""
        return self._text >= _WELL

    @property
    def inferred(self) -> int | None:
        """The rate that what was heard last was certainly sent at; None when only text read at a rate tells, or nothing does."""
        return self._search.inferred

    @property
    def text_read(self) -> int:
        """Bytes that were read as text at the present rate."""
        return self._text

    def passes(self, data: bytes) -> bool:
        """True when `data` is plain text that :meth:`feed` would let through as it is; it is then done with.

        The short way for nearly all chunks of nearly all boards.
        """
        if not self._calm or len(data) <= 2 or data.translate(None, _GOOD):
            return False
        ended = data[-1] == 0x0A
        if not ended and (data[-2] == 0x0A or data[-3] == 0x0A):  # a banner's garbage may have begun
            return False
        self._line_open = not ended
        return True

    def feed(self, data: bytes, at: float, damaged: int | None = None) -> list[Verdict]:
        """Bytes read at `at` (seconds). `damaged`: how many bytes without their stop bit the driver has counted so far, since
        whenever; None where it doesn't say."""
        if self._search.not_answered():
            self._rom_until = None
        if damaged is not None:
            self._search.count_damaged(damaged, at, held=bool(self._held))
        out, self._left_over = self._left_over, []
        just_changed = self._rate_before != self.rate and self._search.settling(at)
        if just_changed and not self._held and self._came_late(data):
            stretches = read_capture(data, self._rate_before, self._reader(self._rate_before))
            late = _explained(stretches, self.rate) or [Stretch(start=0, end=len(data), sent_at=None, confidence=0.5)]
            out.append(Garbled(data, at, self._rate_before, tuple(late)))
            self._set_deadline()
            return out
        if not self._held and not data.translate(None, _GOOD) and not self._may_begin_garbage(data):
            kept = len(data) - 1 - data.rfind(b"\n") if len(data) > 2 else 0
            if 0 < kept <= 2 and data[-kept:] in _beginnings(self.rate):
                self._hold(data[-kept:], at)
                data = data[:-kept]
                self._line_open = False
            out.append(Clear(data, at))
            self._read(data)
        else:
            self._hold(data, at)
            out += self._sort(at, over=len(self._held) > _HELD_MOST)
        self._follow_up(out, at)
        return out

    def _follow_up(self, out: list[Verdict], at: float) -> None:
        """What is due at `at`, whether bytes came or not."""
        if self._rom_until is not None:
            self._follow_rom(out, at)
        if (back := self._search.due(at)) is not None:
            out.append(back)
        self._set_deadline()

    def _hold(self, data: bytes, at: float) -> None:
        self._arrivals.append((len(self._held), at))
        self._held += data
        self._held_at = at

    def _let_go(self, count: int) -> bytes:
        """The first `count` held bytes, which are then no longer held."""
        data = bytes(self._held[:count])
        del self._held[:count]
        left = [(max(0, index - count), at) for index, at in self._arrivals]
        # several may now claim index 0: the last of them tells when it came
        self._arrivals = [pair for n, pair in enumerate(left) if n + 1 == len(left) or left[n + 1][0] > 0]
        if not self._held:
            self._arrivals.clear()
        return data

    def _came(self, index: int) -> float:
        """When the held byte `index` arrived."""
        return next((at for start, at in reversed(self._arrivals) if start <= index), self._held_at)

    def _later_than(self, at: float) -> int:
        """Index of the first held byte that arrived after `at`."""
        return next((index for index, when in self._arrivals if when > at), len(self._held))

    @staticmethod
    def _came_late(data: bytes) -> bool:
        """True for bytes just after a change of rate that nothing but the rate before can explain."""
        span = next(garbage(data), None)
        return span is not None and span[0] < 24 and len(data) - span[1] < 24

    def _may_begin_garbage(self, data: bytes) -> bool:
        """True for a byte or two at the beginning of a line that a banner's garbage begins with as well."""
        if len(data) > 2:
            self._line_open = data[-1] != 0x0A
            return False
        if self._line_open:
            self._line_open = data[-1:] != b"\n"
            return False
        self._line_open = True
        return data in _beginnings(self.rate)

    def tick(self, at: float) -> list[Verdict]:
        """To be called when :attr:`next_deadline` has passed."""
        out, self._left_over = self._left_over, []
        if self._held and at >= self._held_at + SILENCE_S:
            self._search.fell_silent()
            out += self._sort(at, over=True)
        self._follow_up(out, at)
        return out

    def close(self, at: float) -> list[Verdict]:
        """The port was closed: what is still held."""
        out, self._left_over = self._left_over, []
        out += self._sort(at, over=True)
        self._set_deadline()
        return [v for v in out if not isinstance(v, ChangeRate)]

    def rate_set(self, rate: int, at: float) -> None:
        """The port is now at `rate`, by our wish or somebody else's."""
        self._calm = False
        if self._search.asked != rate:
            self._home = rate
            self._rom_until = None
        self._search.rate_coming(rate)
        if rate != self.rate:
            # what is still held was received at the old rate
            self._left_over = self.close(at)
            self._rate_before, self.rate = self.rate, rate
        else:  # opened, or opened again, at the rate that it had: nothing can come late
            self._rate_before = rate
        self._text = 0  # what was unplugged and comes back may talk at another rate
        self._search.rate_set(rate, at)

    def before_reset(self, at: float) -> list[Verdict]:
        """espmon is about to reset the board: where the ROM talks at its own rate, listen at that one first."""
        if not (self.auto and self.two_rates) or self.rate == ROM_RATE or self.settled == ROM_RATE:
            return []
        self._calm = False
        self._home = self.settled or self.rate
        self._rom_until = at + _ROM_LONGEST_S
        self._rom_text.clear()
        return [*self.close(at), self._search.ask(ROM_RATE, "the boot ROM's text comes at this rate")]

    def board_reset(self, at: float) -> None:
        """espmon has reset the board just now. It may run other firmware than before: what was read proves nothing more."""
        self._text = 0
        self._calm = False
        if self._rom_until is not None:
            self._rom_until = at + _ROM_LONGEST_S
        self._set_deadline()

    # --- sorting ---------------------------------------------------------------------------------------------------

    def _sort(self, at: float, over: bool) -> list[Verdict]:
        """Takes from the held bytes what can be told. `over`: all of them must be told now."""
        out: list[Verdict] = []
        held = self._held
        while held:
            span = next(garbage(bytes(held)), None)
            if span is None:
                if len(held) <= 2 and not over and bytes(held) in _beginnings(self.rate):
                    break
                self._pass(out, len(held), at)
                break
            start, end = span
            if not over and end == len(held) and end - start <= 3 and _UNFINISHED.fullmatch(held, start):
                self._pass(out, start, at)
                break
            # garbage often begins with bytes that look like text: keep some until it is known where it begins
            keep = max(held.rfind(b"\n", 0, start) + 1, start - 8)
            if keep > 0:
                self._pass(out, keep, at)
                continue
            if end == len(held) or not self._text_follows(bytes(held[end:])):
                if not over:
                    wish = self._wish(bytes(held), at)
                    if wish is not None:  # what made us ask comes before the asking
                        self._tell(out, len(held), at)
                        out.append(wish)
                    break
                end = len(held)
            self._tell(out, end, at)
        return out

    @staticmethod
    def _text_follows(rest: bytes) -> bool:
        return len(rest) >= 24

    def _pass(self, out: list[Verdict], count: int, at: float) -> None:
        data = self._let_go(count)
        if data:
            out.append(Clear(data, at))
            self._read(data)

    def _read(self, data: bytes) -> None:
        """`data` was read as text."""
        if len(data) >= 8 or self._text:
            self._text = min(self._text + len(data), 1 << 20)
        well = self._text >= _WELL and self._rom_until is None
        self._search.text_came(len(data), well)
        if well:
            self.settled = self.rate
        if self._rom_until is not None:
            self._rom_text += data
            del self._rom_text[:-600]

    def _reader(self, rate: int | None = None) -> BannerReader:
        rate = rate or self.rate
        reader = self._readers.get(rate)
        if reader is None:
            if len(self._readers) > 8:
                self._readers.clear()
            reader = self._readers[rate] = BannerReader(rate)
        return reader

    def _tell(self, out: list[Verdict], end: int, at: float) -> None:
        """The first `end` held bytes are garbage and over: say what they are."""
        held = bytes(self._held)
        stretches = read_capture(held[:end], self.rate, self._reader())
        if self.reads_well:
            # in text that reads well, an island is a boot ROM's; anything else has to be long to be believed
            stretches = [s for s in stretches if s.banners or s.sent_at == ROM_RATE or s.end - s.start >= _LONG_ISLAND]
        if banners := [b for s in stretches for b in s.banners]:
            self._search.banner_came(self._came(banners[-1].start))
            self.two_rates = self.two_rates or any(s.sent_at == ROM_RATE for s in stretches)
        asked = self._search.asked
        if asked is not None:
            stretches = _explained(stretches, asked)
        if not stretches and end >= 24 and held.count(0, 0, end) > 0.97 * end and not self.reads_well:
            stretches = [Stretch(start=0, end=end, sent_at=None, confidence=0.5, slower=True)]
        elif not stretches and asked is not None:  # what is asked for explains them
            stretches = [Stretch(start=0, end=end, sent_at=None, confidence=0.5)]
        told = [s for s in stretches if s.sent_at is not None]
        if not told:
            self._search.remember(held[:end], at)
            wish = self._wish(b"", at)
            if wish is not None:
                out.append(wish)
            if wish is not None and not stretches:  # the rate asked for just now explains them
                stretches = [Stretch(start=0, end=end, sent_at=None, confidence=0.5)]
        if stretches:
            first = stretches[0].start
            ends = self._reader().line_ends() if stretches[-1].sent_at == ROM_RATE else frozenset()
            last = boundary(held, end, stretches[-1].sent_at, self.rate, ends)
            if first > 0:
                self._pass(out, first, at)
            shifted = [s.moved(-first) for s in stretches]
            foreign = self._foreign(bytes(self._held[: last - first]), shifted) if told else b""
            out.append(Garbled(self._let_go(last - first), at, self.rate, tuple(shifted)))
            if foreign:
                self._search.remember(foreign, at)
                if (wish := self._wish(b"", at)) is not None:
                    out.append(wish)
        else:
            out.append(Clear(self._let_go(end), at))

    # --- what the search for another rate is told ------------------------------------------------------------------

    def _wish(self, more: bytes, at: float) -> ChangeRate | None:
        """Another rate, when the garbage heard, and the open stretch `more`, say so clearly."""
        if not self.auto or self._rom_until is not None or not self._search.may_ask(at):
            return None
        return self._search.wish(self._without_rom(more), at, self.reads_well)

    def _without_rom(self, data: bytes) -> bytes:
        """`data` without the boot ROM's text, which says nothing of the application's rate."""
        if next(self._reader().candidates(data), None) is None:
            return data
        stretches = read_capture(data, self.rate, self._reader())
        if banners := [b for s in stretches for b in s.banners]:
            self._search.banner_came(self._came(banners[-1].start))
        return self._foreign(data, stretches)

    def _foreign(self, data: bytes, stretches: list[Stretch]) -> bytes:
        """What of `data`, the first held bytes, the ROM can't have sent: outside its stretches, or longer or later than it
        ever talks."""
        most = int(_ROM_TEXT * max(1.0, self.rate / ROM_RATE))
        out = bytearray()
        at = 0
        for s in stretches:
            out += data[at : s.start]
            if not s.banners:
                out += data[s.start : s.end]
            for n, b in enumerate(s.banners):
                following = s.banners[n + 1].start if n + 1 < len(s.banners) else s.end
                over = min(b.end + most, max(b.end, self._later_than(self._came(b.start) + ROM_OVER_S)))
                out += data[over:following]
            at = s.end
        return bytes(out + data[at:])

    def _follow_rom(self, out: list[Verdict], at: float) -> None:
        """Back to the application's rate when the ROM has said its words."""
        if self._search.asked is not None or self._rom_until is None:
            return
        heard_garbage = any(isinstance(v, Garbled) for v in out) or (len(self._held) > 2 and len(self._rom_text) > 20)
        if at >= self._rom_until or heard_garbage or _ROM_OVER.search(self._rom_text):
            self._rom_until = None
            out.append(self._search.ask(self._home, "the boot ROM has finished"))

    def _set_deadline(self) -> None:
        deadlines = [self._held_at + SILENCE_S] if self._held else []
        if self._left_over:
            deadlines.append(self._search.changed_at)
        if self._rom_until is not None:
            deadlines.append(self._rom_until)
        if (back := self._search.return_at) is not None:
            deadlines.append(back)
        self._calm = not deadlines and not self._search.suspects and self.reads_well
        self.next_deadline = min(deadlines) if deadlines else None
