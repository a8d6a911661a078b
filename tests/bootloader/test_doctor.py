"""The decision table: for each of its rows a fault on the virtual board, and what is found first."""

from __future__ import annotations

from typing import Any

import pytest

from espmon.board.board import Board
from espmon.board.demo import crash_logs
from espmon.board.live import new_flash
from espmon.board.settings import BoardSettings
from espmon.bootloader.diagnosis import ROWS, Evidence, diagnose
from espmon.bootloader.examine import ask, overhear
from espmon.bootloader.stub import rungs
from tests.bootloader.virtual import Player, plan


def examined(active: bool = True, cells: bytearray | None = None, **faults: Any) -> tuple[Evidence, Player]:
    """A board that has run for 3 s, measured."""
    settings = BoardSettings(**faults)
    board = Board(settings, new_flash(settings) if cells is None else cells, logs=crash_logs())
    board.advance(3.0)
    board.host_read()
    player = Player(board)
    evidence = player.run(overhear(115200, Evidence()))
    if active:
        evidence = player.run(ask(plan(rungs=rungs()), evidence))
    return evidence, player


def without_rf_data() -> bytearray:
    cells = new_flash(BoardSettings())
    cells[-0x4000:] = b"\xff" * 0x4000
    return cells


# What is wrong with the board, and the row that must be the first guess.
FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("send-stalled", {"write_stall": True}),
    ("echo", {"echo": True, "no_power": True}),
    ("stuck-bit", {"stuck_bit": 0}),
    ("stuck-bit", {"stuck_bit": 7}),
    ("secure-download", {"chip": "esp32s3", "secure_download": True}),
    ("secure", {"chip": "esp32", "secure_boot": True}),
    ("secure", {"chip": "esp32c3", "encryption": True}),
    ("flash-bus", {"flash_id": 0xFFFFFF}),
    ("fake-flash", {"flash_size": 1 << 20, "flash_claims": 4 << 20}),
    ("rf-data", {"rf_check": True, "cells": without_rf_data()}),
    ("wrong-flash-mode", {"flash_mode": "dout"}),
    ("gpio15-high", {"gpio15_high": True}),
    ("gpio2-low", {"gpio2_low": True}),
    ("flash-damaged", {"image": "blank"}),
    ("flash-damaged", {"image": "blank", "chip": "esp32"}),
    ("crash-loop", {"crash": "load", "pace": 0.3}),
    ("boot-loop", {"crash": "load", "pace": 0.3, "chip": "esp32"}),
    ("gpio0-held", {"boot_low": True}),
    ("stub-left", {"stub_left": True, "no_reset": True}),
    ("alive-no-reset", {"no_reset": True}),
    ("tx-path", {"no_rx": True}),
    ("tx-path", {"no_rx": True, "chip": "esp32"}),
    ("gpio0-high", {"boot_high": True}),
    ("gpio0-high", {"boot_high": True, "chip": "esp32"}),
    ("silent", {"no_power": True}),
    ("silent", {"swapped": True}),
    ("silent", {"en_low": True}),
    ("link-rate", {"baud_limit": 150000}),
    ("link-rate", {"baud_limit": 150000, "chip": "esp32"}),
    ("noise", {"corrupt": 0.1}),
    ("lost", {"lose": 0.1}),
    ("wrong-rate", {"app": "binary"}),
    ("alive", {}),
    ("alive", {"chip": "esp32c3"}),
    ("alive", {"baud": 9600}),
    ("silent-application", {"app": "silent"}),
]


@pytest.mark.parametrize(("code", "faults"), FAULTS, ids=[f"{c}-{n}" for n, (c, _) in enumerate(FAULTS)])
def test_first_guess(code: str, faults: dict[str, Any]) -> None:
    evidence, _ = examined(**faults)
    found = [f.code for f in diagnose(evidence)]
    assert found[:1] == [code], f"found {found} in {evidence}"


def test_every_row_that_a_port_can_show_has_a_fault() -> None:
    """Rows without a fault here: those of the port itself (tests/app) and of operations that write (below)."""
    elsewhere = {
        "port-missing", "port-busy", "port-denied", "port-gone",
        "brownout", "flash-worn", "no-reset", "not-asked", "healthy",
    }  # fmt: skip
    assert {r.code for r in ROWS} - {c for c, _ in FAULTS} == elsewhere


