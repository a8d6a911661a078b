"""What of the bytes heard while a board is in its loader is the text of a boot."""

from __future__ import annotations

_MOST = 2048  # bytes of a boot's text
_PRINTABLE = bytes([9, 10, 13, 27, *range(0x20, 0x7F)])


class BootText:
    """A loader's answers may hold flash content, which reads like anything: only what follows a reset is text, up to the first frame."""

    def __init__(self) -> None:
        self._left = 0

    def expect(self) -> None:
        """The board was reset."""
        self._left = _MOST

    def forget(self) -> None:
        """Nothing that is heard from now on is text."""
        self._left = 0

    @property
    def expected(self) -> bool:
        """True from a reset until a loader's first frame, or too many bytes."""
        return self._left > 0

    def of(self, data: bytes) -> bytes:
        """The text at the beginning of `data`, the next bytes heard; none when it doesn't read like text."""
        if self._left <= 0:
            return b""
        text = data[: self._left]
        end = min((at for at in (text.find(b"\xc0"), text.find(b"\0")) if at >= 0), default=-1)
        self._left = 0 if end >= 0 else self._left - len(text)
        if end >= 0:
            text = text[:end]
        return text if len(text.translate(None, _PRINTABLE)) * 10 <= len(text) else b""
