"""Following a board's rate while it talks: which bytes are text, which were sent at another rate, when to change ours.

Sans-I/O: bytes and times come in, verdicts come out; whoever owns the port carries out :class:`ChangeRate` and answers
with :meth:`RateWatch.rate_set`. Clean text passes at once. Other bytes are held back until readable text follows, the
line falls silent, or there are enough of them to be told: a moment, never long.

The rule that matters most: a rate that reads well is kept. An island of garbage in good text is a boot ROM, not a
reason to change; only garbage that goes on, with nothing readable between, is. Silence decides nothing.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import cache

from espmon.uart.banner import ROM_RATE, BannerReader
from espmon.uart.capture import Stretch, boundary, garbage, read_capture, text_share, wrong_rate
from espmon.uart.rate import Guess, guess, own_rate_cost
from espmon.uart.wire import BITS_PER_CHAR, NOTHING, RECEIVERS, Reception, waveform

_GOOD = bytes((*range(0x20, 0x7F), 9, 10, 13, 27, 8, 7, 12))
# A UTF-8 sequence that has not ended yet.
_UNFINISHED = re.compile(rb"(?:[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})\Z")

#: garbage is held at most until the line was silent this long, in seconds (four characters at 9600 baud are 4 ms;
#: USB adapters deliver every 16 ms)
SILENCE_S = 0.12
#: bytes that are still on their way through adapter and driver when a rate is changed, in seconds
_SETTLE_S = 0.06
_HELD_MOST = 4096
_LONG_ISLAND = 200
_EVIDENCE_MOST = 1024
#: text bytes after which a rate reads well
_WELL = 80
#: garbage bytes needed to change a rate that was never seen to read well, and one that was
_ENOUGH = 32
_ENOUGH_WELL = 400
_ENOUGH_WELL_S = 0.35
_LATEST = 128
#: nats per byte by which text at a rate close to ours must be likelier, when nothing was read for long (other languages and
#: binary at our own rate: below 0.08)
_CLOSE_MARGIN = 0.15
#: zeros alone, at a rate that read well: the sender has become much slower, if they are so many for so long, and too few
#: per second for a dump of empty memory
_ZEROS_WELL = 1000
_ZEROS_WELL_S = 2.5
_ZEROS_SPEED = 0.4
#: near random bytes needed before looking from above
_ENOUGH_RANDOM = 32
#: and how little worse than noise text must explain them, in nats per byte (real noise: 0.07 to 0.15)
_NOISE = 0.05
#: a board that says a little now and then: so many bytes, in so many bursts over so many seconds, are enough to look
_SPARSE = 12
_SPARSE_BURSTS = 3
_SPARSE_S = 4.0
#: garbage that goes on so long at a rate that never read anything is looked at from above in any case
_PATIENT = 320
#: a driver that counts bytes without their stop bit proves another rate with this share of them (text at many times our
#: rate: 0.3 to 0.6; a bad cable at the right rate: below 0.02). None damaged proves nothing: at half of the sender's
#: rate every stop bit is sampled in one of the sender's
_DAMAGED = 0.1
#: garbage needed to leave a rate that read well when a driver proves it: more than a boot ROM's text, and longer
_ENOUGH_DAMAGED = 100
_ENOUGH_DAMAGED_S = 1.0
#: so long is looked from above for what a rate that read well doesn't read any more
_LOOK_S = 1.0
#: and so long for what nothing was read of
_LOOK_MOST_S = 4.0
_PATIENT_S = 1.0
#: text at the ROM's rate ends by itself after the loads, 400 characters: only what goes on is an application's
_ROM_LASTS_S = 0.25
#: what arrives so long after a banner did is certainly not the ROM's (57 ms of text, loads between, slow adapters)
_ROM_OVER_S = 0.45
_ROM_TEXT = 500
_FOREIGN_AT_ROM_RATE = 600
#: above this ratio sender / receiver the bytes are near random: look again from above, which loses nothing
_LOOK_UP = 4.5
#: above this one, where neighbouring rates make much the same bytes, a rate is believed with this margin, in nats;
#: with less it is looked at from above too
_MUCH_FASTER = 1.9
_MARGIN_FASTER = 16.0
_TOP_RATE = 921600
#: what a rate is tried with when nothing is told clearly, in nats to the next rate
_MARGIN_TRIED = 10.0
#: so often a rate is asked for that is never set
_TRIES = 2
_LOW_RATE = 9600
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


@dataclass(frozen=True, slots=True)
class ChangeRate:
    """The port should be set to `rate`. `why` is a plain sentence."""

    rate: int
    why: str


Verdict = Clear | Garbled | ChangeRate


def _looks_random(heard: bytes) -> bool:
    """True when the bytes have no structure that tells of binary records or of another language at the right rate."""
    count = len(heard)
    high = sum(byte >> 7 for byte in heard)
    commonest = max(heard.count(bytes((byte,))) for byte in set(heard))
    return (
        b"\r\n" not in heard
        and text_share(heard) < 0.55
        and 0.2 * count < high < 0.85 * count
        and heard.count(0) < 0.15 * count
        and commonest < max(8, 0.19 * count)
    )


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
        #: the rate that what was heard last was certainly sent at; None when only text read at a rate tells, or nothing does
        self.inferred: int | None = None
        self.next_deadline: float | None = None
        self._held = bytearray()
        self._held_at = 0.0
        self._arrivals: list[tuple[int, float]] = []  # (index into held, when the bytes from there on came)
        self._bursts = 0
        self._readers: dict[int, BannerReader] = {}
        self._evidence = bytearray()
        self._garbage_from: float | None = None
        self._banner_at = float("-inf")
        #: the rate that was looked from, where nothing was found that is better
        self._looked_up: int | None = None
        self._left_over: list[Verdict] = []
        self._next_look = _ENOUGH
        self._garbage = 0
        self._text = 0
        self._asked: int | None = None
        self._refused: set[int] = set()
        self._unanswered: dict[int, int] = {}
        self._changed_at = float("-inf")
        self._hops = 0
        #: bytes that came without their stop bit, as the driver counts, now and when the garbage began; None: it doesn't say
        self._damaged: int | None = None
        self._damaged_before = 0
        #: the rate that read well, and when to return to it, while something faster is looked for
        self._return: tuple[int, float] | None = None
        self._line_open = False
        self._calm = False  # text was read, and nothing is held, asked or suspected
        self._rom_until: float | None = None
        self._rom_text = bytearray()
        self._home = rate
        self._rate_before = rate

    # --- what happens ----------------------------------------------------------------------------------------------

    @property
    def reads_well(self) -> bool:
        """True when text was read at this rate."""
        return self._text >= _WELL

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
        self._not_answered()
        if damaged is not None:
            self._count_damaged(damaged)
        out, self._left_over = self._left_over, []
        just_changed = self._rate_before != self.rate and at - self._changed_at < _SETTLE_S
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
        if self._return is not None and at >= self._return[1] and self._asked is None:
            (rate, _), self._return = self._return, None
            out.append(self._ask(rate, f"nothing that comes at {self.rate} baud can be read either"))
        self._set_deadline()

    def _count_damaged(self, damaged: int) -> None:
        if self._damaged is None or damaged < self._damaged or (not self._held and self._garbage_from is None):
            self._damaged_before = damaged  # whatever it was is not of the garbage that may begin now
        self._damaged = damaged

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
            self._bursts += 1
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
        if self._asked != rate:
            self._home = rate
            self._rom_until = self._return = None
        self._asked = None
        if rate != self.rate:
            # what is still held was received at the old rate
            self._asked = rate  # one wish at a time
            left_over = self.close(at)
            self._left_over = left_over
            self._asked = None
            self._rate_before, self.rate = self.rate, rate
            self._text = 0
        else:  # opened, or opened again, at the rate that it had: nothing can come late
            self._rate_before = rate
            self._text = 0  # what was unplugged and comes back may talk at another rate
        self._forget()
        self._next_look = _ENOUGH
        self._changed_at = at
        self._garbage_from = None

    def before_reset(self, at: float) -> list[Verdict]:
        """espmon is about to reset the board: where the ROM talks at its own rate, listen at that one first."""
        if not (self.auto and self.two_rates) or self.rate == ROM_RATE or self.settled == ROM_RATE:
            return []
        self._calm = False
        self._home = self.settled or self.rate
        self._rom_until = at + _ROM_LONGEST_S
        self._rom_text.clear()
        return [*self.close(at), self._ask(ROM_RATE, "the boot ROM's text comes at this rate")]

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
                    wish: list[Verdict] = []
                    self._consider(wish, bytes(held), at)
                    if wish:  # what made us ask comes before the asking
                        self._tell(out, len(held), at)
                        out += wish
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
        if len(data) >= 24:
            self._garbage_from = None
            self._damaged_before = self._damaged or 0
            if self._evidence:
                self._forget()
                self._next_look = _ENOUGH
        if self._text >= _WELL and self._rom_until is None:
            self._return = None
            self.settled = self.rate
            self._hops = 0
            self._looked_up = None
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
            self._banner_at = max(self._banner_at, self._came(banners[-1].start))
            self.two_rates = self.two_rates or any(s.sent_at == ROM_RATE for s in stretches)
        if self._asked is not None:
            stretches = _explained(stretches, self._asked)
        if not stretches and end >= 24 and held.count(0, 0, end) > 0.97 * end and not self.reads_well:
            stretches = [Stretch(start=0, end=end, sent_at=None, confidence=0.5, slower=True)]
        elif not stretches and self._asked is not None:  # what is asked for explains them
            stretches = [Stretch(start=0, end=end, sent_at=None, confidence=0.5)]
        told = [s for s in stretches if s.sent_at is not None]
        if not told:
            self._remember(held[:end], at)
            self._consider(out, b"", at)
            # a rate change asked for just now explains them
            if not stretches and out and isinstance(out[-1], ChangeRate):
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
                self._remember(foreign, at)
                self._consider(out, b"", at)
        else:
            out.append(Clear(self._let_go(end), at))

    # --- changing the rate -----------------------------------------------------------------------------------------

    def _remember(self, data: bytes, at: float) -> None:
        if at - self._changed_at < _SETTLE_S:
            return
        self._evidence += data
        self._garbage += len(data)
        del self._evidence[:-_EVIDENCE_MOST]

    def _forget(self) -> None:
        self._evidence.clear()
        self._garbage = self._bursts = 0
        self._damaged_before = self._damaged or 0

    def _consider(self, out: list[Verdict], more: bytes, at: float) -> None:
        """Asks for another rate when the garbage heard, and the open stretch `more`, say so clearly."""
        if not self.auto or self._asked is not None or self._rom_until is not None or at - self._changed_at < _SETTLE_S:
            return
        if self._garbage_from is None:
            self._garbage_from = at
        lasted = at - self._garbage_from
        more = self._without_rom(more)
        heard = bytes(self._evidence) + more
        count = self._garbage + len(more)
        sparse = count >= _SPARSE and self._bursts >= _SPARSE_BURSTS and lasted >= _SPARSE_S and self._may_look_up()
        if count < self._next_look and not sparse:
            return
        self._next_look = count + max(16, count // 2)
        well = self.reads_well
        if self._next_look > _PATIENT and lasted < _PATIENT_S + 0.5:
            self._next_look = min(self._next_look, max(count + 16, _PATIENT))
        proven = self._damaged is not None and self._damaged - self._damaged_before >= _DAMAGED * count
        lost = (count >= _ENOUGH_WELL and lasted >= _ENOUGH_WELL_S) or (
            proven and count >= _ENOUGH_DAMAGED and lasted >= _ENOUGH_DAMAGED_S
        )
        if well and not lost:
            self._next_look = count + 16
            return
        if heard.count(0) > 0.97 * len(heard):
            lower = 115200 if self.rate > 230400 else _LOW_RATE
            # from far above, the boot ROM's text is all zeros too, for a moment
            enough = 2 * _ENOUGH if self.rate <= 230400 or lasted >= 2 * _ROM_LASTS_S else _EVIDENCE_MOST * 8
            if well:
                speed = count / max(lasted, 0.001) * 10 / self.rate
                enough = _ZEROS_WELL if lasted >= _ZEROS_WELL_S and speed < _ZEROS_SPEED else count + 1
            if lower < self.rate and count >= enough:
                out.append(self._ask(lower, "only zeros arrive: the board sends much slower"))
            return
        heard = heard[-_EVIDENCE_MOST:]
        found = wrong_rate(heard, self.rate)
        if found is None and not well and len(heard) > 2 * _LATEST:
            # a ROM at a rate of its own is no help: what came last may be the application alone
            found = wrong_rate(heard[-_LATEST:], self.rate)
        if found is None:
            if self._looked_up is not None and self.rate == self._top != self._looked_up and not well:
                if count >= _PATIENT and lasted >= _PATIENT_S:
                    self._end_look(out, heard, at, lasted)
            elif well:
                if proven:
                    self._look_from_well(out, at)
            else:
                self._look_up(out, heard, count >= _PATIENT and lasted >= _PATIENT_S, sparse)
            return
        if count < 64 and found.margin < 12:
            return
        if abs(found.rate / ROM_RATE - 1) < 0.035 and count < _FOREIGN_AT_ROM_RATE * (2 if well else 1):
            # the ROM falls silent by itself; an application that talks at its rate goes on
            if well or lasted < _ROM_LASTS_S or at - self._banner_at < _ROM_OVER_S:
                self._next_look = count + 16
                return
        if found.rate > _MUCH_FASTER * self.rate and found.margin < _MARGIN_FASTER and self._may_look_up():
            self._looked_up = self.rate
            out.append(self._ask(self._top, f"the board sends faster than {self.rate} baud"))
            return
        self._follow(out, found)

    def _without_rom(self, data: bytes) -> bytes:
        """`data` without the boot ROM's text, which says nothing of the application's rate."""
        if next(self._reader().candidates(data), None) is None:
            return data
        stretches = read_capture(data, self.rate, self._reader())
        if banners := [b for s in stretches for b in s.banners]:
            self._banner_at = max(self._banner_at, self._came(banners[-1].start))
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
                over = min(b.end + most, max(b.end, self._later_than(self._came(b.start) + _ROM_OVER_S)))
                out += data[over:following]
            at = s.end
        return bytes(out + data[at:])

    def _may_look_up(self) -> bool:
        return not self.reads_well and self._can_look_up()

    def _can_look_up(self) -> bool:
        return not (self._looked_up == self.rate or self._top in self._refused or self.rate >= self._top // 2)

    @property
    def _top(self) -> int:
        """The rate to look from above from: the highest that the adapter does."""
        return _TOP_RATE if _TOP_RATE not in self._refused else _TOP_RATE // 2

    def _look_from_well(self, out: list[Verdict], at: float) -> None:
        """A rate that read well is left for a look only when the driver has proven that nobody sends at it any more: binary
        records at the right rate have their stop bits."""
        if not self._can_look_up():
            return
        self._looked_up = home = self.rate
        out.append(self._ask(self._top, f"bytes arrive damaged at {self.rate} baud: the board sends faster"))
        self._return = (home, at + _LOOK_S)

    def _end_look(self, out: list[Verdict], heard: bytes, at: float, lasted: float) -> None:
        """Nothing could be read from above either, nor told clearly: text unlike what the tables were made of is still likelier at
        its own rate than at any other, so that one is tried for as long again; else back."""
        home = self._looked_up
        assert home is not None
        best = guess(heard, self.rate, own=False)
        if best is not None and best.margin >= _MARGIN_TRIED and best.rate not in self._refused and abs(best.rate / home - 1) > 0.035:
            out.append(self._ask(best.rate, f"what arrived at {self.rate} baud was most likely sent at {best.rate}"))
            self._return = (home, at + max(_LOOK_S, lasted))
        elif lasted >= _LOOK_MOST_S:
            out.append(self._ask(home, f"nothing that comes at {self.rate} baud can be read either"))

    def _look_up(self, out: list[Verdict], heard: bytes, patient: bool, sparse: bool) -> None:
        """Near random bytes may be text at many times our rate: seen once from above, where nothing is lost."""
        if len(heard) < _ENOUGH_RANDOM and not sparse:
            return
        best = guess(heard, self.rate)
        if best is None:
            return
        if patient and 0.84 < best.rate / self.rate < 1.19 and best.rate != self.rate and best.margin > _CLOSE_MARGIN * best.received:
            self._follow(out, best)  # a rate close to ours that text is clearly likelier at
            return
        # which of the faster rates it is may be open; that it is none of them, but text of any language at ours, must not be
        cost = len(heard) * math.log(256) - best.order
        likely = best.order > 10 and own_rate_cost(heard) - cost > _MARGIN_FASTER and best.gain > -1.3
        if not self._may_look_up():
            if patient and likely and best.margin > 10 and self._top in self._refused:
                self._follow(out, best)
            return
        if patient and best.order > -0.3 * len(heard) and text_share(heard) < 0.8:
            self._looked_up = self.rate
            out.append(self._ask(self._top, f"nothing that comes at {self.rate} baud can be read"))
            return
        if best.rate < _MUCH_FASTER * self.rate:
            return
        noise = -_NOISE * max(len(heard), 100) * (1.0 if len(heard) < 300 else 1.6)
        if likely or (best.gain > -1.3 and best.order > noise and _looks_random(heard)):
            self._looked_up = self.rate
            out.append(self._ask(self._top, f"the board may send much faster than {self.rate} baud"))

    def _follow(self, out: list[Verdict], found: Guess) -> None:
        rate = found.rate
        self.inferred = rate if rate <= _LOOK_UP * self.rate else None
        mixed = f"; {found.meant} meant for another crystal" if found.meant else ""
        if rate > _LOOK_UP * self.rate and self.rate < _TOP_RATE and _TOP_RATE not in self._refused:
            if self._looked_up == self.rate:
                return
            self._looked_up = self.rate
            out.append(self._ask(self._top, f"the board sends much faster than {self.rate} baud"))
        elif rate not in self._refused:
            out.append(self._ask(rate, f"what arrived at {self.rate} baud was sent at {rate}{mixed}"))

    def _ask(self, rate: int, why: str) -> ChangeRate:
        self._asked = rate
        self._return = None
        self._hops += 1
        self._forget()
        # a board that no rate reads is looked at ever more rarely
        self._next_look = _ENOUGH * (1 if self._hops <= 4 else 8)
        return ChangeRate(rate, why)

    def _not_answered(self) -> None:
        """The rate asked for last was never set: the adapter refused it."""
        if self._asked is not None:
            self._unanswered[self._asked] = self._unanswered.get(self._asked, 0) + 1
            looked = self._asked == self._top and self._looked_up is not None
            if looked or self._unanswered[self._asked] >= _TRIES:
                self._refused.add(self._asked)
                if looked:
                    self._looked_up = None
            self._asked = None
            self._rom_until = self._return = None

    def _follow_rom(self, out: list[Verdict], at: float) -> None:
        """Back to the application's rate when the ROM has said its words."""
        if self._asked is not None or self._rom_until is None:
            return
        heard_garbage = any(isinstance(v, Garbled) for v in out) or (len(self._held) > 2 and len(self._rom_text) > 20)
        if at >= self._rom_until or heard_garbage or _ROM_OVER.search(self._rom_text):
            self._rom_until = None
            out.append(self._ask(self._home, "the boot ROM has finished"))

    def _set_deadline(self) -> None:
        deadlines = [self._held_at + SILENCE_S] if self._held else []
        if self._left_over:
            deadlines.append(self._changed_at)
        if self._rom_until is not None:
            deadlines.append(self._rom_until)
        if self._return is not None:
            deadlines.append(self._return[1])
        self._calm = not deadlines and self._asked is None and self._garbage_from is None and self._text >= _WELL
        self.next_deadline = min(deadlines) if deadlines else None
