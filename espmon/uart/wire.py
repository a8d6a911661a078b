"""The wire and the receiver: which bytes a UART makes of text that was sent at another rate.

8N1 only. A *waveform* is an int whose bit n is the level of the line during the n-th bit time of the sender, idle high
above the text. A receiver notices a falling edge up to `slack` of its own bit times late (its clock ticks 8 or 16 times
per bit), samples eight data bits and the stop bit at `sample` of each bit, and starts its next frame at the first falling
edge after the stop sample: whether that sample was high (ready again in the middle of the stop bit) or low (a framing
error: wait for high, then for the edge), the rule is the same. Bytes with framing errors are passed on.

`docs/design/uart.md` tells where this model was checked against received bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

BITS_PER_CHAR = 10
"""Start bit, eight data bits, stop bit."""


def waveform(text: bytes) -> int:
    """The line while `text` is sent without pauses; idle (high) for ever after it. Bit 0 is the first start bit."""
    wave = -1 << (BITS_PER_CHAR * len(text))
    for n, byte in enumerate(text):
        wave |= (byte << 1 | 0x200) << (BITS_PER_CHAR * n)
    return wave


@dataclass(frozen=True, slots=True)
class Receiver:
    """`sample`: where in a bit it is sampled (0..1, 0.5 = the middle); `slack`: how late a start may be seen, in bits.

    `checked`: a start bit that is high again in its middle was none; the next edge after that is tried. `damaged`: what
    becomes of a byte with a framing error, :data:`PASSED` as it is, as a zero byte (:data:`BLANKED`) or :data:`LOST`. `after`
    such a byte it waits for the next :data:`EDGE`, takes the low stop bit for the next START (as a 16550 does), or starts at
    once because the LEVEL is low.
    """

    sample: float
    slack: float
    checked: bool = False
    damaged: int = 0
    after: int = 0


PASSED, BLANKED, LOST = range(3)
EDGE, START, LEVEL = range(3)


# Centre ticks 7, 8, 9 of 16; oversampling 8; a receiver whose start is uncertain by a quarter bit, and one that samples
# late: both were seen in posted captures (docs/design/uart.md).
RECEIVERS = (
    Receiver(0.5, 1 / 16),
    Receiver(0.44, 1 / 16),
    Receiver(0.56, 1 / 16),
    Receiver(0.5, 1 / 8),
    Receiver(0.46, 0.22),
    Receiver(0.62, 1 / 16),
    Receiver(0.39, 1 / 8),  # oversampling 8, an early sample
    # other habits after a framing error, of UARTs and of drivers
    Receiver(0.5, 1 / 8, damaged=LOST),
    Receiver(0.5, 1 / 8, damaged=BLANKED),
    Receiver(0.5, 1 / 8, after=START),
    Receiver(0.5, 1 / 8, after=LEVEL),
    Receiver(0.5, 1 / 8, after=LEVEL, checked=True),
)

Frame = tuple[int, float]
"""A received byte (:data:`NOTHING`: none came of it), and how many sender bits after this frame's start the next frame's start
stands (-1: the line is idle). Frames start at edges, and so at whole bits, but for receivers that don't wait for one."""

NOTHING = -1


