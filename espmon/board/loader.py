"""placeholder"""

from __future__ import annotations

from espmon.board.machine import HALT, Listen, Machine, Program


class Loader:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def run(self) -> Program:
        while True:
            yield Listen(None)
        return HALT
