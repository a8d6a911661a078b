"""From what was measured to the most probable cause: the decision table, as data.

:class:`Evidence` holds measurements, and None where nothing was measured. :data:`ROWS` are asked in order; the first
that applies is the first guess. A row says what it saw, the cause and the remedy in plain words. A board that talks is
never advised to be flashed again: the rows that could are below the one that finds it alive.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from espmon.bootloader.flash import NO_FLASH_IDS

_BANNER_8266 = re.compile(r"rst cause:\s*(\d+), ?boot mode:\s*\((\d+),(\d+)\)")
_BANNER_32 = re.compile(r"rst:0x([0-9a-fA-F]+) \(([A-Z0-9_]+)\),boot:0x([0-9a-fA-F]+) \(([^)\r\n]{1,60})\)")
_WAITING = re.compile(r"waiting for download", re.IGNORECASE)
_CRASH = re.compile(
    r"Fatal exception ?\(?\d|Exception \(\d+\)|Guru Meditation|Soft WDT reset|abort\(\) was called|Panic at|"
    r"assert failed|Unhandled exception|Stack smashing|CORRUPT HEAP"
)
_FLASH_ERRORS = re.compile(
    r"csum err|ets_main\.c|flash read err|invalid header|No bootable app|SHA-256 comparison failed"
)
_RF = re.compile(r"rf_cal\[0\] ?!=|system param error")
_BROWNOUT = re.compile(r"[Bb]rown-?out|BROWN_?OUT")
# Resets that something went wrong before: ESP8266 hardware watchdog; all of the later chips' watchdogs and brownout.
_BAD_32 = re.compile(r"WDT|WATCHDOG|BROWN|PANIC")

# An ESP8266's boot banner with its load lines has 220 to 260 bytes.
_BOOT_BYTES = 300


@dataclass(frozen=True, slots=True)
class RateQuality:
    """`good` of `tried` exchanges went through at `rate`; `damaged` answers arrived changed."""

    rate: int
    tried: int
    good: int
    damaged: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was measured. Texts are what could be read; None means not measured.

    `idle_*`: heard without doing anything; `reset_*`: after pulling EN; `download_*`: after asking for download mode.
    `sync`: the family that answered, ``""`` when nobody did. `failure`: the code of the error that ended an operation.
    """

    open_error: str | None = None
    holder: str | None = None
    adapter: str | None = None
    stalled: bool | None = None
    idle_bytes: int | None = None
    idle_seconds: float = 0.0
    idle_rate: int | None = None
    idle_text: str = ""
    unreadable: bool = False
    echoed: bool | None = None
    reset_bytes: int | None = None
    reset_rate: int | None = None
    reset_text: str = ""
    download_bytes: int | None = None
    download_text: str = ""
    sync: str | None = None
    syncs: int = 0
    stuck_bit: int | None = None
    rates: tuple[RateQuality, ...] = ()
    chip: str | None = None
    esp8285: bool = False
    flash_id: int | None = None
    flash_size: int | None = None
    aliased: bool | None = None
    header_mode: str | None = None
    header_size: int | None = None
    image_fault: str | None = None
    image_whole: bool | None = None
    secure: str | None = None
    failure: str | None = None
    reset_meanwhile: str | None = None
    left_out: tuple[str, ...] = ()

    # --- readings of the texts ---------------------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """Everything that could be read while the board ran by itself."""
        return self.idle_text + "\n" + self.reset_text

    @property
    def boots(self) -> int:
        """Boot banners heard while nobody reset the board."""
        return len(_BANNER_8266.findall(self.idle_text)) + len(_BANNER_32.findall(self.idle_text))

    @property
    def download_mode(self) -> str | None:
        """The boot mode printed after download mode was asked for: ``(3,6)`` or ``0x13``, None if not readable."""
        return boot_mode(self.download_text)

    @property
    def normal_mode(self) -> str | None:
        """The boot mode of an ordinary start."""
        return boot_mode(self.reset_text) or boot_mode(self.idle_text)

    @property
    def only_a_banner(self) -> bool:
        """What could not be read was no more than one boot's text, which a reset then showed."""
        return boot_mode(self.reset_text) is not None and 0 < (self.idle_bytes or 0) <= _BOOT_BYTES

    @property
    def alive(self) -> bool:
        """The board runs firmware that talks and neither crashes nor boots over and over."""
        text = _without_banners(self.text)
        return (
            sum(c.isalnum() for c in text) >= 12
            and self.boots < 2
            and not any(p.search(self.text) for p in (_CRASH, _FLASH_ERRORS, _RF, _BROWNOUT, _WAITING))
        )

    @property
    def works_slowly(self) -> bool:
        """Good at the lowest rate measured, bad at a higher one."""
        if len(self.rates) < 2:
            return False
        low, *high = sorted(self.rates, key=lambda r: r.rate)
        return low.good >= 0.9 * low.tried and any(r.good < 0.8 * r.tried for r in high)

    @property
    def lossy(self) -> float:
        """Share of exchanges lost at the lowest rate."""
        if not self.rates:
            return 0.0
        low = min(self.rates, key=lambda r: r.rate)
        return 1 - low.good / low.tried if low.tried else 0.0


