"""Symbolizing, in a running process, on an ELF of at least 3 MB.

``ESPMON_BENCH_ELF`` names the ELF; without it one is built here with Debian's RISC-V compiler (kept in the temporary
folder). Without that compiler the largest fixture is used, which is far below 3 MB, and the rows say so.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from espmon.symbolize import Symbolizer, index
from espmon.symbolize.elf import ElfFile

CRASH = 16  # addresses of one crash
ROUNDS = 5


@dataclass(frozen=True)
class Row:
    """One line of the result: what was measured, its value, the target where the project has one."""

    what: str
    value: str
    target: str = ""
    ok: bool | None = None


def interleaved(*measured: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """Median seconds of each, one after the other in every round, so that a busy machine is busy for all."""
    times: list[list[float]] = [[] for _ in measured]
    for _ in range(rounds):
        for number, run_once in enumerate(measured):
            start = time.perf_counter()
            run_once()
            times[number].append(time.perf_counter() - start)
    return [statistics.median(each) for each in times]


def bench_elf() -> Path:
    """The ELF to measure on."""
    given = os.environ.get("ESPMON_BENCH_ELF")
    if given:
        return Path(given)
    compiler = shutil.which("riscv64-unknown-elf-gcc")
    if compiler is None:
        fixtures = Path(__file__).resolve().parent.parent / "fixtures" / "elf"
        return max(fixtures.glob("*.elf"), key=lambda path: path.stat().st_size)
    out = Path(tempfile.gettempdir()) / "espmon-bench-elf" / "large.elf"
    if not out.exists():
        build_large_elf(compiler, out)
    return out


def build_large_elf(compiler: str, out: Path) -> None:
    """Writes C of a firmware's proportions (many types, many small functions, inlining) and links it with -g."""
    folder = out.parent
    folder.mkdir(parents=True, exist_ok=True)
    picked = random.Random(7)
    header = ["typedef unsigned u32;", "extern volatile u32 sink;"]
    for number in range(260):
        members = "".join(f" {picked.choice(['u32', 'int', 'char', 'short', 'void *', 'struct s' + str(max(0, number - 1)) + ' *'])} m{i};" for i in range(picked.randrange(4, 14)))
        header.append(f"struct s{number} {{{members} }};")
    for number in range(40):
        inner = f"h{number - 1}(v ^ {number}, n)" if number % 4 else "v"
        header.append(f"static inline u32 h{number}(u32 v, int n) {{\n  for (int i = 0; i < n; i++)\n    v = v * {number * 2 + 3}u + (u32)i;\n  return {inner};\n}}")
    (folder / "all.h").write_text("\n".join(header) + "\n")
    objects = []
    jobs: list[subprocess.Popen[bytes]] = []
    for unit in range(90):
        lines = ['#include "all.h"']
        for number in range(30):
            lines.append(
                f"u32 f{unit}_{number}(u32 a, int b, struct s{picked.randrange(260)} *p)\n{{\n  u32 x = h{picked.randrange(40)}(a, b);\n"
                f"  if (p)\n    x += h{picked.randrange(40)}(x, b + 1);\n  for (int i = 0; i < b; i++) {{\n    u32 y = h{picked.randrange(40)}(x, i);\n    sink = y;\n    x ^= y;\n  }}\n  return x;\n}}"
            )
        (folder / f"u{unit}.c").write_text("\n".join(lines) + "\n")
    (folder / "main.c").write_text("volatile unsigned sink;\nint _start(void) { return 0; }\n")
    flags = [compiler, "-march=rv32imc", "-mabi=ilp32", "-Os", "-g", "-gdwarf-4", "-ffreestanding", "-ffunction-sections", "-c"]
    for name in [f"u{unit}" for unit in range(90)] + ["main"]:
        objects.append(str(folder / f"{name}.o"))
        jobs.append(subprocess.Popen([*flags, str(folder / f"{name}.c"), "-o", objects[-1]]))
        if len(jobs) == (os.cpu_count() or 1):
            for job in jobs:
                job.wait()
            jobs.clear()
    for job in jobs:
        job.wait()
    temporary = out.with_suffix(".new")
    subprocess.run([compiler, "-march=rv32imc", "-mabi=ilp32", "-nostdlib", "-Wl,-Ttext=0x42000020", *objects, "-o", str(temporary)], check=True)
    temporary.replace(out)


def crash_addresses(path: Path, count: int = CRASH) -> list[int]:
    """Addresses in `count` different functions that have lines."""
    elf = ElfFile.open(path)
    symbolizer = Symbolizer([path])
    picked = random.Random(3)
    order = list(range(len(elf.symbols)))
    picked.shuffle(order)
    found = []
    for at in order:
        symbol = elf.symbols[at]
        address = symbol.address + (symbol.end - symbol.address) // 2 // 2 * 2
        frames = symbolizer.lookup(address)
        if frames and frames[-1].line:
            found.append(address)
            if len(found) == count:
                break
    return found


def pyelftools_parse(path: Path) -> None:
    """Every line and every DIE, as a symbolizer on pyelftools alone would have to read them."""
    from elftools.elf.elffile import ELFFile

    with path.open("rb") as stream:
        dwarf = ELFFile(stream).get_dwarf_info()
        for unit in dwarf.iter_CUs():
            program = dwarf.line_program_for_CU(unit)
            if program is not None:
                program.get_entries()
            for _ in unit.iter_DIEs():
                pass


