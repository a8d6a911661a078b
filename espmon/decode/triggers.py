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
    x(?:cep(?:ti|\S\Son)|cvaddr|:\ (?:cont|sys|bearssl)|(?<=[:=]0x)(?:(?<=rst:0x)|(?<=epc[13]=0x)))
    |k(?:>>>|<<<|\ stack\ \[|&gt;|\ smash|\ canary|\ overflow|\ memory|\ watchdog|trace)
    |b(?:oot(?::\ ?\**0x|\ mode|:\ ESP-IDF|\ verif|reason|able|\ reason|\ failed|\ signature|:\*)|ort(?:\(\)|\ called))
    |valid\ (?:head|ima|and)
    |w(?:aiting\ for|nout\ )
    |_(?:send_comm|core_dump|exception:|main\.c|loader\.c|cal\[|sync\ f|open\ f|upload_m)
    |'(?:ed\ ?\(|t\ fi(?:nd|t\ in))
    |J(?:an\ |un\ |ul\ )
    |G(?:u|eneric\ Reset)
    |H(?:A-?256|EAP:|\ DETECTED|ochladen|a\ ocurr)
    |P(?:ANIC|anic\ |ermissionE|yboard|ython\ v)
    |U(?:MP\ |T\ HERE|nable\ to\ c|ne\ erreur)
    |W(?:yst|DT\ (?:reset|@)|rite\ timeout|atchdog\ Reset)
    |R(?:OM:|om\ -?\d|estart(?:Reason|\ info|\ [Rr]eason)|\ not\ in\ IRAM|eset\ [RrCc]|ebooting|eason\ of|EPL)
    |F(?:atalE|ailed\ (?:to\ |uploading)|ileNot|ehler\ beim|alling\ back)
    |A(?:\ fatal|n\ error\ occ|T\ version|T\+GMR|ssertion\ ['\xe2])
    |E(?:rrno|rror(?:\ (?:while|during|[12])|\(\d|:\ (?:Please|Could))|XCEPTION!!|RROR\]:\ [AEHN]|r\ is\ een)|!!\ A\ panic|C(?:rash(?:ed)?\ (?:at\ \d|\#|in\ b)|OM\d|annot\ conf|ouldn't|onnection\ lost)|Ocorreu|\xd1\x81\xd0\xba\xd0\xb5\xd1\x82\xd1\x87|\xe4\xb8\x8a\xe4\xbc\xa0|/dev/(?:tty|cu)|THONNY|MicroPython|D(?:evice\ is|uring\ Up)|Problem\ upl
    |N(?:LR\ jump|o\ (?:signature|module))|L(?:atest\ crash|ost\ conn)|K(?:\ version|\ failed|\\?"|\xe2\x80)|T(?:rap\ \d|imed\ out\ wait|he\ device\ has)|MEPC|XC(?:VADDR|CAUSE)|\+CIPUP
    """,
    re.VERBOSE,
)
_WORDS: Final = (b"assert", b"terminate called", b"register dump", b"raw repl", b"mpremote")

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
