"""Which serial ports there are, and which of them is the board that we had.

A tty number is no identity: ``ttyUSB0`` comes back as ``ttyUSB1`` while somebody still holds the old descriptor. Best
first: the USB serial number, unless clones share it; the USB socket (location); the name of the device node.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterable, Sequence

from espmon.values import Value, value

# USB ids (vendor, product) of what sits between a board's UART and the host, from the vendors' data sheets and the
# public USB id list. A product of None stands for all of the vendor's.
_ADAPTERS: dict[tuple[int, int | None], str] = {
    (0x10C4, 0xEA60): "CP210x",
    (0x10C4, 0xEA70): "CP2105",
    (0x10C4, 0xEA71): "CP2108",
    (0x1A86, 0x7523): "CH340",
    (0x1A86, 0x7522): "CH340K",
    (0x1A86, 0x5523): "CH341",
    (0x1A86, 0x55D3): "CH343",
    (0x1A86, 0x55D4): "CH9102",
    (0x0403, 0x6001): "FT232R",
    (0x0403, 0x6010): "FT2232",
    (0x0403, 0x6011): "FT4232",
    (0x0403, 0x6014): "FT232H",
    (0x0403, 0x6015): "FT231X",
    (0x067B, None): "PL2303",
    (0x303A, 0x1001): "ESP32 USB-Serial/JTAG",
    (0x303A, 0x0002): "ESP32-S2 USB",
    (0x303A, None): "Espressif USB",
    (0x2341, None): "Arduino",
    (0x239A, None): "Adafruit",
}
# Serial numbers that every specimen of a cheap adapter carries (CP2102 clones are delivered with 0001).
_SHARED_SERIALS = frozenset({"", "0", "0000", "0001", "00000000", "1", "123456", "12345678", "0123456789ABCDEF"})
_ESPRESSIF = 0x303A


@value
class ListedPort(Value):
    """One serial port as the system lists it. `vid`, `pid`, `serial_number` and `location` are None where it is no USB."""

    device: str
    description: str | None = None
    vid: int | None = None
    pid: int | None = None
    serial_number: str | None = None
    location: str | None = None
    manufacturer: str | None = None
    product: str | None = None

    @property
    def adapter(self) -> str | None:
        """The adapter chip's family (``CP210x``), or None when the USB ids are not known."""
        if self.vid is None:
            return None
        return _ADAPTERS.get((self.vid, self.pid)) or _ADAPTERS.get((self.vid, None))

    @property
    def usb_id(self) -> str | None:
        """``10c4:ea60``, or None."""
        return None if self.vid is None or self.pid is None else f"{self.vid:04x}:{self.pid:04x}"

    @property
    def mac(self) -> str | None:
        """The chip's MAC where its own USB port states it as the serial number (USB-Serial/JTAG does)."""
        if self.vid == _ESPRESSIF and self.serial_number and re.fullmatch(r"(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}", self.serial_number):
            return self.serial_number.lower()
        return None


@value
class PortIdentity(Value):
    """What stays the same when the board is unplugged and comes back. Everything None: only the name is known."""

    name: str
    vid: int | None = None
    pid: int | None = None
    serial_number: str | None = None
    location: str | None = None

    @property
    def key(self) -> str:
        """A stable text for keeping things per board (a rate, a MAC): serial number, else USB location, else name."""
        usb = f"{self.vid:04x}:{self.pid:04x}" if self.vid is not None and self.pid is not None else ""
        if self.serial_number and self.serial_number not in _SHARED_SERIALS:
            return f"usb:{usb}:serial:{self.serial_number}"
        if self.location:
            return f"usb:{usb}:at:{self.location}"
        return f"name:{self.name}"


def list_ports() -> list[ListedPort]:
    """All serial ports that the system knows, adapters and boards first. About 1 ms with a few ports."""
    from serial.tools import list_ports as lister

    try:
        found = list(lister.comports())
    except OSError:
        return []
    ports = []
    for each in found:
        description = each.description if each.description not in (None, "", "n/a") else None
        ports.append(
            ListedPort(
                device=each.device,
                description=description,
                vid=each.vid,
                pid=each.pid,
                serial_number=each.serial_number or None,
                location=each.location or None,
                manufacturer=each.manufacturer or None,
                product=each.product or None,
            )
        )
    return sorted(ports, key=lambda p: (p.vid is None, _natural(p.device)))


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def is_url(name: str) -> bool:
    """True for names that a pyserial URL handler opens (``rfc2217://host:port``)."""
    return "://" in name


def looks_like_port(word: str) -> bool:
    """True when `word` can only be meant as a port: a path, a URL, or a name that serial ports have."""
    return (
        "/" in word
        or "\\" in word
        or re.fullmatch(r"(?i)com\d+|(tty|cu|rfcomm|serial)[\w.+-]*\d?", word) is not None
        or os.path.exists(word)
    )


def device_path(name: str) -> str:
    """The name to open: ``ttyUSB0`` means ``/dev/ttyUSB0`` where there is such a node; all else stays as it is."""
    if is_url(name) or sys.platform == "win32" or "/" in name or os.path.exists(name):
        return name
    path = f"/dev/{name}"
    return path if os.path.exists(path) or looks_like_port(name) else name


def identify(name: str, ports: Iterable[ListedPort] | None = None) -> PortIdentity:
    """The identity of the port `name`. Ports that are no USB devices, and URLs, are known by their name only.

    A name that is a link (``/dev/serial/by-id/...``) is an identity by itself: what it points to may change.
    """
    if is_url(name) or (os.path.islink(name) and not name.startswith("/dev/tty")):
        return PortIdentity(name=name)
    for port in list_ports() if ports is None else ports:
        if port.device == name and port.vid is not None:
            return PortIdentity(
                name=name, vid=port.vid, pid=port.pid, serial_number=port.serial_number, location=port.location
            )
    return PortIdentity(name=name)


def find(identity: PortIdentity, ports: Sequence[ListedPort] | None = None) -> str | None:
    """Where the board with this identity is now: a device to open, or None while it is away.

    Never a guess: of two boards that match equally, neither is returned.
    """
    if identity.vid is None:
        if is_url(identity.name) or sys.platform == "win32" or os.path.exists(identity.name):
            return identity.name
        return None
    listed = list_ports() if ports is None else ports
    same_kind = [p for p in listed if (p.vid, p.pid) == (identity.vid, identity.pid)]
    if identity.serial_number and identity.serial_number not in _SHARED_SERIALS:
        same = [p for p in same_kind if p.serial_number == identity.serial_number]
        if len(same) > 1:  # an adapter with several ports, or clones: the socket decides
            same = [p for p in same if p.location == identity.location]
        return same[0].device if len(same) == 1 else None
    if identity.location:
        same = [p for p in same_kind if p.location == identity.location]
        return same[0].device if len(same) == 1 else None
    return identity.name if any(p.device == identity.name for p in same_kind) else None


def similar(name: str, ports: Sequence[ListedPort]) -> list[str]:
    """Up to three of the listed devices whose names look like `name`, best first."""
    by_short = {p.device.rsplit("/", 1)[-1].lower(): p.device for p in ports}
    close = difflib.get_close_matches(name.rsplit("/", 1)[-1].lower(), list(by_short), 3, 0.5)
    return [by_short[short] for short in close]