def rss_mb(code: str, *arguments: str) -> float:
    """Peak resident memory of a new interpreter that runs `code`, in MB; what an empty one needs is not taken off."""
    tail = "\nimport resource, sys\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != 'darwin' else 1048576))"
    done = subprocess.run([sys.executable, "-c", code + tail, *arguments], capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parents[2])
    return float(done.stdout.split()[-1])


def run() -> list[Row]:
    """All rows."""
    path = bench_elf()
    elf = ElfFile.open(path)
    size = len(elf.data)
    rows = [Row("ELF", f"{path.name}, {size / 1e6:.1f} MB", "3 MB or more", size >= 3_000_000)]
    addresses = crash_addresses(path)
    folder = Path(tempfile.mkdtemp(prefix="espmon-bench-"))
    try:
        assert index.store(folder, elf.sha256, index.build(elf))
        cached = Symbolizer([path], index_dir=folder)
        cached.lookup(addresses[0])
        addr2line = shutil.which("addr2line")

        def uncached_crash() -> None:
            symbolizer = Symbolizer([path])
            for address in addresses:
                symbolizer.lookup(address)

        def from_disk() -> None:
            symbolizer = Symbolizer([path], index_dir=folder)
            for address in addresses:
                symbolizer.lookup(address)

        def loaded() -> None:
            for address in addresses:
                cached.lookup(address)

        def gnu_each() -> None:
            for address in addresses:
                subprocess.run([str(addr2line), "-e", str(path), "-i", "-f", f"{address:#x}"], stdout=subprocess.DEVNULL, check=True)

        def gnu_once() -> None:
            text = "".join(f"{address:#x}\n" for address in addresses)
            subprocess.run([str(addr2line), "-e", str(path), "-i", "-f"], input=text, text=True, stdout=subprocess.DEVNULL, check=True)

        if addr2line is None:
            first, disk, warm = interleaved(uncached_crash, from_disk, loaded)
            rows.append(Row("16 addresses", f"uncached {first * 1e3:.1f} ms, index {disk * 1e3:.1f} ms, warm {warm * 1e3:.2f} ms", "addr2line is not installed: no ratio"))
        else:
            first, disk, warm, each, once = interleaved(uncached_crash, from_disk, loaded, gnu_each, gnu_once)
            rows += [
                Row("addr2line, one process per address", f"{each * 1e3:.1f} ms"),
                Row("addr2line, one process for all", f"{once * 1e3:.1f} ms"),
                Row("16 addresses, ELF never seen", f"{first * 1e3:.1f} ms = {first / each:.3f}x", "0.8x one addr2line process per address", first / each <= 0.8),
                Row("16 addresses, index on disk and ELF hashed", f"{disk * 1e3:.1f} ms = {disk / each:.3f}x", "0.1x", disk / each <= 0.1),
                Row("16 addresses, index loaded", f"{warm * 1e3:.2f} ms = {warm / each:.4f}x", "0.1x", warm / each <= 0.1),
                Row("one address, index loaded", f"{warm / CRASH * 1e6:.1f} us = {warm / once:.3f}x of addr2line's share", "0.1x", warm / once <= 0.1),
            ]
        built, parsed = interleaved(lambda: index.build(ElfFile.open(path)), lambda: pyelftools_parse(path), rounds=3)
        rows.append(Row("index build", f"{built:.2f} s = {built / parsed:.3f}x of pyelftools reading all lines and DIEs ({parsed:.1f} s)", "0.15x", built / parsed <= 0.15))
        file = index.index_path(folder, elf.sha256)
        share = file.stat().st_size / size
        rows.append(Row("index size", f"{file.stat().st_size / 1e3:.0f} kB = {share:.1%} of the ELF", "15 %", share <= 0.15))
        if sys.platform != "win32":
            empty = rss_mb("pass")
            imported = rss_mb("import espmon.symbolize")
            words = ",".join(map(str, addresses))
            code = "import sys\nfrom pathlib import Path\nfrom espmon.symbolize import Symbolizer\ns = Symbolizer([sys.argv[1]], index_dir=Path(sys.argv[3]) if sys.argv[3] else None)\n[s.lookup(int(a)) for a in sys.argv[2].split(',')]"
            lazy = rss_mb(code, str(path), words, "")
            indexed = rss_mb(code, str(path), words, str(folder))
            rows.append(Row("memory (peak RSS)", f"Python {empty:.0f} MB, imported {imported:.0f} MB, 16 addresses without index {lazy:.0f} MB, with index {indexed:.0f} MB"))
            rows.append(Row("memory without index", f"{(lazy - imported) * 1e6 / size:.1f}x the ELF", "4x", (lazy - imported) * 1e6 / size <= 4))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return rows


def main() -> None:
    """Prints the rows."""
    for row in run():
        mark = {None: " ", True: "+", False: "-"}[row.ok]
        print(f"{mark} {row.what}: {row.value}" + (f"   (target: {row.target})" if row.target else ""))


if __name__ == "__main__":
    main()
