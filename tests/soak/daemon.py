"""What the daemon must show, as a printed report: `python -m tests.soak.daemon [PART...] [--long]` (`make soak`).

Short by default; `--long` takes the sizes of the promise (64 boards for an hour, 200 kills, 1,000 replugs).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tests.app.daemon_rig import DaemonProcess, PtyBoard, until
from tests.app.recovery_rig import flash_of, good_pieces

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Report:
    """Lines of one part, and whether it kept its promise."""

    name: str
    good: bool = True
    lines: list[str] = field(default_factory=list)

    def say(self, text: str, good: bool = True) -> None:
        self.good = self.good and good
        self.lines.append(("  " if good else "! ") + text)
        print(f"  {self.name}: {self.lines[-1]}", flush=True)


def section(name: str, device: str | Path, more: str = "") -> str:
    """A [[port]] section."""
    return f'[[port]]\nname = "{name}"\nmatch = {{ device = "{device}" }}\nbaud = 115200\n{more}\n'


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files(pid: int) -> int:
    """Open descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def _module(*words: str, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, **more
    )


def load(folder: Path, *, boards: int, seconds: int, rate: int = 11_520) -> Report:
    """All boards at full rate: no byte lost, CPU against a bare epoll loop on the same traffic, memory flat."""
    report = Report("load")
    pump = _module("tests.soak.pump", str(boards), "2", str(rate), str(seconds))
    assert pump.stdin is not None
    assert pump.stdout is not None
    ours, theirs = json.loads(pump.stdout.readline())
    bare_folder = folder / "bare"
    bare_folder.mkdir()
    bare = _module("tests.soak.bare", str(bare_folder))
    assert bare.stdin is not None
    assert bare.stdout is not None
    bare.stdin.write(json.dumps(theirs) + "\n")
    bare.stdin.flush()
    bare.stdout.readline()
    config = "[log]\nlow_water = 0\n" + "".join(section(f"b{i}", d) for i, d in enumerate(ours))
    daemon = DaemonProcess(folder, config)
    daemon.start()
    assert daemon.process is not None
    pid = daemon.process.pid
    until(lambda: len(daemon.of_type("port")) == boards, 60, "opening all")
    time.sleep(2)
    pump.stdin.write("go\n")
    pump.stdin.flush()
    end = time.monotonic() + seconds
    # what is imported and learnt with the first bytes is done once, in years: not counted
    time.sleep(min(5.0, seconds / 4))
    before, bare_before, wall = cpu_seconds(pid), cpu_seconds(bare.pid), time.monotonic()
    memory: list[int] = []
    while time.monotonic() < end:
        time.sleep(min(5.0, seconds / 8))
        memory.append(memory_bytes(pid))
    done = json.loads(pump.stdout.readline())
    took = time.monotonic() - wall
    time.sleep(1.0)
    used, bare_used = cpu_seconds(pid) - before, cpu_seconds(bare.pid) - bare_before
    until(lambda: all((daemon.state / "log" / f"b{i}").exists() for i in range(boards)), 10)
    lost = 0
    for i, (count, digest) in enumerate(done["digests"]):
        got = daemon.raw_log(f"b{i}")
        if len(got) != count or hashlib.sha256(got).hexdigest() != digest:
            lost += 1
            report.say(f"b{i}: {len(got)} of {count} bytes", False)
    total = sum(c for c, _ in done["digests"])
    report.say(
        f"{boards} boards x {rate} B/s for {seconds} s: {total / 1e6:.1f} MB, {lost} boards with a wrong digest",
        lost == 0,
    )
    ratio = used / max(bare_used, 0.01)
    report.say(
        f"CPU {used / took:.1%} of a core, bare epoll loop {bare_used / took:.1%}: {ratio:.1f}x (promise 4x), load average {os.getloadavg()[0]:.1f}",
        ratio <= 4.0,
    )
    settled = memory[len(memory) // 3 :]
    growth = (settled[-1] - settled[0]) / 1e6 if settled else 0.0
    report.say(
        f"memory {memory[-1] / 1e6:.0f} MB, {growth:+.1f} MB over the last two thirds",
        growth < max(8.0, memory[0] / 1e6 * 0.15),
    )
    pump.stdin.close()
    bare.stdin.write("\n")
    bare.stdin.close()
    bare.wait(10)
    pump.wait(10)
    bare.stdout.close()
    pump.stdout.close()
    began = time.monotonic()
    status = daemon.stop()
    report.say(f"stopped with status {status} in {time.monotonic() - began:.1f} s", status == 0)
    return report


def many_ports(folder: Path, *, boards: int) -> Report:
    """Hundreds of ports at once, slowly talking."""
    report = Report("ports")
    seconds = 10
    pump = _module("tests.soak.pump", str(boards), "1", "200", str(seconds))
    assert pump.stdin is not None
    assert pump.stdout is not None
    (ours,) = json.loads(pump.stdout.readline())
    daemon = DaemonProcess(folder, "[log]\nlow_water = 0\n" + "".join(section(f"b{i}", d) for i, d in enumerate(ours)))
    began = time.monotonic()
    daemon.start()
    assert daemon.process is not None
    until(lambda: len([e for e in daemon.of_type("port") if e["state"] == "opened"]) == boards, 60, "opening all")
    limit = daemon.status()["descriptor_limit"]
    report.say(
        f"{boards} ports open after {time.monotonic() - began:.1f} s, {open_files(daemon.process.pid)} descriptors of {limit}"
    )
    pump.stdin.write("go\n")
    pump.stdin.flush()
    done = json.loads(pump.stdout.readline())
    time.sleep(1.0)
    wrong = [i for i, (n, d) in enumerate(done["digests"]) if hashlib.sha256(daemon.raw_log(f"b{i}")).hexdigest() != d]
    report.say(f"{len(wrong)} of {boards} logs with a wrong digest", not wrong)
    pump.stdin.close()
    daemon.stop()
    return report


def kills(folder: Path, *, rounds: int) -> Report:
    """kill -9 at random moments under load: what was written stays, nothing is invented, restarts are quick."""
    report = Report("kills")
    rng = random.Random(4)
    boards = [PtyBoard(folder / f"tty{i}") for i in range(4)]
    daemon = DaemonProcess(
        folder,
        "[log]\nlow_water = 0\nsegment_bytes = 20000\n"
        + "".join(section(f"b{i}", b.path) for i, b in enumerate(boards)),
    )
    sent = [bytearray() for _ in boards]
    restarts: list[float] = []
    n = 0
    shorter = 0
    for _ in range(rounds):
        began = time.monotonic()
        daemon.events.clear()
        daemon.start(wait=False)
        until(lambda: len([e for e in daemon.of_type("port") if e["state"] == "opened"]) == 4, 30, "opening")
        restarts.append(time.monotonic() - began)
        # every byte that is in a log now must stay there
        known = [daemon.raw_log(f"b{i}") for i in range(4)]
        end = time.monotonic() + rng.uniform(0.05, 0.8)
        while time.monotonic() < end:
            for i, board in enumerate(boards):
                n += 1
                line = b"line %08d of b%d, some text to fill it\r\n" % (n, i)
                board.say(line)
                sent[i] += line
            time.sleep(0.002)
            if rng.random() < 0.05:
                known = [daemon.raw_log(f"b{i}") for i in range(4)]
        daemon.kill()
        for i in range(4):
            got = daemon.raw_log(f"b{i}")
            if not got.startswith(known[i]):
                shorter += 1
                report.say(f"b{i}: {len(got)} bytes, {len(known[i])} were written before", False)
    # what was read but not yet written when it was killed may miss; nothing may be there twice or changed
    invented = 0
    missing = 0
    for i in range(4):
        lines = set(bytes(sent[i]).split(b"\r\n"))
        got = daemon.raw_log(f"b{i}")
        at = -1
        for line in got.split(b"\r\n"):
            if line in lines and line:
                number = int(line.split()[1])
                invented += number <= at
                at = max(at, number)
        missing += len(sent[i]) - len(got)
    report.say(
        f"{rounds} kills: {shorter} logs shorter than before, {invented} lines twice or out of order", not invented
    )
    report.say(f"{missing} of {sum(map(len, sent))} bytes were on their way inside the killed process or the pty")
    _say_restarts(report, restarts)
    from espmon.store.segments import segments

    bad = 0
    for i in range(4):
        for segment in segments(daemon.state / "log" / f"b{i}"):
            size = segment.raw_path.stat().st_size if segment.raw_path.exists() else None
            bad += size is not None and any(r.offset > size for r in segment.records())
    report.say(f"{bad} index records point behind their bytes", bad == 0)
    return report


def _old_state(folder: Path, *, boards: int, segments: int, megabytes: int) -> None:
    """What years leave behind: closed segments of every board, and a large database."""
    import sqlite3

    from espmon.store.database import Database
    from espmon.store.portlog import LogLimits, PortLog
    from espmon.store.retention import pack_segment
    from espmon.store.segments import segments as segments_of

    log = folder / "state" / "log"
    for i in range(boards):
        one = PortLog(log, f"b{i}", LogLimits())
        for k in range(100):
            one.append(b"a line of an old segment\r\n" * 20, 1.7e9 + k, float(k))
            one.drain(1.7e9 + k, float(k))
        one.close(1.7e9 + 100, 100.0)
        first = segments_of(log / f"b{i}")[0]
        pack_segment(first)
        for number in range(2, segments // boards + 1):
            for path in (first.packed_path, first.packed_index_path):
                shutil.copyfile(path, path.with_name(path.name.replace("00000001-", f"{number:08d}-")))
    Database(folder / "state" / "espmon.sqlite").close()
    connection = sqlite3.connect(folder / "state" / "espmon.sqlite")
    rows = megabytes * 1_000_000 // 560  # what a row and its two index entries take
    now = time.time()
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        "INSERT INTO events (port, type, at, boot, json) SELECT 'b' || (i % ?), 'boot', ? - i, i, hex(zeroblob(225)) FROM n",
        (rows, boards, now),
    )
    connection.commit()
    connection.close()


def starts(folder: Path, *, boards: int, segments: int, megabytes: int, rounds: int) -> Report:
    """Restarts after kill -9 with the state of years on the disk: until all ports are read, and until it answers."""
    report = Report("start")
    ttys = [PtyBoard(folder / f"tty{i}") for i in range(boards)]
    _old_state(folder, boards=boards, segments=segments, megabytes=megabytes)
    size = (folder / "state" / "espmon.sqlite").stat().st_size
    daemon = DaemonProcess(folder, "[log]\nlow_water = 0\n" + "".join(section(f"b{i}", b.path) for i, b in enumerate(ttys)))
    read: list[float] = []
    answered: list[float] = []
    cpu: list[float] = []
    for turn in range(rounds):
        began = time.monotonic()
        daemon.events.clear()
        daemon.start(wait=False)
        assert daemon.process is not None
        until(lambda: len([e for e in daemon.of_type("port") if e["state"] == "opened"]) == boards, 60, "opening")
        read.append(time.monotonic() - began)
        cpu.append(cpu_seconds(daemon.process.pid))
        until(lambda: (daemon.state / "control.sock").exists(), 20, "the socket")
        daemon.status()
        answered.append(time.monotonic() - began)
        for i, tty in enumerate(ttys):
            tty.say(b"turn %d of b%d\r\n" % (turn, i))
        until(lambda t=turn: all(daemon.raw_log(f"b{i}").endswith(b"turn %d of b%d\r\n" % (t, i)) for i in (0, boards - 1)), 20, "logging")
        daemon.kill()
    report.say(f"{boards} boards, {segments} segments, database of {size / 1e6:.0f} MB, {rounds} kills")
    _say_restarts(report, read)
    report.say(f"CPU until then {median(cpu):.2f} s (median); status answered {median(answered):.2f} s after the start, worst {max(answered):.2f} s")
    return report


def _say_restarts(report: Report, restarts: list[float]) -> None:
    """Judges the slowest one; a loaded machine makes it slower, so the load is told beside it."""
    ordered = sorted(restarts)
    late = sum(r > 2.0 for r in ordered)
    report.say(
        f"restart until all ports are read: median {median(ordered):.2f} s, 99 % within {ordered[int(0.99 * (len(ordered) - 1))]:.2f} s, "
        f"worst {ordered[-1]:.2f} s (promise 2 s, {late} of {len(ordered)} later); load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs",
        late == 0,
    )


def _mounted(small: Path) -> bool:
    small.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(small)]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def _fill(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        while os.write(fd, b"x" * 4096):
            pass
    except OSError:
        pass
    finally:
        os.close(fd)


def full_disk(folder: Path) -> Report:
    """The disk is filled and freed: monitoring goes on, the gap is stated with its size, logging resumes by itself."""
    report = Report("disk")
    small = folder / "small"
    if not _mounted(small):
        report.say(
            "skipped: a small tmpfs cannot be mounted here (needs root); the writer stub in tests/store covers it"
        )
        return report
    try:
        board = PtyBoard(folder / "tty0")
        config = f'[log]\ndir = "{small}"\nlow_water = 262144\nsegment_bytes = 131072\n' + section("b0", board.path)
        daemon = DaemonProcess(folder, config)
        daemon.start()
        until(lambda: daemon.of_type("port"), what="opening")
        board.say(b"before\r\n")
        until(lambda: b"before" in _raw(small), what="logging")
        filler = small / "filler"
        _fill(filler)
        until(lambda: daemon.status()["low_on_space"], 20, "noticing")
        sent = 0
        line = b"y" * 1022 + b"\r\n"
        for i in range(5 * 1024):  # 5 MiB into a ring of 4
            board.say(line)
            sent += len(line)
            if i % 128 == 0:
                time.sleep(0.05)  # a pty takes 100 MB/s, which no decoder follows and no board sends
        board.say(b"\r\n ets Jan  8 2013,rst cause:4, boot mode:(3,6)\r\n\r\n")
        until(lambda: daemon.of_type("boot"), 30, "decoding while the disk is full")
        report.say("boots are decoded and stored while raw logging pauses")
        filler.unlink()
        until(lambda: not daemon.status()["low_on_space"], 20, "resuming")
        gap = until(lambda: daemon.of_type("gap"), 20, "the gap")[0]
        board.say(b"after\r\n")
        until(lambda: b"after\r\n" in _raw(small), 20, "logging again")
        got = len(_raw(small))
        whole = sent + len(b"before\r\nafter\r\n") + 52
        lost = sum(e["bytes"] for e in daemon.of_type("gap"))
        report.say(
            f"sent {whole} bytes, stored {got}, gap of {lost} stated ({gap['reason']})", abs(got + lost - whole) <= 8
        )
        report.say(f"stopped with status {daemon.stop()}")
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)
    _full_state(report, folder / "state-too")
    return report


