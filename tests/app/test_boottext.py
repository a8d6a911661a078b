"""The text of a boot among a loader's frames."""

from __future__ import annotations

import pytest

from espmon.app.boottext import BootText

BANNER = b"\r\n ets Jan  8 2013,rst cause:2, boot mode:(1,6)\r\n\r\n"
FRAME = b"\xc0\x01\x08\x04\x00 rst cause:4, boot mode:(3,6)\r\n\xc0"


def heard(filter_: BootText, data: bytes, size: int) -> bytes:
    return b"".join(filter_.of(data[at : at + size]) for at in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 7, len(BANNER), 4096])
def test_text_is_what_comes_between_a_reset_and_the_first_frame(size):
    text = BootText()
    assert heard(text, BANNER, size) == b""  # nobody has reset it
    text.expect()
    assert text.expected
    assert heard(text, BANNER + FRAME + BANNER, size) == BANNER
    assert not text.expected
    text.expect()
    assert heard(text, BANNER, size) == BANNER


def test_what_is_no_text_is_left_out_and_there_is_a_bound():
    text = BootText()
    text.expect()
    assert text.of(bytes(range(0x80, 0xBF))) == b""
    assert text.of(b"x" * 5000) == b"x" * (2048 - 63)
    assert text.of(b"more") == b""
    text.expect()
    text.forget()
    assert text.of(BANNER) == b""
