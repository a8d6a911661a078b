"""Flashing without a command line: the memory of rates, stopping, stubs found as data, sequences by port."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from espmon.app import remembered
from espmon.app.flashing import Flasher, FlashOptions, LinkMemory, read_boot, reset_board, sequences_for
from espmon.bootloader.errors import NoSyncReply, Stopped
from espmon.bootloader.notes import Stage
from espmon.bootloader.resets import BY_NAME, parse_custom
from espmon.bootloader.write import Region
from espmon.errors import UsageProblem
from espmon.events import Event, Progress, ResetCaused
from espmon.port import SerialPort
from espmon.store.stubs import find_stubs, parse_payload
from tests.bootloader import images


def test_rates_are_remembered_per_adapter_and_raised_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_MOST_KEYS", 200)
    path = tmp_path / "rates.json"
    memory = LinkMemory(path)
    assert memory.rate("usb:a", 460800) == 460800
    for _ in range(3):
        memory.remember("usb:a", rate=115200, asked=460800, chip="esp32", clean=True)
        assert memory.rate("usb:a", 460800) == 115200
        memory = LinkMemory(path)
    memory.remember("usb:a", rate=115200, asked=460800, chip="esp32", clean=True)
    assert memory.rate("usb:a", 460800) == 230400
    assert memory.chip("usb:a") == "esp32"
    assert memory.rate("usb:b", 460800) == 460800
    for broken in ("", "[]", "{", '{"usb:a": 7}', '{"usb:a": {"rate": "x", "clean": null}}', "\udcff"):
        path.write_bytes(broken.encode("utf-8", "surrogatepass"))
        assert LinkMemory(path).rate("usb:a", 460800) == 460800
    for odd in ('"many"', "[]", "true", "1e400"):  # a hand-edited file stops nothing
        path.write_text(f'{{"usb:a": {{"rate": 115200, "clean": {odd}, "chip": {odd}}}}}')
        memory = LinkMemory(path)
        assert (memory.rate("usb:a", 460800), memory.chip("usb:a")) == (115200, None)
        memory.remember("usb:a", rate=115200, asked=460800, chip="esp32", clean=True)
        assert memory.chip("usb:a") == "esp32"
    path.write_text(json.dumps({f"usb:{n}": {"rate": 115200} for n in range(205)}))
    memory.remember("usb:a", rate=115200, asked=460800, chip="esp32", clean=True)
    kept = json.loads(path.read_text())
    assert len(kept) == 200
    assert "usb:a" in kept
    assert "usb:0" not in kept


def test_a_flasher_needs_no_terminal_and_can_be_stopped() -> None:
    port = SerialPort("sim://esp32?image=blank&speed=5")
    port.open()
    told: list[Event] = []
    stop = threading.Event()

    def noted(fact: object) -> None:
        if isinstance(fact, Stage) and fact.name == "write":
            stop.set()

    region = Region(offset=0x1000, content=images.big_esp32_image(0, 40), source="app", image=True)
    try:
        with (
            pytest.raises(Stopped) as stopped,
            Flasher(port, FlashOptions(), tell=told.append, noted=noted, stop=stop, memory=LinkMemory()) as flasher,
        ):
            flasher.flash([region])
        assert "Run the same command again" in stopped.value.state
        with Flasher(port, FlashOptions(), tell=told.append, memory=LinkMemory()) as flasher:
            assert flasher.flash([region]).verified
    finally:
        port.dispose()
    assert any(isinstance(e, ResetCaused) for e in told)
    progress = [e for e in told if isinstance(e, Progress)]
    assert progress[-1].done == progress[-1].total


def test_a_failure_carries_the_doctors_diagnosis() -> None:
    port = SerialPort("sim://esp32?boot_high=1&speed=5")
    port.open()
    try:
        with (
            pytest.raises(NoSyncReply) as silent,
            Flasher(port, FlashOptions(resets=1), memory=LinkMemory()) as flasher,
        ):
            flasher.identify()
    finally:
        port.dispose()
    assert "GPIO0 (BOOT) is not low" in (silent.value.hint or "")


def test_what_a_port_can_do_decides_how_it_is_reset() -> None:
    def names(port: str, before: str = "auto") -> list[str]:
        return [s.name for s in sequences_for(SerialPort(port), before)]

    assert names("rfc2217://127.0.0.1:1") == ["classic", "classic-long"]
    assert names("socket://127.0.0.1:1") == ["none"]
    assert names("sim://esp32")[0] == "tight"
    assert names("sim://esp32", "none") == ["none"]
    assert names("sim://esp32", "inverted") == ["inverted"]
    assert names("sim://esp32", "D0|R1|W0.1|D1|R0|W0.05|D0") == ["custom"]
    with pytest.raises(UsageProblem):
        names("sim://esp32", "nonsense")
    with pytest.raises(UsageProblem):
        reset_board(SerialPort("socket://127.0.0.1:1"), download=True)


@pytest.mark.parametrize("text", ["", "X1", "D2", "W", "D0|", "W99", "U1", "R1|W6|W6"])
def test_bad_reset_sequences(text: str) -> None:
    with pytest.raises(UsageProblem):
        parse_custom(text)


def test_custom_sequence_equals_the_built_in_one() -> None:
    assert parse_custom("D0|R1|W0.1|D1|R0|W0.05|D0").actions == BY_NAME["classic"].actions
    assert parse_custom("U1,0").actions[0] == parse_custom("U1,0").actions[0]


def test_stub_payloads_are_data() -> None:
    pytest.importorskip("esptool", reason="esptool is not installed")
    stubs = find_stubs()
    assert {"esp8266", "esp32", "esp32c3", "esp32s3"} <= set(stubs)
    assert stubs["esp8266"].text_start == 0x4010C500
    assert find_stubs(("esp32",)).keys() == {"esp32"}


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{}",
        '{"text": 5}',
        '{"text": "!!", "entry": 1, "text_start": 1}',
        '{"text": "AAAA", "entry": -1, "text_start": 1}',
    ],
)
def test_a_broken_payload_is_none(content: str) -> None:
    assert parse_payload("x", json.loads(content)) is None


def test_boot_text_at_the_wrong_rate_is_read() -> None:
    assert read_boot(b"\x00" * 100, 460800) is None
