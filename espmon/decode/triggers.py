"""Which lines can begin something: what the decoder may skip follows from this and nothing else.

A line in which nothing here is found is ordinary text as long as nothing is open (a dump, a banner and the lines after
it). So whole blocks are searched at once, unless all their lines are of a kind heard before, and their newlines counted
in bulk.

Why it looks as it does: Python's regular expressions skip quickly over bytes that cannot begin a match, but try all
alternatives, one by one, at each byte that can. So there are few alternatives, and each begins with a byte that is rare
in ordinary logs: ``ktrace`` instead of ``Backtrace``. What has no rare byte is a plain :meth:`bytes.find`. A test feeds the corpus with and without skipping and demands the same facts.
"""

from __future__ import annotations

import re
from typing import Final

_PATTERN = re.compile(
    rb"""
    x(?:cep(?:ti|\S\Son)|cvaddr|:\ (?:cont|sys|bearssl)|(?<=[:=]0x)(?:(?<=rst:0x)|(?<=epc[13]=0x)))
    |V[12]\ verif|k(?:\ \d\ (?:inv|sig)|>>>|<<<|\ stack\ \[|&gt;|\ smash|\ canary|\ overflow|\ memory|\ watchdog|trace)
    |b(?:oot(?::\ ?\**0x|\ mode|:\ ESP-IDF|\ verif|reason|able|\ reason|\ failed|\ signature|:\*)|ort(?:\(\)|\ called))
    |valid\ (?:head|ima|and)
    |w(?:ait(?:ing\ for|\ u(?:art|sb)|\ spi)|nout\ )
    |_(?:send_comm|core_dump|exception:|main\.c|loader\.c|cal\[|sync\ f|open\ f|upload_m)
    |'(?:ed\ ?\(|t\ fi(?:nd|t\ in))
    |J(?:an\ |un\ |ul\ )
    |G(?:u|eneric\ Reset)
    |H(?:A-?256|EAP:|\ DETECTED|ochladen|a\ ocurr)
    |P(?:ANIC|anic\ |C\ 0x|ermissionE|yboard|ython\ v)
    |U(?:MP\ |T\ HERE|nable\ to\ c|ne\ erreur)
    |W(?:yst|DT\ (?:reset|@)|rite\ timeout|atchdog\ Reset)
    |R(?:OM:|om\ -?\d|estart(?:Reason|\ info|\ [Rr]eason)|\ not\ in\ IRAM|eset\ [RrCc]|ebooting|eason\ of|EPL)
    |F(?:atalE|ailed\ (?:to\ |uploading)|ileNot|ehler\ beim|alling\ back)
    |A(?:\ fatal|n\ error\ occ|T\ version|T\+GMR|\d{1,2}\ {1,8}:\ 0x|ssertion\ ['\xe2])
    |E(?:rrno|rror(?:\ (?:while|during|[12])|\(\d|:\ (?:Please|Could))|XCEPTION!!|RROR\]:\ [AEHN]|r\ is\ een)|!!\ A\ panic|=\ (?:THREADS?\ |CURRENT\ THREAD|ALL\ MEMORY)|C(?:rash(?:ed)?\ (?:at\ \d|\#|in\ b)|OM\d|annot\ conf|ouldn't|onnection\ lost)|Ocorreu|\xd1\x81\xd0\xba\xd0\xb5\xd1\x82\xd1\x87|\xe4\xb8\x8a\xe4\xbc\xa0|/dev/(?:tty|cu)|THONNY|MicroPython|D(?:evice\ is|uring\ Up)|Problem\ upl
    |You\ are\ in\ safe|&nbsp;|\xc2\xa0
    |N(?:LR\ jump|o\ (?:signature|module))|L(?:atest\ crash|ost\ conn)|K(?:\ version|\ failed|\\?"|\xe2\x80)|T(?:rap\ \d|imed\ out\ wait|he\ device\ has)|MEPC|XC(?:VADDR|CAUSE)|\+CIPUP
    """,
    re.VERBOSE,
)
_WORDS: Final = (b"ssert", b"mcause: ", b"terminate called", b"register dump", b"raw repl", b"mpremote")

_search = _PATTERN.search


def triggers(line: bytes) -> bool:
    """True when something may begin in `line`."""
    return _search(line) is not None or any(word in line for word in _WORDS)


# Every digit as 0, in lines and in the patterns: what matches as it stands matches so as well.
_SHAPE: Final = bytes(0x30 if 0x30 <= byte <= 0x39 else byte for byte in range(256))
_search_shape = re.compile(
    re.sub(
        rb"\\x..|\{[\d,]+\}|\[\d+\]|\\d|\d",
        lambda m: m[0] if m[0][:1] == b"{" or m[0][:2] == b"\\x" else b"0",
        _PATTERN.pattern,
    ),
    re.VERBOSE,
).search
_SHAPE_WORDS: Final = tuple(word.translate(_SHAPE) for word in _WORDS)
_MOST_SHAPES: Final = 4096
_LONGEST_SHAPE: Final = 512  # bytes
_MOST_PAUSE: Final = 64  # blocks
_MOST_DOUBTFUL: Final = 1 / 8  # of a block's lines: more are found quicker by searching all of it


