"""What is told about crashes and what a board printed: headings, comments and source against logs with any prefix."""

from __future__ import annotations

import pytest

from espmon.decode.decoder import Decoder
from espmon.events import Boot, Crash, Event, Reset, Text


def every_way(text: str) -> list[Event]:
    """The facts of `text`: whole, byte by byte and with more behind it say the same."""
    data = text.encode()
    ways = []
    for chunks in ([data], [data[i : i + 1] for i in range(len(data))], [data, b"bye\n"]):
        decoder = Decoder()
        events = [e for chunk in chunks for e in decoder.feed(chunk)] + decoder.close()
        ways.append([e for e in events if not isinstance(e, Text)])
    assert ways[0] == ways[1]
    assert [type(e) for e in ways[0]] == [type(e) for e in ways[2]]
    return ways[0]


TOLD = {
    "python comment": "x = 1\n# Guru Meditation Error: Core 1 panic'ed (LoadProhibited)\n# means a null pointer\ny = 2\n",
    "block comment": "/* From an ISR you get\n * Guru Meditation Error: Core 1 panic'ed (LoadProhibited)\n * so don't.\n */\n",
    "line comments": "// From an ISR you get\n// Guru Meditation Error: Core 1 panic'ed (LoadProhibited). Exception was unhandled.\n// so don't.\n",
    "query": "-- abort() was called at PC 0x400d1234 on core 0\n-- is what it says\n",
    "headings": "### Guru Meditation Error: Core 1 panic'ed (LoadProhibited)\nThis happens when.\n### Soft WDT reset\nFeed it.\n### Stack smashing protect failure!\nToo long.\n",
    "numbers in prose": "I get Exception 28\nevery day\nand Fatal exception 28\nat night\n",
}


@pytest.mark.parametrize("name", TOLD)
def test_one_line_of_a_comment_or_a_heading_is_no_crash(name: str) -> None:
    assert [e for e in every_way(TOLD[name]) if isinstance(e, Crash)] == []


@pytest.mark.parametrize(
    "text",
    [
        '  String s = "rst cause:4, boot mode:(3,6)";\n',
        'print("ets Jan  8 2013,rst cause:2, boot mode:(3,6)")\n',
        "boot_log = b'ESP-ROM:esp32c3-api1-20210207'\nexpect(b'ESP-ROM:esp32c3-api1-20210207')\n",
        "rst cause:4 = hardware WDT reset\nboot mode:(3,7)\n",
        "  // Reset reason: Software Watchdog\n",
    ],
)
def test_source_and_explanations_start_nothing(text: str) -> None:
    found = [e for e in every_way(text) if isinstance(e, (Boot, Reset))]
    assert len(found) == (1 if "boot_log" in text else 0)  # an assignment alone may be a field of a structured log


EXCEPTION = ("Exception (28):", "epc1=0x40201234 epc2=0x00000000 epc3=0x00000000 excvaddr=0x0000000c depc=0x00000000")


@pytest.mark.parametrize("prefix", ["# ", "// ", "* ", "-- ", "; "])
def test_a_log_pasted_as_a_comment_is_read(prefix: str) -> None:
    text = "".join(
        f"{prefix}{line}\n" for line in ("ready", *EXCEPTION, " ets Jan  8 2013,rst cause:2, boot mode:(3,6)")
    )
    events = every_way(text)
    assert [e.exception.number for e in events if isinstance(e, Crash) and e.exception is not None] == [28]
    assert len([e for e in events if isinstance(e, Boot)]) == 1


@pytest.mark.parametrize(
    ("head", "framework"),
    [
        ("Exception 28:", "arduino"),
        ("Exception [28]:", "arduino"),
        ("EXCEPTION (28)", "arduino"),
        ("Fatal exception 28:", "nonos-sdk"),
    ],
)
def test_headers_whose_brackets_were_edited(head: str, framework: str) -> None:
    crashes = [e for e in every_way(f"{head}\n{EXCEPTION[1]}\n") if isinstance(e, Crash)]
    assert [(c.exception.number if c.exception else None, len(c.registers)) for c in crashes] == [(28, 5)]
    assert crashes[0].framework == framework


@pytest.mark.parametrize("mark", [":", ": "])
def test_registers_with_colons_below_a_header(mark: str) -> None:
    (crash,) = [e for e in every_way(f"{EXCEPTION[0]}\n{EXCEPTION[1].replace('=', mark)}\n") if isinstance(e, Crash)]
    assert {k: str(v) for k, v in crash.registers.items()} == {
        "epc1": "0x40201234", "epc2": "0x00000000", "epc3": "0x00000000", "excvaddr": "0x0000000c", "depc": "0x00000000",
    }  # fmt: skip
    alone = [e for e in every_way(EXCEPTION[1].replace("=", mark) + "\n") if isinstance(e, Crash)]
    assert alone == []  # a report of one's own about the run before


@pytest.mark.parametrize(
    "line",
    [
        "rst cause 4, boot mode:(3,7)",
        " ets Jan  8 2013,rst cause 4 boot mode (3,7)",
        "ets Jan  8 2014,rst cause 4, boot mode:(3,7)",
    ],
)
def test_reset_line_without_its_colons(line: str) -> None:
    (boot,) = [e for e in every_way(line + "\n") if isinstance(e, Boot)]
    assert boot.reset is not None
    assert boot.reset.code == 4
    assert boot.boot_mode is not None
    assert boot.boot_mode.raw == "3,7"


