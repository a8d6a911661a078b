"""Line ends, timestamps, rules that hide, and patterns that run away."""

import re
import sys
import time

import pytest

from espmon.errors import UsageProblem
from espmon.sinks.lines import LineRules, LineShaper, LineWatch, compile_pattern


def stamp(at):
    return f"[{at:g}] "


def shape(pieces, **options):
    shaper = LineShaper(**options)
    return "".join(shaper.feed(text, at) for at, text in enumerate(pieces))


@pytest.mark.parametrize(
    ("pieces", "out"),
    [
        (["a\r\nb\r\n"], "a\nb\n"),
        (["a\r", "\nb"], "a\nb"),
        (["a\r\r\nb\n\rc"], "a\nb\nc"),
        (["a\n", "\rb"], "a\nb"),
        (["10%\r20%\r", "30%\n"], "10%\r20%\r30%\n"),
        (["prompt> "], "prompt> "),
        (["\n\n"], "\n\n"),
    ],
)
def test_line_ends(pieces, out):
    assert shape(pieces) == out


@pytest.mark.parametrize(
    ("pieces", "out"),
    [
        (["a\nb\n", "c"], "[0] a\n[0] b\n[1] c"),
        (["a", "b\n", "c\n"], "[0] ab\n[2] c\n"),
        (["1\r", "2\r", "3\n"], "[0] 1\r[1] 2\r[2] 3\n"),
        (["\n\n"], "[0] \n[0] \n"),
    ],
)
def test_stamps_stand_where_lines_begin(pieces, out):
    assert shape(pieces, stamp=stamp) == out


def test_rules_hide_whole_lines_only():
    rules = LineRules([re.compile("temp")], [re.compile("debug")])
    out = shape(["temperature 1\nnoise\ntemp", "erature 2\ndebug temp\n"], rules=rules, stamp=stamp)
    assert out == "[0] temperature 1\n[0] temperature 2\n"


def test_an_unfinished_line_is_shown_when_nothing_more_comes():
    shaper = LineShaper(LineRules((), [re.compile("secret")]))
    assert shaper.feed("ok\nlogin: ", 0) == "ok\n"
    assert shaper.idle() == "login: "
    assert shaper.feed("me\n", 1) == "me\n"
    assert shaper.feed("a secret", 2) == ""
    assert shaper.idle() == ""
    assert shaper.feed(" thing\nnext\n", 3) == "next\n"


def test_level_hides_what_is_less_urgent_and_nothing_else():
    lines = [
        "E (12) wifi: bad",
        "W (12:00:01.123) x: hm",
        "I (12) x: info",
        "\x1b[0;32mI (12) x: coloured\x1b[0m",
        "D (1) x: debug",
        "[12:00:00][D][sensor:094]: debug",
        "[12:00:00][E][sensor:094]: bad",
        "[  123][V][a.cpp:1] f(): verbose",
        "[VV][a:1] very verbose",
        "no level at all",
        "I am no level",
    ]
    shown = LineRules(level="warning").shown(lines)
    assert [line for line, show in zip(lines, shown, strict=True) if show] == [lines[0], lines[1], lines[6], lines[9], lines[10]]
    assert not LineRules(level="verbose")


def test_an_endless_line_is_judged_by_its_beginning_and_memory_stays_bounded():
    shaper = LineShaper(LineRules([re.compile("^x")]))
    out = sum(len(shaper.feed("x" * 1000, 0)) for _ in range(1000))
    assert out >= 990_000
    assert len(shaper._line) < 10_000


@pytest.mark.skipif(sys.platform == "win32", reason="no interval timer on Windows: such patterns are refused there")
def test_a_pattern_that_runs_away_is_stopped_and_told():
    rules = LineRules([compile_pattern("^(a+)+$", "--filter")])
    begun = time.monotonic()
    assert rules.shown(["a" * 60 + "b", "next"]) == [True, True]
    assert time.monotonic() - begun < 20
    assert rules.stopped == "^(a+)+$"
    assert not rules


@pytest.mark.skipif(sys.platform == "win32", reason="no interval timer on Windows")
def test_a_watch_that_runs_away_is_stopped():
    watch = LineWatch(re.compile("^(a+)+$"))
    assert watch.feed("a" * 60 + "b\n") is False
    assert watch.stopped
    assert watch.feed("aaa\n") is False


def test_a_watch_sees_lines_in_pieces_without_colours():
    watch = LineWatch(re.compile("^all tests passed$"))
    assert not watch.feed("xx all tests passed\nall te")
    assert not watch.feed("\x1b[32msts\x1b[0m pa")
    assert watch.feed("ssed")


@pytest.mark.parametrize("pattern", ["(", "[a", "*x"])
def test_a_bad_pattern_is_a_usage_problem(pattern):
    with pytest.raises(UsageProblem, match="--until"):
        compile_pattern(pattern, "--until")
