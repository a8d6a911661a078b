"""Serial ports: listing, identity, opening without a reset, reading and writing. The only user of pyserial.

Level 3. Nothing here imports pyserial before a port is opened or listed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from espmon.port.holders import Holder, holders
from espmon.port.names import (
    ListedPort,
    PortIdentity,
    device_path,
    find,
    identify,
    is_url,
    list_ports,
    looks_like_port,
    similar,
)
from espmon.port.serial_port import Chunk, RateSet, SerialPort

if TYPE_CHECKING:
    from espmon.port.worker import run_steps

__all__ = [
    "Chunk",
    "Holder",
    "ListedPort",
    "PortIdentity",
    "RateSet",
    "SerialPort",
    "device_path",
    "find",
    "holders",
    "identify",
    "is_url",
    "list_ports",
    "looks_like_port",
    "run_steps",
    "similar",
]


def __getattr__(name: str) -> Any:
    if name == "run_steps":  # the only thing here that needs the boot loader package
        from espmon.port.worker import run_steps

        return run_steps
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