class Reception:
    """One receiver at one ratio: ``ratio`` = receiver's bits per sender's bit (> 1: it reads too fast)."""

    __slots__ = ("_cache", "_checks", "_patterns", "_sequels", "mask", "ratio", "reach", "receiver", "window")

    def __init__(self, ratio: float, receiver: Receiver) -> None:
        self.ratio = ratio
        self.receiver = receiver
        step = 1.0 / ratio
        first = [(1 + k + receiver.sample) * step for k in range(9)]
        # As the start is seen later, samples pass into the sender's next bit one by one: between two such crossings
        # the received byte is the same, so a handful of patterns is all that this receiver can do.
        crossings = sorted({max(0.0, ((int(t) + 1) / step) - (1 + k + receiver.sample)) for k, t in enumerate(first)})
        starts = [0.0] + [c for c in crossings if 0.0 < c < receiver.slack]
        ends = [*starts[1:], receiver.slack]
        made: dict[tuple[int, ...], tuple[tuple[int, ...], int, float]] = {}
        for a, b in zip(starts, ends, strict=True):
            one = self._pattern((a + b) / 2)
            made.setdefault(one[0], one)
        self._patterns, self._checks, self._sequels = zip(*made.values(), strict=True)
        #: bits of the line that one frame reads, from its start to its stop sample
        self.reach = max(p[8] for p in self._patterns) + (1 if receiver.after == EDGE else 2)
        #: bits of the line that decide a frame and where the next one starts: a falling edge comes with every start bit
        self.window = self.reach + BITS_PER_CHAR + 1
        self.mask = (1 << self.window) - 1
        self._cache: dict[int | tuple[int, float], tuple[Frame, ...]] = {}

    def frames(self, window: int) -> tuple[Frame, ...]:
        """Every (byte, distance to the next frame) that can come of an edge followed by the bits of `window`."""
        found = self._cache.get(window)
        if found is None:
            found = self._cache[window] = self._make(window, self._patterns, self._checks, self._sequels)
            if len(self._cache) > 20000:  # hostile input must not grow it without bound
                self._cache.clear()
        return found

    def frames_at(self, wave: int, at: float) -> tuple[Frame, ...]:
        """:meth:`frames` of the frame that starts at bit `at` of `wave`, a whole bit or not."""
        whole = int(at)
        window = wave >> whole & self.mask
        if whole == at:
            return self.frames(window)
        key = (window, at - whole)
        found = self._cache.get(key)
        if found is None:
            # its start is known as well as the one before it was: half the slack to either side
            slack = self.receiver.slack / 2
            made = [self._pattern(late, at - whole) for late in (0.0, slack, -slack)]
            found = self._cache[key] = self._make(window, *(tuple(column) for column in zip(*made, strict=True)))
            if len(self._cache) > 20000:
                self._cache.clear()
        return found

    def _pattern(self, late: float, at: float = 0.0) -> tuple[tuple[int, ...], int, float]:
        """Bits of the line that are sampled, the one that checks the start (0: none), and where the next frame starts if
        this one's stop bit is low and no edge is waited for; `late` in the receiver's bits, `at` in the sender's."""
        step = 1.0 / self.ratio
        receiver = self.receiver
        bits = tuple(max(0, int(at + (late + 1 + k + receiver.sample) * step)) for k in range(9))
        sequel = at + (late + (9.0 if receiver.after == START else 9.0625 + receiver.sample)) * step
        return bits, int(at + (late + 0.5) * step) if receiver.checked else 0, round(8 * sequel) / 8

    def _make(
        self, window: int, patterns: tuple[tuple[int, ...], ...], checks: tuple[int, ...], sequels: tuple[float, ...]
    ) -> tuple[Frame, ...]:
        falls = ~window & (window << 1) & self.mask
        frames: list[Frame] = []
        damaged = self.receiver.damaged
        for_edge = self.receiver.after == EDGE
        for bits, check, sequel in zip(patterns, checks, sequels, strict=True):
            byte = 0
            good = True
            if check and window >> check & 1:
                byte = NOTHING
                after = check + 1
            else:
                for k in range(8):
                    byte |= (window >> bits[k] & 1) << k
                after = bits[8] + 1
                good = bool(window >> bits[8] & 1)
                if damaged and not good:
                    byte = 0 if damaged == BLANKED else NOTHING
            frame: Frame
            if good or for_edge:
                rest = falls >> after
                frame = (byte, after + (rest & -rest).bit_length() - 1 if rest else -1)
            else:
                frame = (byte, sequel)
            if frame not in frames:
                frames.append(frame)
        return tuple(frames)


def receive(text: bytes, reception: Reception) -> bytes:
    """What a receiver without jitter makes of `text` (always its earliest start): for tables and explanations."""
    wave = waveform(text)
    out = bytearray()
    pos = 0.0
    end = BITS_PER_CHAR * len(text)
    while pos < end:
        byte, ahead = reception.frames_at(wave, pos)[0]
        if byte != NOTHING:
            out.append(byte)
        if ahead < 0:
            break
        pos += ahead
    return bytes(out)
