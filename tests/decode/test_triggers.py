"""Skipping what is familiar: nothing that can begin a fact is ever skipped, however often its like was heard."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from espmon.decode import Decoder
from espmon.decode import triggers as module
from espmon.decode.triggers import Familiar, Hits, doubtful_of, triggers

CORPUS = sorted((Path(__file__).parent.parent / "corpus").glob("*/log.txt"))
SHAPE = bytes(ord("0") if chr(i).isdigit() and i < 128 else i for i in range(256))


@given(st.from_regex(module._PATTERN), st.sampled_from([b"", b"1", b" 0x", b"rst:0", b"epc1=0"]))
@settings(max_examples=500, deadline=None)
def test_whatever_triggers_does_so_with_any_digits(text, before):
    """Also for every alternative that is added to the pattern."""
    lines = (before + text).split(b"\n")
    shapes = [line.translate(SHAPE) for line in lines]
    assert {shape for line, shape in zip(lines, shapes, strict=True) if triggers(line)} <= doubtful_of(shapes)


def test_every_trigger_of_the_corpus_triggers_with_any_digits():
    seen = 0
    for path in CORPUS:
        for line in path.read_bytes().split(b"\n"):
            if triggers(line):
                seen += 1
                assert doubtful_of([line.translate(SHAPE)]), line
    assert seen > 200


@given(
    st.lists(
        st.sampled_from(
            [b"I (17) wifi: ok", b"I (99) wifi: ok", b"rst:0x1 ", b"SHA-256", b"SHA-512", b"Crash at 5", b"Crash at x", b"abort() called",
             b"assert", b"epc1=0x4", b"epc7=0x4", b"", b"\xff\xfe"]
        ),
        min_size=1,
        max_size=3,
    ),
    st.integers(0, 3),
    st.lists(st.integers(1, 4000), max_size=5),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_hits_are_where_a_line_by_line_search_finds_them(lines, ahead, cuts):
    ordinary = b"".join(b"I (%d) heap free %d\n" % (i, i * 7919 % 200000) for i in range(1500))
    familiar = Familiar()
    familiar.doubtful(ordinary)
    for _ in range(ahead):
        familiar.doubtful(b"\n".join(lines) * 200 + b"\n")
    text = ordinary
    for i, cut in enumerate(cuts):
        at = text.find(b"\n", cut * 9) + 1
        text = text[:at] + lines[i % len(lines)] + b"\n" + text[at:]
    hits = Hits(text, len(text), familiar)
    pos, found, expected = 0, [], []
    while (hit := hits.after(pos)) < len(text):
        start = text.rfind(b"\n", 0, hit) + 1
        found.append(start)
        pos = text.find(b"\n", hit) + 1
    start = 0
    for line in text.split(b"\n"):
        if triggers(line):
            expected.append(start)
        start += len(line) + 1
    assert found == expected


def test_a_crash_among_familiar_lines_is_found_each_time():
    crash = next(p for p in CORPUS if p.parent.name.startswith("348-")).read_bytes()
    ordinary = b"".join(b"[%06d] temperature %d C\n" % (i, i % 60) for i in range(3000))
    decoder = Decoder()
    alone = [e.type for e in decoder.feed(crash + b"\n") + decoder.close() if e.type != "text"]
    decoder = Decoder()
    told = [e.type for _ in range(4) for e in decoder.feed(ordinary + crash + b"\n" + ordinary) if e.type not in ("text", "boot-loop")]
    told += [e.type for e in decoder.close() if e.type != "text"]
    assert told == alone * 4
    assert "crash" in told


def ever_new(block: int) -> bytes:
    """90 lines of five letters that no other block has."""
    return b"".join(bytes(97 + (block * 90 + k) // 26**n % 26 for n in range(5)) + b"\n" for k in range(90))


def test_what_is_familiar_is_bounded():
    familiar = Familiar()
    for i in range(200):
        familiar.doubtful(ever_new(i))
    familiar.doubtful(b"y" * 100_000 + b"\n")
    assert 0 < len(familiar._shapes) <= module._MOST_SHAPES
    assert max(map(len, familiar._shapes)) <= module._LONGEST_SHAPE


def test_ever_new_lines_are_soon_no_longer_asked_about():
    familiar = Familiar()
    asked = 0
    for i in range(1000):
        asked += not familiar._rest
        familiar.doubtful(ever_new(i))
    assert asked < 60


def test_lines_that_begin_nothing_are_told_from_those_between_them():
    shapes = [b"quiet", b"abort() called", b"", b"ssert", b"calm ssert mpremote", b"rst:0x0", b"calm"]
    assert doubtful_of(shapes) == {b"abort() called", b"ssert", b"calm ssert mpremote", b"rst:0x0"}
    assert doubtful_of([]) == set()


def test_one_crash_does_not_make_what_follows_strange():
    ordinary = b"".join(b"[%06d] temperature %d C\n" % (i, i % 60) for i in range(100))
    familiar = Familiar()
    assert familiar.doubtful(ordinary) == []
    for i in range(20):
        crash = ever_new(i) + b"abort() called\n" + ever_new(1000 + i)
        assert familiar.doubtful(ordinary + crash) == [len(ordinary) + 90 * 6]
        assert familiar.doubtful(ordinary) == []


def test_a_block_full_of_doubt_is_searched():
    familiar = Familiar()
    assert familiar.doubtful(b"abort() called\n" + b"calm\n" * 20) == [0]
    assert familiar.doubtful(b"abort() called\n" * 20 + b"calm\n" * 20) is None


def test_decoders_that_share_what_is_familiar_tell_the_same():
    crash = next(p for p in CORPUS if p.parent.name.startswith("348-")).read_bytes()
    blocks = [b"".join(b"[%06d] board %c, temperature %d C\n" % (i, 65 + i % 3, i % 60) for i in range(k, k + 9)) for k in range(0, 900, 9)]
    blocks[60:60] = [crash + b"\n"]
    alone = Decoder()
    expected = [e.type for block in blocks for e in alone.feed(block) if e.type != "text"]
    known: set[bytes] = set()
    first, second = Decoder(familiar=known), Decoder(familiar=known)
    told: dict[Decoder, list[str]] = {first: [], second: []}
    for block in blocks:
        for decoder, types in told.items():
            types += [e.type for e in decoder.feed(block) if e.type != "text"]
    assert told[first] == told[second] == expected
    assert 0 < len(known) < 100
    assert "crash" in expected
