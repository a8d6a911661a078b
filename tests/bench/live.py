"""The monitor on a pseudo terminal: throughput against esp-idf-monitor, CPU against a bare read loop, memory.

esp-idf-monitor runs on the same traffic with the same things switched on: timestamps, its log file, its parsing, an ELF.
"""

from __future__ import annotations

import importlib.util
import os
import pty
import select
import statistics
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path

from tests.bench.rows import Row

THROUGHPUT_BYTES = 6 << 20
ROUNDS = 3
LIVE_S = 10.0
CHUNK = 32  # bytes; at 115200 baud one every 2.78 ms
CHUNK_S = CHUNK * 10 / 115200
MARK = b"=== the end of the traffic ==="

# What people's boards print: plain lines, coloured levels, numbers, a prompt.
_LINES = [
    "I ({t}) wifi: state: assoc -> run (10)\r\n",
    "\x1b[0;32mI ({t}) main_task: Calling app_main()\x1b[0m\r\n",
    "\x1b[0;33mW ({t}) httpd_txrx: httpd_sock_err: error in send : 104\x1b[0m\r\n",
    "temperature {n}.{m} C, humidity {m}.{n} %, pressure 10{n} hPa\r\n",
    "[{t}] heap free 0x000{t:05x}, largest block 0x00012340, stack high water mark 1{n}2\r\n",
    "D ({t}) sensor: raw 0x3f{n}1 0x40{m}2 0x7{n}3 read back in {m} us\r\n",
    "mqtt: publish topic home/garden/weather qos 1 length {n}{m}\r\n",
    "loop {t} took {m} ms\r\n",
]


def traffic(size: int) -> bytes:
    """About `size` bytes of such lines, the mark last."""
    out = bytearray()
    number = 0
    while len(out) < size:
        out += _LINES[number % len(_LINES)].format(t=number * 7 % 900000, n=number % 10, m=number % 97).encode()
        number += 1
    return bytes(out) + MARK + b"\r\n"


def _open_pty() -> tuple[int, int, str]:
    master, slave = pty.openpty()
    mode = termios.tcgetattr(slave)
    mode[1] &= ~termios.OPOST
    mode[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(slave, termios.TCSANOW, mode)
    return master, slave, os.ttyname(slave)


def _espmon(device: str, folder: str, elf: str | None) -> list[str]:
    command = [sys.executable, "-m", "espmon", device, "-b", "115200", "--timestamps", "--log", f"{folder}/espmon.log"]
    return [*command, "--elf", elf] if elf else command


# esp-idf-monitor sets DTR and RTS after opening and gives up on a pty, which has none: that one refusal is passed over.
_IDF_ON_A_PTY = """
import runpy, serial
def pass_over(change):
    def changed(port):
        try:
            change(port)
        except OSError as error:
            if error.errno != 25:
                raise
    return changed
serial.Serial._update_dtr_state = pass_over(serial.Serial._update_dtr_state)
serial.Serial._update_rts_state = pass_over(serial.Serial._update_rts_state)
runpy.run_module("esp_idf_monitor", run_name="__main__")
"""


def _idf(device: str, folder: str, elf: str | None) -> list[str]:
    command = [sys.executable, "-c", _IDF_ON_A_PTY, "--port", device, "--baud", "115200", "--no-reset"]
    command += ["--timestamps", "--timestamp-format", "%H:%M:%S.%f", "--save-log", "--target", "esp32"]
    return [*command, elf] if elf else command


class Watched:
    """A monitor process on a pty, its output drained; ends when closed."""

    def __init__(self, make: object, folder: str, elf: str | None) -> None:
        self.master, self.slave, device = _open_pty()
        assert callable(make)
        environment = {**os.environ, "PYTHONPATH": os.getcwd()}
        self.process = subprocess.Popen(
            make(device, folder, elf),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
        )
        assert self.process.stdout is not None
        self.out = self.process.stdout.fileno()
        os.set_blocking(self.out, False)
        self._tail = b""
        self.seen = 0

    def drain(self, mark: bytes, limit_s: float) -> bool:
        """Reads the output until it holds `mark`."""
        limit = time.perf_counter() + limit_s
        while time.perf_counter() < limit:
            if not select.select([self.out], [], [], 0.5)[0]:
                continue
            got = os.read(self.out, 1 << 16)
            if not got:
                return False
            self.seen += len(got)
            window = self._tail + got
            self._tail = window[-200:]
            if mark in window:
                return True
        return False

    def say(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(self.master, rest[:4096]) :]

    def ready(self) -> None:
        """Says a word until it is shown: then everything is imported and open."""
        for _ in range(200):
            self.say(b"are you there\r\n")
            if self.drain(b"are you there", 0.5):
                return
        raise RuntimeError(f"the monitor shows nothing: {self._tail!r}")

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        os.close(self.master)
        os.close(self.slave)


def throughput(make: object, content: bytes, elf: str | None) -> float:
    """Bytes per second from the first written to the last shown."""
    with tempfile.TemporaryDirectory() as folder:
        watched = Watched(make, folder, elf)
        try:
            watched.ready()
            begun = time.perf_counter()
            writer = threading.Thread(target=watched.say, args=(content,), daemon=True)
            writer.start()
            if not watched.drain(MARK, 300):
                raise RuntimeError("the end was not shown")
            return len(content) / (time.perf_counter() - begun)
        finally:
            watched.close()


_BARE = """
import serial, sys
port = serial.Serial(sys.argv[1], 115200)
while True:
    data = port.read(port.in_waiting or 1)
    if sys.argv[2] == "echo":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
"""


def _bare(device: str, folder: str, elf: str | None) -> list[str]:
    return [sys.executable, "-c", _BARE, device, "quiet"]


def _bare_echo(device: str, folder: str, elf: str | None) -> list[str]:
    return [sys.executable, "-c", _BARE, device, "echo"]


def live_cpu(makes: dict[str, object], elf: str | None) -> dict[str, tuple[float, float]]:
    """CPU seconds per second and RSS in MB of each, all fed the same chunks at the same time at 115200 baud."""
    content = traffic(int(11520 * LIVE_S) + CHUNK)
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: Watched(make, folder, elf) for name, make in makes.items()}
        try:
            stop = threading.Event()
            pumps = []
            time.sleep(1.5)
            for watched in runs.values():
                pumps.append(threading.Thread(target=_drain_for_ever, args=(watched, stop), daemon=True))
                pumps[-1].start()
            for watched in runs.values():
                watched.say(b"warm up\r\n" * 3)
            time.sleep(1.0)
            before = {name: watched.cpu_s() for name, watched in runs.items()}
            begun = time.perf_counter()
            for number in range(int(LIVE_S / CHUNK_S)):
                piece = content[number * CHUNK : (number + 1) * CHUNK]
                for watched in runs.values():
                    os.write(watched.master, piece)
                ahead = begun + (number + 1) * CHUNK_S - time.perf_counter()
                if ahead > 0:
                    time.sleep(ahead)
            took = time.perf_counter() - begun
            used = {name: ((w.cpu_s() - before[name]) / took, w.rss_mb()) for name, w in runs.items()}
            stop.set()
            for pump in pumps:
                pump.join(5)
            return used
        finally:
            for watched in runs.values():
                watched.close()


