"""The physics of one direction of a UART line: bits at the sender's rate, sampled at the receiver's.

Pure. Times are seconds of the board's clock, rates are baud. A line is high when idle; a frame is 8N1: start bit low,
eight data bits, least significant first, stop bit high. Where sender and receiver agree within what the receiver's
shape tolerates, bytes pass without looking at bits; `exact=True` forces the bit-level path (a test compares the two).

This is an implementation of its own on purpose: `espmon.uart` reads garbage with another model, and each is tested
against the other.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from typing import Literal

FRAME_BITS = 10  # start, 8 data, stop


def _edges_of(byte: int) -> tuple[int, ...]:
    """Bit positions within a frame at which the line changes: falls first, then alternating, ends high."""
    levels = [0] + [(byte >> bit) & 1 for bit in range(8)] + [1]
    previous, out = 1, []
    for position, level in enumerate(levels):
        if level != previous:
            out.append(position)
            previous = level
    return tuple(out)


EDGES = tuple(_edges_of(byte) for byte in range(256))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverShape:
    """How a receiver looks at the line.

    `oversampling`: ticks per bit; a start bit is seen at the first tick at which the line is low. `tick`: the tick within
    a bit at which it is sampled (of `oversampling`); with `majority` the two neighbours vote too. `phase`: where its
    ticks lie, as a part of one tick (0..1). `clock_error`: its clock is that much too fast (0.01 is +1 %).
    `check_start`: a start bit that is high again at its own sampling tick was noise. `recovery`,
    after a framing error: ``edge`` waits for high and the next falling edge, ``low`` takes a low line for the next
    start bit at once. `framing`: what the driver does with the damaged byte: ``pass``, ``nul`` (a zero byte instead)
    or ``drop``. Defaults: what a posted capture of 79 bytes and the emulated ESP8266 agree with.
    """

    oversampling: int = 16
    tick: int = 7
    majority: bool = False
    phase: float = 0.0
    clock_error: float = 0.0
    check_start: bool = False
    recovery: Literal["edge", "low"] = "edge"
    framing: Literal["pass", "nul", "drop"] = "pass"

    def agrees(self, sent: float, received: float) -> bool:
        """True when bytes sent back to back at `sent` are certain to arrive unchanged at nominal rate `received`.

        All samples of a frame must fall into their own bit, whatever the phase: with r sender bits per receiver bit,
        bit k is sampled between (k + first) r and (k + last) r, to lie in k..k+1, for k = 0..9 (9 is the stop bit).
        """
        r = sent / (received * (1.0 + self.clock_error))
        spread = 1 if self.majority else 0
        first = (self.tick - spread) / self.oversampling
        last = (self.tick + spread + 1) / self.oversampling  # plus up to one tick until the start bit is seen
        return (9 + last) * r < 9.999 and (9 + first) * r > 9.001


@dataclass(slots=True)
class _Span:
    start: float
    rate: float
    payload: bytes
    sent: int = 0  # how many of `payload` were taken by the receiver or turned into edges

    @property
    def end(self) -> float:
        return self.start + len(self.payload) * FRAME_BITS / self.rate


class Wire:
    """One direction of the line, with the sender at one end and a receiver of shape `shape` at the other."""

    def __init__(self, shape: ReceiverShape | None = None, *, exact: bool = False, mark: bytes | None = None) -> None:
        """`mark`: the receiver wants to act as soon as this byte has arrived, so arrivals are announced for each."""
        self.shape = shape or ReceiverShape()
        self.exact = exact
        self.mark = mark
        self._spans: deque[_Span] = deque()
        self._edges: list[float] = []  # falls at even indices; absolute times not before the receiver's position
        self._ready = -1.0  # from when on the receiver looks for the next start bit
        self._settled = 0.0  # by then the receiver is through with the edges that are left
        self._free = 0.0  # when the sender's shift register is empty
        #: frames that the receiver got without their stop bit
        self.damaged = 0

    # --- the sender's end

    @property
    def free_at(self) -> float:
        """When everything sent so far has left the sender."""
        return self._free

    def send(self, now: float, rate: float, payload: bytes) -> float:
        """Queue `payload` behind what is being sent; returns when its last stop bit ends."""
        if self.mark is not None and (cut := payload.find(self.mark) + 1) and cut < len(payload):
            at = 0
            while cut:
                self._send(now, rate, payload[at:cut])
                at, cut = cut, payload.find(self.mark, cut) + 1
            payload = payload[at:]
        return self._send(now, rate, payload) if payload else self._free

    def _send(self, now: float, rate: float, payload: bytes) -> float:
        start = max(now, self._free)
        last = self._spans[-1] if self._spans and self.mark is None else None
        if last is not None and last.rate == rate and start == self._free:
            last.payload += payload
        else:
            self._spans.append(_Span(start, rate, payload))
        self._free = start + len(payload) * FRAME_BITS / rate
        return self._free

    def occupy(self, now: float, rate: float, count: int) -> None:
        """The sender sends `count` bytes that never reach the receiver: they take their time all the same."""
        self._free = max(now, self._free) + count * FRAME_BITS / rate

    def cut(self, now: float) -> int:
        """The sender stops at `now` (reset, power): what was not completely sent is lost. Returns lost bytes."""
        lost = 0
        while self._spans and self._spans[-1].end > now:
            span = self._spans[-1]
            whole = max(span.sent, int((now - span.start) * span.rate / FRAME_BITS)) if now > span.start else span.sent
            lost += len(span.payload) - whole
            span.payload = span.payload[:whole]
            if span.payload:
                break
            self._spans.pop()
        self._free = min(self._free, now)
        return lost

    # --- the receiver's end

    @property
    def pending(self) -> bool:
        """True while something sent has not been received or lost."""
        return bool(self._spans) or bool(self._edges)

    def next_arrival(self) -> float | None:
        """A time by which (not before which) more will have been received; None when the line is idle."""
        if self._spans:
            return self._spans[0].end
        return self._settled if self._edges else None

    def receive(self, until: float, rate: float) -> bytes:
        """What the receiver, set to `rate`, has completed by `until`. Nothing may be sent before `until` afterwards.

        Call it with the old rate before the receiver's rate changes.
        """
        out = bytearray()
        while True:
            span = self._spans[0] if self._spans else None
            if (
                span is not None
                and not self.exact
                and not self._edges
                and self._ready <= span.start + span.sent * FRAME_BITS / span.rate
                and self.shape.agrees(span.rate, rate)
            ):
                done = min(len(span.payload), int((until - span.start) * span.rate / FRAME_BITS + 1e-6))
                if done > span.sent:
                    out += span.payload[span.sent : done]
                    span.sent = done
                    self._ready = span.start + (done - 0.4) * FRAME_BITS / span.rate
                if span.sent < len(span.payload):
                    return bytes(out)
                self._spans.popleft()
                continue
            if span is not None and span.start <= until:
                self._to_edges(span, until)
                out += self._sample(until, rate)
                if span.sent < len(span.payload):
                    return bytes(out)
                self._spans.popleft()
                continue
            out += self._sample(until, rate)
            return bytes(out)

    def _to_edges(self, span: _Span, until: float) -> None:
        """Turn the bytes of `span` whose frames start by `until` into edges."""
        bit = 1.0 / span.rate
        started = min(len(span.payload), int((until - span.start) * span.rate / FRAME_BITS) + 1)
        at = span.start + span.sent * FRAME_BITS * bit
        edges = self._edges
        for byte in span.payload[span.sent : started]:
            edges += [at + position * bit for position in EDGES[byte]]
            at += FRAME_BITS * bit
        span.sent = max(span.sent, started)

    def _sample(self, until: float, rate: float) -> bytes:
        edges = self._edges
        if not edges:
            return b""
        shape = self.shape
        bit = 1.0 / (rate * (1.0 + shape.clock_error))
        tick = bit / shape.oversampling
        centre = shape.tick * tick
        offset = shape.phase * tick
        out = bytearray()
        ready = self._ready
        low_counts = shape.recovery == "low"
        index = 0  # edges before `index` are not later than the receiver's position
        while True:
            index = bisect_right(edges, ready, index)
            if index & 1 and low_counts:
                start = ready
            else:
                fall = index + (index & 1)  # the next even edge: a fall
                if fall >= len(edges):
                    break
                start = edges[fall]
            # the first tick at which the line is low
            ticks = (start - offset) / tick
            whole = int(ticks)
            if whole < ticks:
                whole += 1
            first = max(start, offset + whole * tick)  # never before it, whatever rounding does
            stop = first + centre + 9 * bit
            if stop + (tick if shape.majority else 0.0) > until:
                break
            index = bisect_right(edges, first, max(0, index - 1))
            if not index & 1 or (shape.check_start and not bisect_right(edges, first + centre, index) & 1):
                ready = max(first, start)  # a pulse too short for a start bit
                if low_counts and index & 1:
                    ready = first + centre
                if ready < start + tick:
                    ready = start + tick
                continue
            value = 0
            position = index
            if shape.majority:
                for k in range(1, 10):
                    at = first + centre + k * bit
                    votes = sum(1 - (bisect_right(edges, at + d, position) & 1) for d in (-tick, 0.0, tick))
                    value |= (votes >= 2) << (k - 1)
            else:
                at = first + centre
                for k in range(9):
                    at += bit
                    position = bisect_right(edges, at, position)
                    if not position & 1:
                        value |= 1 << k
            ready = stop
            if not value & 0x100:
                self.damaged += 1
            if value & 0x100 or shape.framing == "pass":
                out.append(value & 0xFF)
            elif shape.framing == "nul":
                out.append(0)
        self._ready = ready
        # keep an even number of passed edges out: parity of the index is the line's level
        self._settled = edges[-1] + 11 * bit
        passed = bisect_right(edges, ready) & ~1
        if until >= self._settled:
            passed = len(edges)
        del edges[:passed]
        return bytes(out)
