"""Each fault does what it is named for, seen from the host's end."""

from __future__ import annotations

import random
import struct

import pytest

from espmon.board.board import Board
from espmon.board.demo import crash_logs
from espmon.board.link import FaultyLink, LinkFaults
from espmon.board.live import new_flash, small_image
from espmon.board.loader import framed
from espmon.board.settings import FAULTS, PARAMETERS, BoardSettings, settings_from
from espmon.errors import UsageProblem
from tests.board.talk import Talk
from tests.board.test_loader import board_of, in_loader, in_stub, ok

ROM = 74880


def running(chip: str = "esp8266", rate: int = ROM, **chosen: object) -> Talk:
    """A board with its demo image, powered on at time 0."""
    pairs = [(name, str(value)) for name, value in chosen.items()]
    settings = settings_from([("flash_size", "1M"), *pairs], BoardSettings(chip=chip))
    return Talk(Board(settings, new_flash(settings), logs=crash_logs()), rate)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("boot_low", b"boot mode:(1,6)"),
        ("gpio15_high", b"boot mode:(7,6)\r\n\r\nwaiting for host"),
        ("gpio2_low", b"boot mode:(2,6)\r\n\r\nets_main.c"),
        ("rf_check", b"csum 0x"),
    ],
)
def test_straps(fault: str, text: bytes) -> None:
    assert text in running(**{fault: 1}).raw(0.5)


def test_both_gpio0_and_gpio15() -> None:
    assert b"boot mode:(5,6)\r\n\r\nwaiting for host" in running(gpio15_high=1, boot_low=1).raw(0.5)


@pytest.mark.parametrize("fault", ["no_power", "en_low", "swapped", "no_tx"])
def test_silence(fault: str) -> None:
    talk = running(**{fault: 1})
    assert talk.raw(2) == b""
    talk.enter()
    assert talk.sync() == []
    assert talk.raw(2) == b""


def test_no_rx_boots_but_does_not_answer() -> None:
    talk = running(no_rx=1)
    assert b"boot mode:(3,6)" in talk.raw(0.3)
    talk.enter()
    talk.board.set_rate(115200)
    assert talk.sync() == []


def test_no_reset_circuit_keeps_running() -> None:
    talk = running(no_reset=1, rate=115200)
    assert b"report 1" in talk.raw(1)
    assert b"ets Jan" not in talk.enter()
    assert talk.sync() == []
    assert b"report" in talk.raw(2)


def test_boot_pin_high_never_enters_the_loader() -> None:
    talk = running(boot_high=1)
    talk.raw(0.2)
    assert b"boot mode:(3,6)" in talk.enter()


def test_echo() -> None:
    talk = running(echo=1, swapped=1)
    talk.raw(0.5)
    talk.board.host_write(b"hello")
    assert talk.raw(0.5) == b"hello"


def test_stuck_bit() -> None:
    talk = running(stuck_bit=0)
    heard = talk.raw(0.3)
    assert heard
    assert all(byte & 1 for byte in heard)


def test_rates_refused_and_rounded() -> None:
    board = board_of(refuse_above=230400)
    assert board.set_rate(230400) == 230400
    with pytest.raises(ValueError, match="460800"):
        board.set_rate(460800)
    board = board_of(round_rates=1)
    assert board.set_rate(74880) == 57600
    assert board.set_rate(1_000_000) == 921600


def test_baud_limit_damages_above_it_only() -> None:
    text = b"The quick brown fox jumps over the lazy dog. " * 40
    for rate, clean in ((115200, True), (921600, False)):
        talk = running(app="echo", baud=rate, baud_limit=460800, rate=rate)
        talk.raw(0.5)
        talk.board.host_write(text)
        assert (talk.raw(3) == text) is clean


def test_latency_holds_back() -> None:
    talk, late = running(), running(latency=0.2)
    for board in (talk.board, late.board):
        board.advance(0.1)
    assert talk.board.host_waiting > 0
    assert late.board.host_waiting == 0
    late.board.advance(0.5)
    assert late.board.host_waiting > 0


def test_write_protected_flash_stays_as_it_is() -> None:
    talk = in_stub(write_protected=1)
    assert ok(talk.command(0x02, struct.pack("<4I", 16, 1, 0x400, 0)))
    assert ok(talk.data(0x03, b"0123456789abcdef", 0))
    talk.wait(1)
    assert talk.board.flash.read(0, 16) == b"\xff" * 16


