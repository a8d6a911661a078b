"""One :class:`Chip` literal per chip: the only place that knows chips.

Level 1. Addresses of code are the ranges that a return address can lie in (mask ROM, IRAM, mapped flash), from the
public technical reference manuals and linker scripts. Half-open: ``(first, end)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Range = tuple[int, int]
Arch = Literal["lx106", "xtensa", "riscv"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """What espmon knows of one chip.

    `name` is the contract's word (``esp32c3``), `title` how people write it. `arch`: ``lx106`` (Xtensa, call0 ABI),
    ``xtensa`` (windowed), ``riscv``. `image_chip_id` is the id in extended image headers (None: ESP8266, no such
    header). `boot_offset`: where the ROM looks for the first image in flash. `rom_baud`: the rates that the ROM's text
    can have, the usual one first. `rom_tables`: the tables of ROM symbols, one per ROM revision; `rom_builds`: the date of
    the build that a ROM prints, as YYYYMMDD, and the one of these tables that belongs to it.
    """

    name: str
    title: str
    arch: Arch
    rom_range: Range
    code_ranges: tuple[Range, ...]
    image_chip_id: int | None = None
    boot_offset: int = 0
    rom_baud: tuple[int, ...] = (115200,)
    rom_tables: tuple[str, ...] = ()
    rom_builds: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    def is_code(self, address: int) -> bool:
        """True when `address` lies in a range that code runs from."""
        return any(first <= address < end for first, end in self.code_ranges)


ESP8266 = Chip(
    name="esp8266",
    title="ESP8266",
    arch="lx106",
    rom_range=(0x40000000, 0x40010000),
    # the event contract's ranges: mask ROM, IRAM, first MiB of mapped flash
    code_ranges=((0x40000000, 0x40010000), (0x40100000, 0x40110000), (0x40200000, 0x40300000)),
    rom_baud=(74880, 115200),
    rom_tables=("esp8266",),
)
ESP32 = Chip(
    name="esp32",
    title="ESP32",
    arch="xtensa",
    rom_range=(0x40000000, 0x40070000),
    code_ranges=((0x40000000, 0x40070000), (0x40070000, 0x400C2000), (0x400D0000, 0x40400000)),
    image_chip_id=0,
    boot_offset=0x1000,
    rom_tables=("esp32-rev0", "esp32-rev300"),
    rom_builds={"20160608": "esp32-rev0", "20190729": "esp32-rev300"},  # ESP-IDF, components/esp_rom/roms.json
)
ESP32S2 = Chip(
    name="esp32s2",
    title="ESP32-S2",
    arch="xtensa",
    rom_range=(0x40000000, 0x40020000),
    code_ranges=((0x40000000, 0x40020000), (0x40020000, 0x40072000), (0x40080000, 0x40800000)),
    image_chip_id=2,
    boot_offset=0x1000,
    rom_tables=("esp32s2-rev0",),
)
ESP32S3 = Chip(
    name="esp32s3",
    title="ESP32-S3",
    arch="xtensa",
    rom_range=(0x40000000, 0x40060000),
    code_ranges=((0x40000000, 0x40060000), (0x40370000, 0x403E0000), (0x42000000, 0x44000000)),
    image_chip_id=9,
    rom_tables=("esp32s3-rev0",),
)
ESP32C2 = Chip(
    name="esp32c2",
    title="ESP32-C2",
    arch="riscv",
    rom_range=(0x40000000, 0x40090000),
    code_ranges=((0x40000000, 0x40090000), (0x4037C000, 0x403C0000), (0x42000000, 0x42400000)),
    image_chip_id=12,
    rom_baud=(115200, 74880),
    rom_tables=("esp32c2-rev100",),
)
ESP32C3 = Chip(
    name="esp32c3",
    title="ESP32-C3",
    arch="riscv",
    rom_range=(0x40000000, 0x40060000),
    code_ranges=((0x40000000, 0x40060000), (0x4037C000, 0x403E0000), (0x42000000, 0x42800000)),
    image_chip_id=5,
    rom_tables=("esp32c3-rev0", "esp32c3-rev101", "esp32c3-rev300"),
    # the first two as in roms.json; chips of revision v1.1, for which the third is, print eco7-20230720
    rom_builds={"20200918": "esp32c3-rev0", "20210207": "esp32c3-rev300", "20230720": "esp32c3-rev101"},
)
ESP32C5 = Chip(
    name="esp32c5",
    title="ESP32-C5",
    arch="riscv",
    rom_range=(0x40000000, 0x40050000),
    code_ranges=((0x40000000, 0x40050000), (0x40800000, 0x40860000), (0x42000000, 0x44000000)),
    image_chip_id=23,
    boot_offset=0x2000,
    rom_tables=("esp32c5-rev100",),
)
ESP32C6 = Chip(
    name="esp32c6",
    title="ESP32-C6",
    arch="riscv",
    rom_range=(0x40000000, 0x40050000),
    code_ranges=((0x40000000, 0x40050000), (0x40800000, 0x40880000), (0x42000000, 0x43000000)),
    image_chip_id=13,
    rom_tables=("esp32c6-rev0",),
)
ESP32C61 = Chip(
    name="esp32c61",
    title="ESP32-C61",
    arch="riscv",
    rom_range=(0x40000000, 0x40040000),
    code_ranges=((0x40000000, 0x40040000), (0x40800000, 0x40850000), (0x42000000, 0x44000000)),
    image_chip_id=20,
    rom_tables=("esp32c61-rev100",),
)
ESP32H2 = Chip(
    name="esp32h2",
    title="ESP32-H2",
    arch="riscv",
    rom_range=(0x40000000, 0x40020000),
    code_ranges=((0x40000000, 0x40020000), (0x40800000, 0x40850000), (0x42000000, 0x43000000)),
    image_chip_id=16,
    rom_tables=("esp32h2-rev0",),
)
ESP32P4 = Chip(
    name="esp32p4",
    title="ESP32-P4",
    arch="riscv",
    rom_range=(0x4FC00000, 0x4FC20000),
    code_ranges=(
        (0x4FC00000, 0x4FC20000),
        (0x4FF00000, 0x4FFC0000),
        (0x40000000, 0x44000000),
        (0x30100000, 0x30102000),
    ),
    image_chip_id=18,
    boot_offset=0x2000,
    rom_tables=("esp32p4-rev0", "esp32p4-rev300"),
    # roms.json; chips of revision v3.0 print eco5-20250430. There is no table for eco2-20240710, which most boards have.
    rom_builds={"20230811": "esp32p4-rev0", "20250430": "esp32p4-rev300"},
)

CHIPS: Mapping[str, Chip] = {
    c.name: c
    for c in (ESP8266, ESP32, ESP32S2, ESP32S3, ESP32C2, ESP32C3, ESP32C5, ESP32C6, ESP32C61, ESP32H2, ESP32P4)
}
