"""Frames: whole, byte by byte, with bytes around them, and arbitrary bytes."""

from __future__ import annotations

import re
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import example, given

import espmon.bootloader.stub
from espmon.bootloader.stub import protocol
from espmon.bootloader.stub.protocol import Frame, FrameReader, decode, encode, stuff, unstuff


@given(st.binary(max_size=2000))
@example(b"\1" * 253)
@example(b"\1" * 254)
@example(b"\1" * 255)
@example(b"\1" * 254 + b"\0")
@example(b"\0" * 3)
def test_stuffing_is_reversible_and_costs_a_byte_in_254(content: bytes) -> None:
    stuffed = stuff(content)
    assert b"\0" not in stuffed
    assert len(stuffed) <= len(content) + len(content) // 254 + 1
    assert unstuff(stuffed) == content


@given(st.binary(max_size=600))
def test_arbitrary_bytes_are_no_frame_and_no_error(content: bytes) -> None:
    unstuff(content)
    assert decode(content) is None
    reader = FrameReader()
    stray, frames = reader.feed(content)
    assert not frames
    assert stray.replace(b"\0", b"") + reader.flush() == content.replace(b"\0", b"")


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 65535), st.binary(max_size=700)), max_size=5), st.data())
def test_any_split_gives_the_same_frames(content: list[tuple[int, int, bytes]], draw: st.DataObject) -> None:
    frames = [Frame(op, op ^ 1, argument, body) for op, argument, body in content]
    wire = b"boot text\0" + b"".join(encode(f.op, f.tag, f.argument, f.body) for f in frames) + b"rest"
    whole = FrameReader().feed(wire)
    assert whole == (b"boot text", frames)
    for size in (1, draw.draw(st.integers(1, max(1, len(wire))))):
        reader = FrameReader()
        got: list[Frame] = []
        stray = b""
        for at in range(0, len(wire), size):
            more, some = reader.feed(wire[at : at + size])
            stray += more
            got += some
        assert (stray, got) == whole
        assert reader.flush() == b"rest"


def test_endless_text_is_given_up_in_bounded_pieces() -> None:
    reader = FrameReader()
    stray, _ = reader.feed(b"x" * 10_000)
    assert len(stray) + reader.pending == 10_000
    assert reader.pending <= protocol.LONGEST


@given(st.binary(min_size=4, max_size=200), st.data())
def test_one_wrong_bit_is_seen(body: bytes, draw: st.DataObject) -> None:
    wire = encode(3, 7, 1, body)[:-1]
    at = draw.draw(st.integers(0, len(wire) * 8 - 1))
    damaged = bytearray(wire)
    damaged[at // 8] ^= 1 << at % 8
    assert decode(bytes(damaged)) is None


def test_numbers_are_those_of_the_source() -> None:
    source = (Path(espmon.bootloader.stub.__file__).parent / "core.h").read_text("ascii")
    known = {name: int(value, 0) for name, value in re.findall(r"\b([A-Z][A-Z0-9_]+) = (0x[0-9a-f]+|\d+)\b", source)}
    for op in protocol.Op:
        assert known["OP_" + op.name] == op
    for status in protocol.Status:
        assert known["ST_" + status.name] == status
    assert set(protocol.MEANINGS) <= set(protocol.Status)
    assert known["REPLY"] == protocol.REPLY
    assert known["WINDOW"] == protocol.WINDOW
    assert known["PROTOCOL"] == protocol.VERSION
    assert known["FRAME_BODY"] == protocol.LARGEST_BODY
    assert known["MAP_DIGESTS"] == protocol.MAP_DIGESTS
    assert (known["SEC_SAME"], known["SEC_ERASED"], known["SEC_MISMATCH"]) == (
        protocol.SECTOR_SAME,
        protocol.SECTOR_ERASED,
        protocol.SECTOR_MISMATCH,
    )
    assert (known["LEAVE_RETURN"], known["LEAVE_RESET"], known["LEAVE_BOOT"]) == (
        protocol.LEAVE_RETURN,
        protocol.LEAVE_RESET,
        protocol.LEAVE_BOOT,
    )