def _drain_for_ever(watched: Watched, stop: threading.Event) -> None:
    while not stop.is_set():
        watched.drain(b"\xff\x00never", 0.5)


def memory(size: int) -> tuple[float, float]:
    """(idle, highest while `size` bytes pass) RSS of espmon in MB."""
    content = traffic(1 << 20).replace(MARK, b"=" * len(MARK))
    with tempfile.TemporaryDirectory() as folder:
        watched = Watched(lambda d, f, e: [sys.executable, "-m", "espmon", d, "-b", "115200", "-t"], folder, None)
        try:
            watched.ready()
            idle = watched.rss_mb()
            highest = idle

            def feed() -> None:
                for _ in range(size // len(content)):
                    watched.say(content)
                watched.say(MARK + b"\r\n")

            threading.Thread(target=feed, daemon=True).start()
            while not watched.drain(MARK, 2.0):
                highest = max(highest, watched.rss_mb())
            return idle, max(highest, watched.rss_mb())
        finally:
            watched.close()


def run() -> list[Row]:
    rows: list[Row] = []
    content = traffic(THROUGHPUT_BYTES)
    elf = next((str(p.resolve()) for p in Path("symbols").rglob("*.elf")), None)
    peers = {"espmon": _espmon}
    if importlib.util.find_spec("esp_idf_monitor") is not None:
        peers["esp-idf-monitor"] = _idf
    rates: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(ROUNDS):
        for name, make in peers.items():
            rates[name].append(throughput(make, content, elf))
    middle = {name: statistics.median(each) for name, each in rates.items()}
    for name, rate in middle.items():
        ratio = rate / middle["esp-idf-monitor"] if name == "espmon" and "esp-idf-monitor" in middle else None
        limit = ">= 3" if ratio is not None else ""
        rows.append(Row(f"{name}, pty, timestamps, file, parsing", rate / 1e6, "MB/s", ratio, "esp-idf-monitor", limit))
    used = live_cpu({"bare": _bare, "espmon": _espmon, "bare echo": _bare_echo}, elf)
    rows.append(Row("bare pyserial loop at 115200, CPU", used["bare"][0] * 100, "%"))
    rows.append(Row("the same, writing to standard output, CPU", used["bare echo"][0] * 100, "%"))
    rows.append(
        Row(
            "espmon at 115200, CPU",
            used["espmon"][0] * 100,
            "%",
            used["espmon"][0] / used["bare"][0],
            "bare pyserial loop",
            "<= 2",
        )
    )
    rows.append(Row("espmon at 115200, RSS", used["espmon"][1], "MB"))
    size = int(os.environ.get("ESPMON_BENCH_MEMORY_MB", "1000")) << 20
    idle, highest = memory(size)
    rows.append(Row("espmon idle, RSS", idle, "MB"))
    rows.append(Row(f"espmon during {size >> 20} MB, RSS", highest, "MB"))
    return rows
