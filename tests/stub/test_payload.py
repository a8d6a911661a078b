"""The payload that is checked in is the one the source gives."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

import espmon.bootloader.stub
from espmon.bootloader.stub import payload

SOURCE = Path(espmon.bootloader.stub.__file__).parent
COMPILER = shutil.which("xtensa-lx106-elf-gcc")
# The version whose result is checked in (Debian 12 and 13). Another one may well order instructions differently.
BUILT_BY = "12.2.0"


def test_digest_and_size() -> None:
    assert hashlib.sha256(payload.CODE).hexdigest() == payload.SHA256
    assert len(payload.CODE) <= 6 * 1024
    assert len(payload.CODE) % 4 == 0, "the ROM loader writes whole words"
    assert payload.ADDRESS <= payload.ENTRY < payload.ADDRESS + len(payload.CODE)


@pytest.mark.peer
def test_source_gives_this_payload(tmp_path: Path) -> None:
    if COMPILER is None or shutil.which("make") is None:
        pytest.skip("xtensa-lx106-elf-gcc or make is not installed (Debian: gcc-xtensa-lx106)")
    version = subprocess.run([COMPILER, "-dumpfullversion"], capture_output=True, text=True, check=True).stdout.strip()
    if version != BUILT_BY:
        pytest.skip(f"xtensa-lx106-elf-gcc is {version}; the payload was built by {BUILT_BY}")
    subprocess.run(["make", "-C", str(SOURCE), f"OUT={tmp_path}"], check=True, capture_output=True)
    assert (tmp_path / "payload.py").read_bytes() == (SOURCE / "payload.py").read_bytes()
