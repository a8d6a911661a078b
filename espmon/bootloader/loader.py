"""Loaders: what answers at the other end, boot ROM or a stub, behind one protocol.

:class:`Loader` is what operations (``write``, ``read``) work with; its `can_*` attributes say what this one is able to
do. :class:`RomLoader` is the mask ROM, :class:`StubLoader` Espressif's flasher stub.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass
from typing import ClassVar

from espmon.bootloader.actions import Note, Now, Steps, Wait
from espmon.bootloader.errors import GaveUp, LoaderProblem, LoaderRefused, LoaderSilent, NeedsStub, StubNotStarted
from espmon.bootloader.flash import BLOCK, SECTOR, round_up
from espmon.bootloader.link import Link
from espmon.bootloader.loaders import MAGIC_ADDRESS, LoaderFacts
from espmon.bootloader.notes import Retried, Transferred
from espmon.bootloader.packets import Op, data_request, request, words

# Largest blocks that the other side has room for.
ROM_RAM_BLOCK = 0x1800
ROM_FLASH_BLOCK = 0x400
STUB_FLASH_BLOCK = 0x4000
READ_PACKET = 0x1000
ROM_READ = 64
# What of an image's first sector is programmed last: one word, the magic in it.
HEAD = 4
# Worst cases of serial NOR flash in seconds per byte: 2 s for erasing 64 KiB and 3 ms for programming each of its pages.
FLASH_WORK = (2.0 + 256 * 3e-3) / BLOCK
# Hashing: Espressif's tools allow 8 s per million bytes; a real chip needs about 1.
HASH_WORK = 8e-6
# Flash work that cannot be cut short: one block's erase at least.
FLASH_FLOOR_S = 2.5
CHIP_ERASE_S = 120.0
# Rates to go down and up. 1000000 works on some adapters where 921600 does not: their divider hits it exactly.
RATES = (115200, 230400, 460800, 921600, 1000000, 1500000, 2000000)
# Bytes of a data block whose checksum was wrong were not used: it may be sent again, this often.
CHECKSUM_RESENDS = 4
_CHECKSUM_ERRORS = (0xC100, 0x0107)
_REPORT = b"OHAI"


class Meter:
    """Counts the bytes of one operation and tells them."""

    def __init__(self, operation: str, total: int) -> None:
        self.operation = operation
        self.total = total
        self.done = 0

    def add(self, count: int) -> Steps[None]:
        """`count` more bytes are done."""
        self.done = min(self.total, self.done + count)
        yield Note(Transferred(self.operation, self.done, self.total))


@dataclass(frozen=True, slots=True, kw_only=True)
class StubPayload:
    """A stub's machine code: two parts and where they go. `name` tells people which one it is."""

    name: str
    entry: int
    text: bytes
    text_start: int
    data: bytes = b""
    data_start: int = 0


