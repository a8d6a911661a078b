"""The decoder's own promises: text at once, bounds, deadlines, line numbers, interrupted dumps."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from espmon.decode import Decoder
from espmon.decode.decoder import MAX_LINE, SILENCE_S
from espmon.events import Boot, BootLoop, Crash, DecoderFault, Event, LimitReached, Text, to_json_object

HEAD = b"Exception (28):\nepc1=0x402016a2 epc2=0x00000000 epc3=0x00000000 excvaddr=0x00000000 depc=0x00000000\n"
STACK = b"\n>>>stack>>>\n\nctx: cont\nsp: 3ffffca0 end: 3fffffc0 offset: 01a0\n"
ROW = b"3ffffe40:  3fff34cc 3ffeed38 000000ff 4021c238  \n"
BANNER = b"\n ets Jan  8 2013,rst cause:2, boot mode:(3,6)\n\n"


def of(kind: type[Event], events: list[Event]) -> list[Event]:
    return [e for e in events if isinstance(e, kind)]


def facts(events: list[Event]) -> list[dict[str, object]]:
    return [to_json_object(e) for e in events if not isinstance(e, Text)]


def test_a_prompt_without_newline_is_shown_at_once() -> None:
    events = Decoder().feed(b">>> ")
    assert [type(e) for e in events] == [Text]
    assert events[0].raw == b">>> "  # type: ignore[attr-defined]


def test_a_banner_closes_an_open_dump() -> None:
    decoder = Decoder(file="f")
    events = decoder.feed(HEAD + STACK + ROW * 3 + BANNER)
    kinds = [type(e) for e in events if not isinstance(e, Text)]
    assert kinds == [Crash, Boot]
    crash = of(Crash, events)[0]
    assert isinstance(crash, Crash)
    assert not crash.complete
    assert crash.boot == 0
    assert crash.stacks[0].lines == 3


def test_silence_closes_a_dump_in_a_live_log() -> None:
    decoder = Decoder(port="/dev/ttyUSB0")
    events = decoder.feed(HEAD + STACK + ROW, 1000.0)
    assert not of(Crash, events)
    assert decoder.next_deadline == 1000.0 + SILENCE_S
    assert decoder.tick(1000.0 + SILENCE_S / 2) == []
    (crash,) = decoder.tick(1000.0 + SILENCE_S)
    assert isinstance(crash, Crash)
    assert not crash.complete
    assert crash.at == 1000.0
    assert decoder.next_deadline is None
    assert decoder.tick(1100.0) == []


def test_a_last_line_without_newline_is_read_after_silence() -> None:
    decoder = Decoder()
    decoder.feed(b"abort() was called at PC 0x400d1234 on core 0\nBacktrace: 0x400d1234:0x3ffb1234", 5.0)
    (crash,) = decoder.tick(7.0)
    assert isinstance(crash, Crash)
    assert len(crash.backtraces) == 1
    assert decoder.feed(b" and more\n", 8.0)[0].line == 2


def test_without_times_nothing_is_due() -> None:
    decoder = Decoder()
    decoder.feed(HEAD)
    assert decoder.next_deadline is None
    assert decoder.tick(1e12) == []
    assert len(of(Crash, decoder.close())) == 1


def test_boots_are_counted_and_loops_told() -> None:
    events = Decoder().feed((HEAD + STACK + ROW + b"<<<stack<<<\n" + BANNER + b"hello\n") * 3)
    assert [e.boot for e in of(Boot, events)] == [0, 1, 2]
    assert [e.boots for e in of(BootLoop, events)] == [2, 3]  # type: ignore[attr-defined]


def test_a_long_healthy_run_is_no_loop() -> None:
    run = HEAD + STACK + ROW + b"<<<stack<<<\n" + BANNER + b"temperature 21\n" * 1000
    assert not of(BootLoop, Decoder().feed(run * 3))


def test_boot_loop_period() -> None:
    decoder, events = Decoder(), []
    for second in (10.0, 14.5, 19.0):
        events += decoder.feed(HEAD + STACK + ROW + b"<<<stack<<<\n" + BANNER, second)
    assert [e.period_s for e in of(BootLoop, events)] == [None, 4.5]  # type: ignore[attr-defined]


@settings(max_examples=12, deadline=None)
@given(st.integers(200, 50000), st.integers(0, 3), st.booleans())
def test_long_lines_are_cut_the_same_way_for_every_split(step: int, lines: int, marked: bool) -> None:
    log = (b"x" * (MAX_LINE * 2 + 77) + (b" ets Jan  8 2013,rst cause:2, boot mode:(3,6)" if marked else b"") + b"\n") * lines
    log += b"y" * (MAX_LINE + 5)
    whole = Decoder()
    once = whole.feed(log) + whole.close()
    parts = Decoder()
    pieces = [e for i in range(0, len(log), step) for e in parts.feed(log[i : i + step])] + parts.close()
    assert facts(pieces) == facts(once)
    assert len(of(LimitReached, once)) == lines + 1
    assert b"".join(e.raw for e in pieces if isinstance(e, Text)) == log


def test_memory_stays_bounded() -> None:
    decoder = Decoder()
    seen = 0
    for _ in range(200):  # an endless line
        seen += len(decoder.feed(b"\xff" * 10_000))
    assert decoder._size <= MAX_LINE + 10_000
    events = decoder.feed(b"\n" + HEAD + STACK)
    for i in range(400):  # an endless dump
        events += decoder.feed(b"".join(b"%08x:  3fff34cc 3ffeed38 000000ff 4021c238  \n" % (0x3FFF0000 + 16 * (i * 50 + k)) for k in range(50)))
    events += decoder.close()
    crash = of(Crash, events)[0]
    assert isinstance(crash, Crash)
    assert len(crash.stacks[0].words) <= 16384 + 4
    assert [e.what for e in of(LimitReached, events) if "stack" in e.what]  # type: ignore[attr-defined]


def test_a_bug_in_a_format_is_an_event() -> None:
    from espmon.decode import dump

    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    old = dump.Dump.row
    dump.Dump.row = broken  # type: ignore[method-assign, assignment]
    try:
        decoder = Decoder()
        events = decoder.feed(HEAD + STACK + ROW + BANNER) + decoder.close()
    finally:
        dump.Dump.row = old  # type: ignore[method-assign]
    fault = of(DecoderFault, events)[0]
    assert isinstance(fault, DecoderFault)
    assert fault.format == "esp8266"
    assert "oops" in (fault.error or "")
    assert of(Boot, events), "the stream goes on"


def test_line_numbers_of_a_crash() -> None:
    events = Decoder(file="f").feed(b"one\ntwo\n" + HEAD + STACK + ROW + b"<<<stack<<<\n" + b"\n" * 3 + b"idle\n" * 20)
    crash = of(Crash, events)[0]
    assert (crash.line, crash.end_line) == (3, 11)
    assert crash.file == "f"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 40_700), max_size=4))
def test_a_flooded_line_inside_a_dump_is_cut_the_same_way_for_every_split(cuts: list[int]) -> None:
    """Found by the fuzzer: where the crash began depended on the chunks."""
    data = (
        b"Core 1 register dump:\r\nPC      : 0x40" + b"x" * 10_116 + b"assert failed:assert failed:" + b"x" * 29_884
        + b"0d2498  PS      : 0x00060b34  A0      : 0x8008ef08  A1      : 0x3ffbcd20  \xb1\x17\xc1_c\x80\xd3\r\n"
        b"A2      : 0x00000020  A3      : 0x00000001  A4      : 0x00000020  A5      : 0x3ffb3b48  \r\n"
        b"EXCVADDR: 0x00000000  LBEG    : 0x00000000  LEND    : 0x00000000  LCOUNT  : 0x00000000  \r\n"
        b"\r\nBacktrace: 0x400d2498:0x3ffbcd20 0x4008ef05:0x3ffbcd40\r\n"
    )  # fmt: skip
    whole = Decoder(file="f")
    want = facts(whole.feed(data) + whole.close())
    assert want
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    split = Decoder(file="f")
    got = [event for a, b in itertools.pairwise(edges) for event in split.feed(data[a:b])] + split.close()
    assert facts(got) == want
