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
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "app"))

from daemon_rig import DaemonProcess, PtyBoard, until  # noqa: E402


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
    before, bare_before, wall = cpu_seconds(pid), cpu_seconds(bare.pid), time.monotonic()
    pump.stdin.write("go\n")
    pump.stdin.flush()
    memory: list[int] = []
    while time.monotonic() - wall < seconds:
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
        f"{boards} boards x {rate} B/s for {took:.0f} s: {total / 1e6:.1f} MB, {lost} boards with a wrong digest",
        lost == 0,
    )
    ratio = used / max(bare_used, 0.01)
    report.say(
        f"CPU {used / took:.1%} of a core, bare epoll loop {bare_used / took:.1%}: {ratio:.1f}x (promise 4x)",
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
    import statistics

    report.say(
        f"restart until all ports are read: median {statistics.median(restarts):.2f} s, worst {max(restarts):.2f} s (promise 2 s)",
        statistics.median(restarts) <= 2.0,
    )
    from espmon.store.segments import segments

    bad = 0
    for i in range(4):
        for segment in segments(daemon.state / "log" / f"b{i}"):
            size = segment.raw_path.stat().st_size if segment.raw_path.exists() else None
            bad += size is not None and any(r.offset > size for r in segment.records())
    report.say(f"{bad} index records point behind their bytes", bad == 0)
    return report


def full_disk(folder: Path) -> Report:
    """The disk is filled and freed: monitoring goes on, the gap is stated with its size, logging resumes by itself."""
    report = Report("disk")
    small = folder / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(small)], capture_output=True, check=False
    ).returncode:
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
        with filler.open("wb") as f:
            try:
                while True:
                    f.write(b"x" * 65536)
                    f.flush()
            except OSError:
                pass
        until(lambda: daemon.status()["low_on_space"], 20, "noticing")
        sent = 0
        line = b"y" * 1022 + b"\r\n"
        for _ in range(5 * 1024):  # 5 MiB into a ring of 4
            board.say(line)
            sent += len(line)
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
    return report


def _raw(root: Path) -> bytes:
    from espmon.store.segments import read_log

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
        board.say(b"%s life %d\r\n" % (name.encode(), i))
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


PARTS: dict[str, tuple[Callable[..., Report], dict[str, Any], dict[str, Any]]] = {
    "load": (load, {"boards": 64, "seconds": 20}, {"boards": 64, "seconds": 3600}),
    "ports": (many_ports, {"boards": 300}, {"boards": 300}),
    "kills": (kills, {"rounds": 10}, {"rounds": 200}),
    "disk": (full_disk, {}, {}),
    "replug": (replugs, {"cycles": 40, "renames": 10}, {"cycles": 1000, "renames": 100}),
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