def test_registers_in_italics() -> None:
    text = "_Guru Meditation Error: Core  1 panic'ed (LoadProhibited). Exception was unhandled._\n_Core 1 register dump:_\n_PC      : 0x400d467a  PS      : 0x00060630_\n"
    (crash,) = [e for e in every_way(text) if isinstance(e, Crash)]
    assert str(crash.registers["pc"]) == "0x400d467a"


def test_a_prefix_is_learned_across_chunks() -> None:
    """The line before is known wherever the bytes were cut, and also when it was skipped in a block of ordinary text."""
    text = ("rx: hello world\n" * 400 + "rx: waiting for download\n").encode()
    for size in (len(text), 4096, 1000, 7):
        decoder = Decoder()
        events: list[Event] = []
        for at in range(0, len(text), size):
            events += decoder.feed(text[at : at + size])
        events += decoder.close()
        assert [type(e).__name__ for e in events if not isinstance(e, Text)] == ["DownloadMode"], size


def test_registers_with_damaged_names_are_those_that_are_due() -> None:
    head = "Guru Meditation Error: Core  0 panic'ed (Illegal instruction). Exception was unhandled.\nCore  0 register dump:\n"
    rows = (
        "MEPC    : 0x40380001  RA      : 0x40380002  S       : 0x3fc90000  GGP     : 0x3fc80000\n"
        "TP      : 0x3fc70000  T0      : 0x00000001  \ufffd1      : 0x00000002  T2      : 0x00000003\n"
    )
    (crash,) = [e for e in every_way(head + rows) if isinstance(e, Crash)]
    assert list(crash.registers) == ["mepc", "ra", "sp", "gp", "tp", "t0", "t1", "t2"]
    (crash,) = [
        e
        for e in every_way(head + "C       : 0x400d1234  PPS     : 0x00060030  a: 0x00000001\n")
        if isinstance(e, Crash)
    ]
    assert list(crash.registers)[:2] == ["pc", "ps"]
    assert "a" not in crash.registers


def test_words_around_a_boot_with_damaged_letters() -> None:
    boot = "rst:0x1 (POWERON_RESET),boot:0x3 (DOWNLOAD_BOOT(UART0/UART1/SDIO_REI_REO_V2))\n"
    assert "DownloadMode" in [type(e).__name__ for e in every_way(boot + "waitin for downlad\n")]
    assert "Brownout" in [type(e).__name__ for e in every_way(boot + "Brwnout detector was trigered\n")]
    assert "FlashError" in [type(e).__name__ for e in every_way(boot + "invalrd header: 0xffffffff\n")]
    assert [type(e).__name__ for e in every_way("waitin for downlad\nthe header: 0xffffffff\n")] == []


def test_dumps_whose_colons_were_lost() -> None:
    text = (
        "Guru Meditation Error: Core  1 panic'ed (LoadProhibited). Exception was unhandled.\nCore 1 register dump\n"
        "PC       0x400d467a  PS       0x00060630  A0       0x800d4b1f\n\nBacktrace 0x400d467a:0x3ffb1ea0 0x400d4b1c:0x3ffb1ee0\n"
    )
    (crash,) = [e for e in every_way(text) if isinstance(e, Crash)]
    assert list(crash.registers) == ["pc", "ps", "a0"]
    assert [len(frames) for frames in crash.backtraces] == [2]
    assert [
        e for e in every_way("PC       0x400d467a  PS       0x00060630  A0       0x800d4b1f\n") if isinstance(e, Crash)
    ] == []
    rows = "3ffffea0  3ffe88b7 3ffef1f4 3ffef1e0 40202e89  \n3ffffeb0  3fff03e4 3ffef1e0 00000000 00000100  \n"
    text = "\n".join(
        (
            *EXCEPTION,
            "",
            "ctx: cont",
            "sp: 3ffffd10 end: 3fffffc0 offset: 0190",
            ">>>stack>>>",
            rows + "<<<stack<<<",
            "",
        )
    )
    (crash,) = [e for e in every_way(text) if isinstance(e, Crash)]
    assert [(s.lines, [str(w) for w in s.code_words], s.complete) for s in crash.stacks] == [(2, ["0x40202e89"], True)]
    assert [e for e in every_way(rows) if isinstance(e, Crash)] == []


def test_a_canary_of_a_task_without_a_name() -> None:
    text = "Guru Meditation Error: Core  1 panic'ed (Unhandled debug exception)\nDebug exception reason: Stack canary watchpoint triggered () \nCore 1 register dump:\n"
    (crash,) = [e for e in every_way(text) if isinstance(e, Crash)]
    assert crash.kind == "stack-overflow"


def test_what_one_speaker_says_twice_is_no_prefix_of_a_log() -> None:
    chat = "bob: hi\nbob: Guru Meditation Error: Core 1 panic'ed (LoadProhibited). Exception was unhandled.\nalice: oh\n"
    assert [e for e in every_way(chat) if isinstance(e, Crash)] == []
    log = "dev1: ok\ndev1: Soft WDT reset\ndev1: \ndev1:  ets Jan  8 2013,rst cause:2, boot mode:(3,6)\n"
    assert [type(e).__name__ for e in every_way(log)] == ["Crash", "Boot"]
