"""Build the demo firmware, run it under qemu, keep what it prints. `python -m tests.board.demo_firmware [--check]`.

Needs Debian's gcc-xtensa-lx106 and qemu-system-misc. The dumps in symbols/demo/dumps are the output of these runs, so
every stack word in them is what the committed ELF really left there.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from elftools.elf.elffile import ELFFile

DEMO = Path(__file__).resolve().parents[2] / "symbols" / "demo"
SETTINGS_ADDRESS = 0x4027E000  # src/station.h
SETTINGS_MAGIC = 0x57534554
FAULTS = {"none": 0, "load": 1, "store": 2, "illegal": 3, "divide": 4, "watchdog": 5, "memory": 6}
HEALTHY_ROUNDS = 3
FLASH_MAP = 0x40200000  # where the first MiB of the ESP8266's flash appears


def missing_tools() -> str | None:
    """The name of a tool that is not installed, or None."""
    for tool in ("make", "xtensa-lx106-elf-gcc", "qemu-system-xtensa"):
        if shutil.which(tool) is None:
            return tool
    return None


COMPILER = "12.2.0"  # another one makes another ELF of the same source


def compiler_version() -> str:
    """What the installed compiler calls itself."""
    done = subprocess.run(["xtensa-lx106-elf-gcc", "-dumpfullversion"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def build(out: Path) -> Path:
    """Compile into `out`; returns the ELF's path."""
    subprocess.run(["make", "-s", "-C", str(DEMO), f"OUT={out}"], check=True, capture_output=True)
    return out / "weather.elf"


def flash_image(elf: Path) -> bytes:
    """What belongs at flash address 0: an E9 image with the IRAM and DRAM segments, then the mapped code at 0x1000."""
    with elf.open("rb") as stream:
        file = ELFFile(stream)
        entry = file["e_entry"]
        loaded, mapped = [], b""
        for section in file.iter_sections():
            if section["sh_type"] != "SHT_PROGBITS" or not section["sh_flags"] & 2 or not section["sh_size"]:
                continue
            content = section.data() + b"\0" * (-section["sh_size"] % 4)
            if section["sh_addr"] >= FLASH_MAP:
                assert section["sh_addr"] == FLASH_MAP + 0x1000
                mapped = content
            else:
                loaded.append((section["sh_addr"], content))
    # DIO, 40 MHz, 512 KiB
    image = struct.pack("<BBBBI", 0xE9, len(loaded), 2, 0x00, entry)
    check = 0xEF
    for address, content in loaded:
        image += struct.pack("<II", address, len(content)) + content
        for byte in content:
            check ^= byte
    image += b"\0" * (15 - len(image) % 16) + bytes([check])
    assert len(image) <= 0x1000
    return image.ljust(0x1000, b"\xff") + mapped


def run(elf: Path, fault: str) -> bytes:
    """What the firmware prints under qemu when it walks into `fault`."""
    words = (SETTINGS_MAGIC, FAULTS[fault], HEALTHY_ROUNDS)
    settings = []
    for i, word in enumerate(words):
        settings += ["-device", f"loader,addr={SETTINGS_ADDRESS + 4 * i:#x},data={word:#x},data-len=4"]
    command = [
        "qemu-system-xtensa",
        "-M",
        "sim",
        "-cpu",
        "lx106",
        "-semihosting",
        "-display",
        "none",
        "-monitor",
        "none",
    ]
    command += ["-serial", "none", "-device", f"loader,file={elf},cpu-num=0", *settings]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        elf = build(Path(folder))
        made = {"weather.elf": elf.read_bytes(), "weather.bin": flash_image(elf)}
        made |= {f"dumps/{fault}.txt": run(elf, fault) for fault in FAULTS if fault != "none"}
    different = (
        [name for name, content in made.items() if (DEMO / name).read_bytes() != content]
        if "--check" in sys.argv
        else []
    )
    if "--check" not in sys.argv:
        (DEMO / "dumps").mkdir(exist_ok=True)
        for name, content in made.items():
            (DEMO / name).write_bytes(content)
    print("different:", different or "nothing")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
