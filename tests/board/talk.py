"""A small loader client on the board's virtual clock, for tests of the board: no threads, no waiting."""

from __future__ import annotations

import struct

from espmon.board.board import Board
from espmon.board.loader import Frames, checksum, framed

SYNC_BODY = b"\x07\x07\x12\x20" + b"\x55" * 32


class Reply:
    """One answer: `value`, `content` (status included)."""

    def __init__(self, frame: bytes) -> None:
        self.direction, self.operation, self.length, self.value = struct.unpack_from("<BBHI", frame)
        self.content = frame[8:]


class Talk:
    """Sends commands to `board` and gives their answers."""

    def __init__(self, board: Board, rate: int = 115200) -> None:
        self.board = board
        board.set_rate(rate)
        self.frames = Frames(1 << 16)

    def wait(self, seconds: float) -> None:
        self.board.advance(self.board.now + seconds)

    def raw(self, seconds: float = 1.0) -> bytes:
        self.wait(seconds)
        return self.board.host_read()

    def enter(self) -> bytes:
        """Reset into download mode as esptool does; returns what was heard at the host's rate."""
        board = self.board
        board.set_lines(False, True)
        self.wait(0.1)
        board.set_lines(True, False)
        self.wait(0.05 + board.settings.en_rise)
        board.set_lines(False, False)
        return self.raw(0.1)

    def send(self, operation: int, body: bytes = b"", check: int = 0) -> None:
        self.board.host_write(framed(struct.pack("<BBHI", 0, operation, len(body), check) + body))

    def heard(self, seconds: float) -> list[bytes]:
        """Frames heard within `seconds`, stopping once something came and the line is quiet."""
        end = self.board.now + seconds
        out: list[bytes] = []
        while self.board.now < end:
            self.wait(0.002)
            out += self.frames.feed(self.board.host_read())
            if out and self.board.to_host.next_arrival() is None:
                break
        return out

    def command(self, operation: int, body: bytes = b"", check: int = 0, seconds: float = 5.0) -> Reply | None:
        """The answer to one command, None when there is none."""
        self.send(operation, body, check)
        end = self.board.now + seconds
        while self.board.now < end:
            for frame in self.heard(min(0.5, seconds)):
                if len(frame) >= 8 and frame[0] == 1 and frame[1] == operation:
                    return Reply(frame)
        return None

    def data(self, operation: int, content: bytes, number: int, seconds: float = 5.0) -> Reply | None:
        body = struct.pack("<4I", len(content), number, 0, 0) + content
        return self.command(operation, body, checksum(content), seconds)

    def sync(self, attempts: int = 3) -> list[Reply]:
        """All answers to SYNC."""
        for _ in range(attempts):
            self.send(0x08, SYNC_BODY)
            frames = self.heard(0.2)
            if frames:
                frames += self.heard(0.2)
                return [Reply(frame) for frame in frames]
        return []

    def upload(self, address: int, content: bytes, entry: int) -> bytes:
        """MEM_BEGIN, MEM_DATA, MEM_END; returns the frames heard after the jump, joined."""
        assert self.command(0x05, struct.pack("<4I", len(content), 1, 0x1800, address)) is not None
        assert self.data(0x07, content, 0) is not None
        self.send(0x06, struct.pack("<II", 0, entry))
        return b"|".join(self.heard(0.5) + self.heard(0.5))

    def stub(self) -> bytes:
        """Run something that counts as a flasher stub."""
        address = self.board.silicon.chip.code_ranges[1][0]
        return self.upload(address, b"stub" * 16, address + 4)

    def stub_quietly(self) -> None:
        """As `stub`, whatever the board says to it."""
        address = self.board.silicon.chip.code_ranges[1][0]
        self.command(0x05, struct.pack("<4I", 64, 1, 0x1800, address), seconds=0.5)
        self.data(0x07, b"stub" * 16, 0, seconds=0.5)
        self.send(0x06, struct.pack("<II", 0, address + 4))
        self.heard(0.5)
