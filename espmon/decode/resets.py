"""Reset causes and boot modes: the numbers and names that ROMs and SDKs print, and what they mean.

Numbers differ per chip, so a name decides where one was printed. Sources: strings of the mask ROMs and the public
`soc/reset_reasons.h` of each chip; NonOS SDK `rst_info.reason`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from espmon.events import BootMode, ResetCause

# --- ESP8266 mask ROM: `rst cause:N` ---------------------------------------------------------------------------------

_ROM_8266: Mapping[int, tuple[str, str, bool]] = {
    0: ("unknown", "unknown reset", True),
    1: ("power-on", "power-on, or the chip enable pin", False),
    2: (
        "external reset",
        "reset pin, or a software restart: the ROM prints the same after exceptions and soft watchdog resets",
        False,
    ),
    3: ("software reset", "software reset", False),
    4: ("hardware watchdog", "hardware watchdog reset", True),
    5: ("deep-sleep wake", "wake-up from deep sleep", False),
    6: ("unknown", "unknown reset", True),
}


def rom_8266(code: int) -> ResetCause:
    """`rst cause:N` of the ESP8266 ROM."""
    name, meaning, abnormal = _ROM_8266.get(code, (None, "unknown reset cause", True))
    return ResetCause(code=code, name=name, meaning=meaning, abnormal=abnormal)


_MODE_8266 = {
    0: ("invalid", "invalid strapping: GPIO0 and GPIO2 low, GPIO15 low", False),
    1: ("uart-download", "UART download mode: GPIO0 is low", True),
    2: ("invalid", "invalid strapping: GPIO2 is low", False),
    3: ("flash", "run from flash", False),
}


def boot_mode_8266(x: int, y: int | None) -> BootMode:
    """`boot mode:(X,Y)`: only the three strapping pins in X matter; Y is SD_SEL and flash timing."""
    name, meaning, download = _MODE_8266.get(x & 7, ("sdio", "SDIO boot: GPIO15 is high, the ROM waits for a host", False))
    return BootMode(raw=f"{x},{'?' if y is None else y}", name=name, meaning=meaning, download=download)


# --- NonOS SDK `rst_info.reason`, also what Arduino, Tasmota, ESPHome and NodeMCU report ---------------------------

_RST_INFO: Mapping[int, tuple[str, str, bool]] = {
    0: ("Power On", "power-on", False),
    1: ("Hardware Watchdog", "hardware watchdog reset", True),
    2: ("Exception", "a fatal exception", True),
    3: ("Software Watchdog", "software watchdog reset", True),
    4: ("Software/System restart", "restart by software", False),
    5: ("Deep-Sleep Wake", "wake-up from deep sleep", False),
    6: ("External System", "reset pin", False),
    252: ("Stack overflow", "stack overflow noticed by the Arduino core", True),
    253: ("Stack smashing", "stack smashing noticed by the Arduino core", True),
    254: ("Software exception", "panic, abort or failed assertion", True),
}


def rst_info(code: int, text: str | None = None) -> ResetCause:
    """`rst_info.reason` N with the printed text, if any."""
    name, meaning, abnormal = _RST_INFO.get(code, (None, "unknown reset reason", True))
    return ResetCause(code=code, name=text or name, meaning=meaning, abnormal=abnormal)


_REASON_WORDS = (
    (re.compile(r"hardware\s*watchdog|hw\s*wdt", re.IGNORECASE), 1),
    (re.compile(r"soft(?:ware)?\s*watchdog|soft\s*wdt", re.IGNORECASE), 3),
    (re.compile(r"deep.?sleep", re.IGNORECASE), 5),
    (re.compile(r"external", re.IGNORECASE), 6),
    (re.compile(r"fatal exception|^exception", re.IGNORECASE), 2),
    (re.compile(r"power.?on", re.IGNORECASE), 0),
    (re.compile(r"soft(?:ware)?.{0,12}(?:restart|reset)", re.IGNORECASE), 4),
)


def reason_text(text: str, *, esp8266: bool | None) -> ResetCause:
    """A reset reason given in words. The number is only known for the ESP8266's texts."""
    words = text.strip()
    for pattern, code in _REASON_WORDS:
        if pattern.search(words):
            known = rst_info(code)
            return ResetCause(
                code=code if esp8266 else None, name=words, meaning=known.meaning, abnormal=known.abnormal
            )
    abnormal = bool(re.search(r"watchdog|wdt|panic|brown|exception|crash|fault|lockup|glitch", words, re.IGNORECASE))
    return ResetCause(code=None, name=words, meaning=None, abnormal=abnormal)


# --- ESP32 family: `rst:0xN (NAME)` ------------------------------------------------------------------------------