def _full_state(report: Report, folder: Path) -> None:
    """The database's disk is full as well, and the daemon is killed and started again on it."""
    folder.mkdir()
    small = folder / "small"
    if not _mounted(small):
        return
    boot = b"\r\n ets Jan  8 2013,rst cause:4, boot mode:(3,6)\r\n\r\n"
    try:
        board = PtyBoard(folder / "tty0")
        config = f'[log]\ndir = "{small}/log"\nlow_water = 1048576\nsegment_bytes = 131072\n' + section("b0", board.path)
        daemon = DaemonProcess(folder, config)
        daemon.state = small / "state"
        daemon.environment["ESPMON_STATE_DIR"] = str(daemon.state)
        daemon.start()
        until(lambda: daemon.of_type("port"), what="opening")
        for _ in range(3000):
            board.say(b"z" * 1022 + b"\r\n")
        until(lambda: daemon.status()["ports"]["b0"]["bytes"] == 3000 * 1024, 30, "reading")
        _fill(small / "filler")
        for _ in range(5):
            board.say(b"some text\r\n" * 100 + boot)
            time.sleep(0.5)
            _fill(small / "filler")
        until(lambda: len(daemon.of_type("boot")) == 5, 30, "decoding")
        stuck = daemon.status()["database"]
        daemon.kill()
        _fill(small / "filler")
        daemon.events.clear()
        daemon.start(wait=False)
        until(lambda: daemon.of_type("port"), 20, "a start on a full disk")
        board.say(boot)
        until(lambda: daemon.of_type("boot"), 20, "decoding")
        report.say(f"database on the full disk ({stuck['stuck']}, {stuck['dropped']} events given up): decoding goes on; killed and started again on it")
        (small / "filler").unlink()
        until(lambda: not daemon.status()["low_on_space"], 20, "resuming")
        board.say(b"after\r\n")
        until(lambda: b"after\r\n" in _raw(small / "log"), 20, "logging again")
        until(lambda: daemon.status()["database"]["stuck"] is None, 20, "storing again")
        told = daemon.command("events", "b0", "--json").stdout
        report.say("logged and stored again when the disk was freed", '"boot"' in told)
        report.say(f"stopped with status {daemon.stop()}")
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)