def test_fake_flash_size_aliases() -> None:
    board = board_of(flash_claims="4M")
    board.flash.program(0x1000, b"here")
    assert board.flash.read(0x101000, 4) == b"here"
    assert board.flash.id >> 16 == 0x16


def test_absent_flash() -> None:
    board = board_of("esp32", flash_id="0xFFFFFF")
    assert board.flash.read(0, 4) == b"\xff" * 4
    talk = Talk(board)
    assert b"flash read err" in talk.raw(0.5)


def test_bad_bit_cannot_be_cleared() -> None:
    talk = in_stub(bad_bit="0x10")
    assert ok(talk.command(0x02, struct.pack("<4I", 32, 1, 0x400, 0)))
    assert ok(talk.data(0x03, b"\0" * 32, 0))
    talk.wait(1)
    assert talk.board.flash.read(0, 32) == b"\0" * 16 + b"\1" + b"\0" * 15


def test_slow_erase() -> None:
    fast, slow = board_of(), board_of(slow_erase=10)
    assert slow.flash.erase_sector(0) == pytest.approx(10 * fast.flash.erase_sector(0))


def test_missing_rf_data_loops() -> None:
    talk = running(rf_check=1)
    talk.board.flash.erase_sector(talk.board.flash.size - 0x4000)
    heard = talk.raw(3)
    assert heard.count(b"rf_cal[0] !=0x05,is 0xFF") >= 2
    assert heard.count(b"rst cause:2") >= 2


def test_wrong_flash_mode_does_not_boot() -> None:
    assert b"csum err" in running(flash_mode="dout").raw(1)
    assert b"csum err" not in running(flash_mode="dio").raw(1)


def test_stub_left_running_answers_with_value_zero() -> None:
    talk = running(stub_left=1, rate=115200)
    talk.wait(0.5)
    assert {reply.value for reply in talk.sync()} == {0}


def test_software_restart_that_sticks_in_download_mode() -> None:
    talk = in_loader(soft_restart_sticks=1)
    assert ok(talk.command(0x02, struct.pack("<4I", 0, 0, 0x400, 0)))
    assert ok(talk.command(0x04, struct.pack("<I", 0)))
    talk.board.set_rate(ROM)
    assert b"rst cause:2, boot mode:(1,6)" in talk.raw(0.5)


def test_brownout_restarts_in_the_middle_of_a_write() -> None:
    talk = in_stub("esp32", brownout=100)
    assert ok(talk.command(0x02, struct.pack("<4I", 0x400, 1, 0x400, 0x1000)))
    assert ok(talk.data(0x03, b"\0" * 0x400, 0))
    assert b"rst:0xf (RTCWDT_BROWN_OUT_RESET)" in talk.raw(1)
    assert talk.board.flash.read(0x1000, 0x400) == b"\0" * 100 + b"\xff" * 0x39C


def test_power_cut_in_an_erase_leaves_half_a_sector() -> None:
    cells = bytearray(b"\0") * (1 << 20)
    talk = in_stub(cells=cells, cut_erase=1)
    talk.command(0xD1, struct.pack("<II", 0x1000, 0x1000), seconds=1)
    assert cells.count(b"\xff") == 0x800


def test_image_says_what_it_does() -> None:
    """An image's own text decides: the same board runs a good image and crashes with a bad one."""
    for text, expected in (
        (b"espmon-board:app=uptime;", b"running, round 1"),
        (b"espmon-board:app=weather;crash=store;", b"(29)"),
    ):
        cells = bytearray(b"\xff") * (1 << 20)
        image = small_image("esp8266", text)
        cells[: len(image)] = image
        talk = Talk(Board(BoardSettings(flash_size=1 << 20), cells, logs=crash_logs()))
        assert expected in talk.raw(6)


@pytest.mark.parametrize("chip", ["esp32", "esp32s3", "esp32c6", "esp32p4"])
def test_blank_flash_loops_on_the_newer_family(chip: str) -> None:
    heard = Talk(board_of(chip)).raw(3)
    assert heard.count(b"invalid header: 0xffffffff") > 8
    assert heard.count(b"rst:0x10 (") >= 2


