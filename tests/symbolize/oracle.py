"""What llvm-symbolizer and addr2line say about the same addresses, and how often espmon says the same.

``python -m tests.symbolize.oracle ELF [COUNT]`` prints it for any ELF.

An answer counts as equal when the whole chain of (file, line), inlined calls included, is that of either program: each is
wrong in cases of its own (addr2line 2.40 names the wrong file in DWARF 5, llvm-symbolizer 14 loses an outer frame where
two units claim a function). A file name without a line (from an STT_FILE symbol) is no answer.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from espmon.symbolize.elf import ElfFile
from espmon.symbolize.names import bare
from espmon.symbolize.symbolizer import Symbolizer

Chain = list[tuple[str, int]]

LLVM = shutil.which("llvm-symbolizer") or shutil.which("llvm-symbolizer-14")
GNU = shutil.which("addr2line")


def sample(path: Path, count: int, seed: int = 20240601) -> list[int]:
    """Addresses of code that lie in some function symbol, `count` of them or all there are."""
    elf = ElfFile.open(path)
    step = 2 if elf.arch == "riscv" else 1
    known: list[int] = []
    for at in range(len(elf.symbols)):
        symbol = elf.symbols[at]
        if elf.is_code(symbol.address):
            known.extend(range(symbol.address, symbol.end, step))
    picked = random.Random(seed)
    return sorted(picked.sample(known, min(count, len(known))))


def llvm_chains(path: Path, addresses: list[int]) -> list[tuple[Chain, list[str]]]:
    """Per address: the chain of (file, line), and the names."""
    assert LLVM is not None
    text = "".join(f"{address:#x}\n" for address in addresses)
    done = subprocess.run([LLVM, "--output-style=JSON", "-e", str(path), "-f", "-i", "-C"], input=text, capture_output=True, text=True, check=True)
    out = []
    for line in done.stdout.splitlines():
        symbols = json.loads(line).get("Symbol", [])
        chain = [(s["FileName"], s["Line"]) for s in symbols if s["Line"]]
        out.append((chain, [s["FunctionName"] for s in symbols]))
    assert len(out) == len(addresses)
    return out


def gnu_chains(path: Path, addresses: list[int]) -> list[Chain]:
    """Per address: the chain of (file, line)."""
    assert GNU is not None
    text = "".join(f"{address:#x}\n" for address in addresses)
    done = subprocess.run([GNU, "-a", "-i", "-e", str(path)], input=text, capture_output=True, text=True, check=True)
    out: list[Chain] = []
    for line in done.stdout.splitlines():
        if line.startswith("0x"):
            out.append([])
            continue
        file, _, number = line.partition(" (")[0].rpartition(":")
        if number.isdigit() and int(number):
            out[-1].append((file, int(number)))
    assert len(out) == len(addresses)
    return out


@dataclass
class Comparison:
    """`with_lines`: addresses for which either program knows a line. `differing`: (address, ours, llvm's, gnu's)."""

    with_lines: int = 0
    differing: list[tuple[int, Chain, Chain, Chain]] = field(default_factory=list)
    not_llvm: int = 0
    not_gnu: int = 0
    invented: list[int] = field(default_factory=list)
    other_names: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def equal_share(self) -> float:
        return 1 - len(self.differing) / self.with_lines if self.with_lines else 1.0


def compare(path: Path, count: int = 2000, seed: int = 20240601) -> Comparison:
    """Looks `count` addresses up in espmon and both programs."""
    addresses = sample(path, count, seed)
    symbolizer = Symbolizer([path])
    result = Comparison()
    shuffled = list(zip(addresses, llvm_chains(path, addresses), gnu_chains(path, addresses), strict=True))
    random.Random(seed).shuffle(shuffled)
    for address, (llvm, names), gnu in shuffled:
        frames = symbolizer.lookup(address)
        ours = [(frame.file or "", frame.line or 0) for frame in frames if frame.line]
        for frame, name in zip(frames, names, strict=False):
            if frame.function != bare(name) and frame.function != name:
                result.other_names[(str(frame.function), name)] = address
        if not llvm and not gnu:
            if ours:
                result.invented.append(address)
            continue
        result.with_lines += 1
        result.not_llvm += ours != llvm
        result.not_gnu += ours != gnu
        if ours not in (llvm, gnu):
            result.differing.append((address, ours, llvm, gnu))
    return result


def main(path: Path, count: int = 2000) -> None:
    """Prints the comparison, a few differences and a few names that are spelled otherwise."""
    found = compare(path, count)
    print(f"{path.name}: {found.with_lines} with lines, equal {found.equal_share:.4%} (llvm {found.not_llvm}, gnu {found.not_gnu} differ), {len(found.invented)} ours only, {len(found.other_names)} names otherwise")
    for address, ours, llvm, gnu in found.differing[:4]:
        print(f"  {address:#x}\n    ours {ours}\n    llvm {llvm}\n    gnu  {gnu}")
    for (ours_name, theirs), address in list(found.other_names.items())[:6]:
        print(f"  {address:#x} {ours_name[:90]!r} / {theirs[:90]!r}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2000)
