"""Crashes, boots and boot loops on a live port: shown, looked up, marked, and turned into exit codes."""

import json
import re
import sys
from pathlib import Path

import pytest

from tests.fakes.watched_pty import ROOT, Espmon

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo terminals on Windows")

ELF = ROOT / "symbols" / "demo" / "weather.elf"
BOOT = b"\r\n ets Jan  8 2013,rst cause:2, boot mode:(3,6)\r\n\r\nload 0x40100000, len 1340, room 16 \r\ntail 12\r\nchksum 0x6d\r\n"
CRASH = (
    b"\r\n--------------- CUT HERE FOR EXCEPTION DECODER ---------------\r\n\r\nException (28):\r\n"
    b"epc1=0x402011a6 epc2=0x00000000 epc3=0x00000000 excvaddr=0x0000000c depc=0x00000000\r\n\r\n>>>stack>>>\r\n\r\n"
    b"ctx: cont\r\nsp: 3fffff00 end: 3fffffd0 offset: 0060\r\n"
    b"3fffff60:  00000004 000027a0 3ffe8185 40201321  \r\n3fffff70:  ffffffff 00000001 00000000 00000003  \r\n"
    b"3fffff80:  000000d5 00000005 00000003 402013a2  \r\n3fffff90:  000000d5 00000005 00000003 4020111d  \r\n"
    b"3fffffa0:  00000000 00000000 00000000 3fffffc0  \r\n3fffffb0:  00000000 00000000 00000000 40100530  \r\n"
    b"3fffffc0:  00000000 00000000 00000000 4010013c  \r\n<<<stack<<<\r\n\r\n"
    b"--------------- CUT HERE FOR EXCEPTION DECODER ---------------\r\n"
)


def test_a_crash_is_shown_with_its_file_line_and_source(board, espmon):
    run = espmon("--elf", str(ELF), "--until", "back to work")
    board.say(b"report 3\r\n" + CRASH + b"\r\nback to work\r\n")
    assert run.end() == 0
    text = run.text
    assert "--- Crash: LoadProhibited (exception 28) on ESP8266, Arduino" in text
    assert re.search(r"where:\s+sensor_value at .*sensors\.c:\d+", text)
    assert re.search(r"\d+ \| .*sensor->raw", text)
    assert re.search(r"why:\s+\w", text)
    assert re.search(r"try:\s+1\. \w", text)
    assert "report 3\n" in text
    assert "3fffffb0:  00000000" in text  # the dump itself is shown as well


@pytest.mark.parametrize("columns", [80, 200])
def test_the_panel_fits_the_terminal(board, espmon, columns):
    run = espmon("--elf", str(ELF), terminal=True, env={"TERM": "xterm"})
    run.resize(columns)
    board.say(CRASH + b"\r\n")
    run.wait_for("╯")
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", run.text).replace("\r", "")
    panel = [line for line in plain.splitlines() if line and line[0] in "╭│╰"]
    assert {len(line) for line in panel} == {min(columns, 120)}
    assert any("→ sensor_value" in line and "sensors.c:" in line for line in panel)
    assert "LoadProhibited (exception 28)" in panel[0]
    run.type(b"\x1d")
    assert run.end() == 0


def test_without_colour_the_panel_has_none(board, espmon):
    run = espmon("--color", "never", terminal=True)
    board.say(CRASH + b"\r\n")
    run.wait_for("╯")
    assert "\x1b" not in run.text
    assert "--elf firmware.elf" in run.text


