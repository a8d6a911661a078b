"""The whole story on three virtual boards, under the real daemon: one healthy, one that crashes now and then, one whose
damaged flash keeps it in a watchdog loop until espmon repairs it. Ends by itself in well under a minute."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from espmon.app.config import parse_config
from espmon.app.rungs import Rungs
from espmon.app.supervisor import Supervisor
from espmon.board.demo import demo_elf, demo_image
from espmon.events import Event, Recovery

LIMIT_S = 45.0  # whatever happens, the demo ends
AFTER_S = 2.5  # of healthy text after the repair
_FLASH_BYTES = 1 << 20
# The board runs twice as fast as a clock on the wall, so that nobody waits long for its watchdog.
_SPEED = 2
# The virtual boards' firmware talks at the ROM's own rate, as that of many NodeMCU sketches does.
_BAUD = 74880


def _damaged(image: bytes) -> bytes:
    """A flash whose first sector lost some bits: the ROM waits for a segment that never ends, until its watchdog bites."""
    flash = bytearray(b"\xff") * _FLASH_BYTES
    flash[: len(image)] = image
    flash[12:16] = b"\xff\xff\xff\x7f"
    flash[-0x4000] = 5
    return bytes(flash)


def _config(folder: Path) -> str:
    link = f"baud={_BAUD}&flash_size={_FLASH_BYTES}&speed={_SPEED}"
    return f"""
[log]
low_water = 0
[recovery]
healthy_after_s = 1.5
alive_s = 8
[[port]]
name = "kitchen"
match = {{ url = "sim://esp8266?{link}&pace=1.2" }}
baud = {_BAUD}
[[port]]
name = "garden"
match = {{ url = "sim://esp8266?{link}&crash=load&rounds=6&pace=0.8&seed=2" }}
baud = {_BAUD}
elf = ["weather.elf"]
[[port]]
name = "garage"
match = {{ url = "sim://esp8266?{link}&pace=1.2&seed=3&flash={folder}/garage.bin" }}
baud = {_BAUD}
recover = "flash"
image = [{{ file = "known-good.bin", offset = 0 }}]
"""


def run_story(tell: Callable[[Event], None], finished: Callable[[dict[str, Any]], None]) -> bool:
    """Plays it; `tell` gets every event as it happens, `finished` the status at the end. True when the board was repaired.

    Raises FileNotFoundError when the demo firmware is not part of the installation.
    """
    logging.getLogger("espmon").setLevel(logging.CRITICAL)
    elf = demo_elf()
    image = demo_image()
    repaired = threading.Event()
    ended = threading.Event()

    def take(event: Event) -> None:
        tell(event)
        if isinstance(event, Recovery) and event.outcome in ("recovered", "gave-up"):
            if event.outcome == "recovered":
                repaired.set()
            ended.set()

    with tempfile.TemporaryDirectory(prefix="espmon-demo-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "garage.bin").write_bytes(_damaged(image))
        (folder / "known-good.bin").write_bytes(image)
        (folder / "weather.elf").write_bytes(elf.read_bytes())
        with contextlib.suppress(OSError):
            import os

            os.utime(folder / "weather.elf", (time.time() - 60, time.time() - 60))
        supervisor = Supervisor(parse_config(_config(folder), folder / "espmon.toml"), folder / "state", folder / "log")
        supervisor.rungs = Rungs(supervisor)
        supervisor.listen(take)
        try:
            supervisor.symbols.look()
            supervisor.start()
            if ended.wait(LIMIT_S):
                time.sleep(AFTER_S)
            finished(supervisor.status())
        finally:
            supervisor.unlisten(take)
            supervisor.stop(5.0)
    return repaired.is_set()