def test_damaged_image_is_told() -> None:
    for chip, text in (("esp8266", b"csum err"), ("esp32c3", b"csum err:0x")):
        cells = bytearray(b"\xff") * (1 << 20)
        image = bytearray(small_image(chip))
        image[20 if chip == "esp8266" else 45] ^= 1
        offset = 0x1000 if chip == "esp32" else 0
        cells[offset : offset + len(image)] = image
        talk = Talk(Board(BoardSettings(chip=chip, flash_size=1 << 20), cells), ROM if chip == "esp8266" else 115200)
        assert text in talk.raw(1)


def test_image_of_another_chip_does_not_boot() -> None:
    cells = bytearray(b"\xff") * (1 << 20)
    image = small_image("esp32c3")
    cells[: len(image)] = image
    assert b"invalid header: 0x" in Talk(Board(BoardSettings(chip="esp32c6", flash_size=1 << 20), cells)).raw(1)


# --- the link


def test_link_fates_have_their_shares() -> None:
    link = FaultyLink(LinkFaults(lose=0.1, duplicate=0.1, corrupt=0.1), random.Random(7))
    frame = framed(b"0123456789")
    for _ in range(3000):
        link.carry(frame)
    assert link.frames == 3000
    for count in (link.lost, link.doubled, link.damaged):
        assert 230 < count < 370


def test_link_is_the_same_in_any_pieces() -> None:
    noise = random.Random(3)
    stream = b"".join(
        framed(noise.randbytes(noise.randrange(1, 60))) + b"text" * noise.randrange(3) for _ in range(200)
    )
    faults = LinkFaults(lose=0.1, duplicate=0.1, corrupt=0.1, drop_bytes=0.1)
    whole = FaultyLink(faults, random.Random(1)).carry(stream)
    link = FaultyLink(faults, random.Random(1))
    assert b"".join(link.carry(stream[i : i + 1]) for i in range(len(stream))) == whole


def test_perfect_link_changes_nothing() -> None:
    assert FaultyLink(LinkFaults(), random.Random(1)).carry(b"\xc0\xc0abc") == b"\xc0\xc0abc"


# --- parameters


def test_every_parameter_is_documented() -> None:
    from pathlib import Path

    page = (Path(__file__).resolve().parents[2] / "docs" / "virtual-board.md").read_text(encoding="utf-8")
    assert [name for name in PARAMETERS if f"`{name}`" not in page] == []
    assert FAULTS.keys() <= PARAMETERS.keys()


@pytest.mark.parametrize(
    "pair",
    [
        ("lose", "many"),
        ("crash", "boom"),
        ("speed", ""),
        ("echo", "perhaps"),
        ("flash_size", "4Q"),
        ("flash_size", "5000"),
        ("speed", "0"),
        ("lose", "2"),
        ("tick", "16"),
        ("baud", "0"),
        ("nonsense", "1"),
    ],
)
def test_bad_parameters_are_told(pair: tuple[str, str]) -> None:
    with pytest.raises(UsageProblem) as told:
        settings_from([pair])
    assert pair[0] in told.value.message
    assert told.value.hint


# --- reset circuits, security, clocks


def test_usb_jtag_reset_into_the_loader_and_back() -> None:
    """Native USB: DTR alone arms download mode, RTS alone resets; neither does anything by passing through both."""
    talk = running("esp32c3", 115200, wiring="usb-jtag")
    talk.raw(0.3)
    for dtr, rts in ((False, False), (True, False), (True, True), (False, True)):
        talk.board.set_lines(dtr, rts)
        talk.wait(0.1)
    talk.board.set_lines(False, False)
    heard = talk.raw(0.2)
    assert b"rst:0x15 (USB_UART_CHIP_RESET),boot:0x5 (DOWNLOAD" in heard
    assert b"waiting for download" in heard
    talk.board.set_lines(False, True)
    talk.wait(0.2)
    talk.board.set_lines(False, False)
    assert b"SPI_FAST_FLASH_BOOT" in talk.raw(0.2)


def test_direct_wiring_holds_a_naive_opener_in_reset() -> None:
    talk = running(wiring="direct")
    talk.board.set_lines(True, True)
    talk.raw(0.1)
    assert talk.raw(2) == b""
    talk.board.set_lines(False, False)
    assert b"boot mode:(3,6)" in talk.raw(0.3)


def test_watchdog_reset_through_registers() -> None:
    """How programs leave the loader of the S3 without a reset line."""
    talk = in_loader("esp32s3")
    talk.board.set_lines(False, False)
    for address, value in ((0x600080B0, 0x50D83AA1), (0x6000809C, 2000), (0x60008098, 1 << 31 | 5 << 28 | 1 << 8 | 2)):
        assert ok(talk.command(0x09, struct.pack("<4I", address, value, 0xFFFFFFFF, 0)))
    assert b"rst:0x10 (RTCWDT_RTC_RST),boot:0x8 (SPI_FAST_FLASH_BOOT)" in talk.raw(0.5)


