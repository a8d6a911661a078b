"""The index says what the debug information says, is built beside the first answers, and heals itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from espmon.symbolize import Symbolizer, index
from espmon.symbolize.dwarf import DwarfReader
from espmon.symbolize.elf import ElfFile
from tests.symbolize.fixtures import ELFS, elf

LIMIT_S = 30.0


def chains(symbolizer: Symbolizer, addresses: list[int]) -> list[object]:
    return [symbolizer.lookup(address) for address in addresses]


def every_address(path: Path) -> list[int]:
    return [address for low, high, _ in ElfFile.open(path).code for address in range(low, high)]


@pytest.mark.parametrize("path", ELFS, ids=lambda path: path.stem)
def test_index_and_lazy_reader_agree_on_every_address(path: Path) -> None:
    opened = ElfFile.open(path)
    loaded = index.Index(index.build(opened), bytes.fromhex(opened.sha256))
    reader = DwarfReader(opened)
    for address in every_address(path):
        lazy = reader.frames(address)
        quick = loaded.frames(address)
        assert quick == lazy, hex(address)
        if not lazy or lazy[-1][0] is None:
            assert loaded.symbol_at(address) == opened.symbols.at(address), hex(address)


def test_built_in_the_background_then_loaded(tmp_path: Path) -> None:
    path = elf("rv32-dw5-Os")
    addresses = every_address(path)[::5]
    plain = chains(Symbolizer([path]), addresses)
    first = Symbolizer([path], index_dir=tmp_path)
    assert chains(first, addresses) == plain
    first.wait_for_index(LIMIT_S)
    (file,) = tmp_path.glob("*.idx")
    assert [p for p in tmp_path.iterdir() if p != file] == []
    assert chains(first, addresses) == plain  # now from the index
    before = file.read_bytes()
    second = Symbolizer([path], index_dir=tmp_path)
    assert chains(second, addresses) == plain
    second.wait_for_index(LIMIT_S)
    assert file.read_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other", "head"])
def test_a_damaged_index_is_built_again(tmp_path: Path, damage: str) -> None:
    path = elf("lx106-dw4-Os")
    opened = ElfFile.open(path)
    body = index.build(opened)
    assert index.store(tmp_path, opened.sha256, body)
    file = index.index_path(tmp_path, opened.sha256)
    changed = bytearray(body)
    changed[len(body) // 2] ^= 0x40
    head = bytearray(body)
    head[41] ^= 0x80
    file.write_bytes({"cut": body[:-100], "flip": bytes(changed), "empty": b"", "other": b"\0" * len(body), "head": bytes(head)}[damage])
    assert index.load(tmp_path, opened.sha256) is None
    symbolizer = Symbolizer([path], index_dir=tmp_path)
    address = opened.symbols[20].address
    assert symbolizer.lookup(address) == Symbolizer([path]).lookup(address)
    symbolizer.wait_for_index(LIMIT_S)
    assert index.load(tmp_path, opened.sha256) is not None
    assert file.read_bytes() == body


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    path = elf("lx106-dw4-Os")
    symbolizer = Symbolizer([path], index_dir=blocked / "index")
    address = ElfFile.open(path).symbols[5].address
    expected = Symbolizer([path]).lookup(address)
    assert symbolizer.lookup(address) == expected
    symbolizer.wait_for_index(LIMIT_S)
    assert symbolizer.lookup(address) == expected


def test_the_folder_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "MAX_FILES", 3)
    for number in range(6):
        assert index.store(tmp_path, f"{number:02x}" * 32, b"x")
    assert len(list(tmp_path.iterdir())) == 3


def test_unwinding_works_from_an_indexed_elf(tmp_path: Path) -> None:
    from tests.symbolize.test_explain import CHAINS, DEMO, ELF, crash_from

    symbolizer = Symbolizer([ELF], index_dir=tmp_path)
    symbolizer.lookup(0x40201685)
    symbolizer.wait_for_index(LIMIT_S)
    crash = symbolizer.explain(crash_from(DEMO / "dumps" / "divide.txt"))
    assert [frame.function for frame in crash.frames] == CHAINS["divide"]
