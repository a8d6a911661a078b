"""Which lines can begin something: what the decoder may skip follows from this and nothing else.

A line in which nothing here is found is ordinary text as long as nothing is open (a dump, a banner and the lines after
it). So whole chunks are searched at once and their newlines counted in bulk.

Why it looks as it does: Python's regular expressions skip quickly over bytes that cannot begin a match, but try all
alternatives, one by one, at each byte that can. So there are few alternatives, and each begins with a byte that is rare
in ordinary logs: ``ktrace`` instead of ``Backtrace``. What has no rare byte is a plain :meth:`bytes.find`. A test feeds the corpus with and without skipping and demands the same facts.
"""

from __future__ import annotations

import re
from typing import Final

_PATTERN = re.compile(
    rb"""
    x(?:cep(?:ti|\S\Son)|cvaddr|(?<=[:=]0x)(?:(?<=rst:0x)|(?<=epc[13]=0x)))
    |V[12]\ verif|k(?:\ \d\ (?:inv|sig)|>>>|<<<|\ stack\ \[|&gt;|\ smash|\ overflow|\ memory|\ watchdog|trace)
    |b(?:oot(?::\ ?\**0x|\ mode|:\ ESP-IDF|\ verif|reason|able|\ reason|\ failed|\ signature|:\*)|ort(?:\(\)|\ called))
    |valid\ (?:head|ima|and)
    |w(?:ait(?:ing\ for|\ u(?:art|sb)|\ spi)|nout\ )
    |_(?:core_dump|exception:|main\.c|cal\[|sync\ f|open\ f|upload_m)
    |'(?:ed\ ?\(|t\ fi(?:nd|t\ in))
    |J(?:an\ |un\ |ul\ )
    |G(?:u|eneric\ Reset)
    |H(?:A-?256|EAP:|\ DETECTED)
    |P(?:ANIC|anic\ |C\ 0x|ermissionE|yboard|ython\ v)
    |U(?:MP\ |T\ HERE|nable\ to\ c)
    |W(?:DT\ reset|rite\ timeout)
    |R(?:OM:|estartReason|\ not\ in\ IRAM|eset\ [RrCc]|ebooting|eason\ of|EPL)
    |F(?:atalE|ailed\ (?:to\ |uploading)|ileNot|alling\ back)
    |A(?:\ fatal|T\ version|T\+GMR|\d{1,2}\ {1,8}:\ 0x)
    |E(?:rrno|rror\ (?:while|[12]))|!!\ A\ panic|=\ (?:THREADS?\ |CURRENT\ THREAD|ALL\ MEMORY)|Crash\ at\ \d
    |You\ are\ in\ safe|&nbsp;|\xc2\xa0
    |N(?:LR\ jump|o\ signature)|Latest\ crash|K(?:\ version|\ failed|\\?")|Trap\ \d|MEPC|XC(?:VADDR|CAUSE)|\+CIPUP
    """,
    re.VERBOSE,
)
_WORDS: Final = (b"ssert", b"mcause: ", b"terminate called", b"register dump")

_search = _PATTERN.search


def triggers(line: bytes) -> bool:
    """True when something may begin in `line`."""
    return _search(line) is not None or any(word in line for word in _WORDS)


class Hits:
    """The places in one buffer where something may begin, left to right; every word is searched for once."""

    __slots__ = ("_at", "_buffer", "_end")

    def __init__(self, buffer: bytes, end: int) -> None:
        self._buffer = buffer
        self._end = end
        self._at = [-2] * (1 + len(_WORDS))

    def after(self, pos: int) -> int:
        """The first such place at or behind `pos`, or the end."""
        at, end = self._at, self._end
        first = end
        if at[0] < pos:
            hit = _search(self._buffer, pos, end)
            at[0] = end if hit is None else hit.start()
        first = at[0]
        for i, word in enumerate(_WORDS, 1):
            if at[i] < pos:
                found = self._buffer.find(word, pos, end)
                at[i] = end if found < 0 else found
            if at[i] < first:
                first = at[i]
        return first
