"""What the virtual board must know of each chip's silicon: ROM texts, straps, register addresses.

Facts from technical reference manuals, ROM strings and logs of real boards. Registers as esptool reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from espmon.chips import CHIPS, Chip


@dataclass(frozen=True, slots=True, kw_only=True)
class SpiRegisters:
    """Offsets of the SPI controller's registers from `base`; `short`: the ESP8266 layout without length registers."""

    base: int
    usr: int = 0x18
    usr1: int = 0x1C
    usr2: int = 0x20
    mosi_len: int | None = 0x24
    miso_len: int | None = 0x28
    w0: int = 0x58
    address_high: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Silicon:
    """One chip as the virtual board builds it.

    `banner`: the ROM's first lines up to the reset line. `reset_names`: code -> name as this ROM prints it.
    `boot_flash`/`boot_download`: (strap value, mode name) of a normal start and of download mode. `boot_pin`: the pin
    that selects them. `watchdog_config`: the RTC watchdog's first register. `mac_registers`: addresses of (low word, high word) of the MAC. `magic`: the word at 0x40001000.
    `status_length`: bytes of status at the end of a ROM loader reply. `refuses_security_info`: the ROM does not know
    that command. `stub_entries`: entry addresses of known flasher stubs.
    """

    chip: Chip
    banner: str
    reset_names: Mapping[int, str]
    boot_flash: tuple[int, str]
    boot_download: tuple[int, str]
    boot_pin: str
    spi: SpiRegisters
    clkdiv: int | None
    mac_registers: tuple[int, int] | None
    magic: int = 0
    status_length: int = 4
    security_info_length: int = 20
    usb_jtag: bool = False
    xtal: int = 40
    rom_baud: float = 115200.0
    saved_pc: bool = False
    spiwp: bool = True
    spi_prefix: str = ""
    load_len: str = "0x{:x}"
    fixed_registers: Mapping[int, int] = field(default_factory=dict)
    secure_boot: tuple[int, int] | None = None
    crypt_count: tuple[int, int] | None = None
    watchdog_config: int | None = None


