"""The client against the pure virtual board: every chip, with and without a stub, over bad links and through cuts."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from espmon import chips
from espmon.board.board import Board
from espmon.bootloader import guards
from espmon.bootloader.diagnosis import Evidence, diagnose
from espmon.bootloader.errors import (
    BoardReset,
    FlashDiffers,
    FlashUnreadable,
    ImageDamaged,
    LoaderProblem,
    NeedsStub,
    NoSyncReply,
    NotBootable,
    PastEnd,
    RegionsOverlap,
    SecurityForbids,
    SendStalled,
    Stopped,
    WrongChip,
    WrongFlashSize,
)
from espmon.bootloader.flash import SECTOR
from espmon.bootloader.loader import Loader, _esp8266_erase
from espmon.bootloader.notes import LineReset, Transferred
from espmon.bootloader.read import Backup, Piece, check_backup, sector_digests
from espmon.bootloader.resets import HARD_USB, SEQUENCES
from espmon.bootloader.session import Session, read_mac
from espmon.bootloader.write import Region, Written, verify_regions, write_regions
from espmon.errors import EspmonError, UsageProblem
from tests.bootloader import images
from tests.bootloader.virtual import Player, board, plan
from tests.soak.flash import CHIPS, cut_points, cut_run, image_for, lossy_run

ALL_CHIPS = sorted(chips.CHIPS)


def opened(there: Board, **changes: Any) -> tuple[Player, Session, Loader]:
    player = Player(there)
    session = Session(plan(**changes))
    return player, session, player.run(session.open())


def region(chip: str, image: bytes) -> Region:
    return Region(offset=chips.CHIPS[chip].boot_offset, content=image, source="image", image=True)


def write(player: Player, session: Session, chip: str, image: bytes) -> Written:
    regions = [region(chip, image)]
    return player.run(session.run(lambda loader: write_regions(loader, regions, regions[0].offset)))


@pytest.mark.parametrize("chip", ALL_CHIPS)
@pytest.mark.parametrize("stub", [True, False], ids=["stub", "rom"])
def test_write_verify_and_leave_on_every_chip(chip: str, stub: bool) -> None:
    there = board(chip=chip)
    player, session, loader = opened(there, use_stub=stub)
    assert loader.facts.chip.name == chip
    assert loader.kind == ("stub" if stub else "rom")
    assert session.flash_size == 4 << 20
    image = image_for(chip, 40, 3)
    written = write(player, session, chip, image)
    assert written.verified == (stub or chip != "esp8266")
    offset = chips.CHIPS[chip].boot_offset
    assert bytes(there.flash.cells[offset : offset + len(image)]) == image
    assert player.run(session.leave())
    there.set_rate(chips.CHIPS[chip].rom_baud[0])
    there.host_read()
    there.advance(there.now + 2)
    assert b"flash read err" not in there.host_read()


@pytest.mark.parametrize("chip", CHIPS)
def test_mac_and_identity(chip: str) -> None:
    player, _session, loader = opened(board(chip=chip, mac="a4:cf:12:34:56:78" if chip != "esp8266" else ""))
    mac = player.run(read_mac(loader))
    assert len(bytes.fromhex(mac.replace(":", ""))) == 6
    if chip != "esp8266":
        assert mac == "a4:cf:12:34:56:78"


def test_only_what_differs_is_written_and_nothing_when_nothing_does() -> None:
    there = board(chip="esp32")
    player, session, _loader = opened(there)
    image = image_for("esp32", 200, 1)
    assert write(player, session, "esp32", image).sectors == len(range(0, len(image), SECTOR))
    again = write(player, session, "esp32", image)
    assert (again.sectors, again.verified) == (0, True)
    changed = bytearray(image)
    for sector in (3, 17, 40):
        changed[sector * SECTOR + 100] ^= 0xFF
    changed[-33] ^= 0  # the digest is not looked at by `write_regions`
    sent = player.sent
    third = write(player, session, "esp32", bytes(changed))
    # the three and the first, which is made invalid before and written last
    assert third.sectors == 4
    assert player.sent - sent < 40_000
    offset = chips.ESP32.boot_offset
    assert bytes(there.flash.cells[offset : offset + len(image)]) == bytes(changed)


def test_sectors_outside_the_request_are_never_touched() -> None:
    for chip in CHIPS:
        for stub in (True, False):
            cells = bytearray(range(256)) * (4 << 12)
            before = bytes(cells)
            player, session, _ = opened(board(cells, chip=chip), use_stub=stub)
            content = images.firmware(20, 5)  # five sectors: an odd number
            regions = [Region(offset=0x33000, content=content)]
            player.run(session.run(lambda loader, r=regions: write_regions(loader, r, 0)))  # type: ignore[misc]
            assert cells[0x33000 : 0x33000 + len(content)] == content
            assert cells[:0x33000] == before[:0x33000]
            assert cells[0x33000 + len(content) :] == before[0x33000 + len(content) :]


def test_esp8266_rom_erases_what_was_counted() -> None:
    """Figures seen on the real boot ROM: (first sector, sectors asked for) -> sectors erased."""
    seen = {
        (0x30, 1): 2,
        (0x30, 2): 4,
        (0x30, 3): 6,
        (0x3F, 1): 2,
        (0x3F, 2): 3,
        (0x3E, 3): 5,
        (0x3E, 5): 7,
        (0x30, 17): 33,
    }
    for (start, asked), erased in seen.items():
        fits = [n for n in range(1, 64) if _esp8266_erase(start, n) == (asked, n)]
        assert fits == [erased]


def test_a_single_sector_is_refused_to_the_esp8266_rom() -> None:
    """It cannot erase one sector without its neighbour, nor read the neighbour to put it back."""
    player, session, _ = opened(board(), use_stub=False)
    with pytest.raises(NeedsStub, match="neighbour"):
        player.run(session.run(lambda loader: write_regions(loader, [Region(offset=0x5000, content=b"x" * 99)], 0)))


def test_esp8266_rom_can_neither_read_nor_hash_and_says_what_mends_it() -> None:
    player, _session, loader = opened(board(), use_stub=False)
    for operation in (
        lambda: player.run(verify_regions(loader, [Region(offset=0, content=b"x")])),
        lambda: player.run(Backup(loader, 4 << 20).run()),
    ):
        with pytest.raises(NeedsStub) as refusal:
            operation()
        assert "pip install 'espmon[stub]'" in (refusal.value.hint or "")


# --- the ladder ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fate", ["silent", "crash", "garbled", "late"])
def test_a_stub_that_does_not_start_leads_to_the_rom(fate: str) -> None:
    there = board(chip="esp32", stub=fate)
    player, session, loader = opened(there)
    assert loader.kind == "rom"
    assert sum(isinstance(n, LineReset) for n in player.notes) >= 3
    image = image_for("esp32", 20, 1)
    assert write(player, session, "esp32", image).verified


@pytest.mark.parametrize(
    "faults",
    [
        {"latency": 0.016},
        {"latency": 0.05},
        {"slow_erase": 8.0},
        {"duplicate": 0.2},
        {"corrupt": 0.03},
        {"drop_bytes": 0.03},
        {"echo": True},
        {"baud_limit": 150000},
        {"app": "chatter"},
        {"lose_to": 0.1},
        {"lose_from": 0.1},
        {"xtal": 40},
    ],
    ids=str,
)
@pytest.mark.parametrize("chip", ["esp8266", "esp32"])
def test_goal_reached_in_spite_of(chip: str, faults: dict[str, Any]) -> None:
    assert lossy_run(chip, 5, kib=60, **faults).result == "ok"


def test_reset_in_the_middle_is_survived_once() -> None:
    assert lossy_run("esp32", 1, kib=60, reset_at=30000).result == "ok"
    assert lossy_run("esp8266", 1, kib=60, reset_at=30000).result == "ok"


def test_a_weak_supply_ends_the_write_and_is_named() -> None:
    player, session, _ = opened(board(chip="esp32", brownout=9000), rate=115200)
    with pytest.raises(BoardReset) as reset:
        write(player, session, "esp32", image_for("esp32", 60, 1))
    assert diagnose(Evidence(failure=reset.value.code))[0].code == "brownout"


def test_lost_frames_one_and_five_percent() -> None:
    """A short share of tests.soak.flash, which runs 400 a rate."""
    for chip in CHIPS:
        results = [lossy_run(chip, seed, lose=loss).result for loss in (0.01, 0.05) for seed in range(6)]
        assert results == ["ok"] * len(results)


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("stub", [True, False], ids=["stub", "rom"])
def test_power_cuts_never_leave_half_an_image_that_boots(chip: str, stub: bool) -> None:
    """A short share of tests.soak.flash, which cuts at every 97th byte and every request's border."""
    old, new = image_for(chip, 24, 1), image_for(chip, 24, 2)
    points = cut_points(chip, old, new, 97, stub)
    assert len(points) > 100
    assert [cut_run(chip, old, new, fault, stub) for fault in points[:: max(1, len(points) // 30)]].count(None) >= 30


def test_write_protected_flash_is_never_called_done() -> None:
    player, session, _ = opened(board(write_protected=True))
    with pytest.raises((FlashDiffers, LoaderProblem)):
        write(player, session, "esp8266", image_for("esp8266", 20, 1))


def test_a_bad_bit_is_never_called_done() -> None:
    player, session, _ = opened(board(chip="esp32", bad_bit=0x3000))
    with pytest.raises(FlashDiffers) as differs:
        write(player, session, "esp32", b"\xe9" + bytes(0x5000))
    assert 0x3000 in differs.value.sectors


@pytest.mark.parametrize("stop_at", [5, 20, 40, 60, 80, 100])
def test_stopping_says_in_which_state_the_board_is(stop_at: int) -> None:
    cells = bytearray(b"\xff") * (4 << 20)
    old, new = image_for("esp32", 60, 1), image_for("esp32", 60, 2)
    cells[0x1000 : 0x1000 + len(old)] = old
    player, session, _ = opened(board(cells, chip="esp32"))
    player.stop_at = player.actions + stop_at
    with pytest.raises(Stopped) as stopped:
        write(player, session, "esp32", new)
    now = bytes(cells[0x1000 : 0x1000 + len(new)])
    if now == new or now[: len(old)] == old:
        return
    assert "incomplete" in stopped.value.state
    assert cells[0x1000] == 0xFF
    player, session, _ = opened(board(cells, chip="esp32"))
    assert write(player, session, "esp32", new).verified


# --- nobody answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "echoed", "heard"),
    [
        ({"no_power": True}, False, False),
        ({"echo": True, "no_power": True}, True, False),
        ({"boot_high": True}, False, True),
    ],
)
def test_silence_has_a_type_with_its_facts_and_ends_in_bounded_time(
    faults: dict[str, Any], echoed: bool, heard: bool
) -> None:
    there = board(**faults)
    with pytest.raises(NoSyncReply) as silent:
        opened(there)
    assert silent.value.echoed == echoed
    assert bool(silent.value.heard) == heard
    assert silent.value.attempts >= 30
    assert there.now < 20


def test_a_stalled_adapter_is_told_apart_from_a_silent_chip() -> None:
    with pytest.raises(SendStalled):
        opened(board(write_stall=True))


# --- guards ----------------------------------------------------------------------------------------------------------


def files(*pairs: tuple[int, bytes]) -> list[Region]:
    return [Region(offset=o, content=c, source=f"file{n}") for n, (o, c) in enumerate(pairs)]


@pytest.mark.parametrize(
    ("pairs", "chip", "refusal"),
    [
        ([(0, images.esp32_image(5))], chips.ESP8266, WrongChip),
        ([(0x1000, images.esp32_image(9))], chips.ESP32, WrongChip),
        ([(0, images.esp8266_image())], chips.ESP32C3, WrongChip),
        ([(0, images.esp8266_image()[:-40])], chips.ESP8266, ImageDamaged),
        ([(0, images.esp8266_image()[:60] + b"?" + images.esp8266_image()[61:])], chips.ESP8266, ImageDamaged),
        ([(0x10000, images.esp32_image(0)[:-1])], chips.ESP32, ImageDamaged),
        ([(0, b"hello")], chips.ESP8266, NotBootable),
        ([(0x1000, b"hello")], chips.ESP32, NotBootable),
        ([(0, bytes(0x3000))], chips.ESP32, NotBootable),
        ([(0x3FF000, bytes(0x1001))], chips.ESP8266, PastEnd),
        ([(0, images.esp8266_image(size_kb=4096))], chips.ESP8266, None),
        ([(0x10000, bytes(0x1001)), (0x11000, b"x")], chips.ESP32, RegionsOverlap),
        ([(0x10001, b"x")], chips.ESP32, UsageProblem),
        ([(0x10000, b"")], chips.ESP32, UsageProblem),
        ([(0x10000, b"plain data"), (0x8000, b"\xaa\x50")], chips.ESP32, None),
    ],
)
def test_guards_refuse_with_their_reason(
    pairs: list[tuple[int, bytes]], chip: chips.Chip, refusal: type[EspmonError] | None
) -> None:
    if refusal is None:
        guards.plan_regions(files(*pairs), chip, 4 << 20)
        return
    with pytest.raises(refusal):
        guards.plan_regions(files(*pairs), chip, 4 << 20)


def test_an_image_for_more_flash_than_there_is() -> None:
    with pytest.raises(WrongFlashSize, match="4096 KiB"):
        guards.plan_regions(files((0, images.esp8266_image(size_kb=4096))), chips.ESP8266, 1 << 20)


def test_a_merged_file_is_cut_at_the_boot_offset() -> None:
    merged = b"\xff" * 0x1000 + images.esp32_image(0)
    first, second = guards.plan_regions(files((0, merged)), chips.ESP32, 4 << 20)
    assert (first.offset, first.image) == (0, False)
    assert (second.offset, second.image) == (0x1000, True)


@pytest.mark.parametrize(
    ("settings", "refusal"),
    [
        ({"chip": "esp32", "secure_boot": True}, SecurityForbids),
        ({"chip": "esp32", "encryption": True}, SecurityForbids),
        ({"chip": "esp32c3", "secure_boot": True}, SecurityForbids),
        ({"chip": "esp32s3", "encryption": True}, SecurityForbids),
        ({"chip": "esp32s3", "secure_download": True}, SecurityForbids),
        ({"chip": "esp32s2", "secure_download": True}, SecurityForbids),
    ],
    ids=str,
)
def test_fuses_forbid_writing(settings: dict[str, Any], refusal: type[EspmonError]) -> None:
    _, session, _ = opened(board(**settings))
    with pytest.raises(refusal):
        guards.check_security(session.security)


def test_flash_without_contact_and_flash_that_lies() -> None:
    _, session, _ = opened(board(flash_id=0xFFFFFF))
    with pytest.raises(FlashUnreadable):
        guards.check_flash(session.flash_id, session.flash_size)
    cells = bytearray(b"\xff") * (1 << 20)
    image = image_for("esp32", 20, 1)
    cells[0x1000 : 0x1000 + len(image)] = image
    player, session, loader = opened(board(cells, chip="esp32", flash_size=1 << 20, flash_claims=4 << 20))
    assert session.flash_size == 4 << 20
    with pytest.raises(WrongFlashSize, match="repeat"):
        player.run(guards.check_real_size(loader, 4 << 20, 0x1000))


# --- backup ----------------------------------------------------------------------------------------------------------


def backup(
    player: Player, loader: Loader, partial: bytes = b"", known: dict[bytes, bytes] | None = None
) -> tuple[Any, bytes]:
    start = len(player.notes)
    count = player.run(Backup(loader, 1 << 20, partial, known).run())
    out = bytearray(1 << 20)
    for note in player.notes[start:]:
        if isinstance(note, Piece):
            out[note.offset : note.offset + len(note.content)] = note.content
    return count, bytes(out)


def test_backup_transfers_only_what_is_not_known() -> None:
    cells = bytearray(b"\xff") * (1 << 20)
    content = images.firmware(150, 9)
    cells[0x2000 : 0x2000 + len(content)] = content
    there = board(cells, chip="esp32", flash_size=1 << 20)
    player, _, loader = opened(there)
    count, copy = backup(player, loader)
    assert copy == bytes(cells)
    assert count.read <= len(content) + 0x8000
    assert count.read + count.blank == 1 << 20
    check_backup(hashlib.md5(copy, usedforsecurity=False).digest(), count.digest)
    again, copy = backup(player, loader, partial=copy[: 1 << 19])
    assert (again.read, copy) == (0, bytes(cells))
    moved = b"\0" * SECTOR + bytes(cells[:0x40000])  # the same sectors at another place
    third, copy = backup(player, loader, known=sector_digests([moved]))
    assert (third.read, copy) == (0, bytes(cells))
    with pytest.raises(FlashDiffers):
        check_backup(b"", third.digest)


@pytest.mark.parametrize(
    "faults", [{"lose": 0.05}, {"corrupt": 0.03}, {"drop_bytes": 0.03}, {"duplicate": 0.1}], ids=str
)
def test_reading_over_a_bad_link(faults: dict[str, Any]) -> None:
    cells = bytearray(images.firmware(1024, 4))
    there = board(cells, chip="esp32", flash_size=1 << 20, **faults)
    player, session, _ = opened(there)
    assert player.run(session.run(lambda loader: loader.read(0x1000, 0x30000))) == bytes(cells[0x1000:0x31000])


def test_progress_is_told_and_ends_at_its_total() -> None:
    player, session, _ = opened(board())
    write(player, session, "esp8266", image_for("esp8266", 60, 1))
    told = [n for n in player.notes if isinstance(n, Transferred) and n.operation == "write"]
    assert len(told) > 3
    assert all(n.done <= n.total for n in told)
    assert told[-1].done == told[-1].total


@pytest.mark.parametrize("chip", ["esp32c3", "esp32s3", "esp32c6"])
def test_native_usb_is_reset_its_own_way_and_its_watchdogs_are_stopped(chip: str) -> None:
    there = board(chip=chip, wiring="usb-jtag")
    player, session, _ = opened(there, sequences=SEQUENCES["usb-jtag"], native_usb=True, hard_reset=HARD_USB)
    assert write(player, session, chip, image_for(chip, 24, 2)).verified
    assert player.run(session.leave())
