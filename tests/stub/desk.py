"""The stub's C source as a process on this machine, and a wire to it that can lose, damage, repeat and cut.

Time is the process's own virtual clock: a session of seconds takes milliseconds. See host.c for the dialogue.
"""

from __future__ import annotations

import atexit
import random
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Generator
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

import espmon.bootloader.stub
from espmon.bootloader.actions import Action, Discard, Note, Now, Receive, Send, SetBaud, Steps, Wait

HERE = Path(__file__).parent
SOURCE = Path(espmon.bootloader.stub.__file__).parent
FLASH_SIZE = 256 * 1024
SANITIZED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@cache
def program() -> Path:
    """The host build with sanitizers; skips where no C compiler with them is."""
    compiler = shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the stub's host build")
    folder = Path(tempfile.mkdtemp(prefix="espmon-stub-"))
    atexit.register(shutil.rmtree, folder, True)
    out = folder / "stub"
    command = [compiler, "-std=gnu11", "-O1", "-g", *SANITIZED, f"-I{HERE}", f"-I{SOURCE}", "-o", str(out)]
    done = subprocess.run([*command, str(HERE / "host.c")], capture_output=True, text=True)
    if done.returncode and "sanitize" in done.stderr + done.stdout and "cannot find" in done.stderr:
        pytest.skip(f"{compiler} has no sanitizer libraries")
    assert done.returncode == 0, done.stderr
    return out


@cache
def command() -> list[str]:
    """How to run it. Older sanitizers cannot start under some kernels' address randomisation: then without that."""
    for prefix in ([], ["setarch", "-R"]):
        try:
            done = [subprocess.run([*prefix, program(), "fuzz", "1", "1"], capture_output=True) for _ in range(4)]
        except OSError:
            continue
        if all(run.returncode == 0 for run in done):
            return [*prefix, str(program())]
        said = done[-1].stderr.decode(errors="replace")
        assert "VIOLATION" not in said, said
    pytest.skip(f"programs with sanitizers do not run here: {said[-300:]}")


class Faults:
    """What the wire does, with one probability each per frame and direction, and half of them within it."""

    def __init__(self, seed: int, rate: float) -> None:
        self.random = random.Random(seed)
        self.rate = rate
        self.count = 0

    def through(self, data: bytes) -> bytes:
        """What arrives of `data`."""
        if not self.rate:
            return data
        out = bytearray()
        chance = self.random
        pieces = data.split(b"\0")
        for number, piece in enumerate(pieces):
            whole = piece + (b"\0" if number + 1 < len(pieces) else b"")
            if not whole or chance.random() >= self.rate:
                out += whole
                continue
            self.count += 1
            kind = chance.randrange(6)
            if kind == 0 or len(whole) < 2:  # lost
                continue
            if kind == 1:  # a bit turned
                at = chance.randrange(len(whole))
                whole = whole[:at] + bytes([whole[at] ^ 1 << chance.randrange(8)]) + whole[at + 1 :]
            elif kind == 2:  # bytes lost inside
                at = chance.randrange(len(whole))
                whole = whole[:at] + whole[at + 1 + chance.randrange(40) :]
            elif kind == 3:  # repeated
                whole = whole + whole
            elif kind == 4:  # cut
                whole = whole[: chance.randrange(len(whole))]
            else:  # noise before it
                whole = chance.randbytes(chance.randrange(1, 30)) + whole
            out += whole
        return bytes(out)


class PowerCut(Exception):
    """The power went; the stub is gone."""


class StubLeft(Exception):
    """The stub left; `how` as it was told."""

    def __init__(self, how: int) -> None:
        super().__init__(how)
        self.how = how


class Desk:
    """One stub process, its flash and the wire."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.process = subprocess.Popen(command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.faults = faults
        self.now_us = 0
        self.buffer = bytearray()
        self.coming = b""
        self.notes: list[object] = []
        self.sent = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        status = self.process.wait(10)
        self.process.stdout.close()
        if kind is None:
            assert status == 0, "the sanitizers or the flash model stopped the stub"

    def _order(self, content: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(content)

    def _take(self, count: int) -> bytes:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.flush()
        content = self.process.stdout.read(count)
        assert len(content) == count, "the sanitizers or the flash model stopped the stub"
        return content

    # --- the board ---------------------------------------------------------------------------------------------------

    def chip(
        self,
        flash_id: int = 0x1240EF,
        status: int = 0,
        *,
        silent: bool = False,
        stuck: bool = False,
        never_enabled: bool = False,
        keeps_protection: bool = False,
        asleep: bool = False,
        bad_cell: int | None = None,
        cut: int | None = None,
    ) -> None:
        mode = silent | stuck << 1 | never_enabled << 2 | keeps_protection << 3 | asleep << 4
        cell = 0 if bad_cell is None else bad_cell + 1
        self._order(b"C" + struct.pack("<4Ii", flash_id, status, mode, cell, -1 if cut is None else cut))

    def put(self, address: int, content: bytes) -> None:
        self._order(b"P" + struct.pack("<2I", address, len(content)) + content)

    def flash(self, address: int = 0, size: int = FLASH_SIZE) -> bytes:
        self._order(b"G" + struct.pack("<2I", address, size))
        return self._take(size)

    def changes(self) -> int:
        self._order(b"K")
        return int.from_bytes(self._take(4), "little")

    def rates(self, host: int, divider: int, latency_us: int = 1000) -> None:
        self._order(struct.pack("<cIcIcI", b"B", host, b"D", divider, b"L", latency_us))

    def reset(self) -> None:
        """Power off and on; flash and rates stay."""
        self._order(b"X")
        self.buffer.clear()
        self.coming = b""

    # --- the wire ----------------------------------------------------------------------------------------------------

    def _run(self, until_us: int) -> bytes:
        self._order(b"R" + struct.pack("<Q", until_us))
        self.now_us, what, count = struct.unpack("<QBI", self._take(13))
        if what == 1:
            raise PowerCut
        if what == 2:
            raise StubLeft(count)
        self.coming += self._take(count)
        if self.faults is None:
            data, self.coming = self.coming, b""
            return data
        # Faults befall whole frames, so what is not whole yet waits.
        whole, zero, self.coming = self.coming.rpartition(b"\0")
        return self.faults.through(whole + zero)

    def perform(self, action: Action) -> Any:
        """Interpret one action."""
        match action:
            case Send(data):
                self.sent += len(data)
                data = self.faults.through(data) if self.faults else data
                self._order(b"S" + struct.pack("<I", len(data)) + data)
            case Receive(timeout_s):
                until = self.now_us + max(1, int(timeout_s * 1e6))
                while not self.buffer and self.now_us < until:
                    self.buffer += self._run(until)
                data = bytes(self.buffer)
                self.buffer.clear()
                return data
            case Wait(seconds):
                until = self.now_us + int(seconds * 1e6)
                while self.now_us < until:
                    self.buffer += self._run(until)
            case Discard():
                data = bytes(self.buffer)
                self.buffer.clear()
                return data
            case Now():
                return self.now_us / 1e6
            case SetBaud(rate):
                self._order(b"B" + struct.pack("<I", rate))
            case Note(fact):
                self.notes.append(fact)
            case _:
                raise AssertionError(action)
        return None

    def run(self, steps: Steps[Any]) -> Any:
        """Run Steps to their end."""
        result: Any = None
        generator: Generator[Action, Any, Any] = steps
        try:
            action = generator.send(None)
            while True:
                try:
                    result = self.perform(action)
                except (PowerCut, StubLeft) as event:
                    action = generator.throw(event)
                    continue
                action = generator.send(result)
        except StopIteration as end:
            return end.value
