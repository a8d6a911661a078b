"""Faults of the link between host and chip: frames that get lost, come twice, are damaged; each direction its own.

Pure. A frame is what stands between two C0 bytes (SLIP); whatever is outside of frames passes, text for instance.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

END = 0xC0


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFaults:
    """Probabilities per frame; `corrupt` damages one bit, `drop_bytes` takes out 1 to 40 bytes."""

    lose: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    drop_bytes: float = 0.0

    @property
    def any(self) -> bool:
        """True when this link is not perfect."""
        return bool(self.lose or self.duplicate or self.corrupt or self.drop_bytes)


class FaultyLink:
    """Bytes in, bytes out, in any pieces. Keeps count of what it did in `lost`, `doubled`, `damaged`."""

    def __init__(self, faults: LinkFaults, random_source: random.Random) -> None:
        self.faults = faults
        self.random = random_source
        self.lost = self.doubled = self.damaged = self.frames = 0
        self.lost_bytes = 0  # they took their time on the line all the same
        self._inside = False
        self._frame = bytearray()  # of the open frame: what was seen of it
        self._fate = "pass"
        #: what ends a frame: END, which also begins it, or a zero byte (COBS), which does not
        self.frame_end = END

    def _draw(self) -> str:
        self.frames += 1
        throw = self.random.random()
        for fate, chance in (
            ("lose", self.faults.lose),
            ("duplicate", self.faults.duplicate),
            ("corrupt", self.faults.corrupt),
            ("drop", self.faults.drop_bytes),
        ):
            if throw < chance:
                return fate
            throw -= chance
        return "pass"

    def carry(self, content: bytes) -> bytes:
        """What arrives of `content`."""
        if not self.faults.any:
            return content
        out = bytearray()
        at = 0
        if self.frame_end != END:
            out += self._carry_to_zeros(content)
            at = len(content)
        while at < len(content):
            if not self._inside:
                start = content.find(END, at)
                if start < 0:
                    out += content[at:]
                    break
                out += content[at:start]
                self._inside, self._frame, self._fate = True, bytearray([END]), self._draw()
                at = start + 1
                continue
            end = content.find(END, at)
            if end < 0:
                self._frame += content[at:]
                break
            self._frame += content[at : end + 1]
            at = end + 1
            if len(self._frame) == 2:  # two ENDs in a row: the second one starts the frame
                self._frame = bytearray([END])
                continue
            self._inside = False
            out += self._arrived()
        return bytes(out)

    def _carry_to_zeros(self, content: bytes) -> bytes:
        *whole, rest = (bytes(self._frame) + content).split(b"\0")
        out = bytearray()
        for piece in whole:
            self._fate, self._frame = self._draw() if piece else "pass", bytearray(piece + b"\0")
            out += self._arrived()
        self._inside, self._frame = False, bytearray(rest)
        return bytes(out)

    def _arrived(self) -> bytes:
        frame = self._frame
        if self._fate == "lose":
            self.lost += 1
            self.lost_bytes += len(frame)
            return b""
        if self._fate == "duplicate":
            self.doubled += 1
            return bytes(frame + frame)
        if self._fate == "corrupt":
            self.damaged += 1
            frame[self.random.randrange(len(frame))] ^= 1 << self.random.randrange(8)
        elif self._fate == "drop":
            self.damaged += 1
            first = self.random.randrange(len(frame))
            whole = len(frame)
            del frame[first : first + self.random.randint(1, 40)]
            self.lost_bytes += whole - len(frame)
        return bytes(frame)
