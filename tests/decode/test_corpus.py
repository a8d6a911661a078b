"""The decoder against the corpus: the thresholds of the project, and every log at every chunking."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import espmon.decode.decoder as decoder_module
from espmon.decode import Decoder
from espmon.decode import scan as scan_module
from espmon.decode.formats import FORMATS
from espmon.decode.lines import clean, peel
from espmon.decode.scan import Lexer, Spec
from espmon.events import Event, Text, to_json_object
from tests.score_corpus import CORPUS, score

LOGS = {path.parent.name: path.read_bytes() for path in sorted(CORPUS.glob("*/log.txt"))}
ALL = b"\n".join(LOGS.values())
ROWS = ("row", "memory-row")  # a row's short cut takes the spaces behind it along


def decode(chunks: list[bytes]) -> list[Event]:
    decoder = Decoder(file="log")
    return [e for c in chunks for e in decoder.feed(c)] + decoder.close()


def facts(events: list[Event]) -> list[dict[str, object]]:
    return [to_json_object(e) for e in events if not isinstance(e, Text)]


def raw(events: list[Event]) -> bytes:
    return b"".join(e.raw for e in events if isinstance(e, Text))


def test_thresholds() -> None:
    total = score()
    assert total.share("boots") >= 0.98
    assert total.share("exceptions") >= 0.98
    assert total.share("panics") >= 0.98
    assert total.share("backtraces") >= 0.97
    assert total.share("stack words") >= 0.97
    assert total.share("presence") >= 0.98
    assert total.share("details") >= 0.98
    assert total.share("crash shown") == 1
    assert total.counts["false crashes"] == 0
    assert total.counts["faults"] == 0
    assert total.counts["boots wanted"] > 40, "the corpus must be there"


@pytest.mark.parametrize("name", LOGS)
def test_whole_and_byte_by_byte_say_the_same(name: str) -> None:
    log = LOGS[name]
    whole = decode([log])
    single = decode([log[i : i + 1] for i in range(len(log))])
    assert facts(single) == facts(whole)
    assert raw(whole) == raw(single) == log


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_split_says_the_same(data: st.DataObject) -> None:
    log = LOGS[data.draw(st.sampled_from(sorted(LOGS)))] + b"\n" + LOGS[data.draw(st.sampled_from(sorted(LOGS)))]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(log)), max_size=12)))
    chunks = [log[a:b] for a, b in zip([0, *cuts], [*cuts, len(log)], strict=True)]
    events = decode(chunks)
    assert facts(events) == facts(decode([log]))
    assert raw(events) == log


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=300) | st.sampled_from([log[:400] for log in LOGS.values()]), max_size=8))
def test_arbitrary_bytes_never_raise(chunks: list[bytes]) -> None:
    events = decode(chunks)
    assert raw(events) == b"".join(chunks)
    assert not [e for e in events if e.type == "decoder-fault"]


def test_skipping_lines_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast path may only skip what says nothing: with every line looked at, the facts are the same."""
    quick = facts(decode([ALL]))
    monkeypatch.setattr(decoder_module, "triggers", lambda line: True)
    monkeypatch.setattr(decoder_module.Hits, "after", lambda self, pos: pos)
    assert facts(decode([ALL])) == quick


def test_text_lines_are_numbered() -> None:
    log = b"one\ntwo\n" + LOGS["020-exc28-full-cont-stack"] + b"\nthree"
    line = 1
    for event in decode([log]):
        if isinstance(event, Text):
            assert event.line == line
            line += event.raw.count(b"\n")
    crash = next(e for e in decode([log]) if e.type == "crash")
    assert crash.line == 3


def damaged(log: bytes, seed: int) -> bytes:
    """A log with some bytes lost, doubled or overwritten."""
    rng = random.Random(seed)
    out = bytearray(log)
    for _ in range(max(1, len(out) // 100)):
        i = rng.randrange(len(out))
        match rng.randrange(3):
            case 0:
                del out[i]
            case 1:
                out[i] = rng.randrange(256)
            case _:
                out.insert(i, out[i])
        if not out:
            break
    return bytes(out)


@pytest.mark.parametrize("name", LOGS)
def test_damage_and_truncation_stay_sane(name: str) -> None:
    log = LOGS[name]
    truth = (Path(CORPUS) / name / "truth.json").read_text("utf-8")
    quiet = '"near_miss": true' in truth
    variants = [damaged(log, seed) for seed in range(4)]
    lines = log.splitlines(keepends=True)
    step = max(1, len(lines) // 12)
    variants += [b"".join(lines[:n]) for n in range(0, len(lines), step)]
    variants += [log.replace(b"\n", b" "), log.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"), b" ".join(log.split(b"  "))]
    for variant in variants:
        events = decode([variant])
        assert raw(events) == variant
        assert not [e for e in events if e.type == "decoder-fault"]
        if quiet:
            assert not [e for e in events if e.type == "crash"]


def test_hints_lose_no_token() -> None:
    """A spec's hints only save time: trying every pattern on every line finds the same tokens."""
    quick = Lexer(spec for fmt in FORMATS for spec in fmt.tokens)
    every = Lexer(Spec(spec.kind, spec.pattern) for fmt in FORMATS for spec in fmt.tokens)
    for number, line in enumerate(ALL.split(b"\n"), 1):
        text = peel(clean(line))
        assert [(t.kind, t.start, t.end, t.groups) for t in quick.scan(text, number) if t.kind not in ROWS] == [
            (t.kind, t.start, t.end, t.groups) for t in every.scan(text, number) if t.kind not in ROWS
        ]


def test_a_line_known_with_other_digits_loses_no_token() -> None:
    """Which patterns a line may hold is kept in mind for lines that differ in digits only."""
    quick = Lexer(spec for fmt in FORMATS for spec in fmt.tokens)
    every = Lexer(Spec(spec.kind, spec.pattern) for fmt in FORMATS for spec in fmt.tokens)
    for number, line in enumerate(ALL.split(b"\n"), 1):
        text = peel(clean(line))
        quick._known.clear()
        quick.scan(text.translate(str.maketrans("0123456789", "9999999999")), number)
        assert [(t.kind, t.start, t.end, t.groups) for t in quick.scan(text, number) if t.kind not in ROWS] == [
            (t.kind, t.start, t.end, t.groups) for t in every.scan(text, number) if t.kind not in ROWS
        ]


def test_what_the_lexer_keeps_in_mind_is_bounded() -> None:
    lexer = Lexer([Spec("word", "heap", ("heap",))])
    for i in range(3 * scan_module._MOST_KNOWN):
        text = "".join(chr(97 + i // 26**k % 26) for k in range(4)) + " heap"
        assert [t.start for t in lexer.scan(text, 1)] == [5]
        lexer.scan("x" * (scan_module._LONGEST_KNOWN + 1 + i % 7), 1)
    assert 0 < len(lexer._known) <= scan_module._MOST_KNOWN
    assert max(map(len, lexer._known)) <= scan_module._LONGEST_KNOWN
