"""What people see, to the letter; and that no field of an event, however hostile, can do harm."""

import io
import re
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espmon.events import (
    Address,
    Boot,
    BootMode,
    Crash,
    ElfRef,
    ExceptionCause,
    FailedAlloc,
    Frame,
    HostError,
    Location,
    PortChanged,
    Reset,
    ResetCause,
    Text,
)
from espmon.sinks.console import Console
from espmon.sinks.lines import LineWatch
from espmon.sinks.screen import Screen
from espmon.sinks.textlog import TextLog
from espmon.sinks.words import crash_lines, short_path

CRASH = Crash(
    kind="exception",
    chip="esp8266",
    framework="arduino",
    exception=ExceptionCause(number=28, name="LoadProhibited"),
    registers={"epc1": Address(0x40201234), "epc2": Address(0), "excvaddr": Address(4)},
    frames=(
        Frame(address=Address(0x40201234), function="Sensor::value() const", file="/p/src/sensor.h", line=17, inlined=True, confidence="certain"),
        Frame(address=Address(0x40201234), function="mean(Sensor const*)", file="/p/src/main.cpp", line=42, confidence="certain"),
        Frame(address=Address(0x40100D19), function="cont_wrapper", offset=0x12, module="app", confidence="likely"),
        Frame(address=Address(0x4000DD38), function="ets_printf", module="rom", confidence="possible"),
    ),
    elf=ElfRef(path="/p/firmware.elf", match="mismatch"),
    explanation="A null pointer was read.",
    remedies=("Check the pointer.", "Look at the frames."),
)
SOURCE = {("/p/src/sensor.h", 17): "  float value() const { return reading_; }"}

PLAIN = """\
--- Crash: LoadProhibited (exception 28) on ESP8266, Arduino
      why:    A null pointer was read.
      where:  Sensor::value() const (inlined) at /p/src/sensor.h:17
                17 | float value() const { return reading_; }
              mean(Sensor const*) at /p/src/main.cpp:42
              cont_wrapper+0x12 (0x40100d19)
      maybe:  ets_printf (0x4000dd38, ROM)
      try:    1. Check the pointer.
              2. Look at the frames.
      cpu:    epc1 0x40201234  excvaddr 0x00000004
      elf:    /p/firmware.elf is NOT the build that runs on the board: the lines may be wrong
"""
PANEL = """\
╭─  LoadProhibited (exception 28)  ────────────────────────────────────────────╮
│ A null pointer was read.                                                     │
│                                                                              │
│ Where                                                                        │
│ → Sensor::value() const inlined  src/sensor.h:17                             │
│     17 │ float value() const { return reading_; }                            │
│   mean(Sensor const*)            src/main.cpp:42                             │
│   cont_wrapper+0x12              0x40100d19                                  │
│                                                                              │
│ Perhaps on the way there (found on the stack)                                │
│   ets_printf                     0x4000dd38 ROM                              │
│                                                                              │
│ Try                                                                          │
│   1. Check the pointer.                                                      │
│   2. Look at the frames.                                                     │
│                                                                              │
│ epc1 0x40201234   excvaddr 0x00000004                                        │
│ firmware.elf is NOT the build that runs on the board: the lines may be wrong │
╰─────────────────────────────────────────────────────────  ESP8266, Arduino  ─╯
"""


class Stage:
    """A console whose screen is a string."""

    def __init__(self, *, terminal=False, colour="never", width=80, **options):
        self.stream = io.StringIO()
        self.console = Console(Screen(self.stream, colour=colour, is_terminal=terminal, width=width), **options)

    def show(self, *events, source=None):
        for event in events:
            self.console.show(event, source)
        self.console.flush()
        return self.text

    @property
    def text(self):
        return self.stream.getvalue()


def test_a_crash_in_a_pipe():
    assert Stage().show(CRASH, source=SOURCE) == PLAIN


def test_a_crash_on_a_terminal():
    shown = Stage(terminal=True, roots=["/p"]).show(CRASH, source=SOURCE)
    assert shown.replace("\u00a0", " ") == PANEL


@pytest.mark.parametrize("width", [20, 30, 39])
@pytest.mark.parametrize("colour", ["never", "always"])
def test_a_narrow_terminal_gets_a_crash_without_a_frame(width, colour):
    """A frame that is wider than the terminal is unreadable."""
    shown = Stage(terminal=True, width=width, colour=colour, roots=["/p"]).show(CRASH, source=SOURCE)
    rows = re.sub("\x1b\\[[0-9;]*m", "", shown).splitlines()
    assert max(map(len, rows)) <= width
    assert "│" not in shown.replace(" | ", "")
    assert "".join(PLAIN.replace("/p/src", "src").split()).removeprefix("---") == "".join("".join(rows).replace("/p/src", "src").split())