def _raw(root: Path) -> bytes:
    from espmon.store.logreader import read_log

    return b"".join(p.raw for p in read_log(root / "b0"))


def replugs(folder: Path, *, cycles: int, renames: int) -> Report:
    """Unplugged and plugged in again, also under another name: the right board each time, nothing leaks."""
    report = Report("replug")
    boards = [PtyBoard(folder / f"tty{i}") for i in range(2)]
    daemon = DaemonProcess(
        folder,
        "[log]\nlow_water = 0\n[daemon]\nrescan_s = 0.2\n"
        + "".join(section(f"b{i}", b.path) for i, b in enumerate(boards)),
    )
    daemon.start()
    assert daemon.process is not None
    pid = daemon.process.pid
    until(lambda: len(daemon.of_type("port")) == 2, what="opening")
    first: tuple[int, int, int] | None = None
    waits: list[float] = []
    for i in range(cycles + renames):
        board = boards[i % 2]
        name = f"b{i % 2}"
        board.unplug()
        until(
            lambda n=name: [e for e in daemon.of_type("port") if e["port"] == n][-1]["state"] == "gone", what="noticing"
        )
        if i < renames:
            # another board takes a new pty in between, so that the device gets another number
            other = os.openpty()
        began = time.monotonic()
        board.plug()
        until(
            lambda n=name: [e for e in daemon.of_type("port") if e["port"] == n][-1]["state"] == "returned",
            what="reopening",
        )
        waits.append(time.monotonic() - began)
        if i < renames:
            os.close(other[0])
            os.close(other[1])
        line = b"%s life %d\r\n" % (name.encode(), i)
        board.say(line)
        # the kernel throws away what a terminal's reader has not taken when its other end closes
        until(lambda n=name, x=line: daemon.raw_log(n).endswith(x), what="logging")
        if i == 20:
            first = (open_files(pid), len(os.listdir(f"/proc/{pid}/task")), memory_bytes(pid))
        if i % 100 == 0:
            daemon.events[:-10] = []
    time.sleep(1.0)
    wrong = 0
    for k in range(2):
        lines = [x for x in daemon.raw_log(f"b{k}").split(b"\r\n") if x]
        wrong += sum(not x.startswith(b"b%d life" % k) for x in lines)
        report.say(
            f"b{k}: {len(lines)} lines, {wrong} of another board", wrong == 0 and len(lines) == (cycles + renames) // 2
        )
    waits.sort()
    report.say(
        f"read again {waits[len(waits) // 2] * 1000:.0f} ms after the node's return (median), worst {waits[-1] * 1000:.0f} ms"
    )
    if first is not None:
        now = (open_files(pid), len(os.listdir(f"/proc/{pid}/task")), memory_bytes(pid))
        report.say(
            f"after {cycles + renames} cycles: descriptors {first[0]} -> {now[0]}, threads {first[1]} -> {now[1]}, memory {first[2] / 1e6:.0f} -> {now[2] / 1e6:.0f} MB",
            now[0] <= first[0] + 4 and now[1] <= first[1] + 16 and now[2] < first[2] * 1.5,
        )
    daemon.stop()
    return report


