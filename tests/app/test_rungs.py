"""Recovery carried out on virtual boards: damaged flash comes back, healthy and foreign boards are left alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import espmon.events as ev
from espmon.app.config import parse_config
from espmon.app.rungs import Rungs, firmware_of, learn, partitions
from espmon.app.supervisor import Supervisor
from espmon.board.demo import demo_image
from espmon.errors import UsageProblem

FLASH = 1 << 20


def flash_with(image: bytes, *, broken_segment: bool = False) -> bytearray:
    flash = bytearray(b"\xff") * FLASH
    flash[: len(image)] = image
    flash[-0x4000] = 5
    flash[-0x1000:] = b"PARAMETR" * 512  # parameters that nobody may touch
    if broken_segment:
        flash[12:16] = b"\xff\xff\xff\x7f"  # the ROM waits for a segment that never ends: its watchdog bites, again and again
    return flash


class Bench:
    """One virtual board under a supervisor in this process."""

    def __init__(self, folder: Path, flash: bytes, more: str = "", url: str = "") -> None:
        self.folder = folder
        self.flash = folder / "flash.bin"
        if not self.flash.exists():
            self.flash.write_bytes(flash)
        (folder / "good.bin").write_bytes(demo_image())
        self.config = parse_config(
            f"""
[recovery]
healthy_after_s = 1.0
alive_s = 5
learn_after_s = 1
[log]
low_water = 0
[[port]]
name = "b"
match = {{ url = "sim://esp8266?flash={self.flash}&flash_size={FLASH}&baud=74880&pace=1&speed=3{url}" }}
baud = 74880
{more}
""",
            folder / "c.toml",
        )
        self.events: list[ev.Event] = []
        self.ended = threading.Event()
        self.supervisor = Supervisor(self.config, folder / "state", folder / "log")
        self.supervisor.rungs = Rungs(self.supervisor)
        self.supervisor.listen(self.take)
        self.supervisor.start()

    def take(self, event: ev.Event) -> None:
        self.events.append(event)
        if isinstance(event, ev.Recovery) and event.outcome in ("recovered", "gave-up"):
            self.ended.set()

    def steps(self) -> list[str]:
        return [f"{e.step} {e.outcome}" for e in self.events if isinstance(e, ev.Recovery)]

    @property
    def watch(self) -> Any:
        return self.supervisor.watches["b"]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Any]:
    made: list[Bench] = []

    def make(*args: Any, **kw: Any) -> Bench:
        made.append(Bench(tmp_path, *args, **kw))
        return made[-1]

    yield make
    for each in made:
        each.supervisor.stop()


def test_a_damaged_board_comes_back_and_its_parameters_stay(bench: Any) -> None:
    b = bench(flash_with(demo_image(), broken_segment=True), 'recover = "flash"\nimage = [{ file = "good.bin" }]')
    assert b.ended.wait(60), b.steps()
    assert b.steps() == [
        "reset started", "reset done", "leave-download-mode started", "leave-download-mode done", "compare started", "compare done",
        "write started", "backup started", "backup done", "verify done", "write done", "healthy recovered",
    ]  # fmt: skip
    assert b.flash.read_bytes() == flash_with(demo_image())
    assert next(e for e in b.events if isinstance(e, ev.BootLoop)).boots == 3
    backup = next(m for m in b.supervisor.images.all() if m["origin"] == "backup")
    kept = b.supervisor.images.get(backup["digest"])
    assert kept is not None
    assert kept.pieces[0][1] == bytes(flash_with(demo_image(), broken_segment=True)[:0x1000])
    journal = b.supervisor.database.now(lambda c: [r[0] for r in c.execute("SELECT what FROM journal ORDER BY id")])
    assert journal.index("write begins") < journal.index("write ends")
    assert "recovery" in {e.type for e in b.events}


def test_a_board_with_intact_flash_is_compared_and_left_alone(bench: Any) -> None:
    b = bench(flash_with(demo_image()), 'recover = "flash"\nimage = [{ file = "good.bin" }]', url="&crash=load&rounds=0&pace=0.05")
    before = b.flash.read_bytes()
    assert b.ended.wait(60), b.steps()
    assert b.steps()[-2:] == ["compare done", "give-up gave-up"]
    last = b.events[-1]
    assert "cannot help" in next(e.reason or "" for e in reversed(b.events) if isinstance(e, ev.Recovery)), last
    assert b.flash.read_bytes() == before


def test_a_healthy_board_is_never_touched_even_when_asked(bench: Any) -> None:
    b = bench(flash_with(demo_image()), 'recover = "flash"\nimage = [{ file = "good.bin" }]')
    before = b.flash.read_bytes()
    time.sleep(4.0)
    b.supervisor.recover("b", "flash", "test")
    time.sleep(1.0)
    assert b.steps() == ["begin refused"]
    assert b.flash.read_bytes() == before


def test_another_board_is_refused(bench: Any) -> None:
    b = bench(flash_with(demo_image(), broken_segment=True), 'recover = "flash"\nimage = [{ file = "good.bin" }]')
    b.supervisor.database.now(lambda c: c.execute("INSERT INTO boards VALUES ('b', '00:00:00:00:00:01', 'esp8266', NULL, '{}')").rowcount)
    before = b.flash.read_bytes()
    assert b.ended.wait(60), b.steps()
    assert b.steps()[-2:] == ["compare refused", "give-up gave-up"]
    assert b.flash.read_bytes() == before


def test_an_image_is_learnt_from_a_healthy_board(bench: Any) -> None:
    b = bench(flash_with(demo_image()), 'recover = "flash"')
    time.sleep(2.5)
    image = learn(b.supervisor, b.watch, "test")
    (offset, content) = image.pieces[0]
    assert (offset, content[: len(demo_image())], image.origin, image.chip) == (0, demo_image(), "learnt", "esp8266")
    assert len(content) < 0x10000, "neither the parameters nor blank flash are part of it"
    assert b.watch.policy.settings.image == image.digest
    deadline = time.monotonic() + 10
    while b.watch.state != "run" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert b.watch.state == "run"


def test_firmware_is_told_from_parameters_and_file_systems() -> None:
    flash = bytes(flash_with(demo_image()))
    assert b"PARAMETR" not in b"".join(c for _, c in firmware_of(flash, "esp8266", 0))
    with pytest.raises(UsageProblem, match="would not boot"):
        firmware_of(b"\xff" * FLASH, "esp8266", 0)
    entry = b"\xaa\x50\x01\x02" + (0x9000).to_bytes(4, "little") + (0x6000).to_bytes(4, "little") + b"nvs".ljust(20, b"\0")
    assert partitions(entry + b"\xeb\xeb" + b"\xff" * 100) == [(1, 2, 0x9000, 0x6000)]
    assert partitions(b"\xff" * 4096) == []
