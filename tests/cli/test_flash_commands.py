"""chip, flash, verify, backup, erase, reset and doctor, from the command line to the virtual board's flash file."""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from espmon.cli import main
from tests.bootloader import images


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))


class Bench:
    """A flash file, and the command line on the board that it belongs to."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.flash = folder / "flash.bin"

    def __call__(self, command: str, *words: str, chip: str = "esp32", **faults: Any) -> tuple[int, str, str]:
        extra = "".join(f"&{name}={value}" for name, value in faults.items())
        kept = "" if "image" in faults else f"&flash={self.flash}&image=blank"
        port = f"sim://{chip}?speed=5{kept}{extra}"
        status = 0
        try:
            main([command, port, *words])
        except SystemExit as end:
            status = int(end.code or 0)
        out = self.capsys.readouterr()
        return status, out.out, out.err

    def file(self, name: str, content: bytes) -> str:
        (self.folder / name).write_bytes(content)
        return str(self.folder / name)

    def holds(self, offset: int, content: bytes) -> bool:
        return self.flash.read_bytes()[offset : offset + len(content)] == content


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(tmp_path, capsys)


def test_flash_verify_change_and_verify_again(bench: Bench) -> None:
    image = images.big_esp32_image(0, 40)
    name, data = bench.file("app.bin", image), bench.file("data.bin", b"settings" * 600)
    status, out, err = bench("flash", "0x1000", name, "0x9000", data)
    assert status == 25  # they share sectors
    assert "share flash sectors" in err
    status, out, err = bench("flash", "0x1000", name, "0x20000", data)
    assert (status, err.count("[")) == (0, 0), err
    assert "written and verified" in out
    assert bench.holds(0x1000, image)
    assert bench.holds(0x20000, b"settings" * 600)
    assert "Nothing to do" in bench("flash", "0x1000", name)[1]
    assert bench("verify", "0x1000", name)[0] == 0
    cells = bytearray(bench.flash.read_bytes())
    cells[0x5000] ^= 1
    bench.flash.write_bytes(cells)
    status, out, _ = bench("verify", "0x1000", name)
    assert status == 24
    assert "1 sector: 0x5000" in out
    assert bench("verify", "0x1010", name)[0] == 2


def test_json_is_progress_and_a_result_and_nothing_else(bench: Bench) -> None:
    name = bench.file("app.bin", images.big_esp8266_image(60))
    status, out, _ = bench("flash", "0", name, "--json", chip="esp8266")
    assert status == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert {"reset-caused", "progress", "flash"} == {line["type"] for line in lines}
    progress = [line for line in lines if line["type"] == "progress" and line["operation"] == "write"]
    assert progress[-1]["done"] == progress[-1]["total"]
    assert next(line for line in lines if line["type"] == "flash") == {
        "type": "flash",
        "verified": True,
        "sectors_written": 16,
        "sectors": 16,
        "retries": 0,
        "loader": "espmon",
    }


def test_written_not_verified_has_its_own_status(bench: Bench) -> None:
    image = images.big_esp8266_image(20)
    status, out, _ = bench("flash", "0", bench.file("app.bin", image), "--no-stub", chip="esp8266")
    assert status == 23
    assert "not verified" in out
    assert "without --no-stub" in out
    assert bench.holds(0, image)
    for command, *words in (("verify", "0", str(bench.folder / "app.bin")), ("backup", str(bench.folder / "copy.bin"))):
        status, _, err = bench(command, *words, "--no-stub", chip="esp8266")
        assert status == 25
        assert "without --no-stub" in err


def test_refusals_have_a_status_a_reason_and_touch_nothing(bench: Bench) -> None:
    wrong = bench.file("c3.bin", images.esp32_image(5))
    damaged = bench.file("bad.bin", images.big_esp32_image(0, 8)[:-50])
    plain = bench.file("plain.bin", b"hello")
    right = bench.file("app.bin", images.esp32_image(0))
    for words, reason in (
        (("0x1000", wrong), "wrong-chip"),
        (("0x1000", damaged), "image-damaged"),
        (("0x1000", plain), "not-bootable"),
        (("0x3ff000", bench.file("long.bin", bytes(0x1001))), "past-end"),
    ):
        status, _, err = bench("flash", *words)
        assert (status, f"[{reason}]" in err) == (25, True), err
    for fault, reason in (
        ({"secure_boot": 1}, "security"),
        ({"encryption": 1}, "security"),
        ({"flash_id": "0xffffff"}, "flash-unreadable"),
    ):
        status, _, err = bench("flash", "0x1000", right, **fault)
        assert (status, f"[{reason}]" in err) == (25, True), err
    assert bench.flash.read_bytes().count(0xFF) == 4 << 20
    assert bench("flash", "0x1001", right)[0] == 2
    assert bench("flash", "0x1000")[0] == 2
    assert bench("flash", "0x1000", str(bench.folder / "absent.bin"))[0] == 3


def test_a_backup_beyond_the_flash_is_refused(bench: Bench) -> None:
    status, _, errors = bench("backup", str(bench.folder / "big.bin"), "--size", "8M")
    assert status == 25
    assert "past-end" in errors


def test_backup_goes_on_where_it_was_interrupted_and_knows_what_is_stored(bench: Bench) -> None:
    content = random.Random(1).randbytes(0x40000)
    bench.flash.write_bytes(content + b"\xff" * ((4 << 20) - len(content)))
    copy = bench.folder / "copy.bin"
    (bench.folder / "copy.bin.part").write_bytes(content[:0x20000])
    status, out, _ = bench("backup", str(copy), "--size", "512K", "--json")
    assert status == 0
    (result,) = [line for line in map(json.loads, out.splitlines()) if line["type"] == "backup"]
    assert (result["kept"], result["read"], result["blank"]) == (0x20000, 0x20000, 0x40000)
    assert copy.read_bytes() == bench.flash.read_bytes()[: 512 << 10]
    assert not (bench.folder / "copy.bin.part").exists()
    assert bench("backup", str(copy))[0] == 2  # it exists
    status, out, _ = bench("backup", str(copy), "--force", "--size", "512K", "--like", bench.file("old.bin", content))
    assert "known from stored images" in out


def test_erase_a_region_or_all_with_a_yes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.flash.write_bytes(bytes(4 << 20))
    assert bench("erase", "0x3000:8K")[0] == 0
    cells = bench.flash.read_bytes()
    assert cells[0x3000:0x5000] == b"\xff" * 0x2000
    assert cells.count(0) == (4 << 20) - 0x2000
    assert bench("erase", "0x3001:8K")[0] == 2
    assert bench("erase", "0x3ff000:8K")[0] == 25
    with open(os.devnull) as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        status, _, err = bench("erase")
    assert status == 2
    assert "--yes" in err
    assert bench("erase", "--yes", speed="50")[0] == 0
    assert bench.flash.read_bytes().count(0xFF) == 4 << 20


def test_chip_and_reset(bench: Bench) -> None:
    status, out, _ = bench("chip", chip="esp32c3", mac="a4:cf:12:00:00:01")
    assert status == 0
    assert "ESP32-C3" in out
    assert "a4:cf:12:00:00:01" in out
    assert bench("chip", "--chip", "esp32s3", chip="esp32c3")[0] == 25
    assert bench("reset")[0] == 0
    assert bench("reset", "--download")[0] == 0
    assert bench("chip", "--before", "nonsense")[0] == 2


def test_doctor_listens_and_lists_what_it_left_out(bench: Bench) -> None:
    status, out, _ = bench("doctor", app="weather", image="demo")
    assert status == 0
    assert "Left out" in out
    assert "Do not flash it" in out
    status, out, _ = bench("doctor", "--json", app="silent", image="demo")
    result = json.loads(out)
    assert (status, result["measured"], result["cause"]["code"]) == (0, True, "silent-application")
    assert len(result["left_out"]) == 5


def test_doctor_that_could_not_measure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["doctor", str(tmp_path / "ttyNONE")])
    assert end.value.code == 26
    assert "no such port" in capsys.readouterr().out