def _board_flash(image: bytes, damage: str, size: int = 1 << 20) -> bytes:
    """A flash with `image`, damaged in a way that boards are found with."""
    flash = bytearray(b"\xff") * size
    flash[: len(image)] = image
    flash[-0x4000] = 5
    flash[-0x1000:] = b"SETTINGS" * 512
    if damage == "segment":  # a segment that never ends: the ROM's watchdog bites again and again
        flash[12:16] = b"\xff\xff\xff\x7f"
    elif damage == "checksum":
        flash[0x40] ^= 0x20
    elif damage == "blank":
        flash[:0x1000] = b"\xff" * 0x1000
    elif damage == "header":
        flash[0] = 0
    return bytes(flash)


# fault: (damage of the flash, parameters of the virtual board, may it be written, must it be repaired)
SWEEP: dict[str, tuple[str, str, bool, bool]] = {
    "watchdog loop": ("segment", "", True, True),
    "checksum error": ("checksum", "", True, True),
    "blank first sector": ("blank", "", True, True),
    "no image header": ("header", "", True, True),
    "loop, 1 % of frames lost": ("segment", "&lose=0.01", True, True),
    "loop, 5 % of frames lost": ("segment", "&lose=0.05", True, True),
    "loop, damaged frames": ("segment", "&corrupt=0.0005", True, True),
    "loop, frames twice": ("segment", "&duplicate=0.05", True, True),
    "loop, rates above 115200 fail": ("segment", "&baud_limit=120000", True, True),
    "loop, slow flash": ("checksum", "&slow_erase=4", True, True),
    "loop, reset in the middle": ("segment", "&reset_at=9000", True, True),
    "healthy": ("", "", False, False),
    "healthy, crashes now and then": ("", "&crash=load&rounds=8", False, False),
    "crash loop, flash intact": ("", "&crash=illegal&rounds=0&pace=0.02", False, False),
    "write-protected flash": ("segment", "&write_protected=1", True, False),
    "reset line not wired": ("segment", "&no_reset=1", False, False),
    "flash does not answer": ("segment", "&flash_id=0xffffff", False, False),
    "flash smaller than it says": ("segment", "&flash_claims=4m", False, False),
    "held in download mode": ("segment", "&boot_low=1", False, False),
    "esp32, all blank": ("all", "&chip=esp32", True, True),
    "esp32, boot loader blank": ("blank", "&chip=esp32", True, True),
    "esp32, partition table blank": ("table", "&chip=esp32", True, True),
    "esp32c3, a bit of the application": ("app bit", "&chip=esp32c3", True, True),
    "esp32c3, boot loader's header": ("header", "&chip=esp32c3&lose=0.01", True, True),
    "esp32, brownouts before the loop": ("all", "&chip=esp32&weak_supply=2", False, False),
    "esp32, brownouts inside the loop": ("app", "&chip=esp32&weak_supply=1&weak_after=2", False, False),
    "esp32c3, brownout loop": ("", "&chip=esp32c3&crash=brownout&pace=0.1", False, False),
    "esp32c3, secure boot": ("all", "&chip=esp32c3&secure_boot=1", False, False),
    "esp32c3, flash encryption": ("all", "&chip=esp32c3&encryption=1", False, False),
}


