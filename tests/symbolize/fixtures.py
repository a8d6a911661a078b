"""The ELF fixtures and what tests know about them."""

from __future__ import annotations

from pathlib import Path

ELF_DIR = Path(__file__).resolve().parent.parent / "fixtures" / "elf"
ELFS = sorted(ELF_DIR.glob("*.elf"))


def elf(name: str) -> Path:
    """The fixture called `name` (without ``.elf``)."""
    return ELF_DIR / f"{name}.elf"
