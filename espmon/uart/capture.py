"""A capture received at one rate: which stretches of it were sent at another, at which, and what the boot ROM says there.

Right-rate text is left alone, whatever its language: a stretch is only looked at when it holds bytes that are no text,
and only told when text at another rate explains its bytes better than their own statistics do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from espmon.uart.banner import ROM_RATE, Banner, BannerReader
from espmon.uart.rate import Guess, byte_costs, guess

# Text: printable ASCII, the white space and escapes that boards print, and whole UTF-8 sequences.
_TEXT = re.compile(
    rb"(?:[\x20-\x7e\t\r\n\x1b\x08\x07\x0c]"
    rb"|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3})+"
)
#: text of this many bytes in a row ends a stretch of garbage: garbage holds shorter accidents
_READABLE = 24
#: fewer garbage bytes say nothing of their rate by themselves (a glitch at a reset looks like anything)
_SHORTEST = 24
#: margin to the next rate, and what text at that rate must explain better than noise does, in nats
_MARGIN = 8.0
_ORDER = 10.0
_WORST_ORDER = -0.25
# Gain over the bytes' own statistics, in nats per byte, that is needed up to so many bytes: few bytes have had no time to
# show their statistics. Measured: docs/design/uart.md.
_GAINS = ((48, 0.8), (100, -0.2), (200, -0.4))
_GAIN = -0.5
#: nats per byte to the next rate that outweigh a text which is unlike the texts that the tables were made of
_SURE_MARGIN = 0.35
#: rates this close leave half of the text readable; other languages look alike
_CLOSE = (0.84, 1.19)
_GAIN_CLOSE = 0.1
_CLOSE_MARGIN = 0.6
_GAIN_CLOSE_CLEAR = -0.35
#: monotonous logs have strong statistics of their own; a margin of so many nats per byte outweighs some
_CLEAR_MARGIN = 1.2
_GAIN_CLEAR = -0.9
_MOST_TEXT = 0.9
#: nats by which bytes that look like text must look more like garbage
_SURE_GARBLED = 6.0
#: share of one byte other than zero that no text has
_SAME = 0.8
#: text of a faster sender makes more different bytes than this
_FEW_BYTES = 6
# What tells hundreds of made-up kinds of binary records from text of a faster sender, where the gain is lower than this: share of
# bytes in pairs of zeros (records 0.06 to 0.4, text below 0.02), of bytes that come again at one distance up to 64 (0.23 to
# 0.6; text below 0.25).
_GAIN_ZEROS, _ZERO_PAIRS = 0.02, 0.06
_GAIN_PERIODIC, _PERIODIC = -0.2, 0.27
#: a sender this much slower makes few different bytes: at most so many may cost so much
_SLOW, _SURPRISE, _MOST_SURPRISES = 1 / 3, 8.0, 0.15
#: so close to the ROM's rate its text arrives as it is, or with many bytes that are no text: what is mostly text was sent at
#: our rate, with some noise in it
_NEAR, _MOSTLY = 0.05, 0.85
#: ratios sender / receiver that can be told
_RATIOS = (1 / 12.5, 6.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Bytes ``[start, end)`` that were sent at `sent_at` baud (None: only that it was another rate), and their banners.

    `meant`: the rate that the firmware meant, when its crystal is not the one it was built for. `slower`: every byte
    is zero, so the sender is more than eleven times slower.
    """

    start: int
    end: int
    sent_at: int | None
    confidence: float
    meant: int | None = None
    slower: bool = False
    banners: tuple[Banner, ...] = ()

    def moved(self, by: int) -> Stretch:
        """The same stretch in bytes that begin elsewhere."""
        banners = tuple(replace(b, start=b.start + by, end=b.end + by) for b in self.banners)
        return replace(self, start=self.start + by, end=self.end + by, banners=banners)


