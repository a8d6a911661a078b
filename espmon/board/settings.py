"""What a virtual board is like: one table of parameters, used by `sim://` URLs, `espmon sim --fault` and tests alike.

Pure. :class:`BoardSettings` holds the values; :data:`PARAMETERS` describes each (docs/virtual-board.md is checked
against it by a test). Anything that makes the board worse than a good one is a fault (`fault=True`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from espmon.board.line import ReceiverShape
from espmon.chips import CHIPS
from espmon.errors import UsageProblem

APPS = ("weather", "uptime", "echo", "chatter", "silent", "binary")
CRASHES = ("none", "load", "store", "illegal", "divide", "watchdog", "memory", "any", "brownout")
IMAGES = ("demo", "idf", "blank")
WIRINGS = ("nodemcu", "direct", "none", "usb-jtag")
FLASH_MODES = ("any", "dio", "dout")


def _field(default: Any, text: str, *, fault: bool = False, choices: tuple[str, ...] = (), size: bool = False) -> Any:
    return field(default=default, metadata={"text": text, "fault": fault, "choices": choices, "size": size})


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardSettings:
    """Everything that can be chosen about a virtual board. Times in seconds, rates in baud, sizes in bytes."""

    chip: str = _field("esp8266", "which chip", choices=tuple(CHIPS))

    # the application
    app: str = _field("weather", "what the firmware prints once it runs", choices=APPS)
    crash: str = _field("none", "which bug of the demo firmware strikes (any: each in turn)", choices=CRASHES)
    crashes: int = _field(0, "how often it crashes before it stays healthy (0: for ever)")
    pace: float = _field(1.0, "seconds between the application's rounds")
    rounds: int = _field(0, "healthy rounds before those that the crash's own log shows")
    startup: float = _field(0.12, "seconds from the ROM's last letter to the application's first")
    restart: float = _field(0.01, "seconds from a crash's last letter to the reset")
    baud: int = _field(115200, "the application's baud rate")
    banner_rate: int = _field(0, "rate of the ROM's text after a software restart (0: as after any reset)")
    sdio: int = _field(6, "second digit of the ESP8266's boot mode")
    image: str = _field(
        "demo",
        "what a new flash holds: the demo firmware, ESP-IDF's boot loader with partition table and application (idf, ESP32 family), or nothing (blank)",
        choices=IMAGES,
    )

    # time
    speed: float = _field(1.0, "seconds of the board per second of the wall")

    patience: float = _field(0.0, "at most so many wall seconds count between two looks at the port (0: all of them)")

    # board
    wiring: str = _field("nodemcu", "how DTR and RTS reach EN and the boot pin", choices=WIRINGS)
    en_rise: float = _field(0.01, "seconds that EN takes to rise when released (its resistor and capacitor)")
    xtal: int = _field(0, "crystal in MHz (0: the usual one of the chip)")
    mac: str = _field("", "MAC address")
    flash_size: int = _field(4 << 20, "bytes of flash", size=True)
    flash_maker: int = _field(0xEF, "JEDEC maker id of the flash", size=True)

    # the host's UART and the chip's, and how they differ
    oversampling: int = _field(16, "ticks per bit of the adapter's receiver")
    tick: int = _field(7, "tick at which a bit is sampled")
    majority: bool = _field(False, "three ticks vote")
    phase: float = _field(0.0, "where the ticks lie, in ticks")
    clock_error: float = _field(0.0, "the adapter's clock is that much too fast (0.01: 1 %)")
    check_start: bool = _field(False, "a start bit that is high again at its middle counts as noise")
    recovery: str = _field(
        "edge", "after a framing error: wait for the next falling edge, or take a low line", choices=("edge", "low")
    )
    framing: str = _field("pass", "bytes with framing errors", choices=("pass", "nul", "drop"))
    counts_errors: bool = _field(False, "the adapter's driver tells how many bytes had framing errors")
    exact: bool = _field(False, "work out every bit, also where rates agree")

    # security
    secure_boot: bool = _field(False, "secure boot is on; the image in flash at power-on counts as signed")
    encryption: bool = _field(False, "flash encryption is on; what is in flash at power-on counts as encrypted")
    secure_download: bool = _field(False, "secure download mode is on")

    # faults of the link
    seed: int = _field(1, "seed of everything random", fault=True)
    lose: float = _field(0.0, "probability that a frame is lost, each direction", fault=True)
    lose_to: float = _field(0.0, "the same, to the board only", fault=True)
    lose_from: float = _field(0.0, "the same, from the board only", fault=True)
    duplicate: float = _field(0.0, "probability that a frame comes twice", fault=True)
    corrupt: float = _field(0.0, "probability that a byte of a frame is damaged", fault=True)
    corrupt_to: float = _field(0.0, "the same, to the board only", fault=True)
    corrupt_from: float = _field(0.0, "the same, from the board only", fault=True)
    drop_bytes: float = _field(0.0, "probability that a frame loses some bytes", fault=True)
    stuck_bit: int = _field(-1, "this bit of every byte from the board reads 1", fault=True)
    echo: bool = _field(False, "the host hears what it sends", fault=True)
    baud_limit: int = _field(0, "above this rate bytes are damaged", fault=True)
    refuse_above: int = _field(0, "the adapter refuses rates above this", fault=True)
    round_rates: bool = _field(False, "the adapter has only the usual rates and takes the nearest", fault=True)
    latency: float = _field(0.0, "seconds that the adapter holds back what it received", fault=True)
    write_stall: bool = _field(False, "the adapter takes nothing more to send", fault=True)

    # faults of the board
    swapped: bool = _field(False, "TX and RX are swapped: nothing passes", fault=True)
    no_rx: bool = _field(False, "nothing reaches the chip", fault=True)
    no_tx: bool = _field(False, "nothing comes from the chip", fault=True)
    no_power: bool = _field(False, "the board has no power", fault=True)
    no_reset: bool = _field(False, "DTR and RTS lead nowhere", fault=True)
    boot_low: bool = _field(False, "the boot pin (GPIO0, GPIO9 ...) is held low", fault=True)
    boot_high: bool = _field(False, "the boot pin is held high", fault=True)
    gpio15_high: bool = _field(False, "ESP8266: GPIO15 is not pulled down", fault=True)
    gpio2_low: bool = _field(False, "ESP8266: GPIO2 is held low", fault=True)
    en_low: bool = _field(False, "EN is held low", fault=True)
    cut_at: int = _field(0, "power is cut for good after this many bytes were programmed into flash", fault=True)
    cut_erase: int = _field(0, "power is cut for good in the middle of this erase command (1: the first)", fault=True)
    cut_rx_at: int = _field(0, "power is cut for good at this byte received by the loader", fault=True)
    brownout: int = _field(0, "the supply dips after this many programmed bytes: the board restarts", fault=True)
    weak_supply: int = _field(0, "ESP32 family: so many starts end in a brownout reset", fault=True)
    weak_after: int = _field(0, "starts that go well before those", fault=True)
    reset_at: int = _field(0, "the board resets at this byte received by the loader", fault=True)
    stub: str = _field(
        "works",
        "what an uploaded flasher stub does",
        fault=True,
        choices=("works", "silent", "late", "crash", "garbled"),
    )
    stub_left: bool = _field(False, "a flasher stub is running already", fault=True)
    soft_restart_sticks: bool = _field(
        False, "the first software restart after a download comes up in download mode again", fault=True
    )

    # faults of the flash
    flash_claims: int = _field(0, "size that the flash id claims (0: the true one)", fault=True, size=True)
    flash_id: int = _field(-1, "flash id that is read instead (0xFFFFFF: no contact)", fault=True, size=True)
    write_protected: bool = _field(False, "the flash cannot be written", fault=True)
    slow_erase: float = _field(1.0, "erase and program take that many times longer", fault=True)
    flash_mode: str = _field("any", "which modes the wiring of the flash bears", fault=True, choices=FLASH_MODES)
    bad_bit: int = _field(-1, "address of a flash byte whose lowest bit cannot be cleared", fault=True, size=True)
    rf_check: bool = _field(False, "ESP8266: the SDK insists on its RF data at flash end - 0x4000", fault=True)

    def receiver(self) -> ReceiverShape:
        """The shape of the receivers at both ends."""
        return ReceiverShape(
            oversampling=self.oversampling,
            tick=self.tick,
            majority=self.majority,
            phase=self.phase,
            clock_error=self.clock_error,
            check_start=self.check_start,
            recovery="low" if self.recovery == "low" else "edge",
            framing="nul" if self.framing == "nul" else "drop" if self.framing == "drop" else "pass",
        )


PARAMETERS = {f.name: f for f in fields(BoardSettings)}
FAULTS = {name: f for name, f in PARAMETERS.items() if f.metadata["fault"]}

_UNITS = {"k": 1 << 10, "m": 1 << 20}


def _size(text: str) -> int:
    low = text.strip().lower().removesuffix("b").removesuffix("i")
    unit = _UNITS.get(low[-1:], 1)
    return int(low[:-1] if unit > 1 else low, 0) * unit


def _value(name: str, text: str) -> Any:
    where = PARAMETERS[name]
    kind: type = type(where.default)
    try:
        if kind is bool:
            low = text.strip().lower()
            if low in ("1", "yes", "true", "on", ""):
                return True
            if low in ("0", "no", "false", "off"):
                return False
            raise ValueError
        if kind is int:
            return _size(text) if where.metadata["size"] else int(text, 0)
        if kind is float:
            return float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise UsageProblem(
            f"virtual board: {name}={text} is not a value for it", f"{name}: {where.metadata['text']}"
        ) from None
    choices = where.metadata["choices"]
    if choices and text not in choices:
        raise UsageProblem(f"virtual board: no {name} {text!r}", f"possible: {', '.join(choices)}")
    return text


# (name, lowest, highest) of what would make no board at all
_LIMITS: tuple[tuple[str, float, float], ...] = (
    ("speed", 0.001, 10_000),
    ("pace", 0, 86_400),
    ("patience", 0, 3600),
    ("startup", 0, 3600),
    ("restart", 0, 3600),
    ("en_rise", 0, 60),
    ("latency", 0, 60),
    ("baud", 300, 5_000_000),
    ("banner_rate", 0, 5_000_000),
    ("flash_size", 0x10000, 256 << 20),
    ("flash_claims", 0, 256 << 20),
    ("oversampling", 4, 1024),
    ("tick", 0, 1023),
    ("phase", 0, 1),
    ("clock_error", -0.5, 0.5),
    ("slow_erase", 0, 10_000),
    ("xtal", 0, 100),
    *(
        (name, 0.0, 1.0)
        for name in ("lose", "lose_to", "lose_from", "duplicate", "corrupt", "corrupt_to", "corrupt_from", "drop_bytes")
    ),
)


def settings_from(pairs: Iterable[tuple[str, str]], base: BoardSettings | None = None) -> BoardSettings:
    """`base` with the (name, text) `pairs` set; later pairs win. ``-`` and ``_`` in names are the same.

    Raises UsageProblem for an unknown name, a value that does not fit, or one out of range.
    """
    chosen: dict[str, Any] = {}
    for raw, text in pairs:
        name = raw.strip().lower().replace("-", "_")
        if name not in PARAMETERS:
            close = difflib.get_close_matches(name, PARAMETERS, 3, 0.5)
            raise UsageProblem(
                f"virtual board: no parameter {raw!r}",
                f"similar: {', '.join(close)}" if close else "`espmon sim --list` lists them",
            )
        chosen[name] = _value(name, text)
    settings = replace(base or BoardSettings(), **chosen)
    for name, lowest, highest in _LIMITS:
        value = getattr(settings, name)
        if not lowest <= value <= highest:
            raise UsageProblem(f"virtual board: {name}={value:g} is out of range", f"{name}: {lowest:g} to {highest:g}")
    if settings.tick >= settings.oversampling:
        raise UsageProblem(
            f"virtual board: tick={settings.tick} is beyond the bit",
            f"a bit has {settings.oversampling} ticks (oversampling)",
        )
    if settings.flash_size % 4096:
        raise UsageProblem(
            f"virtual board: flash_size={settings.flash_size} is no whole number of sectors", "a multiple of 4096"
        )
    return settings


def described(names: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(name, default as text, what it means) for help texts."""
    return [(name, str(f.default), f.metadata["text"]) for name, f in names.items()]