def boot_mode(text: str) -> str | None:
    """The last boot mode printed in `text`."""
    found: str | None = None
    for match in _BANNER_8266.finditer(text):
        found = f"({match[2]},{match[3]})"
    for match in _BANNER_32.finditer(text):
        found = f"0x{int(match[3], 16):x}"
    return found


def is_download_mode(text: str) -> bool | None:
    """Whether the board said that it waits for a download; None when its text does not tell."""
    if _WAITING.search(text):
        return True
    modes = _BANNER_8266.findall(text)
    if modes:
        return bool(modes[-1][1] == "1")
    later = _BANNER_32.findall(text)
    if later:
        return "DOWNLOAD" in later[-1][3].upper() and "SPI_DOWNLOAD" not in later[-1][3].upper()
    return None


def _without_banners(text: str) -> str:
    lines = [
        line
        for line in text.splitlines()
        if not re.search(
            r"rst cause|ets J|rst:0x|^load|^tail|^chksum|^csum|^ho |configsip|clk_drv|^mode:|^entry", line.strip()
        )
    ]
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the decision table. `seen` and `remedy` may use the evidence; `code` is stable."""

    code: str
    applies: Callable[[Evidence], bool]
    cause: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A row that applies to the evidence at hand."""

    code: str
    cause: str
    remedy: str


def _strap(e: Evidence) -> str:
    mode = e.normal_mode or e.download_mode or ""
    return mode[1:2] if mode.startswith("(") else ""