_OLD_RESETS = {
    1: "POWERON_RESET",
    3: "SW_RESET",
    4: "OWDT_RESET",
    5: "DEEPSLEEP_RESET",
    6: "SDIO_RESET",
    7: "TG0WDT_SYS_RESET",
    8: "TG1WDT_SYS_RESET",
    9: "RTCWDT_SYS_RESET",
    0xA: "INTRUSION_RESET",
    0xB: "TGWDT_CPU_RESET",
    0xC: "SW_CPU_RESET",
    0xD: "RTCWDT_CPU_RESET",
    0xE: "EXT_CPU_RESET",
    0xF: "RTCWDT_BROWN_OUT_RESET",
    0x10: "RTCWDT_RTC_RESET",
}
_RTC_RESETS = {
    1: "POWERON",
    3: "RTC_SW_SYS_RST",
    5: "DSLEEP",
    7: "TG0WDT_SYS_RST",
    8: "TG1WDT_SYS_RST",
    9: "RTCWDT_SYS_RST",
    0xB: "TG0WDT_CPU_RST",
    0xC: "RTC_SW_CPU_RST",
    0xD: "RTCWDT_CPU_RST",
    0xF: "BROWNOUT_RST",
    0x10: "RTCWDT_RTC_RST",
    0x11: "TG1WDT_CPU_RST",
    0x12: "SUPER_WDT_RST",
    0x13: "GLITCH_RTC_RST",
    0x14: "EFUSE_RST",
    0x15: "USB_UART_CHIP_RESET",
    0x16: "USB_JTAG_CHIP_RESET",
    0x17: "POWER_GLITCH_RESET",
}
_LP_RESETS = {
    1: "POWERON",
    3: "LP_SW_HPSYS",
    5: "SLEEP_WAKEUP",
    6: "SDIO_HPSYS",
    7: "TG0_WDT_HPSYS",
    8: "TG1_WDT_HPSYS",
    9: "LP_WDT_HPSYS",
    0xB: "TG0_WDT_CPU",
    0xC: "SW_CPU",
    0xD: "LP_WDT_CPU",
    0xF: "LP_BOD_SYS",
    0x10: "LP_WDT_SYS",
    0x11: "TG1_WDT_CPU",
    0x12: "LP_SWDT_SYS",
    0x14: "EFUSE_HPSYS",
    0x15: "USB_UART_HPSYS",
    0x16: "USB_JTAG_HPSYS",
    0x18: "JTAG_CPU",
}
_RTC_HP_RESETS = _LP_RESETS | {
    3: "RTC_SW_HPSYS",
    9: "RTC_WDT_HPSYS",
    0xD: "RTC_WDT_CPU",
    0x10: "RTC_WDT_SYS",
    0x12: "RTC_SWDT_SYS",
    0x17: "RTC_PWR_GLITCH",
}
_P4_RESETS = {
    1: "POWERON",
    3: "SW_SYS_RESET",
    5: "PMU_SYS_PWR_DOWN_RESET",
    7: "HP_SYS_HP_WDT_RESET",
    9: "HP_SYS_LP_WDT_RESET",
    0xB: "HP_CORE_HP_WDT_RESET",
    0xC: "SW_CPU_RESET",
    0xD: "HP_CORE_LP_WDT_RESET",
    0xF: "BROWN_OUT_RESET",
    0x10: "CHIP_LP_WDT_RESET",
    0x12: "SUPER_WDT_RESET",
    0x13: "GLITCH_RTC_RESET",
    0x14: "EFUSE_CRC_ERR_RESET",
    0x16: "CHIP_USB_JTAG_RESET",
    0x17: "CHIP_USB_UART_RESET",
    0x18: "HP_JTAG_RESET",
    0x1A: "CPU_LOCKUP_RESET",
}


def _rom(name: str, build: str) -> str:
    return f"ESP-ROM:{name}\r\nBuild:{build}\r\n"


