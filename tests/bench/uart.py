"""What following the rate costs: the detector on clean text against the monitor without it, and reading a capture."""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from espmon.app.autorate import AutoRate
from espmon.app.rate import FixedRate, RateFollower
from espmon.decode import Decoder
from espmon.port import Chunk
from espmon.sinks.console import Console
from espmon.sinks.screen import Screen
from espmon.uart import banner, watch
from tests.bench.live import traffic
from tests.bench.rows import Row
from tests.uart import sim

ROUNDS = 5  # interleaved; the median counts
CHUNK = 173  # bytes in 15 ms at 115200 baud: what the port's thread gathers
TEXT_BYTES = 1 << 20


def _chunks() -> list[bytes]:
    text = traffic(TEXT_BYTES)
    return [text[at : at + CHUNK] for at in range(0, len(text), CHUNK)]


def _monitor(chunks: list[bytes], follower: RateFollower) -> float:
    """CPU seconds for what the monitor does with each chunk: read, follow the rate, decode, show."""
    decoder = Decoder(port="bench")
    reader, writer = os.pipe()
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        seconds = _show(chunks, follower, decoder, Console(Screen(nowhere)), reader, writer)
    os.close(reader)
    os.close(writer)
    return seconds


def _show(
    chunks: list[bytes], follower: RateFollower, decoder: Decoder, console: Console, reader: int, writer: int
) -> float:
    now = 1_000_000.0
    begun = time.process_time()
    for data in chunks:
        now += 0.015
        os.write(writer, data)
        data = os.read(reader, 65536)
        for heard in follower.hear(Chunk(now, data)):
            if isinstance(heard, Chunk):
                for event in decoder.feed(heard.data, heard.at):
                    console.show(event)
        console.flush()
    return time.process_time() - begun


def capture(size: int = 1000) -> bytes:
    """About `size` bytes received at 115200 baud: a crash-looping board, its ROM at 74880."""
    rng = random.Random(1)
    app = b"sensor 1 = 22.5 C, sensor 2 = 23.0 C, free heap 31234\r\n"
    parts: list[tuple[bytes, float, float]] = []
    for n in range(8):
        parts += [*sim.banner((1, 4, 4, 2)[n % 4], 3, n, rng), (b"", 74880.0, 0.02), (app, 115200.0, 0.02)]
    return sim.receive(sim.wire(parts), 115200, sim.usual_receiver(rng))[:size]


def run() -> list[Row]:
    chunks = _chunks()
    without, with_it = [], []
    for _ in range(ROUNDS + 2):
        without.append(_monitor(chunks, FixedRate(115200)))
        watch._beginnings.cache_clear()  # each round pays what a new process pays
        banner._seeds.cache_clear()
        with_it.append(_monitor(chunks, AutoRate(start=115200)))
    base, auto = statistics.median(without), statistics.median(with_it)
    seconds = TEXT_BYTES / 11520
    rows = [
        Row("monitor without the detector, clean text", 100 * base / seconds, "% of a core"),
        Row("monitor with the detector, clean text", 100 * auto / seconds, "% of a core", auto / base, "without", "<= 1.1"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        for size in (1000, 4000):
            file = Path(folder) / f"capture-{size}"
            file.write_bytes((capture(4000) * 4)[:size])
            took: dict[bool, list[float]] = {True: [], False: []}
            for _ in range(ROUNDS):
                for rated in took:
                    command = [sys.executable, "-m", "espmon", "decode", "--json", str(file)]
                    took[rated].append(_cpu_seconds([*command, *["--baud", "115200"] * rated]))
            rated, plain = (statistics.median(took[each]) for each in (True, False))
            limit = "about 1 s, never more than 5" if size == 1000 else ""
            rows.append(Row(f"decode --baud, {size} bytes, start included", rated, "s of a core", rated / plain, "decode", limit))
    return rows


def _cpu_seconds(command: list[str]) -> float:
    """Processor time of a program, its start included; elapsed time where the system does not tell."""
    if sys.platform == "win32":
        begun = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - begun
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
