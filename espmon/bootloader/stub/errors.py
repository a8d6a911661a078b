"""What can go wrong with espmon's stub, as kinds of the loader's errors, so that the same ladder catches them."""

from __future__ import annotations

from espmon.bootloader.errors import LoaderRefused, LoaderSilent, Refused
from espmon.bootloader.stub.protocol import MEANINGS, Op, Status


def _name(op: int) -> str:
    try:
        return Op(op & 0x7F if op < 0x90 else op).name
    except ValueError:
        return f"command 0x{op:02x}"


class StubSilent(LoaderSilent):
    """The stub did not answer `op` within `timeout_s`; `heard` is what came instead."""

    def __init__(self, op: int, timeout_s: float, heard: bytes = b"") -> None:
        super().__init__(op, timeout_s, heard)
        self.message = f"The flasher stub did not answer {_name(op)} within {timeout_s:.1f} s."
        self.args = (self.message,)


class StubRefused(LoaderRefused):
    """The stub answered `op` with `status`, one of :class:`~espmon.bootloader.stub.protocol.Status`."""

    def __init__(self, op: int, status: int, address: int | None = None) -> None:
        super().__init__(op, status)
        meaning = MEANINGS.get(status, f"status {status}")
        where = "" if address is None else f" at 0x{address:x}"
        self.message = f"{_name(op)} failed{where}: {meaning}."
        self.args = (self.message,)
        self.status = status
        self.address = address

    @property
    def unsupported(self) -> bool:
        return self.status == Status.COMMAND


class FlashProtected(Refused):
    """Protection bits are set in the flash chip's status register and did not go away when asked."""

    code = "flash-protected"

    def __init__(self, status: int) -> None:
        super().__init__(
            f"The flash chip is write-protected (status 0x{status:02x}) and does not let itself be unlocked.",
            "Its WP pin is probably tied low, or its status register is locked; nothing was written.",
        )
        self.status = status


class FlashSilent(Refused):
    """No flash chip answers on the board's flash bus."""

    code = "flash-silent"

    def __init__(self, flash_id: int) -> None:
        super().__init__(
            "The flash chip does not answer."
            if not flash_id
            else f"The flash chip's id 0x{flash_id:06x} says no size that espmon knows.",
            "Disconnect everything from the flash pins (GPIO6 to GPIO11); check the supply."
            if not flash_id
            else "Give its size with --flash-size if you know it.",
        )
        self.flash_id = flash_id
