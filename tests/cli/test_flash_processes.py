"""Flashing as a process: over RFC 2217 against `espmon sim`, and interrupted by Ctrl-C."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from espmon import chips
from tests.bootloader import images

ROOT = Path(__file__).resolve().parents[2]


def espmon(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "espmon", *words],
        cwd=ROOT,
        env={**os.environ, "XDG_STATE_HOME": str(folder), "STATE_DIRECTORY": str(folder)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["esp8266", "esp32", "esp32c3"])
def test_flash_file_is_what_was_asked_for_after_each_command(chip: str, tmp_path: Path) -> None:
    """Our client against the board that real esptool is tested on (tests/board/test_esptool.py)."""
    flash, offset = tmp_path / "flash.bin", chips.CHIPS[chip].boot_offset
    chip_id = chips.CHIPS[chip].image_chip_id
    image = images.big_esp8266_image(24) if chip_id is None else images.big_esp32_image(chip_id, 24)
    data = random.Random(chip).randbytes(12_001)
    (tmp_path / "image.bin").write_bytes(image)
    (tmp_path / "data.bin").write_bytes(data)
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "espmon", "sim", chip, "--rfc2217", "127.0.0.1:0"),
            *("--flash", str(flash), "--speed", "10"),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().split("at ")[1].split(",")[0].strip()
        expected = bytearray(b"\xff") * (4 << 20)
        done = espmon(
            tmp_path, "flash", url, hex(offset), str(tmp_path / "image.bin"), "0x30000", str(tmp_path / "data.bin")
        )
        assert done.returncode == 0, done.stderr
        expected[offset : offset + len(image)] = image
        expected[0x30000 : 0x30000 + len(data)] = data
        assert flash.read_bytes() == expected
        done = espmon(tmp_path, "backup", url, str(tmp_path / "copy.bin"), "--size", "256K")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "copy.bin").read_bytes() == expected[: 256 << 10]
        if chip == "esp32":
            assert espmon(tmp_path, "verify", url, "0x30000", str(tmp_path / "data.bin")).returncode == 0
            assert espmon(tmp_path, "erase", url, "0x31000:4K").returncode == 0
            expected[0x31000:0x32000] = b"\xff" * 0x1000
            assert flash.read_bytes() == expected
    finally:
        server.terminate()
        server.communicate(timeout=10)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process on Windows")
def test_ctrl_c_leaves_a_board_that_cannot_boot_half_an_image_and_the_next_run_completes(tmp_path: Path) -> None:
    flash = tmp_path / "flash.bin"
    old, new = images.big_esp32_image(0, 120, 1), images.big_esp32_image(0, 120, 2)
    flash.write_bytes(b"\xff" * 0x1000 + old + b"\xff" * ((4 << 20) - 0x1000 - len(old)))
    (tmp_path / "new.bin").write_bytes(new)
    words = [
        "flash",
        f"sim://esp32?flash={flash}&speed=1",
        "0x1000",
        str(tmp_path / "new.bin"),
        "--flash-baud",
        "230400",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "espmon", *words],
        cwd=ROOT,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path), "STATE_DIRECTORY": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while flash.read_bytes()[0x2000:0x3000] == old[0x1000:0x2000] and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=40)
    assert process.returncode == 130, err
    assert "incomplete" in err
    assert "Run the same command again" in err
    assert flash.read_bytes()[0x1000] == 0xFF
    done = espmon(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert flash.read_bytes()[0x1000 : 0x1000 + len(new)] == new
