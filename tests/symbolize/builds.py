"""The fixtures' sources built in the ways that build systems build firmware, compared with llvm-symbolizer and addr2line.

``python -m tests.symbolize.builds [NAME ...]`` builds each way for each processor and DWARF version whose compiler is
installed, and prints how often espmon says the same.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.symbolize import oracle
from tests.symbolize.fixtures import ELF_DIR

SOURCES = ELF_DIR / "src"
_SECTIONS = ("-ffunction-sections", "-fdata-sections")
_CXX = ("-std=gnu++17", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics", "-fno-use-cxa-atexit")
TARGETS = {
    "lx106": ("xtensa-lx106-elf-", ("-mlongcalls", "-mtext-section-literals")),
    "rv32": ("riscv64-unknown-elf-", ("-march=rv32imc", "-mabi=ilp32", "-msmall-data-limit=0")),
}


@dataclass(frozen=True)
class Way:
    """How to build: flags for the compiler, then for the link."""

    compile: tuple[str, ...]
    link: tuple[str, ...] = ("-Wl,--gc-sections",)


WAYS = {
    "O3": Way(("-O3", "-g3", *_SECTIONS)),
    "g1": Way(("-O2", "-g1", *_SECTIONS)),
    "no sections": Way(("-O2", "-g"), ()),
    "no inlining": Way(("-O2", "-g", "-fno-inline", *_SECTIONS)),
    "type units": Way(("-Os", "-g", "-fdebug-types-section", *_SECTIONS)),
    "lto": Way(("-O2", "-g", "-flto"), ("-O2", "-g", "-flto")),
    "lto 1to1": Way(("-Os", "-g", "-flto"), ("-Os", "-g", "-flto", "-flto-partition=1to1")),
    "zlib": Way(("-O2", "-g", *_SECTIONS), ("-Wl,--gc-sections", "-Wl,--compress-debug-sections=zlib")),
    "zlib-gnu": Way(("-O2", "-g", *_SECTIONS), ("-Wl,--gc-sections", "-Wl,--compress-debug-sections=zlib-gnu")),
    "64-bit": Way(("-O2", "-g", "-gdwarf64", *_SECTIONS)),
    "lines by the compiler": Way(("-O2", "-g", "-gno-as-loc-support", *_SECTIONS)),
    "no relaxation": Way(("-O2", "-g", *_SECTIONS), ("-Wl,--gc-sections", "-Wl,--no-relax")),
    "split": Way(("-O2", "-g", "-gsplit-dwarf", *_SECTIONS)),
    "many versions": Way(("-O2", "-g", *_SECTIONS)),
}


def compiler_of(target: str) -> str | None:
    """The compiler for `target`, or None when it isn't installed."""
    return shutil.which(TARGETS[target][0] + "gcc")


def build(target: str, version: int, name: str, folder: Path) -> Path:
    """Builds the sources into `folder` and takes the `.dwo` files of split debug information away."""
    prefix, machine = TARGETS[target]
    way = WAYS[name]
    objects = []

    def run(*words: str) -> None:
        subprocess.run(words, check=True, capture_output=True, cwd=folder)

    for at, source in enumerate((*sorted(SOURCES.glob("*.c")), *sorted(SOURCES.glob("*.cpp")))):
        made = folder / f"{source.stem}.o"
        stands = 2 + at % 4 if name == "many versions" else version
        plus = source.suffix == ".cpp"
        run(
            prefix + ("g++" if plus else "gcc"), *machine, "-ffreestanding", "-fno-common", "-fno-builtin", *(_CXX if plus else ()),
            *way.compile, f"-gdwarf-{stands}", "-c", str(source), "-o", str(made),
        )  # fmt: skip
        objects.append(str(made))
    start = folder / "start.o"
    run(prefix + "gcc", *machine, "-g", f"-gdwarf-{version}", "-c", str(SOURCES / f"start_{target}.S"), "-o", str(start))
    elf = folder / f"{target}-dw{version}-{name.replace(' ', '-')}.elf"
    run(
        prefix + "gcc", *machine, "-ffreestanding", "-nostdlib", "-Wl,--no-warn-rwx-segments", *way.link,
        "-T", str(SOURCES / f"{target}.ld"), str(start), *objects, "-lgcc", "-o", str(elf),
    )  # fmt: skip
    for each in folder.glob("*.dwo"):
        each.unlink()
    return elf


def main(wanted: list[str]) -> int:
    worst = 1.0
    for name in wanted or WAYS:
        for target in TARGETS:
            for version in (4, 5) if compiler_of(target) else ():
                with tempfile.TemporaryDirectory() as folder:
                    found = oracle.compare(build(target, version, name, Path(folder)), 2000)
                worst = min(worst, found.equal_share)
                print(f"{target} DWARF {version}, {name}: {found.with_lines} with lines, equal {found.equal_share:.4%}, {len(found.invented)} ours only", flush=True)
    print(f"worst: {worst:.4%}")
    return 0 if worst >= 0.995 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
