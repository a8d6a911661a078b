"""The flasher stub of esptool's version 2 set, as seen from the wire: its commands, its lazy errors, its limits.

Pure. Behaviour from its public description and from what esptool 5.6's ESP8266 stub answers on an emulated chip: data commands are acknowledged after the length and checksum check and
written afterwards; what goes wrong then is the status of the *next* command, which is not carried out. Frames have at
most 8 + 0x4000 + 0xFF bytes, longer ones are dropped without a word. Reading keeps one packet unacknowledged.
"""

from __future__ import annotations

import hashlib
import struct
import zlib

from espmon.board.loader import (
    CHANGE_BAUDRATE,
    COMMAND_TIME,
    DEFL_BEGIN,
    DEFL_DATA,
    DEFL_END,
    FLASH_BEGIN,
    FLASH_DATA,
    FLASH_END,
    FLASH_MD5,
    MEM_BEGIN,
    MEM_DATA,
    MEM_END,
    READ_REG,
    SECURITY_INFO,
    SPI_ATTACH,
    SPI_SET_PARAMS,
    SYNC,
    WRITE_REG,
    CommandServer,
    Refused,
    Work,
    Writing,
    framed,
)
from espmon.board.machine import Drain, Listen, Machine, Program, Sleep
from espmon.board.nor import BLOCK, SECTOR
from espmon.board.registers import Registers

ERASE_FLASH, ERASE_REGION, READ_FLASH, RUN_USER_CODE = 0xD0, 0xD1, 0xD2, 0xD3
BLOCK_LIMIT = 0x4000
PACKET_LIMIT = 0x1000
MD5_RATE = 1e6  # bytes per second; assumed, esptool allows 8 s per MB


def _error(code: int) -> Refused:
    return Refused(code >> 8, code & 0xFF)


BAD_LENGTH, BAD_CHECKSUM, BAD_COMMAND, FAILED = 0xC000, 0xC100, 0xC300, 0xC400
NOT_WRITING, BAD_INFLATE, TOO_LITTLE, TOO_MUCH, NOT_THERE = 0xC600, 0xC700, 0xC800, 0xC900, 0xFF00


