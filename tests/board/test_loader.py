"""The ROM loader and the flasher stub, command by command, on a virtual clock."""

from __future__ import annotations

import hashlib
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espmon.board.board import Board
from espmon.board.settings import BoardSettings, settings_from
from espmon.board.silicon import SILICON
from tests.board.talk import Talk

MIB = 1 << 20


def board_of(chip: str = "esp8266", cells: bytearray | None = None, **chosen: object) -> Board:
    settings_ = settings_from(
        [(name, str(value)) for name, value in chosen.items()], BoardSettings(chip=chip, flash_size=MIB)
    )
    return Board(settings_, bytearray(b"\xff") * MIB if cells is None else cells)


def in_loader(chip: str = "esp8266", **chosen: object) -> Talk:
    talk = Talk(board_of(chip, **chosen))
    talk.wait(0.5)
    talk.enter()
    assert talk.sync()
    if chip != "esp8266":
        assert ok(talk.command(0x0D, struct.pack("<II", 0, 0)))
    return talk


def in_stub(chip: str = "esp8266", **chosen: object) -> Talk:
    talk = in_loader(chip, **chosen)
    assert b"OHAI" in talk.stub()
    return talk


def ok(reply: object) -> bool:
    from tests.board.talk import Reply

    assert isinstance(reply, Reply)
    return set(reply.content[-4:] if len(reply.content) == 4 else reply.content[-2:]) == {0}


@pytest.mark.parametrize("chip", SILICON)
def test_sync_tells_the_family(chip: str) -> None:
    """Eight answers; the ESP8266's have two status bytes, the others' four; the value is not 0."""
    talk = Talk(board_of(chip))
    talk.wait(0.5)
    talk.enter()
    replies = talk.sync()
    assert len(replies) == 8
    assert {len(reply.content) for reply in replies} == {2 if chip == "esp8266" else 4}
    assert all(reply.value for reply in replies)


def test_first_sync_is_eaten_by_autobaud() -> None:
    talk = Talk(board_of(), 460800)
    talk.wait(0.5)
    talk.enter()
    assert talk.sync(1) == []
    assert len(talk.sync(1)) == 8


@pytest.mark.parametrize("chip", SILICON)
def test_stub_says_hello_and_value_zero(chip: str) -> None:
    talk = in_stub(chip)
    replies = talk.sync()
    assert {reply.value for reply in replies} == {0}
    assert {len(reply.content) for reply in replies} == {2}


def test_registers() -> None:
    talk = in_loader()
    reply = talk.command(0x0A, struct.pack("<I", 0x40001000))
    assert reply is not None
    assert reply.value == 0xFFF0C101
    assert ok(talk.command(0x09, struct.pack("<4I", 0x60000300, 0x12345678, 0xFFFF0000, 0)))
    reply = talk.command(0x0A, struct.pack("<I", 0x60000300))
    assert reply is not None
    assert reply.value == 0x12340000


def test_unknown_command_is_answered_in_the_name_of_the_last_one() -> None:
    """As the real ROM does: after SYNC eight refusals that look like SYNC's answers."""
    talk = in_loader()
    talk.send(0x13, struct.pack("<4I", 0, 4096, 0, 0))
    frames = talk.heard(0.5) + talk.heard(0.5)
    assert [frame.hex() for frame in frames] == ["01080200070712200105"] * 8
    assert ok(talk.command(0x0A, struct.pack("<I", 0)))
    talk.send(0x30)
    assert [frame.hex()[:4] + frame.hex()[-4:] for frame in talk.heard(0.5)] == ["010a0105"]


def test_rom_write_esp8266_erases_too_much() -> None:
    """64 KiB of programmed flash, one sector asked for at 0: the ROM erases two."""
    cells = bytearray(b"\x00") * MIB
    talk = in_loader(cells=cells)
    assert ok(talk.command(0x02, struct.pack("<4I", 0x1000, 4, 0x400, 0)))
    assert cells.count(b"\xff") == 0x2000


def test_rom_write_without_stub() -> None:
    cells = bytearray(b"\x00") * MIB
    talk = in_loader(cells=cells)
    content = bytes(range(256)) * 8
    assert ok(talk.command(0x02, struct.pack("<4I", 0x1000, 2, 0x400, 0x8000)))
    for number in range(2):
        assert ok(talk.data(0x03, content[number * 0x400 :][:0x400], number))
    assert cells[0x8000:0x8800] == content