@pytest.mark.parametrize("state", ["secure_boot", "encryption"])
def test_guarded_chips_boot_their_own_image_only(state: str) -> None:
    talk = running("esp32", 115200, **{state: 1})
    assert b"entry 0x" in talk.raw(1)
    talk.board.flash.erase_sector(0x1000)
    image = small_image("esp32", b"somebody else's")
    talk.board.flash.program(0x1000, image)
    talk.enter()
    talk.board.set_lines(False, True)
    talk.wait(0.1)
    talk.board.set_lines(False, False)
    heard = talk.raw(1)
    assert b"entry 0x" not in heard
    assert (b"secure boot verification failed" if state == "secure_boot" else b"invalid header: 0x") in heard


def test_crystal_decides_the_rate_of_the_rom() -> None:
    assert b"boot mode:(3,6)" in running(rate=115200, xtal=40).raw(0.2)
    assert b"SPI_FAST_FLASH_BOOT" in running("esp32c2", 74880).raw(0.2)
    assert b"SPI_FAST_FLASH_BOOT" in running("esp32c2", 115200, xtal=40).raw(0.2)


def test_banner_at_the_application_rate_after_a_crash() -> None:
    heard = running(rate=115200, crash="store", banner_rate=115200).raw(6)
    assert b"rst cause:2, boot mode:(3,6)" in heard


def test_any_crash_takes_turns() -> None:
    heard = running(rate=115200, crash="any", pace=0.1).raw(20)
    places = [
        heard.find(text)
        for text in (
            b"Exception (28)",
            b"Exception (29)",
            b"Exception (0)",
            b"Exception (6)",
            b"Soft WDT",
            b"Abort called",
        )
    ]
    assert places == sorted(places)
    assert places[0] > 0


def test_stub_that_comes_late_or_garbled() -> None:
    talk = in_loader(stub="late")
    assert b"OHAI" not in talk.stub()
    assert b"OHAI" in b"".join(talk.heard(8))
    assert b"OHAI" not in in_loader(stub="garbled").stub()


def test_every_setting_at_once_never_breaks_the_board() -> None:
    """Random settings, random host: the board may be dead, but it never raises and its clock goes on."""
    chance = random.Random(11)
    choices = {name: field.metadata["choices"] for name, field in PARAMETERS.items()}
    for _ in range(60):
        pairs = []
        for name in chance.sample(sorted(PARAMETERS), 12):
            default = PARAMETERS[name].default
            if choices[name]:
                text = chance.choice(choices[name])
            elif isinstance(default, bool):
                text = chance.choice(("0", "1"))
            elif isinstance(default, float):
                text = str(chance.choice((0.0, 0.01, 0.3)))
            elif name == "refuse_above":
                text = "0"
            elif name == "xtal":
                text = chance.choice(("0", "26", "40"))
            elif name == "mac":
                text = chance.choice(("", "nonsense", "aa:bb:cc:dd:ee:ff"))
            elif name == "flash_size":
                text = chance.choice(("512k", "1M"))
            elif name in ("oversampling", "tick"):
                text = "8"
            elif name in ("baud", "banner_rate"):
                text = chance.choice(("9600", "115200"))
            else:
                text = str(chance.choice((0, 1, 2, 7)))
            pairs.append((name, text))
        settings = settings_from([("flash_size", "512k"), *pairs, ("speed", "1"), ("oversampling", "16")])
        talk = Talk(Board(settings, new_flash(settings), logs=crash_logs()), 74880)
        talk.wait(0.3)
        talk.enter()
        talk.sync()
        talk.board.host_write(chance.randbytes(200))
        talk.wait(3)
        talk.stub_quietly()
        talk.wait(1)
        talk.board.host_read()


def test_a_host_that_never_reads_costs_no_memory() -> None:
    """A quarter of an hour of chatter: what the host did not read in time is counted, not kept."""
    talk = running(app="chatter", rate=115200)
    talk.wait(900)
    assert talk.board.host_waiting <= 1 << 20
    assert talk.board.overrun > 0
    assert not talk.board.to_host.pending or len(talk.board.host_read()) <= 1 << 20
