"""espmon's own flasher stub for the ESP8266: its payload, its protocol and the client that speaks it.

The C source, the linker script and the Makefile lie beside this file; docs/design/stub.md has the reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from espmon.bootloader.session import Rung


def rungs() -> Mapping[str, tuple[Rung, ...]]:
    """Ways from a ROM's loader to this stub, by chip name: tried twice, the second time after a fresh reset."""
    from espmon.bootloader.session import Rung
    from espmon.bootloader.stub.client import find, start

    rung = Rung("espmon", start, find)
    return {"esp8266": (rung, rung)}