def test_wrong_checksum_uses_up_the_sequence_number() -> None:
    """As the real ROM does: the same block again is refused, and FLASH_END tells of the failure."""
    talk = in_loader()
    assert ok(talk.command(0x02, struct.pack("<4I", 0x400, 1, 0x400, 0)))
    body = struct.pack("<4I", 0x400, 0, 0, 0) + b"a" * 0x400
    reply = talk.command(0x03, body, 0x11)
    assert reply is not None
    assert reply.content == b"\x01\x07"
    reply = talk.data(0x03, b"a" * 0x400, 0)
    assert reply is not None
    assert reply.content == b"\x01\x05"
    reply = talk.data(0x03, b"a" * 0x400, 1)
    assert reply is not None
    assert reply.content == b"\x00\x05"  # good, with the old error left over
    assert talk.board.flash.read(0, 0x400) == b"a" * 0x400
    reply = talk.command(0x04, struct.pack("<I", 1))
    assert reply is not None
    assert reply.content == b"\x01\x06"


def test_esp32_rom_compressed_write_md5_and_slow_read() -> None:
    talk = in_loader("esp32")
    plain = b"flash me " * 3000
    packed = zlib.compress(plain, 9)
    blocks = [packed[i : i + 0x400] for i in range(0, len(packed), 0x400)]
    assert ok(talk.command(0x10, struct.pack("<4I", len(plain), len(blocks), 0x400, 0x10000)))
    for number, block in enumerate(blocks):
        assert ok(talk.data(0x11, block, number))
    reply = talk.command(0x13, struct.pack("<4I", 0x10000, len(plain), 0, 0))
    assert reply is not None
    assert reply.content[:32].decode() == hashlib.md5(plain).hexdigest()
    reply = talk.command(0x0E, struct.pack("<II", 0x10000, 20))
    assert reply is not None
    assert reply.content[:64] == plain[:64]


def test_esp32_rom_needs_attach() -> None:
    talk = Talk(board_of("esp32"))
    talk.wait(0.5)
    talk.enter()
    talk.sync()
    reply = talk.command(0x02, struct.pack("<4I", 0x1000, 1, 0x400, 0))
    assert reply is not None
    assert reply.content == b"\x01\x06\x00\x00"


def test_stub_writes_lazily_and_tells_errors_one_command_later() -> None:
    talk = in_stub()
    plain = b"0123456789abcdef" * 512
    packed = zlib.compress(plain)
    md5 = struct.pack("<4I", 0x2000, len(plain), 0, 0)
    assert ok(talk.command(0x10, struct.pack("<4I", len(plain), 1, 0x4000, 0x2000)))
    assert ok(talk.data(0x11, packed, 0))
    talk.wait(1)
    assert talk.board.flash.read(0x2000, len(plain)) == plain
    assert ok(talk.data(0x11, packed, 1))  # once complete, more is acknowledged and ignored
    reply = talk.command(0x13, md5)
    assert reply is not None
    assert reply.content[:16] == hashlib.md5(plain).digest()
    assert ok(talk.command(0x10, struct.pack("<4I", len(plain), 1, 0x4000, 0x2000)))
    assert ok(talk.data(0x11, b"no stream at all", 0))
    reply = talk.command(0x13, md5)  # not carried out
    assert reply is not None
    assert reply.content == b"\xc7\x00"
    assert not ok(talk.command(0x12, struct.pack("<I", 1)))  # not everything has come


def test_stub_counts_blocks_by_bytes_only() -> None:
    """A block that comes twice shifts what follows: the reason why clients must not resend blindly."""
    talk = in_stub()
    first, second = b"a" * 0x400, b"b" * 0x400
    assert ok(talk.command(0x02, struct.pack("<4I", 0x800, 2, 0x400, 0x1000)))
    for number, block in enumerate((first, first, second)):
        assert ok(talk.data(0x03, block, min(number, 1)))
    talk.wait(1)
    assert talk.board.flash.read(0x1000, 0x800) == first + first


