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
    """`sample`: where in a bit it is sampled (0..1, 0.5 = the middle); `slack`: how late a start may be seen, in bits."""

    sample: float
    slack: float


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
)

Frame = tuple[int, int]
"""A received byte, and how many sender bits after this frame's edge the next frame's edge stands (-1: the line is idle)."""


class Reception:
    """One receiver at one ratio: ``ratio`` = receiver's bits per sender's bit (> 1: it reads too fast)."""

    __slots__ = ("_cache", "_patterns", "mask", "ratio", "reach", "receiver", "window")

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
        patterns = []
        for a, b in zip(starts, ends, strict=True):
            late = (a + b) / 2
            bits = tuple(int((late + 1 + k + receiver.sample) * step) for k in range(9))
            if bits not in patterns:
                patterns.append(bits)
        self._patterns = tuple(patterns)
        #: bits of the line that one frame reads, from its edge to its stop sample
        self.reach = max(p[8] for p in patterns) + 1
        #: bits of the line that decide a frame and where the next one starts: a falling edge comes with every start bit
        self.window = self.reach + BITS_PER_CHAR + 1
        self.mask = (1 << self.window) - 1
        self._cache: dict[int, tuple[Frame, ...]] = {}

    def frames(self, window: int) -> tuple[Frame, ...]:
        """Every (byte, distance to the next frame) that can come of an edge followed by the bits of `window`."""
        found = self._cache.get(window)
        if found is None:
            found = self._cache[window] = self._make(window)
            if len(self._cache) > 20000:  # hostile input must not grow it without bound
                self._cache.clear()
        return found

    def _make(self, window: int) -> tuple[Frame, ...]:
        falls = ~window & (window << 1) & self.mask
        frames: list[Frame] = []
        for bits in self._patterns:
            byte = 0
            for k in range(8):
                byte |= (window >> bits[k] & 1) << k
            after = bits[8] + 1
            rest = falls >> after
            frame = (byte, after + (rest & -rest).bit_length() - 1 if rest else -1)
            if frame not in frames:
                frames.append(frame)
        return tuple(frames)


def receive(text: bytes, reception: Reception) -> bytes:
    """What a receiver without jitter makes of `text` (always its earliest start): for tables and explanations."""
    wave = waveform(text)
    out = bytearray()
    pos = 0
    end = BITS_PER_CHAR * len(text)
    while pos < end:
        byte, ahead = reception.frames(wave >> pos & reception.mask)[0]
        out.append(byte)
        if ahead < 0:
            break
        pos += ahead
    return bytes(out)
