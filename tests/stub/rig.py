"""An emulated ESP8266 that runs the real boot ROM, where it is set up; nothing in the project needs it.

``ESPMON_RIG`` names three files, separated by the system's path separator: the bridge's program (bridge.py), the emulator
and the ROM image. The bridge gives a pty, where espmon's wire is, and a control port for the lines and the power.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import serial

from espmon.bootloader.actions import Action, Discard, Note, Now, Receive, Send, SetBaud, SetLines, Wait
from espmon.bootloader.resets import HARD, SEQUENCES
from espmon.bootloader.session import Rung, SessionPlan
from espmon.bootloader.stub.client import start
from tests.stub.interpreter import Interpreter

FLASH_SIZE = 4 << 20


def files() -> tuple[str, str, str]:
    """The rig's three files; skips where it is not set up."""
    named = os.environ.get("ESPMON_RIG", "")
    parts = named.split(os.pathsep)
    if len(parts) != 3 or not all(Path(p).exists() for p in parts):
        pytest.skip("ESPMON_RIG does not name the rig's bridge, emulator and ROM image")
    return parts[0], parts[1], parts[2]


def plan(rate: int, **more: Any) -> SessionPlan:
    """A session with our stub only, lines wired as on a NodeMCU."""
    return SessionPlan(
        sequences=SEQUENCES["unix"], hard_reset=HARD, rate=rate, rungs={"esp8266": (Rung("espmon", start),)}, **more
    )


class Player(Interpreter):
    """Interprets actions on a pyserial port; what the modem lines do is the subclass's."""

    def __init__(self, device: Path) -> None:
        self.port = serial.Serial(str(device), 115200, timeout=0)
        self.dtr = self.rts = False
        self.notes: list[object] = []

    def lines_changed(self) -> None:
        """DTR or RTS has changed."""

    def perform(self, action: Action) -> Any:
        """Interpret one action."""
        port = self.port
        match action:
            case Send(data):
                port.write(data)
            case Receive(timeout_s):
                port.timeout = timeout_s
                data = port.read(1)
                data += port.read(port.in_waiting) if data else b""
                return data
            case Wait(seconds):
                time.sleep(seconds)
            case Discard():
                return port.read(port.in_waiting)
            case Now():
                return time.monotonic()
            case SetBaud(rate):
                port.baudrate = rate
                time.sleep(0.03)  # the bridge looks at the pty's rate every 10 ms
            case SetLines(dtr, rts):
                self.dtr = self.dtr if dtr is None else dtr
                self.rts = self.rts if rts is None else rts
                self.lines_changed()
            case Note(fact):
                self.notes.append(fact)
            case _:
                raise AssertionError(action)
        return None


class Rig(Player):
    """The bridge, the emulator behind it and a pyserial port on its pty."""

    def __init__(self, folder: Path, flash: bytes = b"", *options: str) -> None:
        bridge, emulator, rom = files()
        self.flash_file = folder / "flash.bin"
        self.flash_file.write_bytes(flash.ljust(FLASH_SIZE, b"\xff"))
        self.pty = folder / "pty"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            control = free.getsockname()[1]
        self.log = (folder / "bridge.log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, bridge, "--emu", emulator, "--rom", rom, "--flash", str(self.flash_file), "--port", "0",
             "--control", str(control), "--pty", str(self.pty), "--nice", "0", "--en-rise", "0.02", *options],
            stderr=self.log,
        )  # fmt: skip
        deadline = time.monotonic() + 10
        while not self.pty.exists():
            assert time.monotonic() < deadline, "the rig does not start"
            time.sleep(0.02)
        while True:
            try:
                self.link = socket.create_connection(("127.0.0.1", control), 5)
                break
            except OSError:
                assert time.monotonic() < deadline, "the rig does not start"
                time.sleep(0.02)
        self.lines = self.link.makefile("rw", newline="\n")
        super().__init__(self.pty)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.lines.write("quit\n")
        self.lines.flush()
        self.port.close()
        self.lines.close()
        self.link.close()
        self.process.wait(10)
        self.log.close()

    def control(self, order: str) -> dict[str, Any]:
        """One order to the bridge."""
        self.lines.write(order + "\n")
        self.lines.flush()
        return dict(json.loads(self.lines.readline()))

    def download(self) -> None:
        """Reset into download mode, as a finger on both buttons does."""
        self.control("reset download")
        time.sleep(0.2)
        self.port.reset_input_buffer()

    def flash(self) -> bytes:
        """The flash's content; the emulator writes it to its file when something changed."""
        deadline = time.monotonic() + 10
        while self.control("state")["flash_dirty"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.05)
        return self.flash_file.read_bytes()

    def lines_changed(self) -> None:
        # Two transistors: each line works only while the other is released.
        self.control(f"gpio0 {int(not (self.dtr and not self.rts))}")
        self.control(f"en {int(not (self.rts and not self.dtr))}")