def boundary(
    received: bytes, end: int, sent_at: int | None, received_at: int, line_ends: frozenset[bytes] = frozenset()
) -> int:
    """Where a stretch that seems to end at `end` really ends: garbage may end in bytes that look like text.

    Looks at the 16 bytes after `end`, and puts the limit where text at `sent_at` before it and text at our own rate after
    it explain the bytes best. A place where a line can have ended, one of `line_ends` before it, is likelier.
    """
    context = 48
    head = received[max(0, end - context) : end]
    tail = received[end : end + 16]
    garbled = byte_costs(head + tail, sent_at, received_at) if sent_at else None
    clear = byte_costs(tail, received_at, received_at, before=0x0A)
    if garbled is None or clear is None:
        return end
    garbled = garbled[len(head) :]
    bonus = _SURE_GARBLED if line_ends else 0.0
    best, least, now = 0, -_SURE_GARBLED + bonus, 0.0
    if received[end - 2 : end] in line_ends:
        least -= bonus
    for n, (g, c) in enumerate(zip(garbled, clear, strict=True)):
        now += g - c
        if now - (bonus if received[end + n - 1 : end + n + 1] in line_ends else 0.0) < least:
            best, least = n + 1, now - (bonus if received[end + n - 1 : end + n + 1] in line_ends else 0.0)
    return end + best


def garbage(received: bytes) -> Iterator[tuple[int, int]]:
    """Spans that hold bytes which are no text, runs of text shorter than 24 bytes between them included."""
    start = -1
    end = 0
    at = 0
    for match in _TEXT.finditer(received):
        first, last = match.span()
        if first > at:
            if start < 0:
                start = at
            end = first
        if start >= 0 and last - first >= _READABLE:
            yield start, end
            start = -1
        at = last
    if at < len(received):
        if start < 0:
            start = at
        end = len(received)
    if start >= 0:
        yield start, end


def text_share(received: bytes) -> float:
    """How much of `received` is text, 0 to 1."""
    return sum(len(m[0]) for m in _TEXT.finditer(received)) / max(1, len(received))


def _monotonous(received: bytes) -> bool:
    """One byte again and again is a pattern that somebody sends, a break or a fill: text makes several, or zeros."""
    return max(received.count(b) for b in set(received) - {0}) > _SAME * len(received) if any(received) else False


