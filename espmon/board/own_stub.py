"""espmon's own flasher stub on the virtual board: its commands, its acknowledgements, its reports, its time.

Pure. Recognised by its digest; nothing is executed. Behaviour from docs/design/stub.md, frames by code of its own, so that
the client meets somebody else's idea of the protocol. The C source itself runs in tests/stub and on the rig.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections import deque
from collections.abc import Sequence

from espmon.board.from_flash import esp8266_from_flash
from espmon.board.loader import CommandServer, Upload, Work
from espmon.board.machine import HALT, Drain, Listen, Machine, Program, Sleep
from espmon.board.nor import BLOCK, PAGE, SECTOR
from espmon.board.registers import Registers
from espmon.bootloader.stub import payload

HELLO, MAP, WRITE, DATA, POLL, READ, DIGEST, ERASE, RATE, UNLOCK, LEAVE = range(1, 12)
ANSWER = 0x80
NAK, SECTOR_REPORT, END = 0x90, 0x91, 0x92
OK, COMMAND, RANGE, NO_CHIP, PROTECTED, TIMEOUT, DEFLATE, SILENCE, ABORTED, VERIFY, NO_BOOT, NONE, ACTIVE = range(13)
SAME, ERASED, MISMATCH = 1, 2, 4
WINDOW, LONGEST, MAP_DIGESTS = 16384, 4104, 64
FUSES = 0x3FF00050
SILENCE_S, CONFIRM_S = 10.0, 3.0
PROTECTION = 0x7C
MD5_RATE = 1e6  # bytes per second, as for the other stub
WORD_COUNTS = {WRITE: 3, POLL: 0, READ: 3, MAP: 3, DIGEST: 3, ERASE: 2, RATE: 1, LEAVE: 1}


def is_own_stub(uploads: Sequence[Upload], entry: int) -> bool:
    """What was uploaded is the payload of this package."""
    parts = sorted(((u.address, bytes(u.content)) for u in uploads if u.address >= payload.ADDRESS), key=lambda p: p[0])
    loaded = b""
    for address, content in parts:
        if address == payload.ADDRESS + len(loaded):
            loaded += content
    return entry == payload.ENTRY and hashlib.sha256(loaded).hexdigest() == payload.SHA256


def plain(stuffed: bytes) -> bytes | None:
    """A frame without its stuffing and CRC, None when either is wrong."""
    out = bytearray()
    at = 0
    while at < len(stuffed):
        step = stuffed[at]
        out += stuffed[at + 1 : at + step]
        at += step
        if step < 255:
            out.append(0)
    if at != len(stuffed):
        return None
    if stuffed and step < 255:
        del out[-1]
    if not 8 <= len(out) <= LONGEST or zlib.crc32(out) != 0x2144DF1C:
        return None
    return bytes(out[:-4])


def stuffed(content: bytes) -> bytes:
    """A frame as it is sent, CRC and ending zero included."""
    left = content + zlib.crc32(content).to_bytes(4, "little")
    out = bytearray()
    while True:
        zero = left.find(0)
        run = len(left) if zero < 0 else zero
        step = min(run, 254)
        out.append(step + 1)
        out += left[:step]
        if step == 254:
            left = left[254:]
            if left:
                continue
            break
        if zero < 0:
            break
        left = left[step + 1 :]
    out.append(0)
    return bytes(out)


class Stream:
    """The content of one write as it comes: deflated (raw) or plain."""

    def __init__(self, deflated: bool) -> None:
        self.reader = zlib.decompressobj(-15) if deflated else None
        self.ready = bytearray()

    def feed(self, content: bytes, room: int) -> None:
        """More of it; never unpacks more than `room` bytes at once. Raises zlib.error."""
        if self.reader is None:
            self.ready += content
            return
        # A rest stays inside until there is room; what follows the stream's end is padding.
        while content and not self.reader.eof:
            self.ready += self.reader.decompress(content, max(1, room))
            content = self.reader.unconsumed_tail
            if len(self.ready) >= room:
                break

    @property
    def ended(self) -> bool:
        """Nothing more can come."""
        return self.reader is not None and self.reader.eof


class OwnStub(CommandServer):
    """The running stub."""

    def __init__(self, machine: Machine, registers: Registers) -> None:
        super().__init__(machine, registers)
        self.rest = b""
        self.arrived: deque[bytes | None] = deque()  # None: a damaged frame
        self.damaged = 0
        self.forced_size = 0
        self.last = (0, 0, 0, 0, 0)  # tag, address, length, done, next of the last write
        self.status = NONE
        self.again: bytes | None = None

    # --- frames

    def say(self, op: int, tag: int, argument: int, body: bytes = b"") -> None:
        """Send one frame."""
        self.machine.say(stuffed(struct.pack("<BBH", op, tag, argument & 0xFFFF) + body))

    def take(self, heard: bytes) -> None:
        """Cut what was heard into frames."""
        *whole, self.rest = (self.rest + heard).split(b"\0")
        self.rest = self.rest[: 2 * LONGEST]
        for piece in whole:
            if piece:
                frame = plain(piece)
                self.damaged += frame is None
                self.arrived.append(frame)

    def next_frame(self, seconds: float | None) -> Program:
        """1 when a frame is in `arrived`, 0 when the time is over."""
        end = None if seconds is None else self.machine.now + seconds
        while not self.arrived:
            left = None if end is None else end - self.machine.now
            if left is not None and left <= 0:
                return 0
            self.take((yield Listen(left)))
        return 1

    # --- the loop

    def start(self) -> Program:
        machine = self.machine
        machine.frame_end = 0
        machine.loading = True
        machine.say(b"\0")
        self.hello(0, b"")
        while True:
            frame = self.again
            self.again = None
            if frame is None:
                yield from self.next_frame(None)
                frame = self.arrived.popleft()
            if frame is None or frame[0] == DATA or frame[0] & ANSWER:
                continue
            op, tag = frame[0], frame[1]
            body = frame[4:]
            yield Sleep(0.0001)
            if op == LEAVE and len(body) == 4:
                how = int.from_bytes(body, "little")
                self.say(op | ANSWER, tag, OK)
                yield Drain()
                machine.loading = False
                machine.frame_end = 0xC0
                if how == 0:
                    return HALT
                if how == 1:
                    machine.straps = machine.pins()
                    return 3
                machine.rate = machine.rom_rate
                return (yield from esp8266_from_flash(machine))
            yield from self.one(op, tag, body)

    def one(self, op: int, tag: int, body: bytes) -> Work:
        """Carry out one command."""
        wanted = WORD_COUNTS.get(op)
        words = struct.unpack(f"<{len(body) // 4}I", body) if len(body) % 4 == 0 else ()
        if op == HELLO and len(body) in (0, 4):
            self.hello(tag, body)
        elif op == UNLOCK:
            yield from self.unlock(tag)
        elif wanted is None or len(body) != 4 * wanted:
            self.say(op | ANSWER, tag, COMMAND)
        elif op == POLL:
            self.report(op | ANSWER, tag)
        elif op == RATE:
            yield from self.new_divider(tag, words[0])
        else:
            address, length = words[0], words[1]
            whole = -(-length // SECTOR) * SECTOR if op == DIGEST else length
            problem = self.problem(address, whole, changing=op in (WRITE, ERASE))
            if problem:
                self.say(op | ANSWER, tag, problem, bytes(4))
            elif op == MAP:
                yield from self.map(tag, address, length)
            elif op == READ:
                yield from self.read(tag, address, length)
            elif op == DIGEST:
                yield from self.digest(tag, address, length)
            elif op == ERASE:
                yield from self.erase(tag, address, length)
            else:
                yield from self.write(tag, address, length, bool(words[2] & 1))

    # --- the chip

    @property
    def size(self) -> int:
        """Bytes of the chip as its id says or as the host said."""
        flash = self.machine.flash
        code = flash.id >> 16
        if not flash.present:
            return 0
        return self.forced_size or (1 << code if 0x12 <= code <= 0x18 else 0)

    def problem(self, address: int, length: int, *, changing: bool) -> int:
        """OK or why these sectors cannot be worked on."""
        if not self.size:
            return NO_CHIP
        if address % SECTOR or length % SECTOR or not length or address + length > self.size:
            return RANGE
        return PROTECTED if changing and self.machine.flash.status & PROTECTION else OK

    def hello(self, tag: int, body: bytes) -> None:
        """HELLO: who the stub is, what the chip says."""
        machine = self.machine
        if body:
            self.forced_size = int.from_bytes(body, "little")
        clock = 80e6 if machine.xtal == 40 else 52e6
        flash_id = machine.flash.id & 0xFFFFFF if machine.flash.present else 0
        divider = round(clock / machine.rate)
        fuses = (self.registers.read(FUSES + 4 * n) for n in range(4))
        words = (WINDOW, divider, machine.flash.status, 1, flash_id, self.size, self.damaged, 0, 0, 0, *fuses)
        self.say(HELLO | ANSWER, tag, 1, struct.pack("<14I", *words))

    def unlock(self, tag: int) -> Work:
        """UNLOCK: status byte 1 becomes 0, where the chip lets it."""
        flash = self.machine.flash
        before = flash.status
        if flash.writable:
            flash.status = 0
        yield Sleep(0.002)
        status = PROTECTED if flash.status & PROTECTION else OK
        self.say(UNLOCK | ANSWER, tag, status, struct.pack("<2I", before, flash.status))

    def new_divider(self, tag: int, divider: int) -> Work:
        """RATE: back to the old rate unless a whole frame comes at the new one."""
        machine = self.machine
        if not 13 <= divider <= 0xFFFFF:
            self.say(RATE | ANSWER, tag, RANGE)
            return
        old = machine.rate
        self.say(RATE | ANSWER, tag, OK)
        yield Drain()
        machine.rate = (80e6 if machine.xtal == 40 else 52e6) / divider
        end = machine.now + CONFIRM_S
        while (left := end - machine.now) > 0:
            if (yield from self.next_frame(left)):
                self.again = self.arrived.popleft()
                if self.again is not None:
                    return
        machine.rate = old

    # --- looking

    def map(self, tag: int, address: int, length: int) -> Work:
        """MAP: 64 digests a frame."""
        flash = self.machine.flash
        for first in range(address, address + length, MAP_DIGESTS * SECTOR):
            sectors = range(first, min(first + MAP_DIGESTS * SECTOR, address + length), SECTOR)
            yield Sleep(flash.read_time(len(sectors) * SECTOR))
            digests = [zlib.crc32(flash.read(at, SECTOR)) for at in sectors]
            self.say(MAP | ANSWER, tag, OK, struct.pack(f"<{1 + len(digests)}I", first, *digests))

    def read(self, tag: int, address: int, length: int) -> Work:
        """READ: a frame for each sector, an empty one for a blank sector."""
        flash = self.machine.flash
        for at in range(address, address + length, SECTOR):
            yield Sleep(flash.read_time(SECTOR))
            content = flash.read(at, SECTOR)
            self.say(READ | ANSWER, tag, at // SECTOR, b"" if content == b"\xff" * SECTOR else content)
            yield Drain()

    def digest(self, tag: int, address: int, length: int) -> Work:
        """DIGEST: the MD5 of any number of bytes."""
        content = self.machine.flash.read(address, length)
        yield Sleep(length / MD5_RATE)
        md5 = hashlib.md5(content, usedforsecurity=False).digest()
        self.say(DIGEST | ANSWER, tag, OK, md5)

    # --- changing

    def blank(self, at: int, length: int = SECTOR) -> bool:
        """Nothing but ones there."""
        return self.machine.flash.read(at, length) == b"\xff" * length

    def erase_block(self, at: int) -> Work:
        """A 64 KB erase where at least four of the block's sectors need it."""
        flash = self.machine.flash
        if sum(not self.blank(a) for a in range(at, at + BLOCK, SECTOR)) >= 4:
            yield Sleep(flash.erase_block(at))

    def erase(self, tag: int, address: int, length: int) -> Work:
        """ERASE: a sign of life for every 64 KB."""
        flash = self.machine.flash
        end = address + length
        for at in range(address, end, SECTOR):
            if at % BLOCK == 0 and end - at >= BLOCK:
                yield from self.erase_block(at)
            yield Sleep(flash.read_time(SECTOR))
            if not self.blank(at):
                yield Sleep(flash.erase_sector(at))
            if not self.blank(at):
                self.say(ERASE | ANSWER, tag, VERIFY, struct.pack("<I", at))
                return
            following = at + SECTOR
            if following % BLOCK == 0 or following == end:
                self.say(ERASE | ANSWER, tag, OK, struct.pack("<I", following))

    def put(self, at: int, content: bytes) -> Program:
        """Bring one sector to `content`; the flags of its report."""
        flash = self.machine.flash
        yield Sleep(flash.read_time(SECTOR))
        held = flash.read(at, SECTOR)
        if held == content:
            return SAME
        flags = 0
        if any(old & new != new for old, new in zip(held, content, strict=True)):
            flags = ERASED
            yield Sleep(flash.erase_sector(at))
        seconds = 0.0
        # From the end to the start: an image's magic byte is the last of its first sector.
        for page in range(SECTOR - PAGE, -1, -PAGE):
            piece = content[page : page + PAGE]
            if flash.read(at + page, PAGE) != piece:
                seconds += self.program(at + page, piece)
        yield Sleep(seconds + flash.read_time(SECTOR))
        return flags if flash.read(at, SECTOR) == content else flags | MISMATCH

    def report(self, op: int, tag: int) -> None:
        """How far the last write came."""
        self.say(op, tag, self.status, struct.pack("<5I", *self.last))

    def write(self, tag: int, address: int, length: int, deflated: bool) -> Work:
        """WRITE and its data frames."""
        self.status = ACTIVE
        self.last = (tag, address, length, 0, 0)
        self.say(WRITE | ANSWER, tag, OK)
        if address % BLOCK == 0 and length >= BLOCK:
            yield from self.erase_block(address)
        stream = Stream(deflated)
        following = done = epoch = 0
        told = False
        deadline = self.machine.now + SILENCE_S
        while self.status == ACTIVE:
            if not (yield from self.next_frame(deadline - self.machine.now)):
                self.status = SILENCE
                break
            frame = self.arrived.popleft()
            if frame is None:
                if not told:
                    told = True
                    self.say(NAK, tag, following & 0xFFF)
                continue
            op, of, argument = struct.unpack_from("<BBH", frame)
            if op == POLL:
                self.report(POLL | ANSWER, of)
                continue
            if op != DATA:
                self.again = frame
                self.status = ABORTED
                break
            if of != tag:
                continue
            ahead = (argument - following) & 0xFFF
            if ahead >= 0x800:
                self.say(DATA | ANSWER, tag, following & 0xFFF)
            elif ahead:
                if not told or argument >> 12 != epoch:
                    told, epoch = True, argument >> 12
                    self.say(NAK, tag, following & 0xFFF)
            else:
                told, epoch = False, argument >> 12
                following += 1
                deadline = self.machine.now + SILENCE_S
                self.last = (tag, address, length, done, following)
                self.say(DATA | ANSWER, tag, following & 0xFFF)
                try:
                    stream.feed(frame[4:], length - done - len(stream.ready) + 1)
                except zlib.error:
                    self.status = DEFLATE
                    break
                while len(stream.ready) >= SECTOR and done < length:
                    content = bytes(stream.ready[:SECTOR])
                    del stream.ready[:SECTOR]
                    at = address + done
                    flags = yield from self.put(at, content)
                    done += SECTOR
                    self.last = (tag, address, length, done, following)
                    held = zlib.crc32(self.machine.flash.read(at, SECTOR))
                    self.say(SECTOR_REPORT, tag, flags, struct.pack("<2I", at, held))
                    if (at + SECTOR) % BLOCK == 0 and length - done >= BLOCK:
                        yield from self.erase_block(at + SECTOR)
                    deadline = self.machine.now + SILENCE_S
                if done >= length:
                    self.status = OK
                elif stream.ended:
                    self.status = DEFLATE
        self.report(END, tag)