def _chip_of(name: str) -> str:
    link = SWEEP[name][1]
    return link.partition("chip=")[2].partition("&")[0] or "esp8266"


def sweep(folder: Path, *, rounds: int, kills: int) -> Report:
    """The same on a virtual clock, with many more faults, and the host killed at many moments (tests.soak.recovery)."""
    from tests.soak.recovery import sweep as run

    report = Report("sweep")
    run(folder, rounds=rounds, kills=kills, say=report.say)
    return report


def recovery(folder: Path, *, rounds: int) -> Report:
    """Recovery over the virtual board's faults: what is damaged comes back, what is healthy is never written."""
    import logging
    import threading

    from espmon.app.config import parse_config
    from espmon.app.rungs import Rungs
    from espmon.app.supervisor import Supervisor
    from espmon.board.demo import demo_image
    from espmon.events import Event, Recovery

    logging.getLogger("espmon").setLevel(logging.CRITICAL)
    report = Report("recovery")
    image = demo_image()
    (folder / "good.bin").write_bytes(image)
    for chip in ("esp32", "esp32c3"):
        for offset, content in good_pieces(chip):
            (folder / f"{chip}-{offset:x}.bin").write_bytes(content)
    outcomes: dict[str, list[str]] = {name: [] for name in SWEEP}
    written_wrongly: list[str] = []
    worse: list[str] = []
    names = list(SWEEP)
    for turn in range(rounds):
        for start in range(0, len(names), 6):
            group = names[start : start + 6]
            text = "[log]\nlow_water = 0\n[recovery]\nhealthy_after_s = 1.5\nalive_s = 8\nbrake_boards = 1000\n"
            before = {}
            for i, name in enumerate(group):
                damage, link, _, _ = SWEEP[name]
                chip = _chip_of(name)
                before[f"b{i}"] = _board_flash(image, damage) if chip == "esp8266" else bytes(flash_of(chip, damage))
                flash = folder / f"flash-{turn}-{start}-{i}.bin"
                flash.write_bytes(before[f"b{i}"])
                baud = 74880 if chip == "esp8266" else 115200
                files = '{ file = "good.bin" }'
                if chip != "esp8266":
                    files = ", ".join(f'{{ file = "{chip}-{o:x}.bin", offset = {o} }}' for o, _ in good_pieces(chip))
                text += (
                    f'[[port]]\nname = "b{i}"\nmatch = {{ url = "sim://esp8266?flash={flash}&flash_size=1m&baud={baud}&pace=1&speed=2&seed={turn * 100 + i}{link}" }}\n'
                    f'baud = {baud}\nrecover = "flash"\nimage = [{files}]\n'
                )
            home = folder / f"{turn}-{start}"
            supervisor = Supervisor(parse_config(text, folder / "espmon.toml"), home / "state", home / "log")
            supervisor.rungs = Rungs(supervisor)
            last: dict[str, str] = {}
            changed = threading.Event()

            def take(event: Event, last: dict[str, str] = last, changed: threading.Event = changed) -> None:
                if isinstance(event, Recovery) and event.outcome in ("recovered", "gave-up") and event.port:
                    last.setdefault(event.port, event.outcome)
                    changed.set()

            supervisor.listen(take)
            supervisor.start()
            limit = time.monotonic() + 75
            expected = [f"b{i}" for i, n in enumerate(group) if SWEEP[n][0]]
            while time.monotonic() < limit and not all(p in last for p in expected):
                changed.wait(0.5)
                changed.clear()
            time.sleep(2.0)
            supervisor.stop(10)
            for i, name in enumerate(group):
                port = f"b{i}"
                _, _, may_write, _ = SWEEP[name]
                after = (folder / f"flash-{turn}-{start}-{i}.bin").read_bytes()
                chip = _chip_of(name)
                boot = good_pieces(chip)[0][0]
                good = all(after[o : o + len(c)] == c for o, c in good_pieces(chip))
                outcomes[name].append("good" if good and SWEEP[name][0] else last.get(port, "left alone"))
                if not may_write and after != before[port]:
                    written_wrongly.append(name)
                kept = slice(-0x5000, None) if chip == "esp8266" else slice(0x9000, 0x10000)
                if after[kept] != before[port][kept]:
                    worse.append(f"{name}: settings changed")
                if not good and after != before[port] and after[boot : boot + 4] != b"\xff\xff\xff\xff":
                    worse.append(f"{name}: a half image could run")
    repaired = tried = 0
    for name, found in outcomes.items():
        must = SWEEP[name][3]
        if must:
            tried += len(found)
            repaired += found.count("good")
        report.say(f"{name:<32} " + ", ".join(f"{found.count(o)} x {o}" for o in dict.fromkeys(found)))
    report.say(f"damaged flash repaired in {repaired} of {tried} runs", repaired >= 0.99 * tried)
    report.say(f"{len(written_wrongly)} boards written that must not be {written_wrongly[:3]}", not written_wrongly)
    report.say(f"{len(worse)} boards worse than before {worse[:3]}", not worse)
    return report


