"""`espmon recover PORT` without a daemon, and recovery of the ESP32 family: on a virtual board and a virtual clock."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from espmon.app.bare import folder_for, image_words
from espmon.store.images import StoredImage
from tests.app.recovery_rig import PARAMETERS, Bench, flash_of, good_pieces, other_firmware

DAMAGES = ["segment", "blank", "header", "checksum", "table", "table bit", "app", "app bit", "all"]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("chip", ["esp32", "esp32c3"])
def test_a_damaged_esp32_is_detected_compared_repaired_verified_and_healthy(chip: str, damage: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path, f"chip={chip}", cells=flash_of(chip, damage))
    assert not bench.repaired
    bench.watch(120.0, until_ended=True)
    steps = bench.steps()
    assert steps.index("compare done") < steps.index("backup done") < steps.index("verify done") < steps.index("write done")
    assert steps[-1] == "healthy recovered"
    assert any(e.type == "boot-loop" for e in bench.events)
    assert bench.repaired
    assert bench.worse() is None
    assert bench.cells[0x9000:0xA000] == PARAMETERS, "what the application keeps is not touched"
    assert bench.healthy


@pytest.mark.parametrize("chip", ["esp8266", "esp32", "esp32c3"])
def test_by_hand_a_damaged_board_comes_back_and_the_next_run_leaves_it_alone(chip: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path, f"chip={chip}", cells=flash_of(chip, "all"))
    assert bench.recover() == 0
    assert bench.repaired
    erased = bench.board.flash.erased_sectors
    assert bench.recover() == 25, "the board talks now"
    assert bench.board.flash.erased_sectors == erased
    backups = [m for m in json_manifests(tmp_path) if m["origin"] == "backup"]
    assert backups, "what was overwritten is kept"


def json_manifests(folder: Path) -> list[dict[str, object]]:
    return [json.loads(p.read_text()) for p in (folder / "image").glob("*.json")]


@pytest.mark.parametrize("settings", ["", "app=silent", "app=binary", "pace=600", "crash=watchdog&rounds=14"])
@pytest.mark.parametrize("by_hand", [True, False])
def test_a_healthy_board_with_another_firmware_is_never_written(settings: str, by_hand: bool, tmp_path: Path) -> None:
    bench = Bench(tmp_path, f"chip=esp32&{settings}", cells=other_firmware("esp32"))
    if by_hand:
        bench.recover()
    else:
        bench.watch(300.0)
    assert bench.untouched
    assert bench.healthy or "app=" in settings or "pace" in settings


def test_a_silent_board_of_which_no_failure_was_heard_is_not_written(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "chip=esp32&no_tx=0&app=silent", cells=other_firmware("esp32"))
    # its ROM is silent too: nothing at all is heard of it outside the loader
    bench.board.settings = bench.settings
    said = bench.board.machine.say
    bench.board.machine.say = lambda content: said(content) if bench.board.machine.loading else None
    assert bench.recover() in (1, 25)
    assert "no failure was heard" in bench.reasons()
    assert bench.untouched


@pytest.mark.parametrize(
    ("settings", "damage"),
    [("weak_supply=2", "all"), ("weak_supply=1&weak_after=2", "app"), ("weak_supply=1&weak_after=3", "table"), ("crash=brownout&pace=0.1", "")],
)
def test_brownout_never_flashes(settings: str, damage: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path, f"chip=esp32&{settings}", cells=flash_of("esp32", damage) if damage else other_firmware("esp32"))
    bench.watch(900.0)
    assert bench.untouched
    assert "brownout" in bench.reasons()
    bench.recover()
    assert bench.untouched


def test_brownout_in_mid_write_ends_the_writing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "chip=esp32&brownout=9000", cells=flash_of("esp32", "all"))
    bench.watch(60.0, until_ended=True)
    assert bench.steps().count("write started") == 1
    assert "write-whole started" not in bench.steps()
    assert bench.ends() == ["gave-up"]
    written = bench.board.flash.programmed_bytes
    bench.watch(1200.0)
    assert bench.board.flash.programmed_bytes == written, "for an hour nothing more is tried"
    assert bench.worse() is None


def test_a_board_held_in_download_mode_is_somebody_elses(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "chip=esp32&boot_low=1", cells=flash_of("esp32", "all"))
    assert bench.recover() == 1
    assert "boot pin" in bench.reasons()
    assert bench.untouched


@pytest.mark.parametrize("security", ["secure_boot", "encryption", "secure_download"])
def test_fuses_that_forbid_writing_refuse(security: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path, f"chip=esp32c3&{security}=1", cells=flash_of("esp32c3", "all"))
    assert bench.recover() == 25
    assert bench.untouched


def test_images_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    wrong = Bench(tmp_path / "wrong", "chip=esp32", cells=flash_of("esp32", "all"), pieces=good_pieces("esp32s3"))
    assert wrong.recover() == 25
    big = Bench(tmp_path / "big", cells=flash_of("esp8266", "all"), pieces=[(0, good_pieces("esp8266")[0][1].ljust((1 << 20) + 1, b"x"))])
    assert big.recover() == 25
    content = bytearray(good_pieces("esp8266")[0][1])
    content[100] ^= 1
    damaged = Bench(tmp_path / "damaged", cells=flash_of("esp8266", "all"), pieces=[(0, bytes(content))])
    assert damaged.recover() == 25
    assert wrong.untouched
    assert big.untouched
    assert damaged.untouched


def test_a_link_that_drops_in_mid_write_is_waited_for_and_the_write_goes_on(tmp_path: Path) -> None:
    whole = Bench(tmp_path / "whole", "chip=esp32", cells=flash_of("esp32", "all"))
    whole.watch(120.0, until_ended=True)
    bench = Bench(tmp_path / "drops", "chip=esp32", cells=flash_of("esp32", "all"))
    bench.gone_at = whole.operations - 200
    bench.away_s = 8.0
    bench.watch(300.0, until_ended=True)
    assert bench.repaired
    assert bench.ends() == ["recovered"], "one incident"
    assert bench.steps().count("compare started") > 1


def test_a_power_cut_in_mid_write_is_repaired_when_the_power_is_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "chip=esp32&cut_at=9000", cells=flash_of("esp32", "all"))
    bench.watch(60.0, until_ended=True)
    assert not bench.repaired
    assert bench.worse() is None
    bench.board.power(True)
    bench.watch(600.0, until_ended=True)
    assert bench.repaired
    assert bench.healthy


@pytest.mark.parametrize("part", [0.35, 0.5, 0.6, 0.7, 0.8, 0.95])
@pytest.mark.parametrize("by_hand", [True, False])
def test_a_host_that_dies_is_followed_by_one_that_ends_it(part: float, by_hand: bool, tmp_path: Path) -> None:
    whole = Bench(tmp_path / "whole", "chip=esp32", cells=flash_of("esp32", "all"))
    whole.watch(120.0, until_ended=True)
    bench = Bench(tmp_path / "killed", "chip=esp32", cells=flash_of("esp32", "all"))
    bench.kill_at = int(whole.operations * part)
    for _ in range(2):
        if by_hand:
            bench.recover()
        else:
            bench.watch(300.0, until_ended=True)
        assert bench.worse() is None
        bench.clock.sleep(2.0)
    assert bench.repaired
    assert bench.healthy


def test_a_host_that_comes_to_a_board_that_its_rom_has_stopped_knows_of_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cells=flash_of("esp8266", "all"))
    bench.watch(4.0)
    assert bench.steps() == []
    bench.watch(60.0, until_ended=True)  # nothing more is heard of it until it is reset
    assert bench.ends() == ["recovered"]
    assert bench.repaired


def test_ctrl_c_stops_in_a_safe_state_and_the_next_run_goes_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "chip=esp32", cells=flash_of("esp32", "all"))
    count = bench.count

    def interrupt() -> None:
        count()
        if bench.steps()[-1:] == ["backup done"] and bench.operations % 40 == 0 and len(bench.lives) == 1:
            bench.lives[0].stop.set()

    bench.count = interrupt  # type: ignore[method-assign]
    assert bench.recover() == 130
    assert not bench.repaired
    assert bench.worse() is None
    assert bench.recover() == 0
    assert bench.repaired


def test_another_board_in_the_socket_is_not_taken_for_the_interrupted_one(tmp_path: Path) -> None:
    first = Bench(tmp_path, "chip=esp32&mac=24:0a:c4:00:00:01", cells=flash_of("esp32", "all"))
    whole = Bench(tmp_path / "whole", "chip=esp32", cells=flash_of("esp32", "all"))
    whole.recover()
    first.kill_at = int(whole.operations * 0.7)
    first.recover()
    second = Bench(tmp_path, "chip=esp32&mac=24:0a:c4:00:00:02", cells=flash_of("esp32", "all"))
    assert second.recover() == 25
    assert "Another board" in second.reasons()
    assert second.untouched
    assert second.recover() == 0, "asked again, this board is meant"


def test_the_plan_is_told_and_nothing_done(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "chip=esp32", cells=flash_of("esp32", "app"))
    from espmon.app.bare import BareOptions

    plan = "\n".join(bench._live(lambda life: life.plan(), BareOptions(listen_s=8.0), by_hand=True))
    assert "image at 0x1000: " in plan
    assert "for ESP32, checksum right" in plan
    assert "image at 0x8000: 4096 bytes, no image header (data)" in plan
    assert "abnormal resets now: " in plan
    assert "compare: would be tried" in plan
    assert bench.untouched
    assert bench.board.resets == 1


def test_folders_are_per_board_and_plain(tmp_path: Path) -> None:
    one, other = folder_for(tmp_path, "usb:1a86:7523:1-1.2"), folder_for(tmp_path, "usb:1a86:7523:1-1/2")
    assert one != other
    assert folder_for(tmp_path, "url:rfc2217://../../x").parent == tmp_path / "recover"


def test_an_image_of_no_known_kind_is_said_to_be_refused() -> None:
    image = StoredImage(digest="", pieces=((0, b"\xe9\x01\x00\x00" + b"\xff" * 40),))
    assert "would be refused" in image_words(image, None)[0]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "espmon", "recover", *words, "--state-dir", str(folder / "state")], capture_output=True, text=True, timeout=100, check=False)


def test_the_command_recovers_a_board_and_prints_the_contracts_events(tmp_path: Path) -> None:
    flash, image = tmp_path / "flash.bin", tmp_path / "good.bin"
    flash.write_bytes(flash_of("esp8266", "segment"))
    image.write_bytes(good_pieces("esp8266")[0][1])
    url = f"sim://esp8266?flash={flash}&flash_size=1m&baud=74880&speed=3&patience=0.05"
    done = run(tmp_path, url, "--image", f"{image}@0x0", "--json", "--baud", "74880")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    recovery = [e for e in events if e["type"] == "recovery"]
    assert recovery[-1]["outcome"] == "recovered"
    assert {"reset", "compare", "backup", "write", "verify"} <= {e["step"] for e in recovery}
    assert any(e["type"] == "boot-loop" for e in events)
    assert flash.read_bytes()[: image.stat().st_size] == image.read_bytes()
    assert list((tmp_path / "state" / "recover").glob("*/espmon.sqlite"))


def test_the_command_tells_wrong_words(tmp_path: Path) -> None:
    assert run(tmp_path, "sim://esp8266", "--image", str(tmp_path / "none.bin")).returncode == 3
    assert run(tmp_path, "sim://esp8266", "--reset-only", "--mode", "flash").returncode == 2
    assert run(tmp_path, "sim://esp8266", "--healthy", "(").returncode == 2
    assert run(tmp_path, "nosuchboard").returncode == 10, "a board's name, and no daemon runs"
    assert run(tmp_path, "ttyUSB97").returncode == 5, "a port, and it isn't there"


def test_no_thread_is_left_behind(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cells=flash_of("esp8266"))
    bench.recover(listen_s=3.0)
    assert not [t for t in threading.enumerate() if t.name == "database"]
