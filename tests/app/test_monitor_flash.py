"""Ctrl-T f in the monitor: flash through the open port, then the boot that follows."""

import sys

import pytest

from tests.bootloader import images
from tests.fakes.watched_pty import Espmon

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo terminals on Windows")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


def test_the_configured_image_is_flashed_and_its_boot_is_shown(folder):
    image = images.big_esp32_image(0, 24)
    (folder / "app.bin").write_bytes(image)
    flash = folder / "flash.bin"
    run = Espmon(
        f"sim://esp32?flash={flash}&image=blank&speed=3",
        *("--image", f"0x1000={folder / 'app.bin'}", "--raw-log", str(folder / "raw.log")),
        terminal=True,
    )
    try:
        run.wait_for("invalid header: 0xffffffff")
        run.type(b"\x14f")
        run.wait_for("write started")
        run.wait_for("sectors written, verified")
        run.wait_for("entry 0x")
        run.type(b"\x1d")
        assert run.end() == 0
    finally:
        run.close()
    assert flash.read_bytes()[0x1000 : 0x1000 + len(image)] == image
    raw = (folder / "raw.log").read_bytes()
    assert b"\x01\x08\x04\x00" in raw  # the loader's answers are bytes of the port, too
    assert raw.count(b"entry 0x") == 1


def test_without_an_image_the_key_says_what_is_missing(folder):
    run = Espmon("sim://esp32", terminal=True)
    try:
        run.wait_for("115200")
        run.type(b"\x14f")
        run.wait_for("start with --image")
    finally:
        run.close()


def test_an_image_for_another_chip_is_refused_and_the_log_goes_on(folder):
    (folder / "app.bin").write_bytes(images.esp32_image(5))
    run = Espmon("sim://esp32?speed=3&app=uptime", "--image", f"0x1000={folder / 'app.bin'}", terminal=True)
    try:
        run.wait_for("115200")
        run.type(b"\x14f")
        run.wait_for("write refused")
        run.wait_for("entry 0x")
    finally:
        run.close()
