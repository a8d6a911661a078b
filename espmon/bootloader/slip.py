"""SLIP framing (RFC 1055) in bulk: whole buffers are searched and replaced, no byte is looked at in Python.

A frame stands between two ``C0``; inside, ``C0`` is sent as ``DB DC`` and ``DB`` as ``DB DD``. Text of a board can stand
between frames, and a lost ``C0`` would swap inside and outside for ever if one kept count: so every ``C0`` is taken as
a border, and what stands between two of them is a *candidate* that its reader accepts or gives back as stray bytes.
"""

from __future__ import annotations

import re

END = b"\xc0"
_BAD_ESCAPE = re.compile(b"\xdb(?![\xdc\xdd])")

# The largest frame that any loader sends is a 4 KiB flash packet, at worst all escaped (8 KiB); more is no frame.
FRAME_LIMIT = 0x10000


def encode(packet: bytes) -> bytes:
    """The packet as a frame."""
    return END + packet.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc") + END


def decode(body: bytes) -> bytes | None:
    """The packet in a frame's body (the bytes between two ``C0``), or None when an escape in it is malformed."""
    if b"\xdb" not in body:
        return body
    if _BAD_ESCAPE.search(body):
        return None
    return body.replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")


class FrameReader:
    """Cuts a stream at every ``C0``. What it returns are bodies, still escaped: see :func:`decode`."""

    __slots__ = ("_open", "_parts", "_size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._open = False  # a C0 was seen before `_parts`

    def feed(self, data: bytes) -> tuple[bytes, list[bytes]]:
        """`(stray, bodies)`: bytes that stood before any ``C0`` or grew beyond all frames, and the bodies completed.

        Empty bodies (``C0 C0``) are left out.
        """
        if END not in data:
            if not self._open:
                return data, []
            self._parts.append(data)
            self._size += len(data)
            return (self.flush(), []) if self._size > FRAME_LIMIT else (b"", [])
        head, *rest = data.split(END)
        stray = b""
        bodies: list[bytes] = []
        if self._open:
            body = b"".join(self._parts) + head if self._parts else head
            if len(body) > FRAME_LIMIT:
                stray = body
            elif body:
                bodies.append(body)
        else:
            stray = head
        tail = rest.pop()
        bodies += [body for body in rest if body]
        self._parts = [tail] if tail else []
        self._size = len(tail)
        self._open = True
        return stray, bodies

    def flush(self) -> bytes:
        """Give up the frame under way: its bytes so far. The next frame needs a ``C0`` to begin."""
        left = b"".join(self._parts)
        self._parts = []
        self._size = 0
        self._open = False
        return left

    @property
    def pending(self) -> int:
        """Bytes of the unfinished frame."""
        return self._size