def test_stub_reads_packet_by_packet() -> None:
    cells = bytearray(bytes(range(256)) * (MIB // 256))
    talk = in_stub(cells=cells)
    assert ok(talk.command(0xD2, struct.pack("<4I", 0x100, 0x1800, 0x1000, 64)))
    got, digest = b"", b""
    while len(got) < 0x1800:
        for frame in talk.heard(2):
            got += frame
            talk.board.host_write(
                b"\xc0"
                + struct.pack("<I", len(got)).replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc")
                + b"\xc0"
            )
    assert got == bytes(cells[0x100:0x1900])
    digest = b"".join(talk.heard(2))
    assert digest == hashlib.md5(got).digest()


def test_stub_drops_frames_that_are_too_long() -> None:
    talk = in_stub()
    assert ok(talk.command(0x02, struct.pack("<4I", 0x8000, 1, 0x4000, 0)))
    assert talk.data(0x03, b"x" * 0x4100, 0, seconds=5) is None
    assert ok(talk.data(0x03, b"x" * 0x4000, 0))


def test_stub_does_not_start_the_application() -> None:
    """Neither RUN_USER_CODE nor FLASH_END leaves this stub: boards without a reset line need another way out."""
    talk = in_stub()
    talk.send(0xD3)
    assert talk.heard(0.5) == []
    assert ok(talk.command(0x02, struct.pack("<4I", 0, 0, 0x400, 0)))
    assert ok(talk.command(0x04, struct.pack("<I", 0)))
    assert len(talk.sync()) == 8


def test_stub_changes_rate() -> None:
    talk = in_stub("esp32c3")
    assert ok(talk.command(0x0F, struct.pack("<II", 921600, 115200)))
    talk.board.set_rate(921600)
    talk.wait(0.05)
    assert len(talk.sync()) == 8


def test_secure_download_mode_allows_little() -> None:
    talk = in_loader("esp32s3", secure_download=1)
    reply = talk.command(0x0A, struct.pack("<I", 0x40001000))
    assert reply is not None
    assert reply.content[:1] == b"\x01"
    reply = talk.command(0x14)
    assert reply is not None
    assert struct.unpack_from("<I", reply.content)[0] & 4


@pytest.mark.parametrize("behaviour", ["silent", "crash"])
def test_stub_that_does_not_start(behaviour: str) -> None:
    talk = in_loader(stub=behaviour)
    assert b"OHAI" not in talk.stub()


def test_power_cut_keeps_what_was_programmed() -> None:
    cells = bytearray(b"\xff") * MIB
    talk = in_stub(cells=cells, cut_at=1000)
    content = b"\x00" * 0x1000
    assert ok(talk.command(0x02, struct.pack("<4I", len(content), 1, 0x4000, 0)))
    talk.data(0x03, content, 0, 1)
    talk.wait(1)
    assert cells[:1000] == content[:1000]
    assert set(cells[1000:]) == {0xFF}
    assert talk.sync() == []
    talk.board.power(True)
    assert talk.board.host_read() == b"" or True
    talk.wait(0.5)
    talk.enter()
    assert talk.sync()


def test_reset_while_loading_shows_the_banner() -> None:
    talk = in_loader("esp32", reset_at=600)
    talk.command(0x05, struct.pack("<4I", 0x800, 1, 0x1800, 0x40080000))
    talk.send(0x07, b"z" * 1000)
    assert b"rst:0x1 (POWERON_RESET)" in talk.raw(1.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=6), st.sampled_from(["esp8266", "esp32c3"]), st.booleans())
def test_arbitrary_bytes_never_break_the_board(chunks: list[bytes], chip: str, stub: bool) -> None:
    talk = in_stub(chip) if stub else in_loader(chip)
    for chunk in chunks:
        talk.board.host_write(chunk)
        talk.wait(0.05)
        talk.board.host_write(b"\xc0" + chunk + b"\xc0")
        talk.wait(0.05)
    talk.wait(20)
    talk.enter()
    assert talk.sync()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 0xFF), st.binary(max_size=40), st.booleans(), st.sampled_from(["esp8266", "esp32", "esp32c6"]))
def test_any_command_with_any_body(operation: int, body: bytes, stub: bool, chip: str) -> None:
    """Whatever a host asks for: the board answers or leaves, and comes back after a reset."""
    talk = in_stub(chip) if stub else in_loader(chip)
    talk.command(operation, body, seconds=1.0)
    talk.wait(30)
    talk.enter()
    assert talk.sync()