_ESP32 = {
    1: "POWERON_RESET", 2: "EXT_SYS_RESET", 3: "SW_RESET", 4: "OWDT_RESET", 5: "DEEPSLEEP_RESET", 6: "SDIO_RESET", 7: "TG0WDT_SYS_RESET",
    8: "TG1WDT_SYS_RESET", 9: "RTCWDT_SYS_RESET", 0xA: "INTRUSION_RESET", 0xB: "TGWDT_CPU_RESET", 0xC: "SW_CPU_RESET",
    0xD: "RTCWDT_CPU_RESET", 0xE: "EXT_CPU_RESET", 0xF: "RTCWDT_BROWN_OUT_RESET", 0x10: "RTCWDT_RTC_RESET",
}  # fmt: skip
_S2_S3_C3 = {
    1: "POWERON", 3: "RTC_SW_SYS_RST", 5: "DSLEEP", 7: "TG0WDT_SYS_RST", 8: "TG1WDT_SYS_RST", 9: "RTCWDT_SYS_RST",
    0xA: "INTRUSION_RST", 0xB: "TG0WDT_CPU_RST", 0xC: "RTC_SW_CPU_RST", 0xD: "RTCWDT_CPU_RST", 0xF: "BROWNOUT_RST",
    0x10: "RTCWDT_RTC_RST", 0x11: "TG1WDT_CPU_RST", 0x12: "SUPER_WDT_RST", 0x13: "GLITCH_RTC_RST", 0x14: "EFUSE_RST",
    0x15: "USB_UART_CHIP_RESET", 0x16: "USB_JTAG_CHIP_RESET", 0x17: "POWER_GLITCH_RESET", 0x18: "JTAG_RESET",
}  # fmt: skip
_C6_H2 = {
    1: "POWERON", 3: "LP_SW_HPSYS", 5: "SLEEP_WAKEUP", 6: "SDIO_HPSYS", 7: "TG0_WDT_HPSYS", 8: "TG1_WDT_HPSYS",
    9: "LP_WDT_HPSYS", 0xB: "TG0_WDT_CPU", 0xC: "SW_CPU", 0xD: "LP_WDT_CPU", 0xF: "LP_BOD_SYS", 0x10: "LP_WDT_SYS",
    0x11: "TG1_WDT_CPU", 0x12: "LP_SWDT_SYS", 0x14: "EFUSE_HPSYS", 0x15: "USB_UART_HPSYS", 0x16: "USB_JTAG_HPSYS",
    0x17: "POWER_GLITCH_SYS", 0x18: "JTAG_CPU",
}  # fmt: skip
_C5_C61 = {
    1: "POWERON", 3: "RTC_SW_HPSYS", 5: "SLEEP_WAKEUP", 6: "SDIO_HPSYS", 7: "TG0_WDT_HPSYS", 8: "TG1_WDT_HPSYS",
    9: "RTC_WDT_HPSYS", 0xB: "TG0_WDT_CPU", 0xC: "SW_CPU", 0xD: "RTC_WDT_CPU", 0xF: "RTC_BOD_SYS", 0x10: "RTC_WDT_SYS",
    0x11: "TG1_WDT_CPU",    0x12: "RTC_SWDT_SYS", 0x14: "EFUSE_HPSYS", 0x15: "USB_UART_HPSYS", 0x16: "USB_JTAG_HPSYS", 0x17: "RTC_PWR_GLITCH",
    0x18: "JTAG_CPU", 0x19: "RTC_PWR_GLITCH", 0x1A: "CPU_LOCKUP",
}  # fmt: skip
_P4 = {
    1: "POWERON", 3: "SW_SYS_RESET", 5: "PMU_SYS_PWR_DOWN_RESET", 6: "PMU_CPU_PWR_DOWN_RESET", 7: "HP_SYS_HP_WDT_RESET", 9: "HP_SYS_LP_WDT_RESET",
    0xB: "HP_CORE_HP_WDT_RESET", 0xC: "SW_CPU_RESET", 0xD: "HP_CORE_LP_WDT_RESET", 0xF: "BROWN_OUT_RESET",
    0x10: "CHIP_LP_WDT_RESET", 0x12: "SUPER_WDT_RESET", 0x13: "GLITCH_RTC_RESET", 0x14: "EFUSE_CRC_ERR_RESET",
    0x16: "CHIP_USB_JTAG_RESET", 0x17: "CHIP_USB_UART_RESET", 0x18: "HP_JTAG_RESET", 0x1A: "CPU_LOCKUP_RESET",
    0x1B: "PVT_POWER_GLITCH_RESET",
}  # fmt: skip
NAMES: Mapping[str, Mapping[int, str]] = {
    "esp32": _ESP32, "esp32s2": {**_S2_S3_C3, 0xF: "BROWN_OUT_RST"}, "esp32s3": _S2_S3_C3, "esp32c3": _S2_S3_C3,
    "esp32c2": _S2_S3_C3, "esp32c6": _C6_H2, "esp32h2": _C6_H2, "esp32c5": _C5_C61, "esp32c61": _C5_C61,
    "esp32p4": _P4,
}  # fmt: skip