def _framed(received: bytes, gain: float) -> bool:
    """True for bytes that more likely are binary records, when text explains them no better than their own statistics do: runs
    of zeros, which text of a faster sender hardly makes, or the same bytes again at one distance."""
    count = len(received)
    if gain < _GAIN_ZEROS and received.count(b"\0\0") > _ZERO_PAIRS * count / 2:
        return True
    if gain >= _GAIN_PERIODIC:
        return False
    sample = received[:1024]
    return any(
        sum(map(int.__eq__, sample, sample[lag:])) > _PERIODIC * (len(sample) - lag) for lag in range(2, min(65, len(sample) // 2))
    )


def wrong_rate(received: bytes, received_at: int) -> Guess | None:
    """The rate that garbage was sent at, None when it can't be told or may be no garbage at all."""
    if len(received) < _SHORTEST or received.count(0) > 0.97 * len(received) or text_share(received) > _MOST_TEXT:
        return None
    found = guess(received, received_at)
    if found is None or found.margin < _MARGIN or (found.order < _ORDER and found.margin < _SURE_MARGIN * found.received):
        return None
    if found.order < _WORST_ORDER * found.received:
        return None  # much worse than noise: better than any other rate says nothing
    ratio = found.rate / received_at
    if abs(ratio - 1) < 0.035 or not _RATIOS[0] <= ratio <= _RATIOS[1] or _monotonous(received):
        return None
    if ratio < _SLOW:
        # few bytes can come of a slow sender: a frame of a bus with many zeros holds others as well
        costs = byte_costs(received[:2048], found.rate, received_at) or []
        if sum(nats >= _SURPRISE for nats in costs) > _MOST_SURPRISES * len(costs):
            return None
    if ratio > 1 and len(set(received)) <= _FEW_BYTES:
        return None  # frames of zeros and a few others: text makes more, and only slow senders hide it
    needed = next((gain for most, gain in _GAINS if len(received) < most), _GAIN)
    if _CLOSE[0] < ratio < _CLOSE[1]:
        needed = max(needed, _GAIN_CLOSE if found.margin < _CLOSE_MARGIN * found.received else _GAIN_CLOSE_CLEAR)
    if found.margin > _CLEAR_MARGIN * found.received and len(received) >= 100:
        needed = min(needed, _GAIN_CLEAR)
    if found.gain < needed or (ratio > 1 and _framed(received, found.gain)):
        return None
    return found


def read_capture(received: bytes, received_at: int, reader: BannerReader | None = None) -> list[Stretch]:
    """Every stretch of `received` that was sent at another rate, in order, with the banners in it."""
    reader = reader or BannerReader(received_at)
    near = abs(received_at / ROM_RATE - 1) < _NEAR
    banners = [b for b in reader.read(received) if not readable_banner(received, b)]
    if near:
        banners = [b for b in banners if text_share(received[b.start : b.end]) < _MOSTLY]
    spans: list[tuple[int, int]] = []
    for start, end in garbage(received):
        if spans and start - spans[-1][1] <= 120 and b"\n" not in received[spans[-1][1] : start]:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    out: list[Stretch] = []
    for start, end in _with_banners(spans, banners):
        inside = [b for b in banners if start <= b.start < end]
        at = start
        for n, banner in enumerate(inside):
            following = inside[n + 1].start if n + 1 < len(inside) else end
            if banner.start - at >= _SHORTEST:
                out += _told(received, at, banner.start, received_at)
            to = rom_text_end(received, banner.end, max(banner.end, following), received_at, reader.sent_at)
            out.append(
                Stretch(
                    start=banner.start,
                    end=to,
                    sent_at=reader.sent_at,
                    confidence=banner.confidence,
                    banners=(banner,),
                )
            )
            at = to
        if end > at:
            out += _told(received, at, end, received_at)
    if not out and len(received) >= 48 and received.count(0) >= 0.97 * len(received):
        return [Stretch(start=0, end=len(received), sent_at=None, confidence=0.5, slower=True)]
    return _joined(out)


def rom_text_end(received: bytes, start: int, end: int, received_at: int, sent_at: int = ROM_RATE) -> int:
    """Where the text at the ROM's rate ends within garbage ``[start, end)`` that follows a banner.

    An application at a third rate may follow without a pause. The limit stands where both explain the bytes best; `end`
    when all of it may be the ROM's.
    """
    garbled = received[start:end]
    if len(garbled) < _SHORTEST:
        return end
    other = guess(garbled[-256:], received_at)
    if other is None or abs(other.rate / sent_at - 1) < 0.035 or abs(other.rate / received_at - 1) < 0.035:
        return end
    first = byte_costs(garbled, sent_at, received_at)
    second = byte_costs(garbled, other.rate, received_at)
    if first is None or second is None:
        return end
    now = sum(second)
    best, least = 0, now
    for n, (a, b) in enumerate(zip(first, second, strict=True)):
        now += a - b
        if now < least:
            best, least = n + 1, now
    # a third rate needs evidence of its own
    return start + best if sum(first) - least > 2 * _MARGIN else end


def _with_banners(spans: list[tuple[int, int]], banners: list[Banner]) -> list[tuple[int, int]]:
    """`spans` widened, or new ones made, so that each banner lies within one."""
    marks = sorted([*spans, *((b.start, b.end) for b in banners)])
    out: list[tuple[int, int]] = []
    for start, end in marks:
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((start, end))
    return out


def _told(received: bytes, start: int, end: int, received_at: int) -> list[Stretch]:
    found = wrong_rate(received[start:end], received_at)
    if found is None:
        return []
    return [Stretch(start=start, end=end, sent_at=found.rate, confidence=found.confidence, meant=found.meant)]


def _joined(stretches: list[Stretch]) -> list[Stretch]:
    """Neighbours at the same rate with nothing between them made one."""
    out: list[Stretch] = []
    for s in stretches:
        if out and out[-1].end == s.start and out[-1].sent_at == s.sent_at:
            out[-1] = replace(
                out[-1], end=s.end, confidence=max(out[-1].confidence, s.confidence), banners=out[-1].banners + s.banners
            )
        else:
            out.append(s)
    return out


_PLAIN_BANNER = re.compile(rb"rst cause:[0-6], boot mode:\([0-7],[0-7]\)")


def readable_banner(received: bytes, banner: Banner) -> bool:
    """True when the banner stands in the bytes as plain text: whoever reads text reads it there."""
    return _PLAIN_BANNER.search(received, max(0, banner.start - 8), banner.end + 16) is not None