class Loader:
    """What every loader can be asked. Methods are Steps.

    Raised by all: :class:`~espmon.bootloader.errors.LoaderSilent`, ``LoaderRefused``, ``NeedsStub`` where a `can_*` is
    False.
    """

    kind: ClassVar[str] = "loader"
    title: ClassVar[str] = "loader"
    can_hash: bool = True
    can_read: bool = True
    can_change_rate: bool = True
    # erase(), and writing without erasing first, are exact to the sector
    exact_erase: bool = True
    # write() returns only when every sector was read back right
    proves_writes: bool = False
    # blank flash costs read() next to nothing
    reads_blank_free: bool = False

    def __init__(self, link: Link, facts: LoaderFacts) -> None:
        self.link = link
        self.facts = facts
        # How far the last write came: bytes of its content that the other side has taken.
        self.taken = 0
        # The rate that the session would like; writing goes back up to it when the link has become clean.
        self.wanted_rate = link.rate
        self._expected = b""

    @property
    def chip_title(self) -> str:
        """The chip's name as people write it."""
        return self.facts.chip.title

    def probe(self) -> Steps[bool]:
        """One small exchange, once; False when it was lost or damaged. For measuring the link."""
        try:
            yield from self.link.exchange(request(Op.READ_REG, words(MAGIC_ADDRESS)))
        except LoaderRefused:
            return True
        except LoaderSilent:
            return False
        return True

    # --- registers ---------------------------------------------------------------------------------------------------

    def read_register(self, address: int) -> Steps[int]:
        """One 32-bit word."""
        value, _ = yield from self.link.ask(Op.READ_REG, words(address))
        return value

    def write_registers(self, *writes: tuple[int, int], once: bool = False) -> Steps[None]:
        """`(address, value)` pairs, in order. `once`: a write that must not be repeated or is not answered."""
        for address, value in writes:
            payload = words(address, value, 0xFFFFFFFF, 0)
            if once:
                yield from self.link.send(request(Op.WRITE_REG, payload))
            else:
                yield from self.link.ask(Op.WRITE_REG, payload)

    def flash_id(self) -> Steps[int]:
        """The JEDEC id, `manufacturer | type << 8 | capacity << 16`, by driving the SPI controller's registers."""
        spi = self.facts.spi
        usr, usr1, usr2 = spi.base + spi.usr, spi.base + spi.usr1, spi.base + spi.usr2
        saved_usr = yield from self.read_register(usr)
        saved_usr2 = yield from self.read_register(usr2)
        if spi.miso_length is None:
            length = (usr1, 23 << 8)
        else:
            length = (spi.base + spi.miso_length, 23)
        # bit 31: send a command, bit 28: read; 0x9F is "read identification", eight bits long; bit 18 starts it
        yield from self.write_registers(
            length, (usr, 1 << 31 | 1 << 28), (usr2, 7 << 28 | 0x9F), (spi.base + spi.w0, 0), (spi.command, 1 << 18)
        )
        for _ in range(10):
            if not (yield from self.read_register(spi.command)) & 1 << 18:
                break
        value = yield from self.read_register(spi.base + spi.w0)
        yield from self.write_registers((usr, saved_usr), (usr2, saved_usr2))
        return value & 0xFFFFFF

    # --- flash -------------------------------------------------------------------------------------------------------

    def attach(self, flash_size: int | None = None) -> Steps[None]:
        """Connect the loader to the flash chip and tell it the size where it wants to know."""
        raise NotImplementedError

    def md5(self, offset: int, size: int, *, work_s: float = 0.0) -> Steps[bytes]:
        """MD5 of a stretch of flash, 16 bytes. `work_s`: time that unfinished work may take before."""
        raise NotImplementedError

    def erase(self, offset: int, size: int) -> Steps[None]:
        """Erase whole sectors."""
        raise NotImplementedError

    def write(self, offset: int, content: bytes, meter: Meter | None = None) -> Steps[None]:
        """One transaction: erase and write. When it returns all was accepted; whether it is right a digest must tell.

        After an error `taken` says how many bytes of `content` can be in flash already.
        """
        raise NotImplementedError

    def write_first(self, offset: int, content: bytes, meter: Meter | None = None) -> Steps[None]:
        """As :meth:`write`, the first sector of an image: its header is programmed when all else is there.

        A ROM's checksum is one byte, so an image whose end is missing may pass for whole; without a header none does. A
        loader that can't program without erasing takes the sector in one transaction.
        """
        yield from self.write(offset, content, meter)

    def read(self, offset: int, size: int, meter: Meter | None = None) -> Steps[bytes]:
        """A stretch of flash."""
        raise NotImplementedError

    def holds(self, offset: int, content: bytes, *, work_s: float = 0.0) -> Steps[bool]:
        """Whether flash at `offset` is `content`, as the other side reads it now."""
        return (yield from self.md5(offset, len(content), work_s=work_s)) == _digest(content)

    def differing(self, offset: int, content: bytes) -> Steps[list[int]]:
        """Addresses of the sectors that do not hold what `content` says, by digests from coarse to fine: 64, 16, 4 KiB.

        A digest over everything would be computed once more for the blocks when it differs, and reading flash is what
        takes the chip's time; so only contents of more than 1 MiB begin with larger steps.
        """
        if len(content) <= 16 * BLOCK:
            return (yield from self._differing_blocks(offset, content))
        out: list[int] = []
        step = max(BLOCK, round_up(len(content) // 16, BLOCK))
        for at in range(0, len(content), step):
            piece = content[at : at + step]
            if not (yield from self._holds(offset + at, piece)):
                out += yield from self._differing_blocks(offset + at, piece)
        return out

    def _holds(self, offset: int, piece: bytes) -> Steps[bool]:
        expected = _digest(piece)
        if expected == self._expected:
            # The answer to the last question, coming twice, would pass as the answer to this one.
            yield from self.resync()
        self._expected = expected
        return (yield from self.md5(offset, len(piece))) == expected

    def _differing_blocks(self, offset: int, content: bytes) -> Steps[list[int]]:
        whole: list[int] = []
        thorough = True
        for at in range(0, len(content), BLOCK):
            piece = content[at : at + BLOCK]
            sectors = [offset + at + s for s in range(0, len(piece), SECTOR)]
            if not thorough:
                # A block differed in all of its sectors: this is other firmware. Where this block's last sector differs
                # as well, seventeen more digests would cost more than they could save.
                last = len(piece) - 1 - (len(piece) - 1) % SECTOR
                if not (yield from self._holds(offset + at + last, piece[last:])):
                    whole += sectors
                    continue
            if (yield from self._holds(offset + at, piece)):
                continue
            found: list[int] = []
            quarter = 4 * SECTOR
            for q in range(0, len(piece), quarter):
                part = piece[q : q + quarter]
                if len(piece) > quarter and (yield from self._holds(offset + at + q, part)):
                    continue
                for s in range(0, len(part), SECTOR):
                    sector = part[s : s + SECTOR]
                    if len(part) > SECTOR and (yield from self._holds(offset + at + q + s, sector)):
                        continue
                    found.append(offset + at + q + s)
            whole += found
            thorough = thorough and not (len(found) == len(sectors) == BLOCK // SECTOR)
        return whole

    # --- rate --------------------------------------------------------------------------------------------------------

    def change_rate(self, rate: int, reason: str) -> Steps[bool]:
        """Both sides to `rate`. False: that did not work, and the link runs at the old rate again.

        Raises :class:`LoaderSilent` when neither rate works any more: the board needs a reset.
        """
        link = self.link
        old = link.rate
        if rate == old:
            return True
        answered = True
        try:
            yield from link.exchange(request(Op.CHANGE_BAUDRATE, self._rate_payload(rate, old)))
        except LoaderSilent:
            answered = False
        except LoaderRefused:
            return False
        yield from link.set_rate(rate, reason)
        yield Wait(0.05)
        yield from link.drop_pending()
        if (yield from self._rate_works()):
            return True
        if not answered:
            yield from link.set_rate(old, "failed")
            if (yield from link.resync(4)):
                return False
            yield from link.set_rate(rate, reason)
        # The chip runs at the new rate, and hardly anything arrives: with luck one request to go back does.
        for _ in range(3):
            yield from link.send(request(Op.CHANGE_BAUDRATE, self._rate_payload(old, rate)))
            yield Wait(0.05)
            yield from link.set_rate(old, "failed")
            if (yield from link.resync(2)):
                return False
            yield from link.set_rate(rate, reason)
        yield from link.set_rate(old, "failed")
        raise LoaderSilent(Op.CHANGE_BAUDRATE, 1.0, link.heard)

    def _rate_works(self) -> Steps[bool]:
        # A SYNC may be lost on any link; answers that arrive damaged, or most of them missing, are the rate's doing.
        link = self.link
        answered = 0
        link.damaged = link.strays = 0
        for tried in range(1, 7):
            if (yield from link.sync_once()) is not None:
                answered += 1
            if link.damaged + link.strays:
                return False
            if answered >= 3 or (answered == tried == 2):
                yield from link.drain()
                return link.damaged + link.strays == 0
        return False

    def _rate_payload(self, new: int, old: int) -> bytes:
        return words(new, old)

    def resync(self) -> Steps[bool]:
        """After a loss: True when this loader, and no other, answers again."""
        answer = yield from self.link.resync()
        return answer is not None and self._is_me(answer.family)

    def _is_me(self, family: str) -> bool:
        raise NotImplementedError

    # --- leaving -----------------------------------------------------------------------------------------------------

    def start_application(self) -> Steps[None]:
        """Leave the loader without a reset line. Not answered; whether it worked the caller must find out."""
        raise NotImplementedError

    def prepare_reset(self) -> Steps[None]:
        """What must be done before the reset line is pulled, so that the application starts."""
        if self.facts.force_download is not None:
            yield from self.write_registers((self.facts.force_download, 0))

    def _reset_by_register(self) -> Steps[bool]:
        if self.facts.software_reset is not None:
            yield from self.write_registers(self.facts.software_reset, once=True)
            return True
        dog = self.facts.watchdog
        if dog is None or not dog.resets:
            return False
        # Stage 0 after 2000 slow-clock ticks resets the system: enable, stage action 5, pause in sleep, length field.
        yield from self.write_registers(
            (dog.protect, 0x50D83AA1), (dog.config + 4, 2000), (dog.config, 1 << 31 | 5 << 28 | 1 << 8 | 2)
        )
        yield from self.write_registers((dog.protect, 0), once=True)
        yield Wait(0.5)
        return True

    def _stream(self, packets: list[tuple[bytes, float, int]], meter: Meter | None) -> Steps[None]:
        """Send data requests one by one; each `(packet, work, bytes of content it stands for)`."""
        before = 0.0
        for packet, work, size in packets:
            for resend in range(CHECKSUM_RESENDS + 1):
                try:
                    yield from self.link.exchange(packet, work_s=max(before, self._floor_s))
                    break
                except LoaderRefused as error:
                    if error.error not in _CHECKSUM_ERRORS or resend == CHECKSUM_RESENDS:
                        raise
                    yield Note(Retried("block", "its checksum was wrong", resend + 1))
            self.taken += size
            before = work
            if meter is not None:
                yield from meter.add(size)

    _floor_s: float = FLASH_FLOOR_S


def _digest(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


class RomLoader(Loader):
    """The mask ROM's loader. The ESP8266's can write and no more; the later ones hash, and read 64 bytes a command."""

    kind = "rom"
    title = "boot ROM"

    def __init__(self, link: Link, facts: LoaderFacts) -> None:
        super().__init__(link, facts)
        self.can_hash = facts.rom_hash
        self.can_read = facts.rom_read
        self.can_change_rate = facts.rom_rate
        self.exact_erase = facts.image_header

    def _is_me(self, family: str) -> bool:
        return family == ("esp32" if self.facts.image_header else "esp8266")

    def attach(self, flash_size: int | None = None) -> Steps[None]:
        if not self.facts.image_header:
            yield from self._begin(0, 0, 0, 0)
            return
        yield from self.link.ask(Op.SPI_ATTACH, words(0, 0))
        if flash_size:
            yield from self.link.ask(Op.SPI_SET_PARAMS, words(0, flash_size, BLOCK, SECTOR, 256, 0xFFFF))

    def _begin(self, erase: int, blocks: int, offset: int, work: int) -> Steps[None]:
        payload = words(erase, blocks, ROM_FLASH_BLOCK, offset)
        if self.facts.chip.name not in ("esp8266", "esp32"):
            payload += words(0)  # not encrypted
        yield from self.link.ask(Op.FLASH_BEGIN, payload, work_s=FLASH_FLOOR_S + work * FLASH_WORK if work else 0.0)

    def md5(self, offset: int, size: int, *, work_s: float = 0.0) -> Steps[bytes]:
        if not self.can_hash:
            raise NeedsStub(self.chip_title, "compute digests of flash")
        _, text = yield from self.link.ask(
            Op.SPI_FLASH_MD5, words(offset, size, 0, 0), work_s=work_s + size * HASH_WORK, length=32
        )
        try:
            return bytes.fromhex(text.decode("ascii"))
        except ValueError:
            self.link.damaged += 1
            return b""

    def erase(self, offset: int, size: int) -> Steps[None]:
        for start, length in self._erasable(offset // SECTOR, size // SECTOR):
            yield from self._begin(self._erase_size(start, length), 0, start * SECTOR, length * SECTOR)

    def _erasable(self, start: int, count: int) -> list[tuple[int, int]]:
        """`(first sector, sectors)` of erasures that cover exactly the stretch asked for."""
        if self.exact_erase or _esp8266_erase(start, count)[1] == count:
            return [(start, count)]
        if count == 1:
            raise NeedsStub(self.chip_title, "erase a single sector without its neighbour")
        # Even numbers are exact; the last two overlap what was erased before, which does no harm.
        return [(start, count - 1), (start + count - 2, 2)]

    def _erase_size(self, start: int, count: int) -> int:
        return count * SECTOR if self.exact_erase else _esp8266_erase(start, count)[0] * SECTOR

    def write(self, offset: int, content: bytes, meter: Meter | None = None) -> Steps[None]:
        self.taken = 0
        if not self.exact_erase:
            yield from self.erase(offset, round_up(len(content), SECTOR))
            yield from self.program(offset, content, meter)
            return
        erase = round_up(len(content), SECTOR)
        yield from self._blocks(erase, offset, content, meter)

    def write_first(self, offset: int, content: bytes, meter: Meter | None = None) -> Steps[None]:
        # where single sectors can't be erased alone, all of the image was just before
        if self.exact_erase:
            yield from self.erase(offset, SECTOR)
        yield from self.program(offset + ROM_FLASH_BLOCK, content[ROM_FLASH_BLOCK:], meter)
        block = content[:ROM_FLASH_BLOCK]
        yield from self.program(offset, headless(block))
        yield from self.program(offset, block, meter)
        self.taken = len(content)

    def program(self, offset: int, content: bytes, meter: Meter | None = None) -> Steps[None]:
        """Write to flash that is erased already. A lost block is followed by a new start at that block.

        Programming the same bits again changes nothing, so this is safe whatever was lost.
        """
        self.taken = 0
        failures = 0
        while self.taken < len(content):
            before = self.taken
            try:
                yield from self._blocks(0, offset + self.taken, content[self.taken :], meter)
            except (LoaderSilent, LoaderRefused) as error:
                failures = failures + 1 if self.taken == before else 1
                yield Note(Retried("blocks", error.message, failures))
                if failures > 8:
                    raise GaveUp("write", failures, error.message) from error
                if not (yield from self.resync()):
                    raise

    def _blocks(self, erase: int, offset: int, content: bytes, meter: Meter | None) -> Steps[None]:
        content = content.ljust(round_up(len(content), ROM_FLASH_BLOCK), b"\xff")
        count = len(content) // ROM_FLASH_BLOCK
        yield from self._begin(erase, count, offset, erase)
        yield from self._stream(
            [
                (
                    data_request(Op.FLASH_DATA, content[n * ROM_FLASH_BLOCK : (n + 1) * ROM_FLASH_BLOCK], n),
                    0.0,
                    ROM_FLASH_BLOCK,
                )
                for n in range(count)
            ],
            meter,
        )

    # The ROM writes before it answers: a block of 1 KiB is four pages.
    _floor_s = 0.1

    def read(self, offset: int, size: int, meter: Meter | None = None) -> Steps[bytes]:
        if not self.can_read:
            raise NeedsStub(self.chip_title, "read flash")
        out = bytearray()
        while len(out) < size:
            part = min(SECTOR, size - len(out))
            for attempt in range(4):
                piece = bytearray()
                while len(piece) < part:
                    at = offset + len(out) + len(piece)
                    _, some = yield from self.link.ask(Op.READ_FLASH_SLOW, words(at, ROM_READ), length=ROM_READ)
                    piece += some
                del piece[part:]
                if (yield from self.md5(offset + len(out), part)) == _digest(bytes(piece)):
                    break
                yield Note(Retried("read", "its digest was wrong", attempt + 1))
            else:
                raise GaveUp("read", 4, "digest differs")
            out += piece
            if meter is not None:
                yield from meter.add(part)
        return bytes(out)

    def _rate_payload(self, new: int, old: int) -> bytes:
        return words(new, 0)

    def start_application(self) -> Steps[None]:
        if self.facts.image_header:
            if (yield from self._reset_by_register()):
                return
        yield from self._begin(0, 0, 0, 0)
        yield from self.link.send(request(Op.FLASH_END, words(1)))

    def upload(self, payload: StubPayload) -> Steps[StubLoader]:
        """Put a stub into RAM and start it. Raises :class:`StubNotStarted`, or what the ROM answered."""
        yield from self._to_ram(payload.text_start, payload.text)
        if payload.data:
            yield from self._to_ram(payload.data_start, payload.data)
        link = self.link
        for _ in range(3):
            link.forget_heard()
            yield from link.send(request(Op.MEM_END, words(0, payload.entry)))
            limit = link.allowance()
            start: float = yield Now()
            now = start
            while now - start < limit:
                packet = yield from link.next_packet(start + limit - now)
                if packet == _REPORT:
                    link.status_length = 2
                    return StubLoader(link, self.facts)
                if packet is None:
                    break
                now = yield Now()
            # The report can be lost, or its first byte while clocks change: who answers now?
            answer = yield from link.resync(4)
            if answer is not None and answer.family == "stub":
                return StubLoader(link, self.facts)
            if answer is None:
                break
        raise StubNotStarted(link.heard)

    def _to_ram(self, address: int, content: bytes) -> Steps[None]:
        at = 0
        failures = 0
        while at < len(content):
            left = content[at:]
            count = -(-len(left) // ROM_RAM_BLOCK)
            yield from self.link.ask(Op.MEM_BEGIN, words(len(left), count, ROM_RAM_BLOCK, address + at))
            for n in range(count):
                block = left[n * ROM_RAM_BLOCK : (n + 1) * ROM_RAM_BLOCK]
                try:
                    yield from self.link.exchange(data_request(Op.MEM_DATA, block, n))
                except (LoaderSilent, LoaderRefused) as error:
                    failures += 1
                    yield Note(Retried("stub", error.message, failures))
                    # Blocks that were answered are in place: go on from this one with a new start.
                    if failures > 12 or not (yield from self.resync()):
                        raise
                    break
                at += len(block)


def _esp8266_erase(start: int, count: int) -> tuple[int, int]:
    """`(sectors to ask for, sectors erased)` so that the ESP8266's ROM erases at least `count` from `start` on.

    Its SPIEraseArea erases the sectors up to the next 64 KiB border and then, without taking them off, the whole count
    once more: asked for s with `head` sectors before the border, it erases 2 s if s <= head, else s + head.
    """
    head = 16 - start % 16
    if count > 2 * head:
        return count - head, count
    return (count + 1) // 2, (count + 1) // 2 * 2


class StubLoader(Loader):
    """Espressif's flasher stub in RAM (second generation; its block status arrives with the *next* answer)."""

    kind = "stub"
    title = "Espressif's flasher stub"

    def _is_me(self, family: str) -> bool:
        return family == "stub"

    def write_registers(self, *writes: tuple[int, int], once: bool = False) -> Steps[None]:
        payload = b"".join(words(address, value, 0xFFFFFFFF, 0) for address, value in writes)
        if once:
            yield from self.link.send(request(Op.WRITE_REG, payload))
        else:
            yield from self.link.ask(Op.WRITE_REG, payload)

    def attach(self, flash_size: int | None = None) -> Steps[None]:
        yield from self.link.ask(Op.SPI_ATTACH, words(0))
        if flash_size:
            yield from self.link.ask(Op.SPI_SET_PARAMS, words(0, flash_size, BLOCK, SECTOR, 256, 0xFFFF))

    def md5(self, offset: int, size: int, *, work_s: float = 0.0) -> Steps[bytes]:
        _, digest = yield from self.link.ask(
            Op.SPI_FLASH_MD5, words(offset, size, 0, 0), work_s=work_s + size * HASH_WORK, length=16
        )
        return digest

    def erase(self, offset: int, size: int) -> Steps[None]:
        yield from self.link.ask(
            Op.ERASE_REGION, words(offset, size), work_s=FLASH_FLOOR_S + size * FLASH_WORK, attempts=3
        )

    def erase_chip(self) -> Steps[None]:
        """Erase all of the flash with the chip's own command."""
        yield from self.link.ask(Op.ERASE_FLASH, work_s=CHIP_ERASE_S, attempts=2)

    def write(self, offset: int, content: bytes, meter: Meter | None = None) -> Steps[None]:
        self.taken = 0
        content = content.ljust(round_up(len(content), 4), b"\xff")
        stream = zlib.compress(content, 9)
        if len(stream) < len(content):
            begin, op = Op.FLASH_DEFL_BEGIN, Op.FLASH_DEFL_DATA
            blocks = [stream[i : i + STUB_FLASH_BLOCK] for i in range(0, len(stream), STUB_FLASH_BLOCK)]
            reader = zlib.decompressobj()
            sizes = [len(reader.decompress(b)) for b in blocks]
        else:
            begin, op = Op.FLASH_BEGIN, Op.FLASH_DATA
            blocks = [content[i : i + STUB_FLASH_BLOCK] for i in range(0, len(content), STUB_FLASH_BLOCK)]
            sizes = [len(b) for b in blocks]
            blocks[-1] = blocks[-1].ljust(STUB_FLASH_BLOCK, b"\xff")
        yield from self.link.ask(
            begin, words(len(content), len(blocks), STUB_FLASH_BLOCK, offset), work_s=FLASH_FLOOR_S
        )
        yield from self._stream(
            [
                (data_request(op, block, n), FLASH_FLOOR_S + size * FLASH_WORK, size)
                for n, (block, size) in enumerate(zip(blocks, sizes, strict=True))
            ],
            meter,
        )

    def read(self, offset: int, size: int, meter: Meter | None = None) -> Steps[bytes]:
        out = bytearray()
        failures = 0
        part = size
        while len(out) < size:
            piece, whole = yield from self._read_part(offset + len(out), min(part, size - len(out)), meter)
            if whole:
                out += piece
                failures = max(0, failures - 1)
                continue
            failures += 1
            if failures > 12:
                raise GaveUp("read", failures, "packets are lost or damaged")
            yield Note(Retried("read", "a packet was lost or damaged", failures))
            if not (yield from self.resync()):
                raise LoaderSilent(Op.READ_FLASH, 1.0, self.link.heard)
            part = max(SECTOR, min(part, 0x40000) // 4)
            if piece and (yield from self.md5(offset + len(out), len(piece))) == _digest(piece):
                out += piece
        return bytes(out)

    def _read_part(self, offset: int, size: int, meter: Meter | None) -> Steps[tuple[bytes, bool]]:
        """`(bytes, True)` with a right digest, else what arrived before something went wrong, and False."""
        link = self.link
        pieces: list[bytes] = []
        got = 0
        try:
            yield from link.exchange(request(Op.READ_FLASH, words(offset, size, READ_PACKET, 1)))
        except LoaderSilent:
            return b"", False
        while got < size:
            length = min(READ_PACKET, size - got)
            packet = yield from link.next_packet(link.allowance(size=length), length + 2)
            if packet is None or len(packet) != length:
                link.damaged += 1
                return b"".join(pieces), False
            pieces.append(packet)
            got += length
            yield from link.send(words(got))
            if meter is not None:
                yield from meter.add(length)
        content = b"".join(pieces)
        digest = yield from link.next_packet(link.allowance(size * HASH_WORK), 18)
        return content, digest == _digest(content)

    def start_application(self) -> Steps[None]:
        yield from self._reset_by_register()


def headless(content: bytes) -> bytes:
    """An image's first bytes with the header left blank: programming the whole over it only adds the header."""
    return b"\xff" * min(HEAD, len(content)) + content[HEAD:]


def loader_problem_is_loss(error: LoaderProblem) -> bool:
    """True for failures that a new start may cure."""
    return isinstance(error, (LoaderSilent, LoaderRefused, GaveUp))


def parse_security(body: bytes) -> tuple[int, int, int | None]:
    """`(flags, crypt count, chip id or None)` from GET_SECURITY_INFO's 12 or 20 bytes."""
    flags, crypt = struct.unpack_from("<IB", body)
    chip_id = struct.unpack_from("<I", body, 12)[0] if len(body) >= 20 else None
    return flags, crypt, chip_id