# What a name means, by the words in it; the first that fits.
_MEANINGS: tuple[tuple[str, str, bool], ...] = (
    (r"BROWN_?OUT|_BOD_", "brownout: the supply voltage fell too low", True),
    (r"PWR_GLITCH|POWER_GLITCH|GLITCH", "glitch on the supply or the clock", True),
    (r"SUPER_WDT|SWDT", "super watchdog: the chip's last-resort watchdog", True),
    (r"LOCKUP", "the CPU locked up: an exception inside an exception", True),
    (r"RTC_?WDT|LP_WDT|RTC_WDT|OWDT", "RTC watchdog: hung in the boot loader or at start-up, or flash could not be read", True),
    (r"TG\d?_?WDT|HP_WDT", "timer watchdog: the firmware hung, or its panic handler did", True),
    (r"DEEPSLEEP|DSLEEP|SLEEP_WAKEUP|PWR_DOWN", "wake-up from deep sleep", False),
    (r"USB_UART|USB_JTAG", "reset by the USB port's DTR/RTS lines or the host", False),
    (r"JTAG", "reset by JTAG", False),
    (r"SDIO", "reset by the SDIO host", False),
    (r"INTRUSION", "intrusion detected", True),
    (r"EFUSE", "eFuse error", True),
    (r"EXT_SYS", "external reset", False),
    (r"EXT_CPU", "one CPU core was reset by the other", False),
    (r"POWERON", "power-on, or the EN pin", False),
    (r"SW_CPU", "restart by software: esp_restart(), or the end of a panic", False),
    (r"SW|SYS_RESET", "restart by software of the whole chip", False),
)


def rom_32(code: int | None, name: str | None, chip: str | None) -> ResetCause:
    """`rst:0xN (NAME)`: a damaged number is taken from the name, a missing name from the chip's table."""
    if name is None and code is not None and chip is not None and chip in NAMES:
        name = NAMES[chip].get(code)
    meaning, abnormal = None, False
    for pattern, text, bad in _MEANINGS:
        if name and re.search(pattern, name):
            meaning, abnormal = text, bad
            break
    return ResetCause(code=code, name=name, meaning=meaning, abnormal=abnormal)


def code_of(name: str, chip: str | None) -> int | None:
    """The number behind a printed name; None when it isn't known or chips differ on it."""
    tables = [NAMES[chip]] if chip is not None and chip in NAMES else list(NAMES.values())
    codes = {n for table in tables for n, printed in table.items() if printed == name}
    return codes.pop() if len(codes) == 1 else None


def known_name(name: str) -> bool:
    """True for a name that some chip prints."""
    return any(name in table.values() for table in NAMES.values())


def chip_of(code: int | None, name: str, raw_mode: str) -> str | None:
    """The chip that only one table can mean; None when several print the same."""
    if name in _ESP32.values() and name not in _P4.values() and _ESP32.get(code if code is not None else -1, name) == name:
        return "esp32"
    if name in _P4.values() and name not in _ESP32.values() and name not in _S2_S3_C3.values():
        return "esp32p4"
    return None


def boot_mode_32(raw: str, name: str | None) -> BootMode:
    """`boot:0xN (MODE)`: the printed mode decides, the strapping bits differ per chip."""
    download = bool(name and "DOWNLOAD" in name.upper())
    meaning = None
    if download:
        meaning = "download mode: a strapping pin is held low"
    elif name and re.search(r"FLASH|FL.?SH", name, re.IGNORECASE):
        meaning = "run from flash"
    elif name:
        meaning = "no boot from flash"
    return BootMode(raw=raw, name=name, meaning=meaning, download=download)


_ROM_CHIPS = (
    ("esp32s2", "esp32s2"), ("esp32s3", "esp32s3"), ("esp32c3", "esp32c3"), ("esp8684", "esp32c2"), ("esp32c2", "esp32c2"),
    ("esp32c61", "esp32c61"), ("esp32c6", "esp32c6"), ("esp32c5", "esp32c5"), ("esp32h2", "esp32h2"), ("esp32p4", "esp32p4"),
)  # fmt: skip


def chip_of_rom(rom: str) -> str | None:
    """`ESP-ROM:` identity -> chip (`esp8684` is the ESP32-C2); None for chips that aren't known here (ESP32-S31, H21)."""
    name = rom.lower().partition("-")[0]
    return next((chip for printed, chip in _ROM_CHIPS if name == printed), None)
