"""What a boot loader client must know of each chip: registers, fuses, detection, what its ROM can do.

Register addresses are from Espressif's technical reference manuals. One literal per chip, by the names of
:mod:`espmon.chips`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from espmon import chips
from espmon.chips import Chip

# Word in ROM that differs between the chips that have no GET_SECURITY_INFO.
MAGIC_ADDRESS = 0x40001000
# "Writing allowed" key of the watchdog registers, the same on all chips.
WATCHDOG_KEY = 0x50D83AA1


@dataclass(frozen=True, slots=True, kw_only=True)
class SpiRegisters:
    """The SPI controller that flash hangs on: `base` and offsets; lengths stand in USR1 on the ESP8266 only."""

    base: int
    usr: int
    usr1: int
    usr2: int
    w0: int
    miso_length: int | None = None

    @property
    def command(self) -> int:
        """The command register is the first."""
        return self.base


@dataclass(frozen=True, slots=True, kw_only=True)
class Watchdog:
    """RTC watchdog (`protect`, `config`) and super watchdog (`super_*`) registers; `resets`: usable to reset the chip."""

    protect: int
    config: int
    super_protect: int | None = None
    super_config: int | None = None
    super_key: int = WATCHDOG_KEY
    resets: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderFacts:
    """One chip's loader.

    `magics`: values of the word at 0x40001000. `mac`: address of its low word (None: ESP8266's own scheme).
    `crypt`, `secure_boot`: fuse register and mask; an odd number of set bits in the first means encrypted flash.
    `rom_*`: what the ROM can do without a stub. `force_download`: register whose bit 0 keeps the chip in download mode.
    `software_reset`: register and value whose writing resets the chip.
    """

    chip: Chip
    spi: SpiRegisters
    magics: tuple[int, ...] = ()
    mac: int | None = None
    crypt: tuple[int, int] | None = None
    secure_boot: tuple[int, int] | None = None
    watchdog: Watchdog | None = None
    usb_jtag: bool = False
    usb_otg: bool = False
    rom_hash: bool = True
    rom_read: bool = True
    rom_rate: bool = True
    rom_rate_scale: tuple[int, int] | None = None
    force_download: int | None = None
    software_reset: tuple[int, int] | None = None
    stub_names: tuple[str, ...] = ()

    @property
    def image_header(self) -> bool:
        """True for the family whose images have the extended header: everything but the ESP8266."""
        return self.chip.image_chip_id is not None

    @property
    def stubs(self) -> tuple[str, ...]:
        """Names of the stub payloads to try, in order."""
        return self.stub_names or (self.chip.name,)


def _new_spi(base: int) -> SpiRegisters:
    return SpiRegisters(base=base, usr=0x18, usr1=0x1C, usr2=0x20, w0=0x58, miso_length=0x28)


def _fuses(block: int, crypt_mask: int, boot_mask: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return (block, crypt_mask), (block + 4, boot_mask)


_LP_WATCHDOG = Watchdog(
    protect=0x600B1C18, config=0x600B1C00, super_protect=0x600B1C20, super_config=0x600B1C1C, resets=True
)
_C2_CRYPT, _C2_BOOT = (0x60008830, 0x380), (0x60008830, 0x200000)
_C3_CRYPT, _C3_BOOT = _fuses(0x60008834, 0x1C0000, 0x100000)
_S2_CRYPT, _S2_BOOT = _fuses(0x3F41A034, 0x1C0000, 0x100000)
_S3_CRYPT, _S3_BOOT = _fuses(0x60007034, 0x1C0000, 0x100000)
_C5_CRYPT, _C5_BOOT = _fuses(0x600B4834, 0x70000, 0x2000000)
_C6_CRYPT, _C6_BOOT = _fuses(0x600B0834, 0x1C0000, 0x100000)
_C61_CRYPT, _C61_BOOT = _fuses(0x600B4830, 0x3800000, 0x4000000)
_P4_CRYPT, _P4_BOOT = _fuses(0x5012D034, 0x1C0000, 0x100000)

LOADERS: Mapping[str, LoaderFacts] = {
    f.chip.name: f
    for f in (
        LoaderFacts(
            chip=chips.ESP8266,
            spi=SpiRegisters(base=0x60000200, usr=0x1C, usr1=0x20, usr2=0x24, w0=0x40),
            magics=(0xFFF0C101,),
            rom_hash=False,
            rom_read=False,
            rom_rate=False,
            # RTC_CTL: bit 31 is the software reset
            software_reset=(0x60000700, 1 << 31),
        ),
        LoaderFacts(
            chip=chips.ESP32,
            spi=SpiRegisters(base=0x3FF42000, usr=0x1C, usr1=0x20, usr2=0x24, w0=0x80, miso_length=0x2C),
            magics=(0x00F01D83,),
            mac=0x3FF5A004,
            crypt=(0x3FF5A000, 0x7F00000),
            secure_boot=(0x3FF5A018, 0x30),
            # RTC_CNTL_OPTIONS0: SW_SYS_RST
            software_reset=(0x3FF48000, 1 << 31),
        ),
        LoaderFacts(
            chip=chips.ESP32S2,
            spi=_new_spi(0x3F402000),
            magics=(0x000007C6,),
            mac=0x3F41A044,
            crypt=_S2_CRYPT,
            secure_boot=_S2_BOOT,
            watchdog=Watchdog(protect=0x3F4080AC, config=0x3F408094, resets=True),
            usb_otg=True,
            force_download=0x3F408128,
        ),
        LoaderFacts(
            chip=chips.ESP32S3,
            spi=_new_spi(0x60002000),
            magics=(0x00000009,),
            mac=0x60007044,
            crypt=_S3_CRYPT,
            secure_boot=_S3_BOOT,
            watchdog=Watchdog(
                protect=0x600080B0,
                config=0x60008098,
                super_protect=0x600080B8,
                super_config=0x600080B4,
                super_key=0x8F1D312A,
                resets=True,
            ),
            usb_jtag=True,
            usb_otg=True,
            force_download=0x6000812C,
        ),
        LoaderFacts(
            chip=chips.ESP32C2,
            spi=_new_spi(0x60002000),
            magics=(0x6F51306F, 0x7C41A06F, 0x0C21E06F),
            mac=0x60008840,
            crypt=_C2_CRYPT,
            secure_boot=_C2_BOOT,
            watchdog=Watchdog(
                protect=0x6000809C,
                config=0x60008084,
                super_protect=0x600080B0,
                super_config=0x600080AC,
                super_key=0x8F1D312A,
                resets=True,
            ),
            rom_rate_scale=(40, 26),
        ),
        LoaderFacts(
            chip=chips.ESP32C3,
            spi=_new_spi(0x60002000),
            magics=(0x6921506F, 0x1B31506F, 0x4881606F, 0x4361606F),
            mac=0x60008844,
            crypt=_C3_CRYPT,
            secure_boot=_C3_BOOT,
            watchdog=Watchdog(
                protect=0x600080A8,
                config=0x60008090,
                super_protect=0x600080B0,
                super_config=0x600080AC,
                super_key=0x8F1D312A,
                resets=True,
            ),
            usb_jtag=True,
        ),
        LoaderFacts(
            chip=chips.ESP32C5,
            spi=_new_spi(0x60003000),
            magics=(0x1101406F, 0x63E1406F, 0x5FD1406F),
            mac=0x600B4844,
            crypt=_C5_CRYPT,
            secure_boot=_C5_BOOT,
            watchdog=_LP_WATCHDOG,
            usb_jtag=True,
            rom_rate_scale=(40, 48),
        ),
        LoaderFacts(
            chip=chips.ESP32C6,
            spi=_new_spi(0x60003000),
            magics=(0x2CE0806F,),
            mac=0x600B0844,
            crypt=_C6_CRYPT,
            secure_boot=_C6_BOOT,
            # Espressif switched the watchdog reset off on this chip: it can freeze until the next power cycle.
            watchdog=Watchdog(
                protect=0x600B1C18, config=0x600B1C00, super_protect=0x600B1C20, super_config=0x600B1C1C, resets=False
            ),
            usb_jtag=True,
        ),
        LoaderFacts(
            chip=chips.ESP32C61,
            spi=_new_spi(0x60003000),
            magics=(0x2421606F, 0x33F0206F, 0x4F81606F, 0x7211606F),
            mac=0x600B4844,
            crypt=_C61_CRYPT,
            secure_boot=_C61_BOOT,
            watchdog=_LP_WATCHDOG,
            usb_jtag=True,
        ),
        LoaderFacts(
            chip=chips.ESP32H2,
            spi=_new_spi(0x60003000),
            magics=(0xD7B73E80, 0x97E30068),
            mac=0x600B0844,
            crypt=_C6_CRYPT,
            secure_boot=_C6_BOOT,
            watchdog=Watchdog(
                protect=0x600B1C1C, config=0x600B1C00, super_protect=0x600B1C24, super_config=0x600B1C20, resets=False
            ),
            usb_jtag=True,
        ),
        LoaderFacts(
            chip=chips.ESP32P4,
            spi=_new_spi(0x5008D000),
            magics=(0x0ADDBAD0, 0x07039AD9),
            mac=0x5012D044,
            crypt=_P4_CRYPT,
            secure_boot=_P4_BOOT,
            watchdog=Watchdog(
                protect=0x50116018, config=0x50116000, super_protect=0x50116020, super_config=0x5011601C, resets=True
            ),
            usb_jtag=True,
            usb_otg=True,
            # revisions before 3.0 need a stub of their own
            stub_names=("esp32p4", "esp32p4-rev1"),
        ),
    )
}


def by_chip_id(chip_id: int) -> LoaderFacts | None:
    """The chip whose security answer carries this id."""
    return next((f for f in LOADERS.values() if f.chip.image_chip_id == chip_id), None)


def by_magic(value: int) -> LoaderFacts | None:
    """The chip whose ROM has this word at 0x40001000."""
    return next((f for f in LOADERS.values() if value in f.magics), None)