def test_listening_changes_nothing() -> None:
    evidence, player = examined(active=False)
    assert player.sent == 0
    assert player.board.resets <= 1  # its own start
    assert not any(type(n).__name__ == "LineReset" for n in player.notes)
    assert diagnose(evidence)[0].code == "alive"


def test_silence_without_asking_says_what_to_do() -> None:
    evidence, _ = examined(active=False, app="silent")
    assert [f.code for f in diagnose(evidence)] == ["not-asked"]
    assert "--active" in diagnose(evidence)[0].remedy


@pytest.mark.parametrize("failure", ["flash-differs", "gave-up", "board-reset", "port-gone", "send-stalled"])
def test_a_failure_of_the_client_is_explained(failure: str) -> None:
    assert diagnose(Evidence(failure=failure))


def test_a_talking_board_is_never_to_be_flashed() -> None:
    for faults in ({}, {"no_reset": True}, {"no_rx": True}, {"boot_high": True}, {"lose": 0.1}, {"baud": 9600}):
        evidence, _ = examined(**faults)
        assert evidence.alive
        for finding in diagnose(evidence)[:1]:
            assert "espmon flash" not in finding.remedy
            assert "again: espmon" not in finding.remedy


def test_the_board_runs_again_afterwards() -> None:
    _, player = examined()
    board = player.board
    board.set_rate(115200)
    board.host_read()
    board.advance(board.now + 4)
    assert b"temperature" in board.host_read()


# --- five users whose questions stand on the web, and what each should have been told -------------------------------


def test_user_with_a_held_port_and_a_board_that_resets_but_is_not_heard() -> None:
    """NodeMCU on Windows, three blinks, esptool and espcomm time out: another program held the port."""
    assert diagnose(Evidence(open_error="port-busy"))[0].code == "port-busy"
    evidence, _ = examined(no_rx=True, no_tx=True)
    first = diagnose(evidence)[0]
    assert first.code == "silent"
    assert "another port" in first.cause


def test_user_whose_micropython_board_blinks_fast() -> None:
    """Boot loop after flashing with the wrong mode: the ROM's text at 74880 names it; a stalled adapter is told apart."""
    evidence, _ = examined(flash_mode="dout", active=True)
    assert diagnose(evidence)[0].code == "wrong-flash-mode"
    assert "dout" in diagnose(evidence)[0].remedy
    evidence, _ = examined(write_stall=True)
    assert diagnose(evidence)[0].code == "send-stalled"
    assert "never asked" in diagnose(evidence)[0].cause


def test_user_whose_ide_wants_to_burn_firmware_into_a_board_that_is_alive() -> None:
    """uPyCraft loses an ESP32 whose firmware goes on publishing: nothing may be flashed."""
    evidence, _ = examined(chip="esp32", active=False)
    first = diagnose(evidence)[0]
    assert first.code == "alive"
    assert "Do not flash" in first.remedy


def test_user_with_a_sonoff_that_never_answers() -> None:
    """TX and RX swapped: not one byte, and the swap is named; an echo would be told apart."""
    evidence, _ = examined(swapped=True)
    first = diagnose(evidence)[0]
    assert first.code == "silent"
    assert "TX and RX swapped" in first.cause
    evidence, _ = examined(echo=True, swapped=True)
    assert diagnose(evidence)[0].code == "echo"


def test_user_whose_at_update_left_a_crash_loop() -> None:
    """Checksums right, then Fatal exception: the image is whole, its application crashes; writing the same won't help."""
    evidence, _ = examined(crash="illegal", pace=0.3)
    first = diagnose(evidence)[0]
    assert first.code == "crash-loop"
    assert "does not help" in first.cause


def test_one_boot_at_another_rate_is_no_wrong_rate() -> None:
    banner = " ets Jan  8 2013,rst cause:2, boot mode:(3,6)"
    found = diagnose(Evidence(idle_bytes=224, unreadable=True, reset_bytes=423, reset_text=banner, sync="rom"))
    assert found[0].code == "silent-application"
    found = diagnose(Evidence(idle_bytes=2240, unreadable=True, reset_bytes=4230, reset_text=banner, sync="rom"))
    assert found[0].code == "wrong-rate"
