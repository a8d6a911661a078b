"""The decoder on a large log: against a bare Python loop over its lines and against esp-idf-monitor's own line handling.

``ESPMON_BENCH_MB`` sets the size of the log (200). The promise is about ordinary text; a second log has a boot and a crash
of some 80 lines every 5000 lines, a third never says anything twice, other numbers aside (espmon is slowest there).
"""

from __future__ import annotations

import os
import queue
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from tests.bench.rows import Row

_CORPUS = Path(__file__).parent.parent / "corpus"
_CHUNK = 262144
_IDF_LINES = 120_000
_ROUNDS = 5
_CRASH_EVERY = 5000  # lines


def ordinary_lines(count: int) -> bytes:
    """What boards print while nothing happens, `count` lines."""
    kinds = (
        "I ({t}) wifi:new:<{a},0>, old:<1,0>, ap:<255,255>, sta:<6,0>, prof:1",
        "[{t:06d}] [MQTT] Received sensor/temperature => {a}.{b}",
        "\x1b[0;32mD ({t}) app_loop: heap free {h} min {m} stack 1234\x1b[0m\r",
        "12:34:{a:02d}.123 -> Temperature: {a} C, humidity {b} %",
        "Connecting to broker at 192.0.2.{b}:1883 ... done in {a} ms",
        "{{\"node\":{b},\"light\":{h},\"battery\":3.{a},\"state\":\"ok\"}}",
    )  # fmt: skip
    return "".join(
        kinds[i % len(kinds)].format(t=i * 17, a=i % 60, b=i % 97, h=200000 - i % 5000, m=150000) + "\n" for i in range(count)
    ).encode()


def ever_new_lines(size: int) -> bytes:
    """Some `size` bytes of lines of nine words in random order: no two of one shape."""
    words = [*(f"{a}{b}" for a in ("sens", "wif", "valv", "heap", "Temp", "board") for b in ("or", "ing", "es", "ed")), "is", "ok", "the", "level"]
    choose = random.Random(1).choices
    block = "".join(" ".join(choose(words, k=9)) + "\n" for _ in range(20000)).encode()
    return block * (size // len(block) + 1)  # more lines than are kept in mind


def log_with_crashes(size: int) -> bytes:
    """`size` bytes or a little more of ordinary text, with a crash and its boot every few thousand lines."""
    crashes = [(_CORPUS / name / "log.txt").read_bytes() for name in ("348-abort-bearssl-connect-napt-full", "216-esp32-abort-mutex-loop")]
    block = b"".join(ordinary_lines(_CRASH_EVERY) + crash + b"\n" for crash in crashes)
    return block * (size // len(block) + 1)


def _bare_loop(path: Path) -> None:
    with path.open("rb") as stream:
        for _line in stream:
            pass


def _decode(path: Path) -> None:
    from espmon.decode import Decoder

    decoder = Decoder(file="log")
    with path.open("rb") as stream:
        while data := stream.read(_CHUNK):
            decoder.feed(data)
    decoder.close()


def _idf_monitor() -> Callable[[bytes], None] | None:
    """esp-idf-monitor's handler for what it reads, with its output thrown away; None where it isn't installed."""
    try:
        from esp_idf_monitor.base.console_parser import ConsoleParser
        from esp_idf_monitor.base.coredump import CoreDump
        from esp_idf_monitor.base.line_matcher import LineMatcher
        from esp_idf_monitor.base.logger import Logger
        from esp_idf_monitor.base.serial_handler import SerialHandler
    except ImportError:
        return None
    console = SimpleNamespace(write_bytes=lambda data: None, write=lambda text: None)
    logger = Logger([], console, False, "", False, "xtensa-esp32-elf-")
    core_dump = CoreDump("disable", queue.Queue(), logger, None, [""])
    handler = SerialHandler(b"", logger, "disable", 0, b"", "esp32", False, False, SimpleNamespace(), False, [], "xtensa-esp32-elf-", False)
    matcher, parser = LineMatcher(""), ConsoleParser()

    def handle(data: bytes) -> None:
        handler.handle_serial_input(data, parser, core_dump, None, matcher, lambda line: None)

    return handle


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _cpu(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def run() -> list[Row]:
    size = int(os.environ.get("ESPMON_BENCH_MB", "200")) << 20
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.txt"
        decodes: list[float] = []
        for name, make, limit in (
            (f"decode {size >> 20} MB with crashes", log_with_crashes, ""),
            (f"decode {size >> 20} MB that say nothing twice", ever_new_lines, ""),
            (f"decode {size >> 20} MB of ordinary text", lambda size: ordinary_lines(20000) * (size // 1_187_000 + 1), "<= 12"),
        ):
            path.write_bytes(make(size))
            loops, decodes = [], []
            for _ in range(_ROUNDS):
                loops.append(_cpu(lambda: _bare_loop(path)))
                decodes.append(_cpu(lambda: _decode(path)))
            ratio = statistics.median(d / b for d, b in zip(decodes, loops, strict=True))
            rows.append(Row(name, statistics.median(decodes), "s of CPU", ratio, "a bare loop over its lines", limit))
        size = path.stat().st_size
        command = [sys.executable, "-m", "espmon", "decode", "--json", str(path)]
        whole = [(_seconds(lambda: _bare_loop(path)), _seconds(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True))) for _ in range(3)]  # fmt: skip
        ratio = statistics.median(d / b for b, d in whole)
        rows.append(Row(f"espmon decode --json, {size >> 20} MB", statistics.median(d for _, d in whole), "s", ratio, "a bare loop over its lines"))
        handle = _idf_monitor()
        if handle is None:
            rows.append(Row("esp-idf-monitor is not installed", 0, ""))
        else:
            part = Path(folder) / "part.txt"
            data = ordinary_lines(_IDF_LINES)  # no crash: it would look for ELFs and tools
            part.write_bytes(data)
            ratios = []
            for _ in range(3):
                theirs = _cpu(lambda: [handle(data[i : i + 4096]) for i in range(0, len(data), 4096)])  # type: ignore[arg-type, return-value]
                ratios.append(theirs / _cpu(lambda: _decode(part)))
            rows.append(Row("rate of decoding", size / statistics.median(decodes) / 1e6, "MB/s", statistics.median(ratios), "esp-idf-monitor's rate", ">= 8"))
    corpus = b"\n".join(p.read_bytes() for p in sorted(_CORPUS.glob("*/log.txt")))
    from espmon.decode import Decoder

    decoder = Decoder()
    lines = corpus.count(b"\n") * 5
    rows.append(Row("nothing but crash dumps", _cpu(lambda: decoder.feed(corpus * 5) and None) / lines * 1e6, "us a line"))
    text = ordinary_lines(20000)
    chunks = [text[i : i + 32] for i in range(0, len(text), 32)]
    decoder = Decoder()
    rows.append(Row("ordinary text in 32-byte chunks", _cpu(lambda: [decoder.feed(c, 1.0) for c in chunks] and None) / len(chunks) * 1e6, "us a chunk"))
    rows.append(Row("largest memory of this process", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MB"))
    return rows