def host_kills(folder: Path, *, steps: int, times: int = 0) -> Report:
    """The host is killed at each step of a recovery, and `times` times at random after the third reset: it ends well."""
    from espmon.board.demo import demo_image

    report = Report("hostkill")
    image = demo_image()
    # every event of an undisturbed recovery is a moment to be killed at
    moments = ["boot-loop", "reset started", "leave-download-mode started", "compare started", "write started", "backup done", "verify done", "write done"]
    good = 0
    chosen = moments if steps <= 0 else moments[-steps - 2 : -2] or moments
    rng = random.Random(7)
    random_moments = [("boot-loop", rng.uniform(0.0, 9.0)) for _ in range(times)]
    for number, (moment, later) in enumerate([*((m, 0.0) for m in chosen), *random_moments]):
        home = folder / f"k{number}"
        home.mkdir()
        (home / "good.bin").write_bytes(image)
        flash = home / "flash.bin"
        flash.write_bytes(_board_flash(image, "segment"))
        config = (
            "[log]\nlow_water = 0\n[recovery]\nhealthy_after_s = 1.5\nalive_s = 8\n"
            f'[[port]]\nname = "b"\nmatch = {{ url = "sim://esp8266?flash={flash}&flash_size=1m&baud=74880&pace=1&speed=2" }}\n'
            'baud = 74880\nrecover = "flash"\nimage = [{ file = "good.bin" }]\n'
        )
        daemon = DaemonProcess(home, config)
        daemon.start(wait=False)

        def seen(daemon: DaemonProcess = daemon, moment: str = moment) -> bool:
            return any(moment in (e["type"], f"{e.get('step')} {e.get('outcome')}") for e in daemon.events)

        until(seen, 60, moment)
        time.sleep(later)
        daemon.kill()
        daemon.events.clear()
        daemon.start(wait=False)
        try:
            until(lambda d=daemon: [e for e in d.of_type("recovery") if e["outcome"] in ("recovered", "gave-up")], 60, "the end")
            time.sleep(0.5)
        except AssertionError:
            pass
        daemon.kill()
        whole = flash.read_bytes()
        fine = whole[: len(image)] == image and whole[-0x1000:] == b"SETTINGS" * 512
        good += fine
        ends = [e["outcome"] for e in daemon.of_type("recovery")][-1:]
        if not fine:
            report.say(f"killed {later:.2f} s after {moment!r}: flash not repaired, last {ends}", False)
    kills = len(chosen) + times
    report.say(f"killed at {kills} moments of a recovery: {good} boards repaired after the restart", good == kills)
    return report


