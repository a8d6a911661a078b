"""One serial link to a loader: requests out, replies in, everything else kept as heard.

The link is in order but loses, damages and doubles: so a late reply of one command must never pass as the reply of the
next. Replies are matched by command code; where a code repeats, :meth:`Link.resync` puts a SYNC between, whose answer
cannot come before the answers of everything sent earlier.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from espmon.bootloader import slip
from espmon.bootloader.actions import Discard, Note, Now, Receive, Send, SetBaud, Steps
from espmon.bootloader.errors import LoaderRefused, LoaderSilent
from espmon.bootloader.notes import Heard, RateChanged
from espmon.bootloader.packets import SYNC_PAYLOAD, Op, Reply, is_request, parse_reply, request

# Kept of what was heard outside frames; boot text and a crash dump fit several times.
HEARD_LIMIT = 0x8000
# Time that an answer to a command without work may take, beyond the wire and the measured round trip. Linux lets a USB
# adapter collect bytes for 16 ms, a loaded host or a network bridge adds some hundreds.
PATIENCE_S = 0.5
# SYNC is answered at once; esptool and the ROM's own tools wait as long.
SYNC_PATIENCE_S = 0.1
# Less time than this is none: a float's rest must not keep a loop waiting for nothing.
TICK_S = 1e-6
_BOOT_TEXT = re.compile(rb"rst cause:(\d+)|rst:0x([0-9a-f]{1,2}) \(([A-Z0-9_]{1,40})\)|Brownout detector")


@dataclass(frozen=True, slots=True)
class SyncReply:
    """Who answered SYNC: `family` is ``esp8266``, ``esp32`` (any later chip's ROM) or ``stub``."""

    family: str


class Link:
    """The state of the conversation. Methods are Steps; one runs at a time."""

    def __init__(self, rate: int, *, round_trip_s: float = 0.0) -> None:
        self.rate = rate
        self.status_length = 2
        self.round_trip_s = round_trip_s
        self.heard = b""
        self.echoes = 0
        self.damaged = 0
        self.strays = 0
        self.silences = 0
        self.replies = 0
        self._reader = slip.FrameReader()
        self._packets: deque[bytes] = deque()

    # --- receiving ---------------------------------------------------------------------------------------------------

    def _stray(self, raw: bytes) -> Steps[None]:
        if raw:
            self.strays += 1
            self.heard = (self.heard + raw)[-HEARD_LIMIT:]
            yield Note(Heard(raw, self.rate))

    def _take(self, data: bytes) -> Steps[None]:
        stray, bodies = self._reader.feed(data)
        if stray:
            yield from self._stray(stray)
        for body in bodies:
            packet = slip.decode(body)
            if packet is None:
                self.damaged += 1
                yield from self._stray(body)
            else:
                self._packets.append(packet)

    def next_packet(self, timeout_s: float, at_least: int = 1) -> Steps[bytes | None]:
        """The next packet of any kind, or None when `timeout_s` went by without one."""
        if self._packets:
            return self._packets.popleft()
        start: float = yield Now()
        left = timeout_s
        while left > TICK_S:
            data: bytes = yield Receive(left, max(1, at_least - self._reader.pending))
            if data:
                yield from self._take(data)
                if self._packets:
                    return self._packets.popleft()
            now: float = yield Now()
            left = start + timeout_s - now
        return None

    def drop_pending(self) -> Steps[None]:
        """Forget the frame under way and all packets not asked for; what they held counts as heard."""
        data: bytes = yield Discard()
        if data:
            yield from self._take(data)
        self._packets.clear()
        yield from self._stray(self._reader.flush())

    def reply(self, op: int, timeout_s: float) -> Steps[Reply | None]:
        """The next reply to `op`, or None; replies to other commands are late ones and are passed over."""
        start: float = yield Now()
        left = timeout_s
        while left > TICK_S:
            packet = yield from self.next_packet(left)
            if packet is None:
                break
            found = parse_reply(packet)
            if found is not None:
                # A ROM answers a command that it does not know with "invalid message" under the code of an earlier one,
                # several times over.
                if found.op == op or found.body[:2] == b"\x01\x05":
                    self.replies += 1
                    return found
            elif is_request(packet):
                self.echoes += 1
            else:
                yield from self._stray(packet)
            now: float = yield Now()
            left = start + timeout_s - now
        self.silences += 1
        return None

    # --- sending -----------------------------------------------------------------------------------------------------

    def send(self, packet: bytes) -> Steps[None]:
        """Send one packet as a frame."""
        yield Send(slip.encode(packet))

    def wire_s(self, size: int) -> float:
        """Seconds that `size` bytes take at the present rate, with one in a hundred more for escapes."""
        return size * 10.1 / self.rate

    def allowance(self, work_s: float = 0.0, size: int = 64) -> float:
        """How long to wait for an answer: the wire, the measured way there and back, the work, and patience."""
        return PATIENCE_S + work_s + self.wire_s(size) + 4 * self.round_trip_s

    def exchange(self, packet: bytes, *, work_s: float = 0.0, length: int = 0) -> Steps[tuple[int, bytes]]:
        """Send one request, once, and return `(value, data)` of its reply.

        Raises :class:`LoaderSilent` (the command may have been done or not) or :class:`LoaderRefused`.
        """
        op = packet[1]
        timeout = self.allowance(work_s, len(packet) + length + 64)
        yield from self.send(packet)
        answer = yield from self.reply(op, timeout)
        if answer is None:
            raise LoaderSilent(op, timeout, self.heard)
        data, error = answer.status(length, self.status_length)
        if error:
            if error == 0x0105:
                yield from self.drain(0.05)
            raise LoaderRefused(op, error)
        if len(data) < length:
            self.damaged += 1
            raise LoaderSilent(op, timeout, self.heard)
        return answer.value, data

    def ask(
        self, op: int, payload: bytes = b"", *, work_s: float = 0.0, length: int = 0, attempts: int = 6
    ) -> Steps[tuple[int, bytes]]:
        """:meth:`exchange` for a command that may be done twice without harm: repeated while nobody answers.

        Between two tries the link is brought in order, so that a late answer to one try is not taken for another's.
        """
        packet = request(op, payload)
        for attempt in range(attempts):
            try:
                return (yield from self.exchange(packet, work_s=work_s * (1 + attempt), length=length))
            except LoaderSilent:
                if attempt + 1 == attempts or (yield from self.resync()) is None:
                    raise
        raise AssertionError("unreachable")

    def query(self, op: int, *, attempts: int = 6) -> Steps[Reply | None]:
        """A request without payload whose answer has no fixed length; None when nobody answers."""
        for _ in range(attempts):
            yield from self.send(request(op))
            answer = yield from self.reply(op, self.allowance())
            if answer is not None:
                return answer
            if (yield from self.resync()) is None:
                break
        return None

    # --- SYNC --------------------------------------------------------------------------------------------------------

    def sync_once(self, patience_s: float = SYNC_PATIENCE_S) -> Steps[SyncReply | None]:
        """One SYNC; who answered it, or None."""
        packet = request(Op.SYNC, SYNC_PAYLOAD)
        sent: float = yield Now()
        yield from self.send(packet)
        answer = yield from self.reply(Op.SYNC, patience_s + self.wire_s(len(packet) + 16) + 2 * self.round_trip_s)
        if answer is None:
            self.silences -= 1  # a try, not a loss
            return None
        now: float = yield Now()
        way = max(0.0, now - sent - self.wire_s(len(packet) + 16))
        self.round_trip_s = way if not self.round_trip_s else min(self.round_trip_s, way)
        if len(answer.body) >= 4:
            self.status_length = 4
            return SyncReply("esp32")
        self.status_length = 2
        return SyncReply("esp8266" if answer.value else "stub")

    def drain(self, quiet_s: float = 0.03, most: int = 64) -> Steps[None]:
        """Read until it is quiet: a SYNC is answered up to eight times, a refusal by some ROMs as often."""
        for _ in range(most):
            packet = yield from self.next_packet(quiet_s + self.round_trip_s)
            if packet is None:
                break
            if parse_reply(packet) is None:
                yield from self._stray(packet)

    def resync(self, attempts: int = 8) -> Steps[SyncReply | None]:
        """Bring both sides in step again: whatever was under way is over when this returns a reply."""
        yield from self.drop_pending()
        for attempt in range(attempts):
            # Loaders count borders: a lone one ends a frame that was cut off, but where none is open it opens one, and
            # inside and outside stay swapped until the next. So it is sent before every other try.
            if attempt % 2:
                yield Send(slip.END)
            answer = yield from self.sync_once(SYNC_PATIENCE_S * 2)
            if answer is not None:
                yield from self.drain()
                return answer
        return None

    def set_rate(self, rate: int, reason: str) -> Steps[None]:
        """Change the host's side only."""
        yield SetBaud(rate)
        self.rate = rate
        yield Note(RateChanged(rate, reason))

    @property
    def boot_text(self) -> str | None:
        """What a boot banner among the heard bytes gives as the reset's cause, or None."""
        all_found = list(_BOOT_TEXT.finditer(self.heard))
        if not all_found:
            return None
        # One dip of the supply is followed by many other resets: it is the cause, wherever it stands.
        found = next((m for m in all_found if b"BROWN" in m[0].upper()), all_found[-1])
        if found[1] is not None:
            return f"rst cause:{found[1].decode()}"
        if found[2] is not None:
            return f"rst:0x{found[2].decode()} {found[3].decode()}"
        return "brownout detector was triggered"

    def forget_heard(self) -> None:
        """Start a new stretch of listening."""
        self.heard = b""