ROWS: tuple[Row, ...] = (
    Row(
        "port-missing",
        lambda e: e.open_error == "port-not-found",
        "There is no such port: the board is unplugged, the cable has no data wires, or the adapter's driver is missing.",
        "Plug it in, try another cable; `espmon ports` lists what the system sees.",
    ),
    Row(
        "port-busy",
        lambda e: e.open_error == "port-busy",
        "Another program holds the port.",
        "Close it: serial monitors, IDEs, 3D printing programs and ModemManager are the usual ones.",
    ),
    Row(
        "port-denied",
        lambda e: e.open_error == "port-denied",
        "You have no permission for this port.",
        "On Linux join the group that owns it (dialout or uucp), then log in again.",
    ),
    Row(
        "port-gone",
        lambda e: e.open_error in ("port-gone", "port") or e.failure == "port-gone",
        "The adapter vanished while it was in use: a loose plug, a hub without power, or a driver that fell over.",
        "Plug it in straight at the computer, with another cable.",
    ),
    Row(
        "send-stalled",
        lambda e: e.stalled is True or e.failure == "send-stalled",
        "The adapter takes no bytes from the host; the chip was never asked. Its driver hangs, or it waits for CTS.",
        "Unplug the adapter and plug it in again, switch flow control off, leave virtual machines and hubs out.",
    ),
    Row(
        "echo",
        lambda e: e.echoed is True and not e.sync,
        "You are talking to yourself: what was sent came back. TX and RX are joined, or the adapter echoes.",
        "Look for a short or a loopback plug between TX and RX; connect the board's TX to the adapter's RX and the reverse.",
    ),
    Row(
        "stuck-bit",
        lambda e: e.stuck_bit is not None,
        "Answers arrive with one bit always the same: the signal level or its edges are wrong.",
        "Check that both sides use 3.3 V, that GND is connected and that no divider or diode sits in the line; try 9600 baud.",
    ),
    Row(
        "secure-download",
        lambda e: e.secure == "download" or (e.failure == "security" and e.secure == "download"),
        "The chip is in secure download mode: nobody may read, hash or erase its flash.",
        "Use the keys and tools of whoever made the device.",
    ),
    Row(
        "secure",
        lambda e: e.secure in ("boot", "encryption"),
        "Secure boot or flash encryption is on: plain firmware does not run on this chip.",
        "Use signed and encrypted images from whoever made the device.",
    ),
    Row(
        "flash-bus",
        lambda e: (e.flash_id is not None and e.flash_id in NO_FLASH_IDS) or e.failure == "flash-unreadable",
        "The flash chip does not answer: something is connected to its pins, or its supply is missing.",
        "Disconnect everything from GPIO6 to GPIO11 (and GPIO12/MTDI on ESP32), take the module out of the breadboard.",
    ),
    Row(
        "fake-flash",
        lambda e: (
            bool(e.aliased)
            or (e.header_size is not None and e.flash_size is not None and e.header_size > e.flash_size)
            or e.failure == "wrong-flash-size"
        ),
        "The flash is smaller than its id or the firmware's header says.",
        "Build the firmware for the real size; replace a flash chip that lies.",
    ),
    Row(
        "brownout",
        lambda e: bool(_BROWNOUT.search(e.text)) or e.reset_meanwhile is not None or e.failure == "board-reset",
        "The supply is too weak: the board resets when it draws current.",
        "Use a short, thick cable and another USB port, or a supply of its own; a capacitor of 100 uF or more at 3.3 V helps.",
    ),
    Row(
        "gpio15-high",
        lambda e: _strap(e) in ("4", "5", "6", "7"),
        "GPIO15 is high at reset: the chip waits for SDIO instead of starting.",
        "Pull GPIO15 low with 10 kOhm.",
    ),
    Row(
        "gpio2-low",
        lambda e: _strap(e) in ("0", "2"),
        "GPIO2 is low at reset, which is no valid boot mode.",
        "Leave GPIO2 open or pull it high during reset.",
    ),
    Row(
        "alive-no-reset",
        lambda e: (
            e.sync == ""
            and e.alive
            and e.reset_bytes is not None
            and not e.download_mode
            and not boot_mode(e.reset_text)
        ),
        "The firmware runs and talks, but DTR and RTS do not reset the board: there is no automatic reset circuit.",
        "Nothing needs to be repaired. To flash it: hold BOOT (GPIO0 low), press reset, and start with --before none.",
    ),
    Row(
        "tx-path",
        lambda e: e.sync == "" and is_download_mode(e.download_text) is True,
        "The board is in download mode and does not hear us: the wire from the adapter's TX to the chip's RX is broken.",
        "Check that wire, its level and its joint; some boards put another chip on it.",
    ),
    Row(
        "gpio0-high",
        lambda e: e.sync == "" and is_download_mode(e.download_text) is False,
        "Reset works, but the chip boots from flash: GPIO0 (BOOT) is not low when reset ends.",
        "Hold BOOT while it connects. On boards that do it themselves a capacitor of 1 to 10 uF from EN to GND helps.",
    ),
    Row(
        "no-reset",
        lambda e: (
            e.sync == ""
            and bool(e.idle_bytes or e.reset_bytes)
            and not boot_mode(e.reset_text)
            and not boot_mode(e.download_text)
            and not e.unreadable
        ),
        "The board can be heard, but DTR and RTS do not reset it.",
        "Hold BOOT (GPIO0 low), press reset, release; then run it again with --before none.",
    ),
    Row(
        "rf-data",
        lambda e: bool(_RF.search(e.text)),
        "The radio's calibration or system parameters in flash are missing or damaged.",
        "Write the SDK's init data (esp_init_data_default.bin) to flash size - 0x4000, and erase the last three sectors.",
    ),
    Row(
        "wrong-flash-mode",
        lambda e: (
            bool(_FLASH_ERRORS.search(e.text))
            and (e.image_whole is True or (e.esp8285 and e.header_mode not in (None, "dout")))
        ),
        "The firmware in flash is whole, but the chip cannot read it: its header asks for a flash mode that the wiring lacks.",
        "Write it with a slower mode: dio, and where that fails dout. An ESP8285 works with dout only.",
    ),
    Row(
        "flash-damaged",
        lambda e: bool(_FLASH_ERRORS.search(e.text)) or (e.image_fault is not None and not e.alive),
        "There is no whole firmware in flash: it was erased, or writing it was interrupted.",
        "Write it again: espmon flash PORT ADDRESS FILE. Should the error stay after that, write it with flash mode dout.",
    ),
    Row(
        "crash-loop",
        lambda e: bool(_CRASH.search(e.text)),
        "The firmware starts and crashes. Its image is whole: writing the same again does not help.",
        "Decode the crash: espmon PORT --elf firmware.elf. A wrong layout (map, partitions) or erased settings can be behind it.",
    ),
    Row(
        "boot-loop",
        lambda e: e.boots >= 2,
        "The board boots over and over by itself.",
        "Watch it with espmon PORT: the reset cause of each boot is explained there.",
    ),
    Row(
        "gpio0-held",
        lambda e: is_download_mode(e.reset_text or e.idle_text) is True,
        "GPIO0 is low at an ordinary reset, so the board waits for a download instead of starting its firmware.",
        "Release the BOOT button, remove what pulls GPIO0 low, then press reset.",
    ),
    Row(
        "stub-left",
        lambda e: e.sync == "stub",
        "A flasher stub was left running in RAM by an earlier session.",
        "Press reset, or flash: espmon uses it or resets the board.",
    ),
    Row(
        "silent",
        lambda e: e.sync == "" and not e.idle_bytes and not e.reset_bytes and not e.download_bytes,
        "Nothing was heard at any rate: no power, TX and RX swapped, EN held low, GND missing, or it is another port.",
        "In this order: is the power LED on; swap TX and RX; EN (CH_PD) at 3.3 V; GND joined; the right port.",
    ),
    Row(
        "link-rate",
        lambda e: e.works_slowly or e.failure == "rate",
        "The link works at a low rate and fails at a higher one: the adapter's or cable's limit.",
        "Use a lower --flash-baud; espmon remembers what worked for this adapter.",
    ),
    Row(
        "noise",
        lambda e: e.lossy > 0.02 and sum(r.damaged for r in e.rates) * 2 >= sum(r.tried - r.good for r in e.rates) > 0,
        "Answers arrive damaged now and then: noise on a long cable, a bad ground, or a hub.",
        "Use a shorter cable without a hub and a lower --flash-baud. Writing is safe: everything is verified.",
    ),
    Row(
        "lost",
        lambda e: e.lossy > 0.02 or e.failure in ("gave-up", "loader-silent"),
        "Some requests or answers get lost on the way: an overrun in the adapter, a hub, a busy or virtual machine.",
        "Plug in straight at the computer, use a lower --flash-baud. Writing is safe: everything is verified.",
    ),
    Row(
        "flash-worn",
        lambda e: e.failure == "flash-differs",
        "The flash does not keep what is written: worn out, write-protected, or the supply dips while writing.",
        "Try another supply; if the same sectors fail again, replace the module.",
    ),
    Row(
        "wrong-rate",
        lambda e: (e.unreadable and not e.only_a_banner) or (e.idle_rate == 74880 and bool(e.idle_text) and not e.alive),
        "Bytes arrive, but at another rate than was listened at.",
        "74880 baud is the ESP8266's boot ROM. espmon PORT finds the application's rate by itself.",
    ),
    Row(
        "alive",
        lambda e: e.alive,
        "The board runs its firmware and talks. Nothing is wrong on the wire.",
        "Do not flash it. If it misbehaves, watch it: espmon PORT.",
    ),
    Row(
        "silent-application",
        lambda e: (bool(e.sync) or e.boots == 1) and not _without_banners(e.text).strip(),
        "The board starts, but its application says nothing.",
        "It may print at another rate or pin, or nothing at all; see that GPIO0 is released.",
    ),
    Row(
        "not-asked",
        lambda e: e.sync is None and e.idle_bytes == 0,
        "Nothing was heard, and the board was not reset to ask it.",
        "Run it again with --active: that resets the board and talks to its boot loader.",
    ),
    Row(
        "healthy",
        lambda e: bool(e.sync),
        "The loader answers and everything measured looks right.",
        "Nothing to do.",
    ),
)


def diagnose(evidence: Evidence) -> list[Finding]:
    """All rows that apply, the most probable first; empty when the evidence says nothing."""
    return [Finding(row.code, row.cause, row.remedy) for row in ROWS if row.applies(evidence)]