def race(folder: Path, *, runs: int) -> Report:
    """From the third watchdog reset to healthy text: espmon against a loop that calls esptool, on the same virtual board."""
    import random as rnd
    import re

    from espmon.board.demo import demo_image

    report = Report("race")
    image = demo_image()
    noise = rnd.Random(3)
    # 300 KB as compressible as real firmware (about two thirds)
    body = b"".join(noise.randbytes(22) + b"\0" * 10 for _ in range((307_200 - 0x10000) // 32))
    good = image.ljust(0x10000, b"\xff") + body
    (folder / "good.bin").write_bytes(good)
    damaged = bytearray(_board_flash(b"", "", 4 << 20))
    damaged[: len(good)] = good
    damaged[12:16] = b"\xff\xff\xff\x7f"
    damaged[0x15000] ^= 0xFF
    damaged[0x2A000] ^= 0xFF

    def board() -> tuple[subprocess.Popen[bytes], str]:
        flash = folder / "flash.bin"
        flash.write_bytes(damaged)
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "espmon", "sim", "esp8266", "--rfc2217", "127.0.0.1:0", "--flash", str(flash), "--set", "baud=74880", "--set", "pace=0.5"],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        return process, line[line.index("rfc2217://") :].split(",")[0].split()[0]

    ours: list[float] = []
    theirs: list[float] = []
    for run in range(runs):
        process, url = board()
        home = folder / f"r{run}"
        home.mkdir()
        (home / "good.bin").write_bytes(good)
        config = (
            "[log]\nlow_water = 0\n[recovery]\nhealthy_after_s = 1.5\nalive_s = 8\n"
            f'[[port]]\nname = "b"\nmatch = {{ url = "{url}" }}\nbaud = 74880\nrecover = "flash"\nimage = [{{ file = "good.bin" }}]\n'
        )
        daemon = DaemonProcess(home, config)
        daemon.start(wait=False)
        try:
            until(lambda d=daemon: [e for e in d.of_type("recovery") if e["outcome"] in ("recovered", "gave-up")], 90, "our recovery")
            time.sleep(0.5)
            from datetime import datetime

            from espmon.store.logreader import read_log, text_lines

            third = datetime.fromisoformat(daemon.of_type("boot-loop")[0]["at"]).timestamp()
            text = next(
                at for at, line in text_lines(read_log(daemon.state / "log" / "b")) if isinstance(line, bytes) and b"mean temperature" in line and at
            )
            ours.append(text - third)
        finally:
            daemon.kill()
            process.kill()
            process.wait()
        process, url = board()
        try:
            theirs.append(_esptool_loop(url, folder / "good.bin", re.compile(rb"rst cause:4")))
        finally:
            process.kill()
            process.wait()
    report.say("espmon " + ", ".join(f"{t:.1f} s" for t in ours) + "; loop with esptool " + ", ".join(f"{t:.1f} s" for t in theirs))
    ratio = median(ours) / median(theirs)
    report.say(f"ratio {ratio:.2f} (promise 0.5)", ratio <= 0.5)
    return report


def _esptool_loop(url: str, image: Path, reset: Any) -> float:
    """What people write: watch until the third watchdog reset, call esptool, watch again. Seconds to healthy text."""
    import serial

    port = serial.serial_for_url(url, baudrate=74880, timeout=0.2)
    port.rts = port.dtr = False
    text = b""
    seen = 0
    while seen < 3:
        text = (text + port.read(4096))[-400:]
        while (m := reset.search(text)) is not None:
            seen += 1
            text = text[m.end() :]
    third = time.time()
    port.close()
    subprocess.run(
        [sys.executable, "-m", "esptool", "--chip", "esp8266", "--port", url, "--baud", "460800", "write-flash", "0x0", str(image)],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    port = serial.serial_for_url(url, baudrate=74880, timeout=0.2)
    port.rts = port.dtr = False
    text = b""
    limit = time.monotonic() + 30
    while b"mean temperature" not in text and time.monotonic() < limit:
        text = (text + port.read(4096))[-4000:]
    took = time.time() - third
    port.close()
    return took


PARTS: dict[str, tuple[Callable[..., Report], dict[str, Any], dict[str, Any]]] = {
    "load": (load, {"boards": 64, "seconds": 20}, {"boards": 64, "seconds": 3600}),
    "ports": (many_ports, {"boards": 300}, {"boards": 300}),
    "kills": (kills, {"rounds": 10}, {"rounds": 200}),
    "start": (
        starts,
        {"boards": 16, "segments": 640, "megabytes": 20, "rounds": 5},
        {"boards": 64, "segments": 10_000, "megabytes": 500, "rounds": 20},
    ),
    "disk": (full_disk, {}, {}),
    "replug": (replugs, {"cycles": 40, "renames": 10}, {"cycles": 1000, "renames": 100}),
    "recovery": (recovery, {"rounds": 1}, {"rounds": 5}),
    "sweep": (sweep, {"rounds": 1, "kills": 5}, {"rounds": 50, "kills": 0}),
    "hostkill": (host_kills, {"steps": 3, "times": 1}, {"steps": 0, "times": 40}),
    "race": (race, {"runs": 1}, {"runs": 5}),
}


def main(arguments: list[str] | None = None) -> int:
    """Runs the parts; 0 when every promise was kept."""
    parser = argparse.ArgumentParser(prog="tests.soak.daemon", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all without")
    parser.add_argument("--long", action="store_true", help="the sizes of the promise")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=N", help="another size, such as seconds=60")
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    good = True
    sizes = {k: int(v) for k, _, v in (s.partition("=") for s in chosen.set)}
    for name in chosen.parts or list(PARTS):
        run, short, long = PARTS[name]
        wanted = {k: sizes.get(k, v) for k, v in (long if chosen.long else short).items()}
        folder = Path(tempfile.mkdtemp(prefix=f"espmon-soak-{name}-"))
        print(f"{name} {wanted or ''}", flush=True)
        try:
            report = run(folder, **wanted)
            good = good and report.good
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    print("every promise was kept" if good else "NOT every promise was kept", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
