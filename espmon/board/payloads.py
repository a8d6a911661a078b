"""What runs after MEM_END: models of uploaded programs, found by what was uploaded.

Pure. Nothing uploaded is executed. Each model lives in a file of its own and is listed in :data:`PAYLOADS`; the first
whose `claims` says yes serves. To add one (a flasher stub of one's own): a function ``claims(uploads, entry) -> bool``
that looks at digests or addresses, and a class with ``run() -> Program``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from espmon.board.loader import Payload, Upload
from espmon.board.machine import HALT, Drain, Listen, Machine, Program, Sleep
from espmon.board.own_stub import OwnStub, is_own_stub
from espmon.board.registers import Registers
from espmon.board.stub import FlasherStub

Claims = Callable[[Sequence[Upload], int], bool]


def _any(uploads: Sequence[Upload], entry: int) -> bool:
    return any(upload.address <= entry < upload.address + max(1, upload.expected) for upload in uploads)


def _flasher(machine: Machine, registers: Registers, uploads: Sequence[Upload], entry: int) -> Program:
    return FlasherStub(machine, registers).start()


def _own(machine: Machine, registers: Registers, uploads: Sequence[Upload], entry: int) -> Program:
    return OwnStub(machine, registers).start()


#: (claims, runs), asked in order. Anything whose entry lies in uploaded memory counts as a flasher stub in the end.
PAYLOADS: list[tuple[Claims, Payload]] = [(is_own_stub, _own), (_any, _flasher)]


def payload_for(machine: Machine, registers: Registers, uploads: Sequence[Upload], entry: int) -> Program:
    """Run what was uploaded: a known payload's model, or the crash that an incomplete or foreign one ends in."""
    yield Sleep(0.001)
    behaviour = machine.settings.stub
    complete = all(upload.complete for upload in uploads)
    for upload in uploads:
        first = upload.content[max(0, entry - upload.address) :][:3]
        if upload.address <= entry and first == b"\0\0\0":
            complete = False  # nothing but zeros at the entry: an illegal instruction
    if behaviour == "silent":
        while True:
            yield Listen(None)
    if behaviour == "late":
        yield Sleep(6.0)
    if behaviour == "garbled":
        machine.rate *= 1.3
    if complete and behaviour != "crash":
        for claims, runs in PAYLOADS:
            if claims(uploads, entry):
                return (yield from runs(machine, registers, uploads, entry))
    # what the ROM prints when a program jumps into nothing
    if machine.silicon.chip.name == "esp8266":
        machine.say(
            f"Fatal exception (0): \r\nepc1=0x{entry:08x}, epc2=0x00000000, epc3=0x00000000, "
            "excvaddr=0x00000000, depc=0x00000000\r\n".encode()
        )
        yield Drain()
        return HALT
    machine.say(b"Guru Meditation Error: Core  0 panic'ed (Illegal instruction)\r\n")
    yield Drain()
    yield Sleep(0.4)
    return 7