def doubtful_of(shapes: list[bytes]) -> set[bytes]:
    """Those of `shapes` in which something may begin, whatever the digits were."""
    text = b"\n".join(shapes)
    doubtful = set()

    def add(at: int) -> int:
        """The line at `at` is one; returns where the next begins."""
        end = text.find(b"\n", at)
        end = len(text) if end < 0 else end
        doubtful.add(text[text.rfind(b"\n", 0, at) + 1 : end])
        return end + 1

    at = 0
    while (found := _search_shape(text, at)) is not None:
        at = add(found.start())
    for word in _SHAPE_WORDS:
        at = text.find(word)
        while at >= 0:
            at = text.find(word, add(at))
    return doubtful


class Familiar:
    """Lines in which nothing begins, whatever their digits: most of a long log says the same again with other numbers.

    To find a line among those already looked at takes a quarter of the time of looking at it. Where a log says
    ever new things, the question pauses for more and more blocks. `shapes`: lines that many decoders know together.
    """

    __slots__ = ("_pause", "_rest", "_shapes")

    def __init__(self, shapes: set[bytes] | None = None) -> None:
        self._shapes: set[bytes] = set() if shapes is None else shapes
        self._pause = 1
        self._rest = 0

    def doubtful(self, block: bytes) -> list[int] | None:
        """Where the lines of `block` (whole lines) begin in which something may begin, the last one first; None when it
        is quicker to search all of it."""
        if self._rest:
            self._rest -= 1
            return None
        lines = block.translate(_SHAPE).split(b"\n")
        shapes = self._shapes
        new = set(lines).difference(shapes)
        if not new:
            self._pause = 1
            return []
        if 4 * len(new) > len(lines) and shapes:
            # One such block is a crash or a boot, several in a row are a log of ever new things.
            self._rest = self._pause - 1
            self._pause = min(self._pause * 2, _MOST_PAUSE)
        else:
            self._pause = 1
        doubtful = doubtful_of(list(new))
        if len(shapes) + len(new) - len(doubtful) > _MOST_SHAPES:
            shapes.clear()
        shapes.update(shape for shape in new if len(shape) <= _LONGEST_SHAPE and shape not in doubtful)
        starts: list[int] = []
        if doubtful:
            at = 0
            for line in lines:
                if line in doubtful:
                    starts.append(at)
                at += len(line) + 1
            starts.reverse()
        return starts if len(starts) <= _MOST_DOUBTFUL * len(lines) else None


_BLOCK: Final = 16384
_LEAST: Final = 256  # bytes: for a line or two it's quicker to look at them


class Hits:
    """The places in one buffer where something may begin, left to right; every word is searched for once."""

    __slots__ = ("_at", "_begin", "_buffer", "_doubtful", "_end", "_familiar", "_stop")

    def __init__(self, buffer: bytes, end: int, familiar: Familiar) -> None:
        self._buffer = buffer
        self._end = end
        self._familiar = familiar
        self._begin = self._stop = 0  # the block that is searched
        self._doubtful: list[int] | None = None  # what there is to look at in it, when that is known
        self._at = [-1] * (1 + len(_WORDS))

    def after(self, pos: int) -> int:
        """The first such place, or the beginning of its line, at or behind `pos` (where a line begins); or the end."""
        while pos < self._end:
            if pos >= self._stop:
                self._begin, self._stop = pos, self._block(pos)
                self._at = [-1] * len(self._at)
                asked = self._stop - pos >= _LEAST
                self._doubtful = self._familiar.doubtful(self._buffer[pos : self._stop]) if asked else None
            hit = self._first(pos) if self._doubtful is None else self._next_line(pos, self._doubtful)
            if hit < self._stop:
                return hit
            pos = self._stop
        return self._end

    def _block(self, pos: int) -> int:
        """Where the block of whole lines ends that begins at `pos`."""
        if self._end - pos < 2 * _BLOCK:
            return self._end
        stop = self._buffer.rfind(b"\n", pos, pos + _BLOCK) + 1
        return stop or self._buffer.find(b"\n", pos + _BLOCK, self._end) + 1

    def _next_line(self, pos: int, doubtful: list[int]) -> int:
        while doubtful:
            start = self._begin + doubtful[-1]
            if start >= pos and triggers(self._buffer[start : self._buffer.find(b"\n", start)]):
                return start
            doubtful.pop()
        return self._stop

    def _first(self, pos: int) -> int:
        at, stop = self._at, self._stop
        if at[0] < pos:
            hit = _search(self._buffer, pos, stop)
            at[0] = stop if hit is None else hit.start()
        for i, word in enumerate(_WORDS, 1):
            if at[i] < pos:
                found = self._buffer.find(word, pos, stop)
                at[i] = stop if found < 0 else found
        return min(at)