class FlasherStub(CommandServer):
    """One running stub."""

    frame_limit = 8 + BLOCK_LIMIT + 0xFF
    sync_value = 0

    def __init__(self, machine: Machine, registers: Registers) -> None:
        super().__init__(machine, registers)
        self.bad = _error(BAD_LENGTH)
        self.bad_sum = _error(BAD_CHECKSUM)
        self.owed = 0  # an error that the next command will be answered with

    def start(self) -> Program:
        """Say hello, then serve."""
        self.machine.say(framed(b"OHAI"))
        yield Drain()
        return (yield from self.run())

    def accepted(self, frames: list[bytes]) -> list[bytes]:
        """While it writes, one frame fits into its buffer; what comes behind that is lost."""
        return frames[:1]

    def serve(self, frame: bytes) -> Work:
        if len(frame) < 8 or frame[0] != 0:
            # it answers what is no command too
            if len(frame) > 1:
                refused = _error(BAD_LENGTH if len(frame) < 8 else BAD_COMMAND)
                yield Sleep(COMMAND_TIME)
                yield from self.reply(frame[1], status=refused.status, error=refused.error)
            return
        yield from super().serve(frame)

    def command(self, operation: int, body: bytes, given: int) -> Work:
        if self.owed:
            owed, self.owed = self.owed, 0
            raise _error(owed)
        machine = self.machine
        if operation == SYNC:
            yield from self.synced()
        elif operation in (MEM_BEGIN, MEM_DATA):
            if operation == MEM_DATA and self.uploads and self.uploads[-1].complete:
                raise _error(TOO_MUCH)
            yield from self.memory(operation, body, given)
        elif operation == MEM_END:
            yield from self.reply(operation)
        elif operation in (READ_REG, WRITE_REG):
            if operation == READ_REG and len(body) != 4:
                raise self.bad
            if operation == WRITE_REG and len(body) % 16:
                raise _error(TOO_LITTLE)
            yield from self.register(operation, body)
        elif operation in (FLASH_BEGIN, DEFL_BEGIN):
            yield from self.begin(operation, body)
        elif operation in (FLASH_DATA, DEFL_DATA):
            yield from self.data(operation, body, given)
        elif operation in (FLASH_END, DEFL_END):
            yield from self.finish(operation)
        elif operation == SPI_ATTACH:
            if len(body) != 4:
                raise self.bad
            yield from self.reply(operation)
        elif operation == SPI_SET_PARAMS:
            if len(body) != 24:
                raise self.bad
            yield from self.reply(operation)
        elif operation == CHANGE_BAUDRATE:
            rate = struct.unpack("<II", body)[0]
            if not 300 <= rate <= 5_000_000:
                raise self.bad
            yield from self.reply(operation)
            yield Sleep(0.01)
            self.new_rate(rate)
        elif operation == FLASH_MD5:
            address, size = struct.unpack("<II", body[:8])
            yield Sleep(size / MD5_RATE)
            digest = hashlib.md5(machine.flash.read(address, size), usedforsecurity=False).digest()
            yield from self.reply(operation, digest)
        elif operation == SECURITY_INFO and machine.silicon.chip.name not in ("esp8266", "esp32"):
            yield from self.reply(operation, self.security_info())
        elif operation == ERASE_FLASH:
            yield Sleep(machine.flash.erase_chip())
            yield from self.reply(operation)
        elif operation == ERASE_REGION:
            address, size = struct.unpack("<II", body)
            if address % SECTOR or size % SECTOR:
                raise self.bad
            yield Sleep(self.erase_range(address, address + size))
            yield from self.reply(operation)
        elif operation == READ_FLASH:
            yield from self.read(body)
        elif operation == RUN_USER_CODE:
            return  # no answer, and the real one stays as well
        else:
            raise _error(NOT_THERE if operation == SECURITY_INFO else BAD_COMMAND)

    # --- writing

    def begin(self, operation: int, body: bytes) -> Work:
        """FLASH_BEGIN, FLASH_DEFL_BEGIN: nothing is erased yet."""
        if len(body) not in (16, 20):
            raise self.bad
        size, _blocks, block, offset = struct.unpack("<4I", body[:16])
        if offset >= max(self.machine.flash.claimed, 1):
            raise _error(FAILED)
        self.writing = Writing(
            offset, size, block, zlib.decompressobj() if operation == DEFL_BEGIN else None, offset & ~(SECTOR - 1)
        )
        yield from self.reply(operation)

    def data(self, operation: int, body: bytes, given: int) -> Work:
        """Check, acknowledge, then write; the sequence number is not looked at."""
        content = self.data_of(body, given)
        writing = self.writing
        if writing is None:
            raise _error(NOT_WRITING)
        yield from self.reply(operation)
        if not writing.left:
            return  # everything announced has come: what follows is ignored
        if operation == DEFL_DATA and writing.inflate is not None:
            try:
                plain = writing.inflate.decompress(content, writing.left + 1)
            except zlib.error:
                self.owed = BAD_INFLATE
                return
            plain = plain[: writing.left]  # more than announced is dropped, less is told by FLASH_DEFL_END
        else:
            plain = content[: writing.left]  # the last block may be padded past the announced size
        yield from self.write(writing, plain)

    def write(self, writing: Writing, plain: bytes) -> Work:
        """Erase what is needed next, program, sector by sector (so that a power cut falls in between)."""
        end = writing.at + writing.left
        at = 0
        while at < len(plain):
            where = writing.at
            seconds = 0.0
            if where >= writing.erased_to:
                if writing.erased_to % BLOCK == 0 and end - writing.erased_to >= BLOCK:
                    seconds += self.machine.flash.erase_block(writing.erased_to)
                    writing.erased_to += BLOCK
                else:
                    seconds += self.machine.flash.erase_sector(writing.erased_to)
                    writing.erased_to += SECTOR
            piece = plain[at : at + min(writing.erased_to - where, len(plain) - at)]
            seconds += self.program(where, piece)
            writing.at += len(piece)
            writing.left -= len(piece)
            at += len(piece)
            yield Sleep(seconds)

    def finish(self, operation: int) -> Work:
        """FLASH_END, FLASH_DEFL_END: everything announced must have come. It does not restart the chip."""
        if self.writing is None:
            raise _error(NOT_WRITING)
        if self.writing.left:
            raise self.bad  # and goes on waiting for the rest
        self.writing = None
        yield from self.reply(operation)

    # --- reading

    def read(self, body: bytes) -> Work:
        """READ_FLASH: packets, each acknowledged by the count of bytes received so far, then their MD5."""
        address, length, packet, _in_flight = struct.unpack("<4I", body)
        yield from self.reply(READ_FLASH)
        if not 0 < packet <= PACKET_LIMIT:
            self.owed = BAD_LENGTH
            return
        digest = hashlib.md5(usedforsecurity=False)
        done = 0
        while done < length:
            content = self.machine.flash.read(address + done, min(packet, length - done))
            digest.update(content)
            yield Sleep(self.machine.flash.read_time(len(content)))
            self.machine.say(framed(content))
            yield Drain()
            done += len(content)
            answers: list[bytes] = []
            while not answers:
                heard = yield Listen(None)
                answers = self.frames.feed(heard)
            if len(answers[-1]) != 4:
                break  # anything but a count stops it; the count itself is not compared
        self.machine.say(framed(digest.digest()))
        yield Drain()