def test_an_ascii_terminal_gets_ascii(board, espmon):
    run = espmon(terminal=True, env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    board.say(CRASH + b"\xc3\xa4 \r\n")
    run.wait_for("Try")
    run.wait_for("\\xe4")
    assert run.text.isascii()


def test_fail_on_crash(board, espmon):
    run = espmon("--fail-on", "crash", "--until", "never", "--timeout", "30")
    board.say(CRASH + b"\r\n")
    assert run.end() == 20
    assert "Crash: LoadProhibited" in run.text


def test_fail_on_crash_counts_a_dump_that_is_cut_off_by_the_end(board, espmon):
    run = espmon("--fail-on", "crash", "--timeout", "5")
    board.say(CRASH[:200])
    assert run.end() == 20


def test_a_crash_alone_fails_nothing_that_was_not_asked_for(board, espmon):
    run = espmon("--fail-on", "boot-loop", "--until", "bye")
    board.say(CRASH + b"\r\nbye\r\n")
    assert run.end() == 0


def test_fail_on_boot_loop(board, espmon):
    run = espmon("--fail-on", "boot-loop", "--timeout", "30")
    for _ in range(4):
        board.say(BOOT + CRASH)
    assert run.end() == 21
    assert "Boot loop" in run.text


def test_a_boot_just_after_opening_is_marked(board, espmon):
    run = espmon("--json", "--timeout", "4")
    board.say(BOOT + b"\r\nhello\r\n")
    assert run.end() == 0
    boots = [json.loads(line) for line in run.text.splitlines() if '"type": "boot"' in line]
    assert [each["caused_by"] for each in boots] == ["open"]


def test_json_has_frames_in_input_order(board, espmon):
    run = espmon("--json", "--elf", str(ELF), "--until", "^bye")
    board.say(CRASH + BOOT + CRASH + b"\r\nbye\r\n")
    assert run.end() == 0
    events = [json.loads(line) for line in run.text.splitlines()]
    facts = [each["type"] for each in events if each["type"] in ("crash", "boot")]
    assert facts == ["crash", "boot", "crash"]
    for crash in (each for each in events if each["type"] == "crash"):
        assert crash["frames"][0]["function"] == "sensor_value"
        assert crash["elf"]["path"] == str(ELF)
    assert [each["line"] for each in events if each["line"]] == sorted(each["line"] for each in events if each["line"])


@pytest.mark.parametrize("content", [None, b"", b"not an ELF", ELF.read_bytes()[:3000]])
def test_a_bad_elf_is_told_and_stops_nothing(board, espmon, tmp_path, content):
    path = tmp_path / "bad.elf"
    if content is not None:
        path.write_bytes(content)
    run = espmon("--elf", str(path), "--until", "bye")
    run.wait_for("bad.elf")
    board.say(CRASH + b"\r\nbye\r\n")
    assert run.end() == 0
    assert "Crash: LoadProhibited" in run.text
    assert "Traceback" not in run.text + run.errors


def test_text_does_not_wait_for_the_elf(board, espmon):
    """While a crash is being looked up the text after it goes on. (A fact may break a line that stands still for 0.1 s,
    which on a busy machine happens.)"""
    run = espmon("--elf", str(ELF), "--until", "line 4999")
    board.say(CRASH + b"".join(b"line %d\r\n" % n for n in range(5000)))
    assert run.end() == 0
    lines = run.text.splitlines()
    text = [line for line in lines[lines.index("line 0") :] if not line.startswith(("--- ", "      "))]
    assert "".join(text) == "".join(f"line {n}" for n in range(5000))
    assert any(line.startswith("--- Crash:") for line in lines)


def test_corpus_logs_through_a_port_give_what_decode_gives(board, espmon):
    """Live and from a file: the same facts (times and port apart)."""
    from espmon import Decoder, to_json_object

    names = ["020-exc28-full-cont-stack", "029-softwdt-cont-then-sys", "080-esp32-brownout-mailquoted"]
    content = b"\n".join((Path(ROOT) / "tests/corpus" / name / "log.txt").read_bytes() for name in names) + b"\n"
    decoder = Decoder()
    expected = [to_json_object(e) for e in decoder.feed(content, None) + decoder.close()]
    run = espmon("--json", "--until", "^the very end$")
    board.say(content + b"the very end\n")
    assert run.end() == 0
    heard = [json.loads(line) for line in run.text.splitlines()]
    facts = [each["type"] for each in heard if each["type"] not in ("port", "limit-reached")]
    assert facts == [each["type"] for each in expected if each["type"] not in ("text", "limit-reached")]


def test_a_bug_in_the_symbols_costs_only_the_frames(board, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import espmon.symbolize as s\ndef broken(self, event): raise RuntimeError('a bug')\ns.Symbolizer.explain = broken\n"
    )
    run = Espmon(board.name, "--until", "bye", env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    try:
        run.wait_for("115200")
        board.say(CRASH + CRASH + b"\r\nbye\r\n")
        assert run.end() == 0
        assert run.text.count("Crash: LoadProhibited") == 2
        assert run.text.count("A bug in espmon") == 1
        assert "Traceback" not in run.text + run.errors
    finally:
        run.close()
