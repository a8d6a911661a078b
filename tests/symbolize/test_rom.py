"""The boot ROM tables: what was put in comes out, at the right addresses, and disagreement is silence."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from espmon.chips import CHIPS
from espmon.decode import Decoder
from espmon.events import Crash, to_json_object
from espmon.symbolize import Symbolizer
from espmon.symbolize.resources import symbols_dir
from espmon.symbolize.rom import RomTable, rom_build, rom_symbol, rom_table
from tests.tools.make_rom_tables import main as make
from tests.tools.make_rom_tables import table_text


def test_every_chip_has_its_tables() -> None:
    for chip in CHIPS.values():
        assert chip.rom_tables
        for name in chip.rom_tables:
            table = rom_table(name, chip.rom_range[1])
            assert table is not None, name
            assert len(table.starts) > 300
            assert chip.rom_range[0] <= table.starts[0] < chip.rom_range[1]


@pytest.mark.parametrize(
    ("chip", "address", "name"),
    [
        ("esp8266", 0x4000BF4C, "strlen"),  # sizes unknown: until the next begins
        ("esp8266", 0x4000BFA7, "strlen"),
        ("esp8266", 0x4000BFA8, "strncmp"),
        ("esp32", 0x40007D54, "ets_printf"),
        ("esp8266", 0x40201000, None),  # not in the ROM
        ("esp32c3", 0x3FF00000, None),
        ("esp99", 0x40000000, None),
    ],
)
def test_known_addresses(chip: str, address: int, name: str | None) -> None:
    symbol = rom_symbol(chip, address)
    assert (symbol.name if symbol else None) == name


def test_revisions_that_disagree_are_not_guessed_between() -> None:
    chip = CHIPS["esp32c3"]
    tables = [rom_table(name, chip.rom_range[1]) for name in chip.rom_tables]
    assert all(tables)
    agreed = disputed = 0
    for address in range(*chip.rom_range, 64):
        names = [(s.name, s.address) if (s := table.at(address)) else None for table in tables if table]
        symbol = rom_symbol("esp32c3", address)
        if None not in names and len(set(names)) == 1:
            agreed += 1
            assert symbol is not None
            assert symbol.name == names[0][0]  # type: ignore[index]
        else:
            disputed += 1
            assert symbol is None
    assert agreed > 100
    assert disputed > 100


def test_a_sized_function_ends_where_it_ends() -> None:
    table = RomTable("1000 10 a\n20  b\n10 4 c\n", 0x2000)
    assert [table.at(a) and table.at(a).name for a in (0xFFF, 0x1000, 0x100F, 0x1010, 0x1020, 0x102F, 0x1030, 0x1034)] == [None, "a", "a", None, "b", "b", "c", None]  # type: ignore[union-attr]


def test_the_maker_is_deterministic_and_loses_nothing(tmp_path: Path) -> None:
    source = tmp_path / "csv"
    source.mkdir()
    (source / "chip-rev1.csv").write_text("address,size,name\n0x40000010,4,b\n0x40000000,0,a\n0x40000010,0,b_alias\n")
    make(source, tmp_path / "one")
    make(source, tmp_path / "two")
    body = (tmp_path / "one" / "chip-rev1.txt.gz").read_bytes()
    assert body == (tmp_path / "two" / "chip-rev1.txt.gz").read_bytes()
    assert gzip.decompress(body).decode() == table_text([(0x40000000, 0, "a"), (0x40000010, 4, "b"), (0x40000010, 0, "b_alias")])


def test_without_an_elf_the_rom_still_has_names() -> None:
    (frame,) = Symbolizer([], chip="esp8266").lookup(0x4000BF50)
    assert (frame.function, frame.module, frame.file, frame.offset) == ("strlen", "rom", None, 4)
    assert Symbolizer([]).lookup(0x4000BF50) == ()


def test_tables_are_data_in_the_symbols_folder() -> None:
    files = sorted(path.name for path in (symbols_dir() / "rom").iterdir())
    assert all(name.endswith(".txt.gz") for name in files)
    assert {f"{name}.txt.gz" for chip in CHIPS.values() for name in chip.rom_tables} <= set(files)


@pytest.mark.parametrize(
    ("rom", "build"),
    [
        ("esp32c3-api1-20210207", "20210207"),
        ("esp32p4-eco5-20250430", "20250430"),
        ("Jun  8 2016 00:22:57", "20160608"),
        ("Jul 29 2019 12:21:46", "20190729"),
        ("Jul 29 2019", "20190729"),
        ("Foo 29 2019", None),
        ("esp32c3", None),
        ("", None),
    ],
)
def test_the_date_of_a_rom(rom: str, build: str | None) -> None:
    assert rom_build(rom) == build


def test_every_build_has_a_table_of_its_chip() -> None:
    for chip in CHIPS.values():
        assert set(chip.rom_builds.values()) <= set(chip.rom_tables)
        if len(chip.rom_tables) > 1:
            assert set(chip.rom_builds.values()) == set(chip.rom_tables)


@pytest.mark.parametrize(
    ("rom", "name"),
    [
        # saved by boards with this ROM that were reset by software: it waits there for the reset
        ("esp32c3-api1-20210207", "software_reset"),
        ("esp32c3-20200918", "ets_secure_boot_verify_bootloader_with_keys"),
        ("esp32c3-eco7-20230720", "ets_efuse_rs_calculate"),
        ("esp32c3-eco9-20290101", None),  # one that no table is for
        (None, None),
    ],
)
def test_the_banner_says_which_revision_it_is(rom: str | None, name: str | None) -> None:
    symbol = rom_symbol("esp32c3", 0x40048B82, rom)
    assert (symbol.name if symbol else None) == name


@pytest.mark.parametrize("date", ["Jul 29 2019 12:21:46", "Jun  8 2016 00:22:57"])
def test_a_crash_has_the_names_of_the_rom_that_booted(date: str) -> None:
    first = next(
        address
        for address in range(*CHIPS["esp32"].rom_range, 4)
        if len({(s.name, s.address) if (s := rom_symbol("esp32", address, d)) else None for d in ("Jun  8 2016", "Jul 29 2019")}) == 2
        and rom_symbol("esp32", address, date)
    )
    expected = rom_symbol("esp32", first, date)
    assert expected is not None
    log = (
        f"ets {date}\r\n\r\nrst:0x1 (POWERON_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\nI (12) main: hello\r\n"
        "Guru Meditation Error: Core  0 panic'ed (LoadProhibited). Exception was unhandled.\r\n"
        f"\r\nBacktrace: 0x{first:08x}:0x3ffb1e20 0x400d1234:0x3ffb1e40\r\n\r\n"
    )
    decoder = Decoder()
    crash = next(e for e in decoder.feed(log.encode()) + decoder.close() if isinstance(e, Crash))
    frames = Symbolizer([]).explain(crash).frames
    assert (frames[0].function, frames[0].module) == (expected.name, "rom")
    assert "rom" not in to_json_object(crash)
