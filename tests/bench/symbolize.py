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
from pathlib import Path

from espmon.symbolize import Symbolizer, index
from espmon.symbolize.elf import ElfFile
from tests.bench.rows import Row

CRASH = 16  # addresses of one crash
ROUNDS = 5


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
    for number in range(1400):
        members = "".join(
            f" {picked.choice(['u32', 'int', 'char', 'short', 'void *', 'struct s' + str(max(0, number - picked.randrange(1, 9))) + ' *'])} m{i};"
            for i in range(picked.randrange(4, 14))
        )
        header.append(f"struct s{number} {{{members} }};")
    for number in range(40):
        inner = f"h{number - 1}(v ^ {number}, n)" if number % 3 == 2 else "v"
        header.append(
            f"static inline u32 h{number}(u32 v, int n) {{\n  for (int i = 0; i < n; i++)\n    v = v * {number * 2 + 3}u + (u32)i;\n  return {inner};\n}}"
        )
    (folder / "all.h").write_text("\n".join(header) + "\n")
    objects = []
    jobs: list[subprocess.Popen[bytes]] = []
    for unit in range(70):
        lines = ['#include "all.h"']
        for number in range(16):
            lines.append(
                f"u32 f{unit}_{number}(u32 a, int b, struct s{picked.randrange(1400)} *p)\n{{\n  u32 x = h{picked.randrange(40)}(a, b);\n"
                f"  if (p)\n    x += h{picked.randrange(40)}(x, b + 1);\n  for (int i = 0; i < b; i++) {{\n    u32 y = h{picked.randrange(40)}(x, i);\n    sink = y;\n    x ^= y;\n  }}\n  return x;\n}}"
            )
        (folder / f"u{unit}.c").write_text("\n".join(lines) + "\n")
    (folder / "main.c").write_text("volatile unsigned sink;\nint _start(void) { return 0; }\n")
    flags = [
        compiler,
        "-march=rv32imc",
        "-mabi=ilp32",
        "-Os",
        "-g",
        "-gdwarf-4",
        "-ffreestanding",
        "-ffunction-sections",
        "-c",
    ]
    for name in [f"u{unit}" for unit in range(70)] + ["main"]:
        objects.append(str(folder / f"{name}.o"))
        jobs.append(subprocess.Popen([*flags, str(folder / f"{name}.c"), "-o", objects[-1]]))
        if len(jobs) == (os.cpu_count() or 1):
            for job in jobs:
                job.wait()
            jobs.clear()
    for job in jobs:
        job.wait()
    temporary = out.with_suffix(".new")
    subprocess.run(
        [
            compiler,
            "-march=rv32imc",
            "-mabi=ilp32",
            "-nostdlib",
            "-Wl,-Ttext=0x42000020",
            *objects,
            "-o",
            str(temporary),
        ],
        check=True,
    )
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
    """Peak resident memory of a new interpreter that runs `code`, in MB."""
    # ru_maxrss of a child begins at what its parent had, so Linux is asked for the high-water mark of this program alone
    tail = (
        "\nimport sys\n"
        "if sys.platform == 'linux':\n    print([l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM')][0])\n"
        "else:\n    import resource\n    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code + tail, *arguments], capture_output=True, text=True, check=True, cwd=root
    )
    return float(done.stdout.split()[-1]) / 1024


def run() -> list[Row]:
    """All rows."""
    path = bench_elf()
    elf = ElfFile.open(path)
    size = len(elf.data)
    rows = [Row(f"ELF: {path.name}", size / 1e6, "MB", limit=">= 3 MB")]
    addresses = crash_addresses(path)
    folder = Path(tempfile.mkdtemp(prefix="espmon-bench-"))
    try:
        if not index.store(folder, elf.sha256, index.build(elf)):
            raise OSError(f"cannot write into {folder}")
        cached = Symbolizer([path], index_dir=folder)
        frames = [cached.lookup(address) for address in addresses]
        loaded_index = index.load(folder, elf.sha256)
        addr2line = shutil.which("addr2line")

        def uncached_crash() -> None:
            symbolizer = Symbolizer([path])
            for address in addresses:
                symbolizer.lookup(address)

        def from_disk() -> None:
            symbolizer = Symbolizer([path], index_dir=folder)
            for address in addresses:
                symbolizer.lookup(address)

        def in_index() -> None:
            for address in addresses:
                if loaded_index is not None:
                    loaded_index.frames(address)

        def gnu_each() -> None:
            for address in addresses:
                subprocess.run(
                    [str(addr2line), "-e", str(path), "-i", "-f", f"{address:#x}"],
                    stdout=subprocess.DEVNULL,
                    check=True,
                )

        def gnu_once() -> None:
            text = "".join(f"{address:#x}\n" for address in addresses)
            subprocess.run(
                [str(addr2line), "-e", str(path), "-i", "-f"],
                input=text,
                text=True,
                stdout=subprocess.DEVNULL,
                check=True,
            )

        if addr2line is None:
            first, disk, warm = interleaved(uncached_crash, from_disk, in_index)
            each = once = float("nan")
        else:
            first, disk, warm, each, once = interleaved(uncached_crash, from_disk, in_index, gnu_each, gnu_once)
        against = "one addr2line process per address"
        rows += [
            Row(f"{CRASH} addresses ({sum(map(len, frames))} frames): {against}", each * 1e3, "ms"),
            Row("  one addr2line process for all", once * 1e3, "ms", once / each, against),
            Row("  espmon, ELF never seen", first * 1e3, "ms", first / each, against, "<= 0.8"),
            Row("  espmon, ELF opened and hashed, index on disk", disk * 1e3, "ms", disk / each, against, "<= 0.1"),
            Row("  espmon, index loaded", warm * 1e3, "ms", warm / each, against, "<= 0.1"),
        ]
        built, parsed = interleaved(lambda: index.build(ElfFile.open(path)), lambda: pyelftools_parse(path), rounds=3)
        rows.append(
            Row(
                "index build",
                built,
                "s",
                built / parsed,
                f"pyelftools reading all lines and DIEs ({parsed:.1f} s)",
                "<= 0.15",
            )
        )
        stored = index.index_path(folder, elf.sha256).stat().st_size
        rows.append(Row("index size", stored / 1e3, "kB", stored / size, "the ELF", "<= 0.15"))
        if sys.platform != "win32":
            imported = rss_mb("import espmon.symbolize")
            words = ",".join(map(str, addresses))
            code = (
                "import sys\nfrom pathlib import Path\nfrom espmon.symbolize import Symbolizer\n"
                "s = Symbolizer([sys.argv[1]], index_dir=Path(sys.argv[3]) if sys.argv[3] else None)\n"
                "[s.lookup(int(a)) for a in sys.argv[2].split(',')]"
            )
            rows.append(Row("RSS, symbolizer imported", imported, "MB"))
            for what, where in (("RSS peak, crash without index", ""), ("RSS peak, crash with index", str(folder))):
                used = rss_mb(code, str(path), words, where)
                rows.append(
                    Row(what, used, "MB", (used - imported) * 1e6 / size, "the ELF, on top of the import", "<= 4")
                )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return rows


if __name__ == "__main__":
    for row in run():
        print(row)
