"""The committed ELF fixtures are what their sources build to."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.symbolize.fixtures import ELF_DIR, ELFS

COMPILERS = {"lx106": "xtensa-lx106-elf-gcc", "rv32": "riscv64-unknown-elf-gcc"}
# the versions that built the committed files; another one may well write other code
VERSION = "12.2.0"


def version_of(compiler: str) -> str | None:
    if shutil.which(compiler) is None:
        return None
    return subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.peer
def test_rebuilding_gives_the_same_bytes(tmp_path: Path) -> None:
    missing = [compiler for compiler in COMPILERS.values() if version_of(compiler) != VERSION]
    if missing or shutil.which("bash") is None:
        pytest.skip(f"needs {', '.join(missing) or 'bash'} (version {VERSION})")
    subprocess.run(["bash", str(ELF_DIR / "build.sh"), str(tmp_path)], check=True, capture_output=True)
    assert sorted(path.name for path in tmp_path.glob("*.elf")) == [path.name for path in ELFS]
    for path in ELFS:
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