def test_with_timestamps_what_espmon_says_has_its_time_too():
    at = 1_700_000_000.5
    stage = Stage(timestamps=True)
    shown = stage.show(PortChanged(state="gone", port="ttyUSB0", at=at), HostError(tool="esptool", message="no", remedies=("Look.",), at=at), replace(CRASH, at=at))
    first, second, hint, third, *_ = shown.splitlines()
    assert first.endswith(".500 --- ttyUSB0 is gone; waiting for the board to come back")
    assert second[8:].startswith(".500 --- Error of esptool: no")
    assert hint == "    Try: Look."
    assert third[8:].startswith(".500 --- Crash: LoadProhibited")
    on_terminal = Stage(timestamps=True, terminal=True, width=60).show(HostError(tool="esptool", message="a" * 30 + " " + "b" * 30, at=at))
    rows = on_terminal.splitlines()
    assert rows[0][8:].startswith(".500 ● Error")
    assert rows[1].startswith(" " * 15 + "a")
    assert rows[2].startswith(" " * 15 + "b")
    assert max(map(len, rows)) <= 60


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_colour_changes_no_letter_and_no_width(width):
    plain = Stage(terminal=True, width=width).show(CRASH, source=SOURCE)
    coloured = Stage(terminal=True, width=width, colour="always").show(CRASH, source=SOURCE)
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain
    assert {len(line) for line in plain.splitlines()} == {min(width, 120)}


def test_notices_wrap_on_a_terminal_and_not_in_a_pipe():
    error = HostError(tool="esptool", message="Failed to connect", causes=("GPIO0 wasn't low at reset, so the chip didn't enter its boot loader.",), remedies=("Hold BOOT.",))
    assert Stage().show(error).splitlines() == [
        "--- Error of esptool: Failed to connect: GPIO0 wasn't low at reset, so the chip didn't enter its boot loader.",
        "    Try: Hold BOOT.",
    ]
    assert Stage(terminal=True).show(error).splitlines() == [
        "● Error of esptool: Failed to connect: GPIO0 wasn't low at reset, so the chip",
        "  didn't enter its boot loader.",
        "  Try: Hold BOOT.",
    ]


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (Boot(chip="esp8266", reset=ResetCause(code=4, meaning="hardware watchdog reset"), boot_mode=BootMode(meaning="run from flash")), "Boot: hardware watchdog reset (rst cause 4), run from flash"),
        (Boot(chip="esp32", reset=ResetCause(code=12, meaning="software reset"), caused_by="espmon"), "Boot: software reset (rst:0xc) [espmon did that]"),
        (Boot(inferred=True, rate=74880, reset=ResetCause(code=2)), "Boot: reset (rst:0x2) [read from text sent at 74880 baud]"),
        (Boot(), "Boot: reset for an unknown reason"),
        (Reset(source="tasmota", reset=ResetCause(meaning="restart by software")), "Reset reason by Tasmota: restart by software"),
        (PortChanged(state="gone", port="/dev/ttyUSB0"), "/dev/ttyUSB0 is gone; waiting for the board to come back"),
        (PortChanged(state="returned", port="x", reason="now /dev/ttyUSB1", baud=115200), "The board is back: x at 115200 baud"),
    ],
)
def test_notices(event, says):
    assert Stage().show(event) == f"--- {says}\n"


def test_a_fact_waits_for_the_end_of_the_line_that_is_being_printed():
    stage = Stage()
    stage.show(Text(raw=b"first half "), CRASH, Text(raw=b"second half\nnext\n"))
    lines = stage.text.splitlines()
    assert lines[0] == "first half second half"
    assert lines[1].startswith("--- Crash")
    assert lines[-1] == "next"


def test_a_fact_does_not_wait_for_ever_behind_a_prompt():
    stage = Stage()
    stage.show(Text(raw=b"prompt> "), PortChanged(state="gone", port="x"))
    assert stage.text == "prompt> "
    assert stage.console.withholding
    stage.console.idle()
    stage.console.flush()
    assert stage.text == "prompt> \n--- x is gone; waiting for the board to come back\n"


def test_paused_output_is_counted_and_logged_but_notices_are_shown(tmp_path):
    stage = Stage(log=TextLog(tmp_path / "log"))
    stage.console.paused = True
    stage.show(Text(raw=b"unseen\n"), CRASH)
    stage.console.notice("paused")
    stage.console.flush()
    assert stage.text == "--- paused\n"
    assert stage.console.unseen > 7
    assert (tmp_path / "log").read_text().startswith("unseen\n--- Crash")


