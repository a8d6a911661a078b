"""The loader in mask ROM: SLIP frames in, replies out, flash and memory behind it. Both families.

Pure. What is shared with flasher stubs (frames, replies, data checksums, registers) is :class:`CommandServer`;
:class:`Loader` is the ROM. Frames are read and written here by code of its own, not by `espmon.bootloader`, so that the
client is tested against somebody else's idea of the protocol.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

from espmon.board.firmware import run_firmware
from espmon.board.image import read_image
from espmon.board.machine import HALT, Drain, Listen, Machine, Program, Sleep, Wait
from espmon.board.nor import BLOCK, SECTOR
from espmon.board.registers import Registers

END, ESCAPE = 0xC0, 0xDB
# Commands
FLASH_BEGIN, FLASH_DATA, FLASH_END, MEM_BEGIN, MEM_END, MEM_DATA, SYNC = 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08
WRITE_REG, READ_REG, SPI_SET_PARAMS, SPI_ATTACH, READ_FLASH_SLOW = 0x09, 0x0A, 0x0B, 0x0D, 0x0E
CHANGE_BAUDRATE, DEFL_BEGIN, DEFL_DATA, DEFL_END, FLASH_MD5, SECURITY_INFO = 0x0F, 0x10, 0x11, 0x12, 0x13, 0x14
# Errors of the ROM
INVALID, FAILED, CHECKSUM, INFLATE = 0x05, 0x06, 0x07, 0x0B
ALLOWED_WHEN_SECURE = {
    SYNC,
    SPI_ATTACH,
    SPI_SET_PARAMS,
    CHANGE_BAUDRATE,
    FLASH_BEGIN,
    FLASH_DATA,
    FLASH_END,
    SECURITY_INFO,
}
ROM_FLASH_LIMIT = 2 << 20  # what the ESP32 family's ROM believes until SPI_SET_PARAMS
COMMAND_TIME = 0.0002  # from the end of a command to the start of its answer

Work = Generator[Wait, bytes, None]


class Frames:
    """SLIP decoding as loaders do it: whatever is outside of END...END is dropped, so are frames over `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._body: bytearray | None = None

    def feed(self, heard: bytes) -> list[bytes]:
        """The frames completed by `heard`, unescaped; empty ones are not reported."""
        out = []
        at = 0
        while at < len(heard):
            end = heard.find(END, at)
            if self._body is None:
                if end < 0:
                    break
                self._body = bytearray()
                at = end + 1
                continue
            if end < 0:
                self._body += heard[at:]
                if len(self._body) > 2 * self.limit + 64:
                    del self._body[2 * self.limit + 64 :]
                break
            self._body += heard[at:end]
            at = end + 1
            if self._body:
                frame = bytes(self._body).replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")
                if len(frame) <= self.limit:
                    out.append(frame)
                self._body = None
        return out


def framed(body: bytes) -> bytes:
    """`body` as one SLIP frame."""
    return b"\xc0" + body.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc") + b"\xc0"


def checksum(content: bytes) -> int:
    """The loaders' checksum: 0xEF XOR every byte."""
    value, width = int.from_bytes(content, "little"), max(1, len(content))
    while width > 1:
        half = (width + 1) // 2
        value = (value >> (8 * half)) ^ (value & ((1 << (8 * half)) - 1))
        width = half
    return 0xEF ^ value


@dataclass(slots=True)
class Upload:
    """Memory written by MEM_BEGIN and MEM_DATA: `expected` bytes at `address`, `content` as far as it came."""

    address: int
    expected: int
    content: bytearray = field(default_factory=bytearray)

    @property
    def complete(self) -> bool:
        """Everything announced has arrived."""
        return len(self.content) >= self.expected


@dataclass(slots=True)
class Writing:
    """A flash write between its BEGIN and its END: where the next byte goes, how many are still to come."""

    at: int
    left: int
    block: int
    inflate: zlib._Decompress | None = None
    erased_to: int = 0


Payload = Callable[[Machine, Registers, Sequence[Upload], int], Program]


class Refused(Exception):
    """A command that is answered with an error: `status` are the status bytes' first two."""

    def __init__(self, status: int, error: int) -> None:
        super().__init__(status, error)
        self.status, self.error = status, error


class CommandServer:
    """Frames, replies, registers and memory: what the ROM loader and a flasher stub have in common."""

    frame_limit = 0x2000
    sync_value = 0
    sync_replies = 8

    def __init__(self, machine: Machine, registers: Registers | None = None) -> None:
        self.machine = machine
        self.registers = registers or Registers(machine)
        self.frames = Frames(self.frame_limit)
        self.uploads: list[Upload] = []
        self.writing: Writing | None = None
        self.leave: int | None = None  # set by a command that leaves: the next reset's cause or HALT
        self.next_server: Callable[[], Program] | None = None
        self.status_length = 2
        self.bad = Refused(1, INVALID)
        self.bad_sum = Refused(1, CHECKSUM)

    # --- the loop

    def run(self) -> Program:
        """Serve until a command leaves; returns the cause of the next reset."""
        machine = self.machine
        machine.loading = True
        waiting: list[bytes] = []
        while True:
            heard = yield Listen(None)
            waiting = self.accepted(self.frames.feed(heard))
            for frame in waiting:
                yield from self.serve(frame)
                if self.leave is not None:
                    machine.loading = False
                    return self.leave
                if self.next_server is not None:
                    return (yield from self.next_server())
                if self.registers.watchdog:
                    yield Sleep(0.02)
                    machine.loading = False
                    machine.straps = machine.pins()
                    return 0x10

    def accepted(self, frames: list[bytes]) -> list[bytes]:
        """Which of the frames that came while the program was busy it gets to see."""
        return frames

    def serve(self, frame: bytes) -> Work:
        """Answer one frame."""
        if len(frame) < 8 or frame[0] != 0:
            return
        operation, length, given = struct.unpack_from("<BHI", frame, 1)
        body = frame[8:]
        yield Sleep(COMMAND_TIME)
        try:
            if length != len(body):
                raise self.bad
            yield from self.command(operation, body, given)
        except Refused as refused:
            yield from self.reply(operation, status=refused.status, error=refused.error)
        except struct.error:  # a command whose words are missing
            yield from self.reply(operation, status=self.bad.status, error=self.bad.error)

    def command(self, operation: int, body: bytes, given: int) -> Work:
        """Carry out one command and answer it."""
        raise NotImplementedError

    def reply(self, operation: int, content: bytes = b"", *, value: int = 0, status: int = 0, error: int = 0) -> Work:
        """One answer: value, content, then the status bytes."""
        tail = bytes([status, error]) + b"\0" * (self.status_length - 2)
        out = struct.pack("<BBHI", 1, operation, len(content) + len(tail), value) + content + tail
        self.machine.say(framed(out))
        yield Drain()

    # --- commands that ROM and stubs share

    def synced(self) -> Work:
        """SYNC: the same answer several times."""
        for _ in range(self.sync_replies):
            yield from self.reply(SYNC, value=self.sync_value)

    def data_of(self, body: bytes, given: int) -> bytes:
        """The content of a data command, its length and checksum checked."""
        length = struct.unpack_from("<I", body)[0]
        content = body[16:]
        if len(body) < 16 or length != len(content):
            raise self.bad
        if checksum(content) != given & 0xFF:
            raise self.bad_sum
        return content

    def block_of(self, body: bytes, given: int) -> bytes:
        """The content of a MEM_DATA block."""
        return self.data_of(body, given)

    def memory(self, operation: int, body: bytes, given: int) -> Work:
        """MEM_BEGIN, MEM_DATA."""
        if operation == MEM_BEGIN:
            size, _blocks, block, address = struct.unpack("<4I", body[:16])
            if size > 1 << 20:
                raise self.bad
            self.uploads = [upload for upload in self.uploads if upload.address != address]
            for before in self.uploads:
                if before.address < address <= before.address + len(before.content):
                    # a client goes on behind the blocks that were taken: the upload before ends there
                    before.expected = address - before.address
                    del before.content[before.expected :]
            self.uploads.append(Upload(address, size))
            self.begun(address, block)
        else:
            if not self.uploads:
                raise self.bad
            upload = self.uploads[-1]
            content = self.block_of(body, given)
            if len(upload.content) + len(content) > upload.expected + 0x1800:
                raise self.bad
            upload.content += content
        yield from self.reply(operation)

    def answer_register(self, value: int) -> Work:
        """READ_REG's answer."""
        yield from self.reply(READ_REG, value=value)

    def begun(self, address: int, block: int) -> None:
        """A transfer into memory starts."""

    def register(self, operation: int, body: bytes) -> Work:
        """READ_REG, WRITE_REG (one or several groups of four words)."""
        if operation == READ_REG:
            yield from self.answer_register(self.registers.read(int.from_bytes(body[:4], "little")))
            return
        if not body or len(body) % 16:
            raise self.bad
        for group in struct.iter_unpack("<4I", body):
            address, value, mask, delay = group
            self.registers.write(address, value, mask)
            if delay or self.registers.busy:
                yield Sleep(self.registers.busy + min(delay, 1_000_000) / 1e6)
        yield from self.reply(operation)

    def erase_range(self, first: int, end: int) -> float:
        """Erase every sector of [first, end), by 64 KiB where whole blocks lie inside. Returns seconds."""
        flash, seconds = self.machine.flash, 0.0
        at = first - first % SECTOR
        while at < end:
            if at % BLOCK == 0 and end - at >= BLOCK:
                seconds += flash.erase_block(at)
                at += BLOCK
            else:
                seconds += flash.erase_sector(at)
                at += SECTOR
        return seconds

    def program(self, at: int, content: bytes) -> float:
        """Program through the board's own bad bit, if it has one. Returns seconds."""
        flash, bad = self.machine.flash, self.machine.settings.bad_bit
        if bad >= 0 and at <= bad < at + len(content):
            content = content[: bad - at] + bytes([content[bad - at] | 1]) + content[bad - at + 1 :]
        return flash.program(at, content)

    def security_info(self) -> bytes:
        """GET_SECURITY_INFO's answer: flags, crypt count, key purposes, chip id, API version."""
        settings, silicon = self.machine.settings, self.machine.silicon
        flags = settings.secure_boot | settings.secure_download << 2
        out = struct.pack("<IB7s", flags, 1 if settings.encryption else 0, b"\0" * 7)
        if silicon.security_info_length == 20:
            out += struct.pack("<II", silicon.chip.image_chip_id or 0, 0)
        return out

    def new_rate(self, rate: int) -> None:
        """The UART's divider is set for `rate`."""
        self.machine.rate = self.machine.divided(rate)


class Loader(CommandServer):
    """The ROM's own loader. It measures the host's rate first.

    Its habits are those of the ESP8266's real ROM (asked through an emulated chip): the value of an answer and its
    error byte are left over from earlier commands; lengths and the direction byte are hardly looked at; what it does
    not know it answers in the name of the last command it did know, eight times if that was SYNC; blocks must come
    with the next sequence number, which also a block with a bad checksum uses up.
    """

    def __init__(self, machine: Machine, payload: Payload) -> None:
        """`payload` runs what was uploaded: it gets machine, registers, uploads and the entry address."""
        super().__init__(machine)
        self.payload = payload
        self.old = machine.silicon.chip.name == "esp8266"
        self.status_length = machine.silicon.status_length
        self.attached = self.old
        self.flash_limit = (4 << 20) if self.old else ROM_FLASH_LIMIT
        self.last = SYNC  # the last command that the ROM knew
        self.known = 0x0B if self.old else SECURITY_INFO if machine.silicon.chip.name != "esp32" else FLASH_MD5
        self.value = 0
        self.error = 0
        self.sequence = 0  # of the next block
        self.block = 0  # its greatest length, as announced; 0: none
        self.flawed = False  # something went wrong since FLASH_BEGIN
        machine.autobaud = True
        machine.downloaded = True

    def serve(self, frame: bytes) -> Work:
        if len(frame) < 8:
            return
        direction, operation, _length, given = struct.unpack_from("<BBHI", frame)
        yield Sleep(COMMAND_TIME)
        try:
            if direction != 0 or operation > self.known:
                raise self.bad
            self.last = operation
            yield from self.command(operation, frame[8:], given)
        except (Refused, struct.error) as problem:
            refused = problem if isinstance(problem, Refused) else self.bad
            self.error = refused.error
            self.flawed = True
            for _ in range(self.sync_replies if self.last == SYNC else 1):
                yield from super().reply(self.last, value=self.value, status=1, error=self.error)

    def reply(self, operation: int, content: bytes = b"", *, value: int = 0, status: int = 0, error: int = 0) -> Work:
        if value:
            self.value = value
        yield from super().reply(operation, content, value=self.value, status=status, error=self.error)

    def answer_register(self, value: int) -> Work:
        self.value, self.error = value, 0
        yield from self.reply(READ_REG)

    def begun(self, address: int, block: int) -> None:
        self.sequence, self.block = 0, block

    def block_of(self, body: bytes, given: int) -> bytes:
        return self.in_sequence(body, given)

    def in_sequence(self, body: bytes, given: int) -> bytes:
        """A data block's content, if its number is the next one and its checksum is right."""
        length, number = struct.unpack_from("<II", body)
        content = body[16 : 16 + length]
        if number != self.sequence or len(content) != length or (self.block and length > self.block):
            raise self.bad
        self.sequence += 1
        if checksum(content) != given & 0xFF:
            raise self.bad_sum
        return content

    def command(self, operation: int, body: bytes, given: int) -> Work:
        machine = self.machine
        if machine.settings.secure_download and not self.old and operation not in ALLOWED_WHEN_SECURE:
            raise Refused(1, INVALID)
        if operation == SYNC:
            self.error = 0
            left_over = self.value.to_bytes(4, "little")
            self.value = int.from_bytes(body[:4] + left_over[len(body) :], "little")
            for _ in range(self.sync_replies):
                yield from self.reply(SYNC)
        elif operation in (MEM_BEGIN, MEM_DATA):
            if self.old and self.uploads and operation == MEM_DATA and not self.in_ram(self.uploads[-1].address):
                self.leave = HALT  # it writes into nothing: the ROM dies of an exception, without an answer
                return
            yield from self.memory(operation, body, given)
        elif operation == MEM_END:
            stay, entry = struct.unpack("<II", body[:8])
            yield from self.reply(operation)
            if not stay:
                self.jump(entry)
        elif operation in (READ_REG, WRITE_REG):
            yield from self.register(operation, body)
        elif operation in (FLASH_BEGIN, FLASH_DATA, FLASH_END):
            yield from self.flash_plain(operation, body, given)
        elif self.old:
            raise self.bad
        elif operation in (DEFL_BEGIN, DEFL_DATA, DEFL_END):
            yield from self.flash_deflated(operation, body, given)
        elif operation == SPI_ATTACH:
            self.attached = True
            yield from self.reply(operation)
        elif operation == SPI_SET_PARAMS:
            _id, total, *_rest = struct.unpack("<6I", body[:24])
            self.flash_limit = total
            yield from self.reply(operation)
        elif operation == FLASH_MD5:
            yield from self.md5(body)
        elif operation == READ_FLASH_SLOW:
            offset, length = struct.unpack("<II", body[:8])
            if length > 64:
                raise Refused(1, 0x0A)
            self.check_flash(offset, length)
            yield from self.reply(operation, machine.flash.read(offset, 64))
        elif operation == CHANGE_BAUDRATE:
            rate = struct.unpack("<I", body[:4])[0]
            if not 300 <= rate <= 5_000_000:
                raise self.bad
            yield from self.reply(operation)
            # the ROM computes its divider for a 40 MHz crystal
            usual = machine.silicon.chip.name != "esp32c2" or machine.xtal == 40
            self.new_rate(rate if usual else round(rate * machine.xtal / 40))
        elif operation == SECURITY_INFO and machine.silicon.chip.name != "esp32":
            yield from self.reply(operation, self.security_info())
        else:
            raise self.bad

    @staticmethod
    def in_ram(address: int) -> bool:
        """True for the ESP8266's data and instruction memory."""
        return 0x3FFE8000 <= address < 0x40000000 or 0x40100000 <= address < 0x40110000

    def check_flash(self, offset: int, length: int) -> None:
        """Refuse what the ROM cannot reach."""
        if not self.attached or offset + length > self.flash_limit:
            raise Refused(1, FAILED)

    def jump(self, entry: int) -> None:
        """MEM_END: what was uploaded runs."""
        self.next_server = lambda: self.payload(self.machine, self.registers, self.uploads, entry)

    def md5(self, body: bytes) -> Work:
        """SPI_FLASH_MD5, as 32 hexadecimal letters."""
        address, size = struct.unpack("<II", body[:8])
        self.check_flash(address, size)
        yield Sleep(size / 1e6)
        digest = hashlib.md5(self.machine.flash.read(address, size), usedforsecurity=False).hexdigest()
        yield from self.reply(FLASH_MD5, digest.encode())

    def flash_plain(self, operation: int, body: bytes, given: int) -> Work:
        """FLASH_BEGIN erases before it answers; FLASH_DATA programs before it answers; FLASH_END leaves."""
        machine = self.machine
        if operation == FLASH_BEGIN:
            size, _blocks, block, offset = struct.unpack("<4I", body[:16])
            self.attached = self.attached or self.old
            if size:
                self.check_flash(offset, size)
                yield Sleep(self.rom_erase(offset, size))
            self.writing = Writing(offset, size, block)
            self.sequence, self.block, self.flawed = 0, block, False
        elif operation == FLASH_DATA:
            writing = self.writing
            content = self.in_sequence(body, given)
            if writing is None:
                raise self.bad
            self.check_flash(writing.at, len(content))
            yield Sleep(self.program(writing.at, content))
            if self.old and machine.flash.writable is False:
                raise Refused(1, 0x08)
            writing.at += len(content)
            writing.left = max(0, writing.left - len(content))
        else:
            run = struct.unpack("<I", body[:4])[0]
            bad = self.writing is None or bool(self.writing.left) or self.flawed
            self.writing = None
            self.error = FAILED if bad else self.error
            yield from self.reply(operation, status=1 if bad else 0)
            self.left(run)
            return
        yield from self.reply(operation)

    def left(self, run: int) -> None:
        """FLASH_END: restart, or go on to the flash."""
        machine = self.machine
        machine.straps = machine.pins()
        if self.old and run:
            image = read_image(machine.flash, machine.silicon)
            if image.fault is None:
                self.next_server = lambda: run_firmware(machine, image)
            else:
                self.leave = HALT
            return
        self.leave = 3 if self.old else 0xC

    def rom_erase(self, offset: int, size: int) -> float:
        """Erase for a write of `size` bytes. The ESP8266's ROM erases too much: its first part is counted twice."""
        sectors = -(-size // SECTOR)
        if self.old:
            sectors += min(16 - offset // SECTOR % 16, sectors)
        first = offset - offset % SECTOR
        return self.erase_range(first, min(first + sectors * SECTOR, max(self.machine.flash.size, first)))

    def flash_deflated(self, operation: int, body: bytes, given: int) -> Work:
        """FLASH_DEFL_*: a zlib stream, unpacked as it comes."""
        if operation == DEFL_BEGIN:
            size, _blocks, block, offset = struct.unpack("<4I", body[:16])
            self.check_flash(offset, size)
            yield Sleep(self.erase_range(offset, offset + size))
            self.writing = Writing(offset, size, block, zlib.decompressobj())
            self.sequence, self.block, self.flawed = 0, block, False
        elif operation == DEFL_DATA:
            content = self.in_sequence(body, given)
            writing = self.writing
            if writing is None or writing.inflate is None:
                raise Refused(1, FAILED)
            try:
                plain = writing.inflate.decompress(content, writing.left + 1)
            except zlib.error:
                raise Refused(1, INFLATE) from None
            if len(plain) > writing.left:
                raise Refused(1, INFLATE)
            yield Sleep(self.program(writing.at, plain))
            writing.at += len(plain)
            writing.left -= len(plain)
        else:
            run = struct.unpack("<I", body[:4])[0]
            self.writing = None
            yield from self.reply(operation)
            if not run:
                self.left(0)
            return
        yield from self.reply(operation)
