"""`espmon symbolize`, as its users run it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from espmon.cli import main
from espmon.symbolize import Symbolizer
from espmon.symbolize.elf import ElfFile
from tests.symbolize.fixtures import elf

PATH = elf("rv32-dw5-Os")
SYMBOLS = ElfFile.open(PATH).symbols
NAMED = {SYMBOLS[at].name: SYMBOLS[at].address for at in range(len(SYMBOLS))}


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit status, standard output, standard error."""
    status = 0
    try:
        main(["symbolize", *words])
    except SystemExit as stop:
        status = int(stop.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def test_json_is_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    addresses = [NAMED["app_main"], NAMED["app_main"] + 20, NAMED["blob_scramble"], 0x10]
    status, out, err = run(capsys, "--elf", str(PATH), "--json", *(f"{address:x}" for address in addresses))
    assert (status, err) == (0, "")
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["address"] for answer in answers] == [f"0x{address:08x}" for address in addresses]
    symbolizer = Symbolizer([PATH])
    for answer, address in zip(answers, addresses, strict=True):
        frames = symbolizer.lookup(address)
        assert [(f["function"], f["file"], f["line"], f["inlined"], f["module"]) for f in answer["frames"]] == [
            (f.function, f.file, f.line, f.inlined, f.module) for f in frames
        ]
        assert all({"address", "function", "file", "line", "inlined", "module", "origin", "confidence"} <= set(f) for f in answer["frames"])
        assert all(f["address"] == answer["address"] for f in answer["frames"])
    assert answers[3]["frames"] == []
    assert answers[2]["frames"][0]["file"] is None


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    inlined = next(a for a in range(NAMED["app_main"], NAMED["app_main"] + 200, 2) if len(Symbolizer([PATH]).lookup(a)) > 1)
    status, out, _ = run(capsys, "--elf", str(PATH), hex(inlined), f"0x{NAMED['blob_scramble'] + 4:X}", "0x10")
    assert status == 0
    lines = out.splitlines()
    assert lines[0].startswith(f"0x{inlined:08x}: ")
    assert " at /firmware/src/" in lines[0]
    assert lines[1].strip().startswith("inlined by app_main at /firmware/src/main.c:")
    assert lines[-2] == f"0x{NAMED['blob_scramble'] + 4:08x}: blob_scramble+0x4"
    assert lines[-1] == "0x00000010: unknown"


def test_addresses_from_standard_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO(f"{NAMED['app_main']:#x} 0x10\n\n{NAMED['app_main']:x},10\n"))
    status, out, _ = run(capsys, "--elf", str(PATH), "--json", "-")
    assert status == 0
    assert len(out.splitlines()) == 4


def test_call_site(capsys: pytest.CaptureFixture[str]) -> None:
    symbolizer = Symbolizer([PATH])
    address = next(a for a in range(NAMED["app_main"], NAMED["app_main"] + 200, 2) if symbolizer.lookup(a, call_site=True) != symbolizer.lookup(a))
    _, out, _ = run(capsys, "--elf", str(PATH), "--json", "--call-site", hex(address))
    answer = json.loads(out)
    assert [f["line"] for f in answer["frames"]] == [f.line for f in symbolizer.lookup(address, call_site=True)]
    assert answer["frames"][0]["address"] == f"0x{address:08x}"


def test_rom_without_an_elf(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--chip", "ESP8266", "4000bf50")[1] == "0x4000bf50: strlen+0x4 (boot ROM)\n"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--elf", str(PATH), "xyz"), 2, "'xyz' is not an address"),
        (("--elf", str(PATH), "0x123456789"), 2, "is not an address"),
        (("--elf", str(PATH), "\x1b[2J"), 2, "'\\x1b[2J' is not an address"),
        (("40201000",), 2, "nothing to look addresses up in"),
        (("--chip", "esp8267", "40201000"), 2, "no chip is called 'esp8267'"),
        (("--elf", "/nonexistent.elf", "40201000"), 4, "no such file"),
        (("--elf", str(Path(__file__)), "40201000"), 4, "is not an ELF file"),
    ],
)
def test_errors_are_two_lines(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], status: int, said: str) -> None:
    got, out, err = run(capsys, *words)
    assert (got, out) == (status, "")
    lines = err.splitlines()
    assert len(lines) == 2
    assert said in lines[0]
    assert lines[1].startswith("        ")
    assert err.replace("\n", "").isprintable()


def test_zstd_is_told_and_functions_keep_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = bytearray(PATH.read_bytes())
    whole = ElfFile.open(PATH)
    table = int.from_bytes(content[32:36], "little")
    for at, section in enumerate(whole.sections):
        if section.name in (".debug_info", ".debug_line"):
            flags = table + at * 40 + 8
            content[flags : flags + 4] = (section.flags | 0x800).to_bytes(4, "little")  # SHF_COMPRESSED
            content[section.offset : section.offset + 4] = b"\2\0\0\0"  # ELFCOMPRESS_ZSTD
    path = tmp_path / "zstd.elf"
    path.write_bytes(content)
    status, out, err = run(capsys, "--elf", str(path), f"{NAMED['app_main'] + 4:x}")
    assert (status, out) == (0, f"0x{NAMED['app_main'] + 4:08x}: app_main+0x4\n")
    assert "zstd" in err
    assert "--decompress-debug-sections" in err
    assert [problem.code for problem in Symbolizer([path]).problems] == ["elf-unusable"]
