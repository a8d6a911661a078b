"""Packets: checksum against the plain loop, replies of ROM and stub, hostile replies."""

import functools
import operator

from hypothesis import given
from hypothesis import strategies as st

from espmon.bootloader import packets


@given(st.binary(max_size=5000))
def test_checksum_is_the_exclusive_or(data: bytes) -> None:
    assert packets.checksum(data) == functools.reduce(operator.xor, data, 0xEF)


@given(st.binary(max_size=64))
def test_any_packet_parses_or_is_none(data: bytes) -> None:
    reply = packets.parse_reply(data)
    if reply is not None:
        reply.status(16, 2)


def test_status_of_rom_and_stub() -> None:
    ok_rom = packets.parse_reply(b"\x01\x13\x24\x00\0\0\0\0" + b"a" * 32 + b"\0\0\0\0")
    assert ok_rom is not None
    assert ok_rom.status(32, 4) == (b"a" * 32, 0)
    refused = packets.parse_reply(b"\x01\x13\x04\x00\0\0\0\0\x01\x05\0\0")
    assert refused is not None
    assert refused.status(32, 4) == (b"", 0x0105)
    stub = packets.parse_reply(b"\x01\x11\x02\x00\0\0\0\0\xc1\x00")
    assert stub is not None
    assert stub.status(0, 2) == (b"", 0xC100)
    assert packets.error_meaning(0xC100) == "checksum of the data is wrong"


def test_length_must_agree() -> None:
    assert packets.parse_reply(b"\x01\x08\x05\x00\0\0\0\0\0\0") is None
    assert packets.parse_reply(b"\x00\x08\x02\x00\0\0\0\0\0\0") is None


def test_own_request_is_recognised() -> None:
    assert packets.is_request(packets.request(packets.Op.SYNC, packets.SYNC_PAYLOAD))
    assert not packets.is_request(b"\x01" + packets.request(packets.Op.SYNC)[1:])
