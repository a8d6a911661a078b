"""Real esptool against `espmon sim` over RFC 2217: what it does, and what the flash file holds afterwards.

One run per chip, the three of them side by side; each command is a process of its own, most of them through
quick_esptool.py, one as it comes from PyPI.
"""

from __future__ import annotations

import contextlib
import importlib.util
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.peer,
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(importlib.util.find_spec("esptool") is None, reason="esptool is not installed"),
]
CHIPS = ("esp8266", "esp32", "esp32c3")
QUICK = Path(__file__).with_name("quick_esptool.py")
ROOT = Path(__file__).resolve().parents[2]
FIRST, SECOND = 0x10000, 0x30000
SIZE = 12_001  # no multiple of anything


@dataclass
class Outcome:
    """One esptool command: exit status, output, and the flash file right after it."""

    status: int
    output: str
    flash: bytes


@dataclass
class Session:
    """All commands run on one chip."""

    first: bytes
    second: bytes
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    read: dict[str, bytes] = field(default_factory=dict)


@contextlib.contextmanager
def server(chip: str, flash: Path, *more: str) -> Iterator[str]:
    """`espmon sim` as a process of its own; gives the URL that it prints."""
    command = [
        sys.executable,
        "-m",
        "espmon",
        "sim",
        chip,
        "--rfc2217",
        "127.0.0.1:0",
        "--flash",
        str(flash),
        "--speed",
        "20",
    ]
    with subprocess.Popen(
        [*command, *more], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split("at ")[1].split(",")[0].strip()
        finally:
            process.terminate()
            process.communicate(timeout=10)


def run_session(chip: str, folder: Path) -> Session:
    flash = folder / "flash.bin"
    noise = random.Random(chip)
    session = Session(noise.randbytes(SIZE), noise.randbytes(SIZE // 2) + b"\xff\x00" * (SIZE // 4))
    (folder / "first.bin").write_bytes(session.first)
    (folder / "second.bin").write_bytes(session.second)

    def esptool(name: str, *arguments: str, unchanged: bool = False) -> None:
        tool = ["-m", "esptool"] if unchanged else [str(QUICK)]
        done = subprocess.run(
            [sys.executable, *tool, "--port", url, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=folder,
        )
        session.outcomes[name] = Outcome(done.returncode, done.stdout + done.stderr, flash.read_bytes())

    unchanged = chip == "esp8266"
    if unchanged:
        with server(chip, flash) as url:
            esptool("chip-id no stub", "--no-stub", "chip-id", unchanged=True)
    # EN has to rise after GPIO0 has fallen (a few ms with the quick client) and before esptool lets it go (50 ms)
    with server(chip, flash, "--set", "en-rise=0.6") as url:
        read = str(folder / "read.bin")
        if not unchanged:
            esptool("chip-id no stub", "--no-stub", "chip-id")
        esptool("chip-id", "chip-id")
        esptool("flash-id", "flash-id")
        esptool("write-flash", "write-flash", hex(FIRST), "first.bin")
        esptool("verify-flash", "verify-flash", hex(FIRST), "first.bin")
        esptool("read-flash", "read-flash", hex(FIRST), str(SIZE), read)
        session.read["read-flash"] = Path(read).read_bytes() if Path(read).exists() else b""
        Path(read).unlink(missing_ok=True)
        esptool("erase-region", "erase-region", hex(FIRST + 0x1000), "0x2000")
        esptool("flash-id no stub", "--no-stub", "flash-id")
        esptool("write-flash no stub", "--no-stub", "write-flash", hex(SECOND), "second.bin")
        esptool("verify-flash no stub", "--no-stub", "verify-flash", hex(SECOND), "second.bin")
        esptool("read-flash no stub", "--no-stub", "read-flash", hex(SECOND), "5000", read)
        session.read["read-flash no stub"] = Path(read).read_bytes() if Path(read).exists() else b""
        if chip == "esp8266":
            esptool("erase-region no stub", "--no-stub", "erase-region", hex(SECOND), "0x1000")
    return session


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Session]]]:
    with ThreadPoolExecutor(len(CHIPS)) as pool:
        yield {chip: pool.submit(run_session, chip, tmp_path_factory.mktemp(chip)) for chip in CHIPS}


@pytest.fixture(params=CHIPS)
def chip(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def session(sessions: dict[str, Future[Session]], chip: str) -> Session:
    return sessions[chip].result(350)


def expected(content: dict[int, bytes], size: int = 4 << 20) -> bytes:
    """A blank flash with `content` at its addresses, the last sector of each filled with FF."""
    flash = bytearray(b"\xff") * size
    for address, piece in content.items():
        flash[address : address + len(piece)] = piece
    return bytes(flash)


@pytest.mark.parametrize("command", ["chip-id no stub", "chip-id", "flash-id", "flash-id no stub"])
def test_identification(session: Session, chip: str, command: str) -> None:
    outcome = session.outcomes[command]
    assert outcome.status == 0, outcome.output
    assert {"esp8266": "ESP8266", "esp32": "ESP32-D0WD", "esp32c3": "ESP32-C3"}[chip] in outcome.output
    assert ("5c:cf:7f:e5:90:01" if chip == "esp8266" else "24:6f:28:e5:90:01") in outcome.output
    assert f"Crystal frequency:  {26 if chip == 'esp8266' else 40}MHz" in outcome.output
    if command.startswith("flash-id"):
        assert "Manufacturer: ef" in outcome.output
        assert "Device: 4016" in outcome.output
        assert "Detected flash size: 4MB" in outcome.output
    if command != "flash-id no stub":
        assert outcome.flash == expected({})


def test_write_with_stub(session: Session) -> None:
    outcome = session.outcomes["write-flash"]
    assert outcome.status == 0, outcome.output
    assert "Hash of data verified" in outcome.output
    assert outcome.flash == expected({FIRST: session.first})


def test_verify_and_read_with_stub(session: Session) -> None:
    for command in ("verify-flash", "read-flash"):
        outcome = session.outcomes[command]
        assert outcome.status == 0, outcome.output
        assert outcome.flash == expected({FIRST: session.first})
    assert "digest matched" in session.outcomes["verify-flash"].output
    assert session.read["read-flash"] == session.first


def test_erase_region_with_stub(session: Session) -> None:
    outcome = session.outcomes["erase-region"]
    assert outcome.status == 0, outcome.output
    holed = session.first[:0x1000] + b"\xff" * 0x2000 + session.first[0x3000:]
    assert outcome.flash == expected({FIRST: holed})


def test_write_without_stub(session: Session, chip: str) -> None:
    outcome = session.outcomes["write-flash no stub"]
    assert outcome.status == 0, outcome.output
    before = session.outcomes["erase-region"].flash
    # blocks of 1 KiB, the last one filled with FF: nothing else changes
    assert outcome.flash[SECOND : SECOND + len(session.second)] == session.second
    assert outcome.flash[:SECOND] == before[:SECOND]
    assert set(outcome.flash[SECOND + len(session.second) :]) == {0xFF}
    assert ("Hash of data verified" in outcome.output) == (chip != "esp8266")


def test_verify_and_read_without_stub(session: Session, chip: str) -> None:
    verify, read = session.outcomes["verify-flash no stub"], session.outcomes["read-flash no stub"]
    if chip == "esp8266":
        assert verify.status != 0
        assert read.status != 0
        assert "ESP8266 ROM does not support" in verify.output
        assert "ESP8266 ROM does not support" in read.output
        refused = session.outcomes["erase-region no stub"]
        assert refused.status != 0
        assert "ESP8266 ROM does not support" in refused.output
        assert refused.flash == session.outcomes["write-flash no stub"].flash
    else:
        assert verify.status == 0, verify.output
        assert read.status == 0, read.output
        assert session.read["read-flash no stub"] == session.second[:5000]