def test_the_log_has_the_plain_form_of_what_the_terminal_shows(tmp_path):
    stage = Stage(terminal=True, colour="always", log=TextLog(tmp_path / "log"), timestamps=True)
    stage.show(Text(raw=b"\x1b[31mred\x1b[0m 10%\r20%\n", at=0.0), CRASH, source=SOURCE)
    log = (tmp_path / "log").read_text()
    assert "\x1b" not in log
    assert log.endswith(PLAIN)
    assert re.match(r"\d\d:\d\d:00\.000 red 10%\n\d\d:\d\d:00\.000 20%\n", log)


def test_the_watch_sees_hidden_lines():
    from espmon.sinks.lines import LineRules

    stage = Stage(rules=LineRules([re.compile("nothing")]), watch=LineWatch(re.compile("^ready$")))
    stage.show(Text(raw=b"rea"), Text(raw=b"dy\n"))
    assert stage.text == ""
    assert stage.console.matched


def test_closing_ends_the_line_and_leaves_no_colour():
    stage = Stage(terminal=True, colour="always")
    stage.show(Text(raw=b"\x1b[31mred"))
    stage.console.close()
    assert stage.text == "\x1b[31mred\x1b[0m\n"


HOSTILE = st.text(alphabet="a[]/\x1b\x07\x00\x9b\n\r\b\u202e\u2066m;10 ", max_size=30)


@given(HOSTILE, HOSTILE, HOSTILE, st.booleans())
@settings(max_examples=60)
def test_no_field_of_an_event_can_do_harm(one, two, three, terminal):
    frame = Frame(address=Address(1), function=one or None, file=two or None, line=3, confidence="certain")
    crash = Crash(
        kind=one, chip=two, framework=three, task=one, message=two, location=Location(file=three, function=one),
        frames=(frame,), elf=ElfRef(path=three or None), explanation=one, remedies=(two, three),
    )  # fmt: skip
    stage = Stage(terminal=terminal)
    shown = stage.show(
        crash,
        HostError(tool=one, message=two, causes=(three,), remedies=(one,)),
        PortChanged(state=three, port=one, reason=two),
        Reset(source=one, reset=ResetCause(name=two), frames=(frame,)),
        source={(two, 3): three},
    )
    assert not set(shown) & set("\x1b\x07\x00\x9b\r\b\u202e\u2066")
    assert all(line[:1] in "-● ╭│╰" for line in shown.splitlines())


@given(st.lists(st.binary(max_size=40), max_size=8))
@settings(max_examples=60)
def test_chunks_of_text_show_the_same_as_the_whole(pieces):
    whole = Stage()
    whole.show(Text(raw=b"".join(pieces)))
    whole.console.close()
    split = Stage()
    split.show(*(Text(raw=piece) for piece in pieces))
    split.console.close()
    assert split.text == whole.text


def test_paths_are_short_and_findable():
    assert short_path("/a/b/c.cpp", 60) == "/a/b/c.cpp"
    assert short_path("/a/b/c.cpp", 60, ["/a"]) == "b/c.cpp"
    assert short_path("./src/x.c") == "src/x.c"
    long = "/home/u/.platformio/packages/framework-arduinoespressif8266/cores/esp8266/core_esp8266_main.cpp"
    assert short_path(long, 40) == "…/cores/esp8266/core_esp8266_main.cpp"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not remove a folder that somebody is in")
def test_paths_are_told_when_the_current_folder_is_gone(tmp_path, monkeypatch):
    (tmp_path / "build").mkdir()
    monkeypatch.chdir(tmp_path / "build")
    (tmp_path / "build").rmdir()
    assert short_path("/project/src/main.c", roots=["/project"]) == "src/main.c"


def test_where_an_allocation_failed_is_told_with_it_and_not_as_a_caller() -> None:
    caller = Frame(address=Address(0x40201408), function="keep", file="src/uplink.c", line=47, origin="alloc", confidence="certain")
    crash = replace(CRASH, frames=(*CRASH.frames, caller), last_failed_alloc=FailedAlloc(caller=Address(0x4020140B), size=248))
    lines = crash_lines(crash)
    assert [line for line in lines if "keep" in line] == ["  alloc:  the last allocation that failed asked for 248 bytes in keep at src/uplink.c:47"]
    unknown = crash_lines(replace(crash, frames=CRASH.frames))
    assert "  alloc:  the last allocation that failed asked for 248 bytes for 0x4020140b" in unknown
