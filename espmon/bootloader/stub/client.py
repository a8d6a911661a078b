"""espmon's stub as a loader: upload through the ROM, then map, write, read, digest, erase, rate and leave as Steps.

Every command may be sent again when no answer came, and carries a tag of its own, so a late answer never passes for
another's. A write is a stream of numbered data frames with at most ``window`` bytes on the way; a gap is answered by
one NAK and mended by going back; POLL asks how far it came when nothing is heard. What counts as written are only
sectors whose read-back digest is the right one.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar

from espmon.bootloader.actions import Discard, Note, Now, Receive, Send, Steps, Wait
from espmon.bootloader.errors import FlashDiffers, GaveUp, LoaderSilent, NeedsStub, StubNotStarted
from espmon.bootloader.flash import SECTOR, round_up, runs, size_of_id
from espmon.bootloader.link import Link
from espmon.bootloader.loader import Loader, Meter, RomLoader, _digest, headless
from espmon.bootloader.loaders import LoaderFacts
from espmon.bootloader.notes import Retried, Stage
from espmon.bootloader.packets import Op as RomOp
from espmon.bootloader.packets import request, words
from espmon.bootloader.stub import payload
from espmon.bootloader.stub.errors import FlashProtected, FlashSilent, StubRefused, StubSilent
from espmon.bootloader.stub.protocol import (
    FUSES,
    LARGEST_BODY,
    LEAVE_BOOT,
    LEAVE_RESET,
    LEAVE_RETURN,
    MAP_DIGESTS,
    MEANINGS,
    REPLY,
    SECTOR_MISMATCH,
    VERSION,
    WINDOW,
    WRITE_DEFLATE,
    Frame,
    FrameReader,
    Hello,
    Op,
    Status,
    encode,
    parse_hello,
)

# Beyond wire, work and round trip: what an adapter, a hub and a loaded host may add.
PATIENCE_S = 0.4
ATTEMPTS = 5
# The stub is back at the old rate when it heard nothing at a new one for 3 s: a port over a network changes slowly.
CONFIRM_S = 3.1
# The chip's work for one sector in the worst case: data sheets' maximum for a 4 KB erase, 64 programs of 64 bytes.
SECTOR_WORK_S = 0.4 + 64 * 0.003
# A whole block's erase at worst (data sheets: 3 s); nothing is heard from the stub meanwhile.
BLOCK_WORK_S = 3.5
# Reading and digesting a sector: 4 KB at 20 MHz on one data line take 1.7 ms, the CRC half of one.
LOOK_S = 0.004
MD5_S = 0.008
# Sectors asked for in one READ, and READs under way: 32 KB keep the wire busy over a quarter of a second at 921600.
READ_SECTORS = 4
READS = 2
MAP_SECTORS = 512
# Clocks of the UART after reset, by crystal: 26 MHz doubled, 40 MHz doubled, 24 MHz doubled.
CLOCKS = (52_000_000, 80_000_000, 48_000_000)
LOST_WRITES = 6
# A sector that does not keep what was programmed so often will not keep it later.
UNKEPT_WRITES = 3
WORN = "Written several times and still different: the flash is worn out, or the supply dips while it is written."
# Addresses have 24 bits.
REACH = 1 << 24


class OwnStub(Loader):
    """The link to a running stub. `hello` is what it said last."""

    kind: ClassVar[str] = "espmon"
    title: ClassVar[str] = "espmon's flasher stub"
    proves_writes = True
    reads_blank_free = True

    def __init__(self, link: Link, facts: LoaderFacts, hello: Hello) -> None:
        super().__init__(link, facts)
        self.hello = hello
        self.naks = 0
        self.resent = 0
        self.wire_bytes = 0
        self._frames: deque[Frame] = deque()
        self._reader = FrameReader()
        self._tag = 0
        self._body = LARGEST_BODY
        self._clock = _clock_of(hello.divider, link.rate)

    # --- frames ------------------------------------------------------------------------------------------------------

    def _send(self, *frames: bytes) -> Steps[None]:
        data = b"".join(frames)
        self.wire_bytes += len(data)
        yield Send(data)

    def _next_tag(self) -> int:
        self._tag = self._tag % 255 + 1
        return self._tag

    def _take(self, data: bytes) -> Steps[None]:
        stray, frames = self._reader.feed(data)
        self._frames.extend(frames)
        if stray:
            self.link.damaged += 1
            yield from self.link._stray(stray)

    def _frame(self, timeout_s: float) -> Steps[Frame | None]:
        """The next frame, or None when the time is over; then whatever hangs in the air counts as heard."""
        start: float = yield Now()
        left = timeout_s
        while not self._frames:
            if left <= 0:
                yield from self.link._stray(self._reader.flush())
                return None
            data: bytes = yield Receive(left)
            if data:
                yield from self._take(data)
            now: float = yield Now()
            left = start + timeout_s - now
        return self._frames.popleft()

    def _answer(self, until: float, *tags: int) -> Steps[Frame | None]:
        """The next frame with one of these tags, or None at the moment `until`, however much else arrives."""
        now: float = yield Now()
        while now < until:
            frame = yield from self._frame(until - now)
            if frame is None or frame.tag in tags:
                return frame
            now = yield Now()
        return None

    def _drop(self) -> Steps[None]:
        data: bytes = yield Discard()
        if data:
            yield from self._take(data)
        self._frames.clear()
        yield from self.link._stray(self._reader.flush())

    def _allowance(self, work_s: float, size: int) -> float:
        return PATIENCE_S + work_s + self.link.wire_s(size) + 4 * self.link.round_trip_s

    def _ask(
        self, op: Op, body: bytes = b"", *, work_s: float = 0.0, size: int = 64, attempts: int = ATTEMPTS
    ) -> Steps[Frame]:
        """One command, one answer; sent again while nobody answers. Raises StubSilent, StubRefused."""
        tag = self._next_tag()
        timeout = self._allowance(work_s, len(body) + size)
        for attempt in range(attempts):
            if attempt:
                self.resent += 1
                # A zero first: it ends whatever half a frame the stub may hold.
                yield from self._send(b"\0")
            yield from self._send(encode(op, tag, 0, body))
            start: float = yield Now()
            while (frame := (yield from self._answer(start + timeout, tag))) is not None:
                if frame.op != op | REPLY:
                    continue
                if op is not Op.HELLO and op is not Op.POLL and frame.argument != Status.OK:
                    raise StubRefused(op, frame.argument)
                return frame
        raise StubSilent(op, timeout * attempts, self.link.heard)

    def probe(self) -> Steps[bool]:
        try:
            yield from self._ask(Op.HELLO, work_s=0.3, attempts=1)
        except StubSilent:
            return False
        return True

    # --- the chip ----------------------------------------------------------------------------------------------------

    def refresh(self, flash_size: int | None = None) -> Steps[Hello]:
        """Ask the stub again who it is and what the flash chip says; `flash_size` replaces the size its id stands for."""
        # Attaching and identifying an absent chip takes the controller's time limits.
        frame = yield from self._ask(Op.HELLO, b"" if flash_size is None else words(flash_size), work_s=0.3)
        hello = parse_hello(frame)
        if hello is None:
            raise StubRefused(Op.HELLO, Status.COMMAND)
        self.hello = hello
        return hello

    def attach(self, flash_size: int | None = None) -> Steps[None]:
        """The stub attached the chip when it started; a size that differs from its id's is told here."""
        if flash_size and flash_size != self.hello.flash_size:
            yield from self.refresh(flash_size)

    def flash_id(self) -> Steps[int]:
        return self.hello.flash_id
        yield

    def read_register(self, address: int) -> Steps[int]:
        """A fuse word, which the stub told when it said hello; it reads no others."""
        index, odd = divmod(address - FUSES, 4)
        if odd or not 0 <= index < len(self.hello.fuses):
            raise NeedsStub(self.chip_title, f"read register 0x{address:08x} through this stub")
        return self.hello.fuses[index]
        yield

    def write_registers(self, *writes: tuple[int, int], once: bool = False) -> Steps[None]:
        raise NeedsStub(self.chip_title, "write registers through this stub")
        yield

    def _writable(self) -> Steps[None]:
        """Raise what keeps this chip from being written; protection bits are taken away, and that is told."""
        if not self.hello.flash_size:
            raise FlashSilent(self.hello.flash_id)
        if self.hello.protected:
            yield Note(Stage("unlock", f"flash status 0x{self.hello.status & 0xFF:02x}"))
            try:
                yield from self._ask(Op.UNLOCK, work_s=1.0)
            except StubRefused as error:
                raise FlashProtected(self.hello.status & 0xFF) from error
            yield from self.refresh()

    # --- looking -----------------------------------------------------------------------------------------------------

    def map(self, offset: int, count: int) -> Steps[list[int]]:
        """CRC-32 of `count` sectors from `offset` on."""
        found: dict[int, int] = {}
        last = offset + count * SECTOR
        failures = 0
        while missing := [a for a in range(offset, last, SECTOR) if a not in found]:
            first = missing[0]
            part = min(MAP_SECTORS, (missing[-1] - first) // SECTOR + 1)
            tag = self._next_tag()
            yield from self._send(encode(Op.MAP, tag, 0, words(first, part * SECTOR, 0)))
            before = len(found)
            timeout = self._allowance(MAP_DIGESTS * LOOK_S, 4 * MAP_DIGESTS + 64)
            expected = first
            heard: float = yield Now()
            while expected < first + part * SECTOR:
                frame = yield from self._answer(heard + timeout, tag)
                if frame is None:
                    break
                if frame.op != Op.MAP | REPLY:
                    continue
                if frame.argument != Status.OK:
                    raise StubRefused(Op.MAP, frame.argument)
                at, *digests = struct.unpack(f"<{len(frame.body) // 4}I", frame.body[: len(frame.body) // 4 * 4]) or (
                    0,
                )
                if at % SECTOR or not expected <= at < first + part * SECTOR:
                    continue
                found.update((at + k * SECTOR, d) for k, d in enumerate(digests[:MAP_DIGESTS]))
                expected = at + max(1, len(digests)) * SECTOR
                heard = yield Now()
            if len(found) == before:
                failures += 1
                if failures >= ATTEMPTS:
                    raise StubSilent(Op.MAP, timeout * failures, self.link.heard)
                yield from self._send(b"\0")
        return [found[a] for a in range(offset, last, SECTOR)]

    def differing(self, offset: int, content: bytes) -> Steps[list[int]]:
        """Addresses of the sectors that do not hold what `content` says, by the digest of every one."""
        whole = len(content) // SECTOR * SECTOR
        out: list[int] = []
        if whole:
            digests = yield from self.map(offset, whole // SECTOR)
            out = [
                offset + k * SECTOR
                for k, digest in enumerate(digests)
                if zlib.crc32(content[k * SECTOR : (k + 1) * SECTOR]) != digest
            ]
        rest = content[whole:]
        if rest and (yield from self.md5(offset + whole, len(rest))) != _digest(rest):
            out.append(offset + whole)
        return out

    def holds(self, offset: int, content: bytes, *, work_s: float = 0.0) -> Steps[bool]:
        return not (yield from self.differing(offset, content))

    def md5(self, offset: int, size: int, *, work_s: float = 0.0) -> Steps[bytes]:
        work = work_s + size / SECTOR * (LOOK_S + MD5_S)
        frame = yield from self._ask(Op.DIGEST, words(offset, size, 0), work_s=work)
        if len(frame.body) != 16:
            raise StubRefused(Op.DIGEST, Status.COMMAND)
        return frame.body

    def read(self, offset: int, size: int, meter: Meter | None = None) -> Steps[bytes]:
        """A stretch of flash; whole sectors travel, blank ones as nothing. Each frame's CRC holds or it is asked again."""
        first = offset // SECTOR * SECTOR
        end = round_up(offset + size, SECTOR)
        content: dict[int, bytes] = {}
        todo = deque((at, min(READ_SECTORS * SECTOR, end - at)) for at in range(first, end, READ_SECTORS * SECTOR))
        # Under way, in the order of asking: tag -> the sectors of that READ which have not come.
        under: dict[int, list[int]] = {}
        failures = 0
        heard: float = yield Now()
        while todo or under:
            asked = []
            while todo and len(under) < READS:
                at, length = todo.popleft()
                tag = self._next_tag()
                under[tag] = list(range(at, at + length, SECTOR))
                asked.append(encode(Op.READ, tag, 0, words(at, length, 0)))
            if asked:
                yield from self._send(*asked)
            timeout = self._allowance(LOOK_S * READ_SECTORS * READS, READS * READ_SECTORS * (SECTOR + 32))
            frame = yield from self._answer(heard + timeout, *under)
            if frame is None:
                heard = yield Now()
                failures += 1
                if failures >= ATTEMPTS:
                    raise StubSilent(Op.READ, timeout * failures, self.link.heard)
                for sectors in under.values():
                    self._ask_again(sectors, todo)
                under.clear()
                yield from self._send(b"\0")
                continue
            if frame.op != Op.READ | REPLY:
                continue
            at = frame.argument * SECTOR
            if len(frame.body) == 4:
                raise StubRefused(Op.READ, frame.argument)
            if at not in under[frame.tag] or len(frame.body) not in (0, SECTOR):
                continue
            failures = 0
            heard = yield Now()
            content[at] = frame.body or b"\xff" * SECTOR
            if meter is not None:
                yield from meter.add(min(at + SECTOR, offset + size) - max(at, offset))
            # Answers come in the order of asking: what should have come before this one was lost.
            for tag in list(under):
                lost = [s for s in under[tag] if s < at] if tag == frame.tag else under[tag]
                self._ask_again(lost, todo)
                under[tag] = [s for s in under[tag] if s > at] if tag == frame.tag else []
                if not under[tag]:
                    del under[tag]
                if tag == frame.tag:
                    break
        whole = b"".join(content[at] for at in range(first, end, SECTOR))
        return whole[offset - first : offset - first + size]

    def _ask_again(self, sectors: Sequence[int], todo: deque[tuple[int, int]]) -> None:
        self.resent += len(sectors)
        todo.extendleft((at, SECTOR) for at in reversed(sectors))

    # --- changing ----------------------------------------------------------------------------------------------------

    def erase(self, offset: int, size: int) -> Steps[None]:
        """Erase whole sectors; blank ones are left alone, and each is seen blank afterwards."""
        yield from self._writable()
        at, end = offset, offset + size
        failures = 0
        while at < end:
            tag = self._next_tag()
            yield from self._send(encode(Op.ERASE, tag, 0, words(at, end - at)))
            before = at
            # One answer for every 64 KB; at worst sixteen erases of 4 KB lie between two.
            timeout = self._allowance(16 * (SECTOR_WORK_S + LOOK_S), 128)
            heard: float = yield Now()
            while at < end:
                frame = yield from self._answer(heard + timeout, tag)
                if frame is None:
                    break
                if frame.op != Op.ERASE | REPLY or len(frame.body) not in (0, 4):
                    continue
                reached = int.from_bytes(frame.body, "little") if frame.body else at
                if frame.argument != Status.OK:
                    raise StubRefused(Op.ERASE, frame.argument, reached if offset <= reached < end else None)
                if at < reached <= end:
                    at = reached
                    heard = yield Now()
            if at == before:
                failures += 1
                if failures >= ATTEMPTS:
                    raise StubSilent(Op.ERASE, timeout * failures, self.link.heard)
                yield from self._send(b"\0")

    def erase_chip(self) -> Steps[None]:
        """Erase all of the flash."""
        yield from self._writable()
        yield from self.erase(0, self.hello.flash_size)

    def write(self, offset: int, content: bytes, meter: Meter | None = None) -> Steps[None]:
        """Make the sectors from `offset` on hold `content`, the last one filled up with FF.

        When it returns, every sector's digest as read back was the right one. After an error `taken` says how many
        bytes from the start are. Raises StubSilent, StubRefused, GaveUp, FlashProtected, FlashSilent, and FlashDiffers
        when all of it arrived several times and the chip still reads back something else.
        """
        self.taken = 0
        yield from self._writable()
        content = content.ljust(round_up(len(content), SECTOR), b"\xff")
        left = set(range(offset, offset + len(content), SECTOR))
        failures = unkept = 0
        while left:
            first, size = runs(left)[0]
            before = len(left)
            transfer = _Transfer(self, first, content[first - offset :][:size], left, meter)
            try:
                yield from transfer.run()
                reason = MEANINGS.get(transfer.status or 0, "sectors read back differently")
                # The stub had every byte, checked, and programmed it: what is wrong now is the flash, not the link.
                unkept = unkept + 1 if transfer.status in (Status.OK, Status.VERIFY) and len(left) == before else 0
                if left and unkept >= UNKEPT_WRITES:
                    raise FlashDiffers(tuple(sorted(left)), WORN)
            except StubSilent as error:
                reason = error.message
                if failures and not (yield from self.resync()):
                    raise
            finally:
                self.taken = (min(left) - offset) if left else len(content)
            if left:
                failures = failures + 1 if len(left) == before else 0
                if failures > LOST_WRITES:
                    raise GaveUp("write", failures, reason)
                yield Note(Retried("write", reason, failures))
            self._body = max(512, self._body // 2) if transfer.naks else min(LARGEST_BODY, self._body * 2)

    def write_first(self, offset: int, content: bytes, meter: Meter | None = None) -> Steps[None]:
        # the stub programs without erasing where there are only bits to clear
        yield from self.write(offset, headless(content))
        yield from self.write(offset, content, meter)

    # --- rate --------------------------------------------------------------------------------------------------------

    def change_rate(self, rate: int, reason: str) -> Steps[bool]:
        """Both sides to `rate`; the stub goes back by itself when it hears no whole frame at the new one."""
        link = self.link
        old = link.rate
        divider = round(self._clock / rate)
        if rate == old and divider == self.hello.divider:
            return True
        if not 13 <= divider <= 0xFFFFF or abs(self._clock / divider / rate - 1) > 0.025:
            return False
        with suppress(StubSilent):
            # Not answered: it may have changed all the same, so the new rate is tried.
            try:
                yield from self._ask(Op.RATE, words(divider), attempts=2)
            except StubRefused:
                return False
        asked: float = yield Now()
        if rate != old:
            yield from link.set_rate(rate, reason)
        yield Wait(0.005)
        yield from self._drop()
        if (yield from self._answers(6, 0.12)):
            return True
        now: float = yield Now()
        yield Wait(max(0.0, asked + CONFIRM_S - now))
        if rate != old:
            yield from link.set_rate(old, "failed")
        yield from self._drop()
        if (yield from self._answers(6, 0.5)):
            return False
        raise StubSilent(Op.RATE, CONFIRM_S, link.heard)

    def _answers(self, attempts: int, patience_s: float) -> Steps[bool]:
        for _ in range(attempts):
            tag = self._next_tag()
            yield from self._send(b"\0", encode(Op.HELLO, tag))
            frame = yield from self._frame(patience_s + self.link.wire_s(128) + 4 * self.link.round_trip_s)
            while frame is not None:
                hello = parse_hello(frame)
                if hello is not None and frame.tag == tag:
                    self.hello = hello
                    return True
                frame = yield from self._frame(0.05)
        return False

    def resync(self) -> Steps[bool]:
        """True when this stub answers, and whatever was under way before is over."""
        yield from self._drop()
        # In the middle of a block's erase it cannot answer.
        return (yield from self._answers(6, BLOCK_WORK_S / 6))

    # --- leaving -----------------------------------------------------------------------------------------------------

    def leave(self, how: int) -> Steps[None]:
        """End the stub: :data:`LEAVE_RETURN`, :data:`LEAVE_RESET` or :data:`LEAVE_BOOT`."""
        yield from self._ask(Op.LEAVE, words(how))

    def start_application(self) -> Steps[None]:
        """Without any line: through the ROM's own start where that ROM is known, else by a software reset."""
        # The answer may be lost, and then nobody is there to give it again: the caller finds out.
        with suppress(LoaderSilent):
            yield from self.leave(LEAVE_BOOT if self.hello.can_boot else LEAVE_RESET)

    def prepare_reset(self) -> Steps[None]:
        return
        yield

    def return_to_rom(self) -> Steps[None]:
        """Back into the ROM, which then waits for a reset: the chip does nothing more."""
        yield from self.leave(LEAVE_RETURN)


def _clock_of(divider: int, rate: int) -> int:
    measured = divider * rate
    near = min(CLOCKS, key=lambda c: abs(c - measured))
    return near if abs(near - measured) < near * 0.04 else measured


class _Transfer:
    """One WRITE and its data frames. Sectors that are proven are taken out of `left`."""

    def __init__(self, stub: OwnStub, offset: int, content: bytes, left: set[int], meter: Meter | None) -> None:
        self.stub = stub
        self.offset = offset
        self.content = content
        self.left = left
        self.meter = meter
        # Four zero bytes behind the stream: the stub's decoder looks ahead.
        packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
        packed = packer.compress(content) + packer.flush() + bytes(4)
        self.deflated = len(packed) < len(content)
        stream = packed if self.deflated else content
        size = stub._body
        self.pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        self.tag = stub._next_tag()
        self.sizes: list[int] = []
        self.acked = 0
        self.sent = 0
        self.epoch = 0
        self.naks = 0
        self.reported = -1
        self.status: int | None = None

    def run(self) -> Steps[None]:
        """Until the stub says that the write is over. Raises StubSilent, StubRefused."""
        stub = self.stub
        begin = encode(
            Op.WRITE, self.tag, 0, words(self.offset, len(self.content), WRITE_DEFLATE if self.deflated else 0)
        )
        yield from stub._send(begin, *self._more())
        window = min(stub.hello.window, WINDOW)
        # The wire may still be busy with a window of ours when the clock starts.
        quiet = PATIENCE_S + stub.link.wire_s(window) + 4 * stub.link.round_trip_s
        limit = quiet + BLOCK_WORK_S + SECTOR_WORK_S
        moved: float = yield Now()
        while self.status is None:
            now: float = yield Now()
            if now - moved > limit:
                raise StubSilent(Op.DATA, now - moved, stub.link.heard)
            frame = yield from stub._answer(now + quiet, self.tag)
            if frame is None:
                stub.resent += 1
                yield from stub._send(b"\0", encode(Op.POLL, self.tag))
                continue
            if (yield from self._heard(frame)):
                moved = yield Now()
            frames = self._more()
            if frames:
                yield from stub._send(*frames)
        if self.status not in (Status.OK, Status.SILENCE, Status.ABORTED, Status.NONE, Status.DEFLATE):
            raise StubRefused(Op.WRITE, self.status, min(self.left) if self.left else None)
        if self.status == Status.OK and self.left:
            yield from self._look()

    def _more(self) -> list[bytes]:
        """Data frames that fit into the window now."""
        out = []
        window = min(self.stub.hello.window, WINDOW)
        under = sum(self.sizes[self.acked : self.sent])
        while self.sent < len(self.pieces):
            argument = (self.sent & 0xFFF) | self.epoch << 12
            frame = encode(Op.DATA, self.tag, argument, self.pieces[self.sent])
            if under and under + len(frame) > window:
                break
            if self.sent < len(self.sizes):
                self.stub.resent += 1
                self.sizes[self.sent] = len(frame)
            else:
                self.sizes.append(len(frame))
            under += len(frame)
            self.sent += 1
            out.append(frame)
        return out

    def _back(self) -> None:
        self.sent = self.acked
        self.epoch = self.epoch + 1 & 15

    def _advance(self, low: int) -> bool:
        """The stub has all pieces before `low` (12 bits of it)."""
        ahead = low - self.acked & 0xFFF
        if ahead > self.sent - self.acked:
            return False
        self.acked += ahead
        return ahead > 0

    def _heard(self, frame: Frame) -> Steps[bool]:
        """Take in one frame; True when it shows progress."""
        if frame.op == Op.POLL | REPLY and len(frame.body) == 20 and frame.tag == self.tag:
            tag, _, _, _, following = struct.unpack("<5I", frame.body)
            if tag != self.tag or frame.argument == Status.NONE:
                # The WRITE itself was lost.
                self.status = Status.ABORTED
                return True
            if frame.argument != Status.ACTIVE:
                self.status = frame.argument
                return True
            moved = self._advance(following & 0xFFF)
            if self.acked < self.sent:
                self._back()
            return moved
        if frame.tag != self.tag:
            return False
        if frame.op == Op.WRITE | REPLY:
            if frame.argument != Status.OK:
                self.status = frame.argument
            return frame.argument != Status.OK
        if frame.op == Op.DATA | REPLY:
            return self._advance(frame.argument)
        if frame.op == Op.NAK:
            moved = self._advance(frame.argument)
            self.naks += 1
            self.stub.naks += 1
            self._back()
            return moved
        if frame.op == Op.SECTOR and len(frame.body) == 8:
            at, digest = struct.unpack("<2I", frame.body)
            yield from self._proven(at, digest, frame.argument)
            before, self.reported = self.reported, max(at, self.reported)
            return self.reported > before
        if frame.op == Op.END:
            self.status = frame.argument
            return True
        return False

    def _proven(self, at: int, digest: int, flags: int) -> Steps[None]:
        start = at - self.offset
        if at not in self.left or start < 0 or flags & SECTOR_MISMATCH:
            return
        if zlib.crc32(self.content[start : start + SECTOR]) == digest:
            self.left.discard(at)
            if self.meter is not None:
                yield from self.meter.add(SECTOR)

    def _look(self) -> Steps[None]:
        """Reports were lost: ask for the digests of the sectors that have none."""
        here = [at for at in sorted(self.left) if self.offset <= at < self.offset + len(self.content)]
        if not here:
            return
        digests = yield from self.stub.map(here[0], (here[-1] - here[0]) // SECTOR + 1)
        for k, digest in enumerate(digests):
            yield from self._proven(here[0] + k * SECTOR, digest, 0)


def start(rom: RomLoader) -> Steps[Loader]:
    """Upload the stub through the ROM loader, start it and meet it. The rung ``espmon`` of the ladder.

    Raises :class:`~espmon.bootloader.errors.StubNotStarted`, or what the ROM answered.
    """
    link = rom.link
    yield from rom._to_ram(payload.ADDRESS, payload.CODE)
    link.forget_heard()
    yield from link.send(request(RomOp.MEM_END, words(0, payload.ENTRY)))
    stub = OwnStub(link, rom.facts, _NOBODY)
    # The ROM's answer to MEM_END comes first; the stub ends it with a zero and says hello. If that is lost it is asked.
    frame = yield from stub._frame(0.6 + link.wire_s(128) + 4 * link.round_trip_s)
    hello = parse_hello(frame) if frame is not None else None
    if hello is None:
        if not (yield from stub._answers(4, 0.5)):
            raise StubNotStarted(link.heard)
        hello = stub.hello
    if hello.version != VERSION:
        raise StubNotStarted(link.heard)
    stub.hello = hello
    yield from _settle(stub)
    return stub


def find(link: Link, facts: LoaderFacts) -> Steps[Loader | None]:
    """The stub, if an earlier session left it running at this link's rate; it does not answer SYNC."""
    stub = OwnStub(link, facts, _NOBODY)
    if not (yield from stub._answers(2, 0.15)) or stub.hello.version != VERSION:
        return None
    yield from _settle(stub)
    return stub


def _settle(stub: OwnStub) -> Steps[None]:
    link = stub.link
    hello = stub.hello
    if hello.flash_id and not hello.flash_size:
        # The stub knows the common code of sizes only, and reaches 16 MB.
        size = size_of_id(hello.flash_id)
        if size:
            yield from stub.refresh(min(size, REACH))
    stub._clock = _clock_of(stub.hello.divider, link.rate)
    link.forget_heard()
    # The ROM measured the rate of SYNC, to one count of its clock; the divider that is right is known better.
    if round(stub._clock / link.rate) != stub.hello.divider:
        yield from stub.change_rate(link.rate, "exact")


_NOBODY = Hello(
    version=0, window=0, divider=0, flash_id=0, status=0, flash_size=0,
    damaged=0, lost=0, overruns=0, framing=0, can_boot=False,
)  # fmt: skip
