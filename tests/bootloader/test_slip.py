"""SLIP in bulk: the same frames however the stream is cut, and no input that raises."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from espmon.bootloader import slip


def read(chunks: list[bytes]) -> tuple[bytes, list[bytes | None]]:
    reader = slip.FrameReader()
    stray, packets = b"", []
    for chunk in chunks:
        s, bodies = reader.feed(chunk)
        stray += s
        packets += [slip.decode(b) for b in bodies]
    return stray, packets


@given(st.lists(st.binary(min_size=1), max_size=8))
def test_round_trip_whole_and_byte_by_byte(packets: list[bytes]) -> None:
    stream = b"".join(slip.encode(p) for p in packets)
    assert read([stream])[1] == packets
    assert read([stream[i : i + 1] for i in range(len(stream))])[1] == packets


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=6))
def test_any_bytes_any_cut(data: bytes, cuts: list[int]) -> None:
    borders = [0, *sorted(min(c, len(data)) for c in cuts), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(borders)]
    assert read(pieces) == read([data])


def test_text_before_and_between_frames() -> None:
    stream = b" ets Jan  8" + slip.encode(b"one") + b"boot" + slip.encode(b"two") + b"tail"
    stray, packets = read([stream])
    assert stray == b" ets Jan  8"
    assert [p for p in packets if p != b"boot"] == [b"one", b"two"]


def test_escapes_and_malformed_escape() -> None:
    assert slip.encode(b"\xc0\xdb\x01") == b"\xc0\xdb\xdc\xdb\xdd\x01\xc0"
    assert slip.decode(b"a\xdb\x00b") is None
    assert slip.decode(b"a\xdb") is None
    assert slip.decode(b"\xdb\xdd\xdc") == b"\xdb\xdc"


def test_a_frame_without_end_is_bounded() -> None:
    reader = slip.FrameReader()
    reader.feed(b"\xc0")
    given_back = b"".join(reader.feed(b"x" * 4096)[0] for _ in range(64))
    assert reader.pending <= slip.FRAME_LIMIT
    assert len(given_back) + reader.pending == 64 * 4096
