"""The configuration: strict, with lines and near names; boards matched by identity."""

from __future__ import annotations

import contextlib
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espmon.app.assignment import Candidate, assign
from espmon.app.config import (
    SETTINGS,
    ConfigProblem,
    ImageFile,
    find_lines,
    parse_config,
    read_config,
    sample_config,
    show_config,
    size,
)

ISSUE = """
[log]
dir = "/var/log/espmon"
[recovery]
resets = 3
within_s = 60
[[port]]
name = "bench-3"
match = { usb_serial = "0001" }
baud = "auto"
elf = ["build/firmware.elf"]
recover = "flash"
image = [{ file = "known-good.bin", offset = 0 }]
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigProblem) as caught:
        parse_config(text, Path("c.toml"))
    return list(caught.value.problems)


def test_the_documented_shape_is_read() -> None:
    config = parse_config(ISSUE, Path("/etc/espmon/espmon.toml"))
    port = config.port("bench-3")
    assert port is not None
    assert config.log.dir == Path("/var/log/espmon")
    assert config.recovery.resets == 3
    assert port.baud is None
    assert port.elf == ("/etc/espmon/build/firmware.elf",)
    assert port.image == (ImageFile(Path("/etc/espmon/known-good.bin"), 0),)
    assert port.recover == "flash"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[log]\nkeep_byte = 5\n", "c.toml:2: unknown key 'keep_byte' in [log]; did you mean 'keep_bytes'?"),
        ("\n[recovry]\nresets = 3\n", "c.toml:2: unknown section [recovry]; did you mean 'recovery'?"),
        ('[[port]]\nname = "a"\nmatch = { usb_seral = "1" }\n', "c.toml:3: match has no key 'usb_seral'; did you mean 'usb_serial'?"),
        ('[[port]]\nname = "a"\n[port.match]\nusb_seral = "1"\n', "c.toml:3: match has no key 'usb_seral'; did you mean 'usb_serial'?"),
        ('[[port]]\nname = "../x"\nmatch = { device = "COM3" }\n', "c.toml:2: name must be 1 to 64 letters"),
        ('[[port]]\nname = "a"\n', "c.toml:1: [[port]] needs 'match'"),
        ('[[port]]\nname = "a"\nmatch = { vid = 6790 }\n', "c.toml:3: match vid and pid alone are no identity"),
        ('[port]\nname = "a"\n', "c.toml:1: write [[port]]"),
        ('[[port]]\nname = "a"\nmatch = { device = "x" }\nrecover = "flush"\n', "did you mean 'flash'?"),
        ("[log]\nkeep_days = -1\n", "c.toml:2: keep_days must be a number above 0"),
        ("[log]\ncompress = 1\n", "c.toml:2: compress must be true or false"),
        ("[log]\nlow_water = '5 parsecs'\n", "c.toml:2: low_water must be a size"),
        ("[log\n", "c.toml:1: "),
        ("a = = 1", "c.toml:1: "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(text: str, expected: str) -> None:
    assert expected in problems(text)[0]


def test_everything_wrong_is_told_at_once() -> None:
    told = problems("[log]\nkeep_byte = 5\n[recovery]\nresets = 'x'\n[[port]]\nbaud = 1\n")
    assert [t.split(": ")[0] for t in told] == ["c.toml:2", "c.toml:4", "c.toml:6", "c.toml:5", "c.toml:5"]


def test_two_sections_of_one_name_or_board_are_errors() -> None:
    two = '[[port]]\nname = "a"\nmatch = { device = "COM3" }\n'
    told = problems(two + two.replace('"a"', '"A"'))
    assert told == ["c.toml:5: the name 'A' is taken by c.toml:2", "c.toml:6: matches the same board as c.toml:3"]


def test_drop_ins_replace_values_and_add_sections(tmp_path: Path) -> None:
    main = tmp_path / "espmon.toml"
    main.write_text('[log]\nkeep_days = 5\nsync_s = 2\n[[port]]\nname = "a"\nmatch = { device = "COM3" }\n')
    (tmp_path / "espmon.d").mkdir()
    (tmp_path / "espmon.d" / "10.toml").write_text("[log]\nkeep_days = 7\n")
    (tmp_path / "espmon.d" / "20.toml").write_text('[[port]]\nname = "b"\nmatch = { device = "COM4" }\n')
    config = read_config(main)
    assert (config.log.keep_days, config.log.sync_s) == (7.0, 2.0)
    assert [p.name for p in config.ports] == ["a", "b"]
    origin = {(s, k): str(o) for s, k, _, o in show_config(config)}
    assert origin["log", "keep_days"] == f"{tmp_path}/espmon.d/10.toml:2"
    assert origin["log", "sync_s"] == f"{main}:3"
    assert origin["log", "compress"] == "default"


def test_a_missing_or_malformed_file_is_an_error_never_defaults(tmp_path: Path) -> None:
    with pytest.raises(ConfigProblem, match="no such file"):
        read_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigProblem, match="UTF-8"):
        read_config(tmp_path / "bad.toml")


def test_the_sample_is_a_valid_file_and_so_is_each_of_its_comments() -> None:
    sample = sample_config([("bench-1", {"usb_serial": "00\"1"}, "CP2102 at /dev/ttyUSB0")])
    config = parse_config(sample)
    assert config.ports[0].match == {"usb_serial": '00"1'}
    assert parse_config(sample_config([])).ports == ()
    everything = "\n".join(
        line[2:] if line.startswith("# ") and (" = " in line or "[[" in line) else line for line in sample_config([]).splitlines()
    )
    tomllib.loads(everything)
    set_ones = [
        line for line in everything.splitlines() if " = " in line and not line.rstrip().endswith('""') and '= "" ' not in line
    ]
    assert len(set_ones) >= len(SETTINGS) - 1


@given(st.text(max_size=200))
def test_no_text_raises_anything_else(text: str) -> None:
    with contextlib.suppress(ConfigProblem):
        parse_config(text)
    find_lines(text)


def test_sizes() -> None:
    assert [size(v) for v in (5, "5", "1 KiB", "1.5 MiB", "2GB")] == [5, 5, 1024, 1572864, 2_000_000_000]


def sections(*matches: str) -> tuple[object, ...]:
    text = "".join(f'[[port]]\nname = "p{i}"\nmatch = {m}\n' for i, m in enumerate(matches))
    return parse_config(text).ports


def test_boards_are_matched_by_identity_never_by_guess() -> None:
    boards = [
        Candidate(device="/dev/ttyUSB0", usb_serial="0001", usb_path="1-1.2", vid=0x10C4, pid=0xEA60),
        Candidate(device="/dev/ttyUSB1", usb_serial="0001", usb_path="1-1.3", vid=0x10C4, pid=0xEA60),
        Candidate(device="/dev/ttyUSB2", usb_path="1-1.4", mac="5C:CF:7F:01:02:03"),
    ]

    def plain(path: str) -> str:
        return {"/dev/serial/by-id/x": "/dev/ttyUSB2"}.get(path, path)

    ports = sections('{ usb_serial = "0001" }', '{ usb_path = "1-1.3", vid = 4292 }', '{ mac = "5c-cf-7f-01-02-03" }')
    found, told = assign(ports, boards, resolve=plain)  # type: ignore[arg-type]
    assert found == {"p1": "/dev/ttyUSB1", "p2": "/dev/ttyUSB2"}
    assert told == {"p0": "matches several boards: /dev/ttyUSB0, /dev/ttyUSB1"}
    found, told = assign(sections('{ device = "/dev/serial/by-id/x" }', '{ usb_path = "1-1.4" }'), boards, resolve=plain)  # type: ignore[arg-type]
    assert found == {}
    assert told["p0"] == "/dev/ttyUSB2 is matched by p0 and p1"
    found, _ = assign(sections('{ url = "rfc2217://127.0.0.1:2217" }', '{ device = "COM9" }'), boards)  # type: ignore[arg-type]
    assert found == {"p0": "rfc2217://127.0.0.1:2217"}, "an absent board is no problem, it is only absent"


def test_each_setting_is_documented() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "daemon.md").read_text("utf-8")
    rows = {tuple(cell.strip(" `") for cell in line.split("|")[1:3]) for line in page.splitlines() if line.startswith("|")}
    assert {(s.section, s.key) for s in SETTINGS} <= rows
    parse_config(page.split("```toml")[1].split("```")[0])
