"""The registers that a loader command can reach: plain words, the SPI controller, fuses, and what is computed.

Pure. Reading an address nobody gave a meaning gives the last word written there, at first 0.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from espmon.board.machine import Machine
from espmon.board.nor import NorFlash
from espmon.board.silicon import SpiRegisters

DEFAULT_MACS = {"esp8266": "5c:cf:7f:e5:90:01"}
COMMON_MAC = "24:6f:28:e5:90:01"
USR = 1 << 18  # SPI_CMD: run what the USER registers describe
SFDP = struct.pack("<4sBBBBBBBBBBBB", b"SFDP", 6, 1, 0, 0xFF, 0, 6, 1, 16, 0x30, 0, 0, 0xFF)  # one table, at 0x30


def mac_bytes(text: str, chip: str) -> bytes:
    """Six bytes of a MAC address, the chip's default one when `text` is empty or no address."""
    for candidate in (text, DEFAULT_MACS.get(chip, COMMON_MAC)):
        try:
            mac = bytes(int(part, 16) for part in candidate.split(":"))
        except ValueError:
            continue
        if len(mac) == 6:
            return mac
    raise AssertionError("a default MAC is wrong")


class SpiPort:
    """The flash's side of the SPI controller: one command at a time, as the USER registers describe it."""

    def __init__(self, registers: SpiRegisters, flash: NorFlash) -> None:
        self.at = registers
        self.flash = flash
        self.enabled = False  # write enable latch

    def run(self, words: dict[int, int]) -> float:
        """Run the command that `words` (absolute addresses) describe, put its answer into W0...; returns seconds."""
        r = self.at
        usr = words.get(r.base + r.usr, 0)
        usr1 = words.get(r.base + r.usr1, 0)
        opcode = words.get(r.base + r.usr2, 0) & 0xFF
        if r.miso_len is None or r.mosi_len is None:
            out_bits, in_bits = (usr1 >> 17 & 0x1FF) + 1, (usr1 >> 8 & 0x1FF) + 1
        else:
            out_bits = (words.get(r.base + r.mosi_len, 0) & 0x3FF) + 1
            in_bits = (words.get(r.base + r.miso_len, 0) & 0x3FF) + 1
        address = 0
        if usr >> 30 & 1:
            length = (usr1 >> 26) + 1
            address = words.get(r.base + 4, 0)
            address = address >> (32 - length) if r.address_high else address & ((1 << length) - 1)
        given = b"".join(struct.pack("<I", words.get(r.base + r.w0 + 4 * i, 0)) for i in range(16))
        given = given[: out_bits // 8] if usr >> 27 & 1 else b""
        answer, seconds = self.command(opcode, address, given, in_bits // 8 if usr >> 28 & 1 else 0)
        if usr >> 28 & 1:
            answer = answer.ljust(64, b"\0")
            for i in range(16):
                words[r.base + r.w0 + 4 * i] = int.from_bytes(answer[4 * i : 4 * i + 4], "little")
        return seconds

    def command(self, opcode: int, address: int, given: bytes, want: int) -> tuple[bytes, float]:
        """One SPI NOR command: (answer, seconds that the part is busy)."""
        flash = self.flash
        if not flash.present:
            return flash.id.to_bytes(3, "little")[:1] * want, 0.0
        if opcode == 0x9F:
            return flash.id.to_bytes(3, "little").ljust(want, b"\0")[:want], 0.0
        if opcode == 0x05:
            return bytes([flash.status & 0xFC | self.enabled << 1]) * want, 0.0
        if opcode in (0x35, 0x15):
            return b"\0" * want, 0.0
        if opcode == 0x06:
            self.enabled = True
            return b"", 0.0
        if opcode == 0x04:
            self.enabled = False
            return b"", 0.0
        if opcode == 0x5A:
            bits = struct.pack("<II", 0xFFF120E5, flash.claimed * 8 - 1)  # second word: density in bits minus 1
            table = SFDP.ljust(0x30, b"\xff") + bits.ljust(64, b"\xff")
            return table[address : address + want].ljust(want, b"\xff"), 0.0
        if opcode in (0x03, 0x0B):
            return flash.read(address, want), 0.0
        if opcode in (0x02, 0x20, 0x52, 0xD8, 0xC7, 0x60, 0x01):
            if not self.enabled:
                return b"", 0.0
            self.enabled = False
            if opcode == 0x02:
                return b"", flash.program(address, given)
            if opcode == 0x20:
                return b"", flash.erase_sector(address)
            if opcode == 0x52:
                return b"", flash.erase_half_block(address)
            if opcode == 0xD8:
                return b"", flash.erase_block(address)
            if opcode == 0x01:
                flash.status = given[0] if given else 0
                return b"", 0.005
            return b"", flash.erase_chip()
        return b"\0" * want, 0.0  # reset, power down, release, vendor modes


class Registers:
    """Words by address, with the few that mean something to the loader's user."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        silicon, settings = machine.silicon, machine.settings
        self.spi = SpiPort(silicon.spi, machine.flash)
        self.words: dict[int, int] = dict(silicon.fixed_registers)
        self.busy = 0.0  # seconds that the last write keeps the flash busy
        self.watchdog = False  # the RTC watchdog was armed
        self._computed: dict[int, Callable[[], int]] = {}
        self.words[0x40001000] = silicon.magic
        mac = mac_bytes(settings.mac, silicon.chip.name)
        if silicon.mac_registers is None:
            self.words[0x3FF00050] = mac[5] << 24
            self.words[0x3FF00054] = mac[3] << 8 | mac[4]
            self.words[0x3FF00058] = 0x00008000
            self.words[0x3FF0005C] = int.from_bytes(mac[:3], "big")
        else:
            low, high = silicon.mac_registers
            self.words[low] = int.from_bytes(mac[2:], "big")
            self.words[high] = int.from_bytes(mac[:2], "big") | self.words.get(high, 0) & 0xFFFF0000
        if settings.encryption and silicon.crypt_count:
            address, bits = silicon.crypt_count
            self.words[address] = self.words.get(address, 0) | bits
        if settings.secure_boot and silicon.secure_boot:
            address, bits = silicon.secure_boot
            self.words[address] = self.words.get(address, 0) | bits
        if silicon.clkdiv is not None:
            clock = machine.xtal * 1e6 * (2 if silicon.chip.name == "esp8266" else 1)
            self._computed[silicon.clkdiv] = lambda: round(clock / machine.rate)

    def read(self, address: int) -> int:
        """The 32-bit word at `address`."""
        computed = self._computed.get(address)
        return computed() if computed else self.words.get(address & ~3, 0)

    def write(self, address: int, value: int, mask: int = 0xFFFFFFFF) -> None:
        """Set the bits of `mask`. Starting the SPI controller runs its command at once; `busy` tells how long it takes."""
        self.busy = 0.0
        address &= ~3
        value = self.words.get(address, 0) & ~mask | value & mask
        base = self.machine.silicon.spi.base
        if address == base and value & USR:
            self.busy = self.spi.run(self.words)
            value &= ~USR
        elif address == base and self.machine.silicon.chip.name == "esp8266":
            # the ESP8266's ready-made commands
            w0 = base + self.machine.silicon.spi.w0
            if value >> 28 & 1:
                self.words[w0] = self.machine.flash.id
            elif value >> 27 & 1:
                self.words[base + 8] = self.spi.command(0x05, 0, b"", 1)[0][0]
            elif value >> 30 & 1:
                self.spi.enabled = True
            value = 0
        self.words[address] = value
        if address == self.machine.silicon.watchdog_config and value >> 31:
            self.watchdog = True
