"""Which lines can begin something: one regular expression over raw bytes that decides what the decoder may skip.

A line without a match is ordinary text as long as nothing is open; that is the definition, and the skipping of whole
chunks follows from it. For speed every alternative starts with a byte that is rare in ordinary logs, so the scan of the
regex engine stays in its character-set loop: never start one with a digit, a space or one of ``e t a o i n s r``.
A test feeds the corpus with and without skipping and demands the same facts.
"""

from __future__ import annotations

import re

TRIGGER = re.compile(
    rb"""
    boot(?:\ mode|:\ ESP-IDF|:\ ?\**0|\ verif|reason|able|\ reason)|oot:0x
    |bort(?:\(\)|\ called)
    |J(?:an\ +8\ 2013|un\ +8\ 2016|ul\ 29\ 2019)
    |ROM:|Reset\ (?:[Rr]eason|[Cc]ause)|RestartReason|Rebooting|Reason\ of
    |_main\.c|_wdt:|_cal\[|_HPSYS|_R(?:ST|ESET)\)|_CPU\)|_coredump
    |xcept(?:i|\S\S?on)|xcvaddr|XCVADDR|XCCAUSE
    |k(?:>>>|\ smash|\ overflow|\ memory|\ watchdog|trace)
    |Gu|Medit|MEPC
    |'ed\ ?\(|'t\ find
    |P(?:ANIC|anic\ |ermissionError|yboard)
    |v(?:alid\ (?:head|magic|segment|partition))
    |w(?:dt\ reset|aiting\ for|nout\ |DT)
    |WDT\ reset|Write\ timeout|WERON
    |H(?:A-?256|EAP:)
    |DUMP|D\ OPERATION
    |gister\ dump
    |C(?:RASH\ DETECTED|ORE\ DUMP|UT\ HERE)
    |F(?:atalError|ailed\ to\ (?:connect|execute|load\ part|verify\ part)|alling\ back|ileNotFound)
    |f(?:atal\ (?:error|esptool)|ailed[:!]|ailed\ [\w/.]{1,120}\.c|lash\ read)
    |m_(?:sync|open|upload)|m\ err
    |d\ not\ (?:open|enter)
    |N(?:LR\ jump|o\ bootable|o\ good\ rom|o\ signature)
    |Trap\ \d
    |d:0x[0-9a-fA-F]{8},len:(?:\d{8}|0x[0-9a-fA-F]{7})
    |Errno|SerialExc|StatusSTK
    |Latest\ crash|Unable\ to\ con
    |\+CIPUPDATE|AT(?:\ version|\+GMR)|SDK\ version|MicroPython\ v
    """,
    re.VERBOSE,
)
