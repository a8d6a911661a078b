"""Flashing against real esptool, both on the same virtual board at real line rates, interleaved.

The board runs behind a pty in a process of its own, new for each run, and waits in download mode (a pty has no reset
lines). Wall time of whole client processes, from the command line to their end. CPU per megabyte read: the client's own
alone, and its start is taken off. ``ESPMON_BENCH_RUNS`` sets how
often each pair runs (default 3; the median is shown). esptool is run as it comes, `--skip-flashed` where it says so.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.rows import Row
from tests.bootloader import images

ROOT = Path(__file__).resolve().parents[2]
RUNS = int(os.environ.get("ESPMON_BENCH_RUNS", "3"))
# esptool knows sim:// once pyserial does.
ESPTOOL = "import sys, serial; serial.protocol_handler_packages.append('espmon.board.urls'); import esptool; esptool.main(sys.argv[1:])"
KIB = 300
OFFSETS = {"esp8266": 0, "esp32": 0x1000}


def _run(arguments: list[str], folder: Path) -> float:
    start = time.monotonic()
    done = subprocess.run(
        arguments,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XDG_STATE_HOME": str(folder), "PYTHONPATH": str(ROOT)},
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(arguments[-8:])}: status {done.returncode}\n{done.stdout[-800:]}{done.stderr[-800:]}"
        )
    return time.monotonic() - start


@contextlib.contextmanager
def board_on_pty(chip: str, flash: Path, *pairs: str) -> Iterator[str]:
    """The pty of a fresh board in download mode."""
    command = [sys.executable, "-m", "tests.fakes.pty_board", chip, str(flash), *pairs]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        tty = server.stdout.readline().strip()
        time.sleep(0.5)
        yield tty
    finally:
        server.terminate()
        server.wait(10)


def _row(name: str, mine: float, peer: float, against: str, limit: float | None) -> Row:
    return Row(name, mine, "s", mine / peer, f"{against} ({peer:.2f} s)", f"<= {limit}" if limit else "")


class _Bench:
    def __init__(self, chip: str, rate: int, folder: Path) -> None:
        self.chip, self.rate, self.folder = chip, rate, folder
        self.flash = folder / "flash.bin"
        make = images.big_esp8266_image if chip == "esp8266" else lambda kib, seed: images.big_esp32_image(0, kib, seed)
        self.image, self.other = make(KIB, 1), make(KIB, 2)
        (folder / "image.bin").write_bytes(self.image)

    def fill(self, content: bytes) -> None:
        cells = bytearray(b"\xff") * (4 << 20)
        offset = OFFSETS[self.chip]
        cells[offset : offset + len(content)] = content
        self.flash.write_bytes(cells)

    def damaged(self) -> bytes:
        content = bytearray(self.image)
        for sector in (7, 30, 62):
            content[sector * 4096 : sector * 4096 + 4096] = random.Random(sector).randbytes(4096)
        return bytes(content)

    def espmon(self, *words: str) -> float:
        command, *rest = words
        options = ["--before", "none", "--after", "none", "--flash-baud", str(self.rate)]
        return self.timed(lambda tty: [sys.executable, "-m", "espmon", command, tty, *rest, *options])

    def esptool(self, *words: str) -> float:
        options = ["--baud", str(self.rate), "--before", "no-reset", "--after", "no-reset"]
        return self.timed(lambda tty: [sys.executable, "-m", "esptool", "--port", tty, *options, *words])

    def timed(self, arguments: Callable[[str], list[str]]) -> float:
        with board_on_pty(self.chip, self.flash) as tty:
            return _run(arguments(tty), self.folder)

    def holds(self) -> bool:
        offset = OFFSETS[self.chip]
        return self.flash.read_bytes()[offset : offset + len(self.image)] == self.image

    def pair(self, before: bytes, ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[float, float]:
        mine, peers = [], []
        for _ in range(RUNS):
            for run, times in ((ours, mine), (theirs, peers)):
                self.fill(before)
                times.append(run())
                if not self.holds():
                    raise RuntimeError("flash does not hold the image")
        return statistics.median(mine), statistics.median(peers)


def _wall(chip: str, rate: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as name:
        b = _Bench(chip, rate, Path(name))
        where, file = hex(OFFSETS[chip]), str(b.folder / "image.bin")

        def ours() -> float:
            return b.espmon("flash", where, file)

        def theirs(*options: str) -> Callable[[], float]:
            return lambda: b.esptool("write-flash", *options, where, file)

        area = f"{chip} {rate}"
        mine, peer = b.pair(b.other, ours, theirs())
        yield _row(f"{area}: full write of {KIB} KiB", mine, peer, "esptool", 1.0)
        mine, peer = b.pair(b.damaged(), ours, theirs("--skip-flashed"))
        yield _row(f"{area}: three damaged sectors", mine, peer, "esptool --skip-flashed", 0.35)
        mine, peer = b.pair(b.image, ours, theirs())
        yield _row(f"{area}: nothing to do", mine, peer, "esptool", 0.5)
        mine, peer = b.pair(b.image, ours, theirs("--skip-flashed"))
        yield _row(f"{area}: nothing to do", mine, peer, "esptool --skip-flashed", None)


def _read(chip: str, rate: int) -> Iterator[Row]:
    """A flash as boards have it: 4 MiB with 300 KiB of firmware; and 256 KiB without one blank sector."""
    with tempfile.TemporaryDirectory() as name:
        b = _Bench(chip, rate, Path(name))
        out = str(b.folder / "out.bin")
        for what, size in (
            ("the first 1 MiB of a board with 300 KiB of firmware", 1 << 20),
            ("256 KiB, none blank", 256 << 10),
        ):
            mine, peers = [], []
            for _ in range(RUNS):
                b.fill(b.image)
                mine.append(b.espmon("backup", out, "--force", "--size", hex(size)))
                peers.append(b.esptool("read-flash", "0", hex(size), out))
            target = 0.8 if size == 1 << 20 else None
            yield _row(
                f"{chip} {rate}: read {what}", statistics.median(mine), statistics.median(peers), "esptool", target
            )


def _cpu(arguments: Callable[[str], list[str]], flash: Path, folder: Path) -> float:
    """CPU seconds of one client run against a fresh board behind a pty; the board's own are not counted."""
    with board_on_pty("esp32", flash) as tty:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        _run(arguments(tty), folder)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _cpu_rows() -> Iterator[Row]:
    """CPU seconds per MiB read at 921600: the difference between reading 64 KiB and 1 MiB more."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flash, out = folder / "flash.bin", str(folder / "out.bin")
        flash.write_bytes(images.firmware(4096, 3))

        def ours(size: int) -> Callable[[str], list[str]]:
            return lambda tty: [
                *(sys.executable, "-m", "espmon", "backup", tty, out, "--force", "--size", hex(size)),
                *("--before", "none", "--after", "none", "--flash-baud", "921600"),
            ]

        def theirs(size: int) -> Callable[[str], list[str]]:
            return lambda tty: [
                *(sys.executable, "-m", "esptool", "--port", tty, "--baud", "921600", "--before", "no-reset"),
                *("--after", "no-reset", "read-flash", "0", hex(size), out),
            ]

        figures: dict[str, list[float]] = {"ours": [], "theirs": []}
        for _ in range(RUNS):
            for who, command in (("ours", ours), ("theirs", theirs)):
                small, large = (_cpu(command(size), flash, folder) for size in (0x10000, 0x110000))
                figures[who].append(large - small)
        ours_s, theirs_s = (statistics.median(figures[who]) for who in ("ours", "theirs"))
        yield _row("CPU per MiB read", ours_s, theirs_s, "esptool", 0.25)


def run() -> Iterator[Row]:
    """All rows, as they are measured; several minutes, since the lines run at their real rates."""
    yield from _cpu_rows()
    for rate in (460800, 115200):
        yield from _wall("esp8266", rate)
    yield from _wall("esp32", 460800)
    yield from _read("esp8266", 460800)
    yield from _read("esp32", 921600)