SILICON: Mapping[str, Silicon] = {
    s.chip.name: s
    for s in (
        Silicon(
            chip=CHIPS["esp8266"],
            banner="\r\n ets Jan  8 2013,rst cause:{cause}, boot mode:({strap},{sdio})\r\n\r\n",
            reset_names={},
            boot_flash=(3, ""),
            boot_download=(1, ""),
            boot_pin="GPIO0",
            spi=SpiRegisters(
                base=0x60000200,
                usr=0x1C,
                usr1=0x20,
                usr2=0x24,
                mosi_len=None,
                miso_len=None,
                w0=0x40,
                address_high=True,
            ),
            clkdiv=0x60000014,
            mac_registers=None,
            magic=0xFFF0C101,
            status_length=2,
            xtal=26,
            rom_baud=52_000_000 / 694,  # 74928: what the ROM's divider gives with a 26 MHz crystal
            fixed_registers={0x60000078: 0x00062000},
        ),
        Silicon(
            chip=CHIPS["esp32"],
            banner="ets Jul 29 2019 12:21:46\r\n\r\n",
            reset_names=_OLD_RESETS,
            boot_flash=(0x13, "SPI_FAST_FLASH_BOOT"),
            boot_download=(0x3, "DOWNLOAD_BOOT(UART0/UART1/SDIO_REI_REO_V2)"),
            boot_pin="GPIO0",
            spi=SpiRegisters(
                base=0x3FF42000,
                usr=0x1C,
                usr1=0x20,
                usr2=0x24,
                mosi_len=0x28,
                miso_len=0x2C,
                w0=0x80,
                address_high=True,
            ),
            clkdiv=0x3FF40014,
            mac_registers=(0x3FF5A004, 0x3FF5A008),
            magic=0x00F01D83,
            load_len="{}",
            # chip revision 3.0: efuse bits of v1 and v2, and the APB register that repeats the latter
            fixed_registers={
                0x60000078: 0x15122500,
                0x3FF5A00C: 0x00008000,
                0x3FF5A014: 0x00100000,
                0x3FF6607C: 0x80000000,
            },
            crypt_count=(0x3FF5A000, 0x00100000),
            secure_boot=(0x3FF5A018, 0x20),
        ),
        Silicon(
            chip=CHIPS["esp32s2"],
            banner=_rom("esp32s2-rc4-20191025", "Oct 25 2019"),
            reset_names=_RTC_RESETS | {0xF: "BROWN_OUT_RST"},
            boot_flash=(0x8, "SPI_FAST_FLASH_BOOT"),
            boot_download=(0x0, "DOWNLOAD(USB/UART0)"),
            boot_pin="GPIO0",
            spi=SpiRegisters(base=0x3F402000),
            clkdiv=0x3F400014,
            mac_registers=(0x3F41A044, 0x3F41A048),
            magic=0x000007C6,
            security_info_length=12,
            crypt_count=(0x3F41A034, 0x40000),
            watchdog_config=0x3F408094,
            secure_boot=(0x3F41A038, 0x100000),
        ),
        Silicon(
            chip=CHIPS["esp32s3"],
            banner=_rom("esp32s3-20210327", "Mar 27 2021"),
            reset_names=_RTC_RESETS,
            boot_flash=(0x8, "SPI_FAST_FLASH_BOOT"),
            boot_download=(0x0, "DOWNLOAD(USB/UART0)"),
            boot_pin="GPIO0",
            spi=SpiRegisters(base=0x60002000),
            clkdiv=0x60000014,
            mac_registers=(0x60007044, 0x60007048),
            magic=0x9,
            usb_jtag=True,
            saved_pc=True,
            crypt_count=(0x60007034, 0x40000),
            watchdog_config=0x60008098,
            secure_boot=(0x60007038, 0x100000),
        ),
        Silicon(
            chip=CHIPS["esp32c2"],
            banner=_rom("esp8684-api2-20220127", "Jan 27 2022"),
            reset_names=_RTC_RESETS | {0x18: "JTAG_RESET"},
            boot_flash=(0xC, "SPI_FAST_FLASH_BOOT"),
            boot_download=(0x4, "DOWNLOAD(UART0)"),
            boot_pin="GPIO9",
            spi=SpiRegisters(base=0x60002000),
            clkdiv=0x60000014,
            mac_registers=(0x60008840, 0x60008844),
            magic=0x6F51306F,
            xtal=26,
            rom_baud=74880.0,
            saved_pc=True,
            fixed_registers={0x60008844: 1 << 20},  # chip revision 1.0
            crypt_count=(0x60008830, 0x80),
            watchdog_config=0x60008084,
            secure_boot=(0x60008830, 0x200000),
        ),
        Silicon(
            chip=CHIPS["esp32c3"],
            banner=_rom("esp32c3-api1-20210207", "Feb  7 2021"),
            reset_names=_RTC_RESETS,
            boot_flash=(0xD, "SPI_FAST_FLASH_BOOT"),
            boot_download=(0x5, "DOWNLOAD(USB/UART0/1)"),
            boot_pin="GPIO9",
            spi=SpiRegisters(base=0x60002000),
            clkdiv=0x60000014,
            mac_registers=(0x60008844, 0x60008848),
            magic=0x1B31506F,
            usb_jtag=True,
            saved_pc=True,
            crypt_count=(0x60008834, 0x40000),
            watchdog_config=0x60008090,
            secure_boot=(0x60008838, 0x100000),
        ),
        Silicon(
            chip=CHIPS["esp32c5"],
            banner=_rom("esp32c5-eco2-20250121", "Jan 21 2025"),
            reset_names=_RTC_HP_RESETS,
            boot_flash=(0x18, "SPI_FAST_FLASH_BOOT"),
            boot_download=(0x10, "DOWNLOAD(USB/UART0/SPI)"),
            boot_pin="GPIO28",
            spi=SpiRegisters(base=0x60003000),
            clkdiv=0x60000014,
            mac_registers=(0x600B4844, 0x600B4848),
            magic=0x63E1406F,
            usb_jtag=True,
            xtal=48,
            saved_pc=True,
            spiwp=False,
            spi_prefix="SPI ",
            crypt_count=(0x600B4834, 0x10000),
            watchdog_config=0x600B1C00,
            secure_boot=(0x600B4838, 0x2000000),
        ),
        Silicon(
            chip=CHIPS["esp32c6"],
            banner=_rom("esp32c6-20220919", "Sep 19 2022"),
            reset_names=_LP_RESETS,
            boot_flash=(0xC, "SPI_FAST_FLASH_BOOT"),
            boot_download=(0x4, "DOWNLOAD(USB/UART0/SDIO_FEI_FEO)"),
            boot_pin="GPIO9",
            spi=SpiRegisters(base=0x60003000),
            clkdiv=0x60000014,
            mac_registers=(0x600B0844, 0x600B0848),
            magic=0x2CE0806F,
            usb_jtag=True,
            saved_pc=True,
            crypt_count=(0x600B0834, 0x40000),
            watchdog_config=0x600B1C00,
            secure_boot=(0x600B0838, 0x100000),
        ),
        Silicon(
            chip=CHIPS["esp32c61"],
            banner=_rom("esp32c61-20240930", "Sep 30 2024"),
            reset_names=_LP_RESETS,
            boot_flash=(0xC, "SPI_FAST_FLASH_BOOT"),
            boot_download=(0x4, "DOWNLOAD(USB/UART0)"),
            boot_pin="GPIO9",
            spi=SpiRegisters(base=0x60003000),
            clkdiv=0x60000014,
            mac_registers=(0x600B4844, 0x600B4848),
            magic=0x33F0206F,
            usb_jtag=True,
            saved_pc=True,
            crypt_count=(0x600B4830, 0x800000),
            watchdog_config=0x600B1C00,
            secure_boot=(0x600B4834, 0x4000000),
        ),
        Silicon(
            chip=CHIPS["esp32h2"],
            banner=_rom("esp32h2-20221101", "Nov  1 2022"),
            reset_names=_LP_RESETS | {0x17: "POWER_GLITCH_SYS"},
            boot_flash=(0xC, "SPI_FAST_FLASH_BOOT"),
            boot_download=(0x4, "DOWNLOAD(USB/UART0)"),
            boot_pin="GPIO9",
            spi=SpiRegisters(base=0x60003000),
            clkdiv=0x60000014,
            mac_registers=(0x600B0844, 0x600B0848),
            magic=0xD7B73E80,
            usb_jtag=True,
            xtal=32,
            saved_pc=True,
            crypt_count=(0x600B0834, 0x40000),
            watchdog_config=0x600B1C00,
            secure_boot=(0x600B0838, 0x100000),
        ),
        Silicon(
            chip=CHIPS["esp32p4"],
            banner=_rom("esp32p4-eco2-20240710", "Jul 10 2024"),
            reset_names=_P4_RESETS,
            boot_flash=(0x30C, "SPI_FAST_FLASH_BOOT"),
            boot_download=(0x304, "DOWNLOAD(USB/UART0/SPI)"),
            boot_pin="GPIO35",
            spi=SpiRegisters(base=0x5008D000),
            clkdiv=None,
            mac_registers=(0x5012D044, 0x5012D048),
            usb_jtag=True,
            saved_pc=True,
            spiwp=False,
            spi_prefix="SPI ",
            crypt_count=(0x5012D034, 0x40000),
            watchdog_config=0x50116000,
            secure_boot=(0x5012D038, 0x100000),
        ),
    )
}
