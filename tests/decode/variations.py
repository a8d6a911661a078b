"""The corpus as other people would have pasted it: ``python -m tests.decode.variations [-v] [NAME...]`` scores each kind.

Every variation keeps what the text says, so the truth of a case stays its truth.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

from tests.score_corpus import Score, cases


def _each(prefix: Callable[[int], str]) -> Callable[[str], str]:
    def change(text: str) -> str:
        lines = text.split("\n")
        return "\n".join(prefix(i) + line for i, line in enumerate(lines[:-1])) + "\n" + (prefix(len(lines)) + lines[-1] if lines[-1] else "")

    return change


def _wrap(text: str) -> str:
    """An 80-column terminal that breaks long lines, as pasted."""
    return "\n".join("\n".join(line[i : i + 80] for i in range(0, len(line), 80)) if line else line for line in text.split("\n"))


def _pairs_per_line(text: str) -> str:
    return re.sub(r"(0x[0-9a-f]{8}:0x[0-9a-f]{8}) (?=0x)", r"\1\n", text)


VARIATIONS: dict[str, Callable[[str], str]] = {
    "as it is": lambda t: t,
    "arduino time": _each(lambda i: f"12:34:{i % 60:02d}.789 -> "),
    "forum time": _each(lambda i: f"12:34:{i % 60:02d}.789 \u2192 "),
    "esphome time": _each(lambda i: f"[12:34:{i % 60:02d}]"),
    "time and space": _each(lambda i: f"[12:34:{i % 60:02d}.123] "),
    "platformio time": _each(lambda i: f"12:34:{i % 60:02d}.789 > "),
    "date comma": _each(lambda i: f"2020-01-01 12:00:{i % 60:02d},123 "),
    "date RX": _each(lambda i: f"01-02-2020 12:00:{i % 60:02d}.123 [RX] - "),
    "quote": _each(lambda i: "> "),
    "quotes": _each(lambda i: "> > "),
    "esp-link": _each(lambda i: f"  {1234 + i}> "),
    "espurna": _each(lambda i: f"[{8838 + i:06d}] [DEBUG] "),
    "quote, time": _each(lambda i: f"> 12:34:{i % 60:02d}.789 -> "),
    "quote, time, tag": _each(lambda i: f"> [12:34:{i % 60:02d}][E][logger:{i}]: "),
    "idf tag": _each(lambda i: f"E ({1000 + i}) app: "),
    "syslog": _each(lambda i: f"Jan  8 12:34:{i % 60:02d} node esp: "),
    "indent": _each(lambda i: "    "),
    "tab": _each(lambda i: "\t"),
    "list": _each(lambda i: "| "),
    "crlf": lambda t: t.replace("\r\n", "\n").replace("\n", "\r\n"),
    "cr": lambda t: t.replace("\r\n", "\n").replace("\n", "\r"),
    "cr cr lf": lambda t: t.replace("\r\n", "\n").replace("\n", "\r\r\n"),
    "double spaced": lambda t: t.replace("\r\n", "\n").replace("\n", "\n\n"),
    "escapes": lambda t: "\n".join(f"\x1b[0;31m{line}\x1b[0m" for line in t.split("\n")),
    "picture escapes": lambda t: "\n".join(f"\u241b[0;31m{line}\u241b[0m" for line in t.split("\n")),
    "bare escapes": lambda t: "\n".join(f"[0;31m{line}[0m" for line in t.split("\n")),
    "spelled escapes": lambda t: "\n".join(f"\\e[0;31m{line}\\e[0m" for line in t.split("\n")),
    "octal escapes": lambda t: "\n".join(f"\\033[0;31m{line}\\033[0m" for line in t.split("\n")),
    "spaces collapsed": lambda t: re.sub(" {2,}", " ", t),
    "trailing spaces": lambda t: "\n".join(line.ljust(145) for line in t.split("\n")),
    "newlines lost": lambda t: re.sub(r"\s*\r?\n\s*", " ", t),
    "newlines eaten": lambda t: t.replace("\r", "").replace("\n", ""),
    "wrapped": _wrap,
    "wrapped, indented": lambda t: _each(lambda i: "\t")(_wrap(t)),
    "pairs per line": _pairs_per_line,
    "typographic": lambda t: t.replace("'", "\u2019").replace('"', "\u201d"),
    "fenced": lambda t: "```\n" + t + "\n```\n",
    "backtick": lambda t: "`" + t.rstrip("\n") + "`\n",
    "html": lambda t: t.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"),
    "wrong encoding": lambda t: t.replace("'", "\u00e2\u20ac\u2122").replace(": ", ":\u00c2\u00a0"),
    "json": lambda t: t.replace("\r", "").replace("\n", "\\r\\n"),
    "marks": lambda t: t.replace("\r", "").replace("\n", "<CR><LF>\n"),
    "caret escapes": lambda t: "\n".join(f"^[[0;31m{line}^[[0m" for line in t.split("\n")),
    "json escapes": lambda t: "\n".join(f"\\u001b[0;31m{line}\\u001b[0m" for line in t.split("\n")),
    "paragraphs": lambda t: "\n".join(f"<p>{line}</p>" for line in t.split("\n")),
    "breaks": lambda t: t.replace("\r", "").replace("\n", "<br>"),
    "hard spaces": lambda t: t.replace(" ", "\u00a0"),
    "control pictures": lambda t: "\n".join(f"[12:34:56:789] {line}\u240d\u240a" for line in t.replace("\r", "").split("\n")),
    "compose": _each(lambda i: "esphome-1  | [12:34:56]"),
    "logcat": _each(lambda i: "01-02 12:34:56.789  1234  1234 D esp32   : "),
    "logging": _each(lambda i: "2024-01-01 12:34:56,789 - serial - INFO - "),
    "seconds": _each(lambda i: f"{i}.123456 [RX] "),
    "port": _each(lambda i: "[/dev/ttyUSB0] "),
    "noon": _each(lambda i: "12:34:56 PM -> "),
    "numbered": _each(lambda i: f"{i + 1:4d} | "),
    "tag": _each(lambda i: "rx: "),
    "milliseconds": _each(lambda i: f"{1612345678901 + i} "),
    "minutes": _each(lambda i: f"{i // 60:02d}:{i % 60:02d}.123 "),
    "searched": _each(lambda i: f"log.txt:{i + 1}:"),
    "numbered, tab": _each(lambda i: f"{i + 1}\t"),
    "semicolons": _each(lambda i: "; "),
    "comments": _each(lambda i: "// "),
    "rulers": _each(lambda i: "\u2502 "),
    "italic": lambda t: "\n".join(f"_{line}_" if line.strip() else line for line in t.split("\n")),
    "noise before": lambda t: "\ufffd\ufffd\x00\ufffd" + t,
    "noise between": lambda t: "\n".join("\ufffd" + line for line in t.split("\n")),
    "text around": lambda t: "Hello, my board does this:\n\n" + t + "\n\nWhat can I do?\nThanks for any hint.\n",
}


def score_variation(change: Callable[[str], str]) -> Score:
    """The score of the corpus after `change`."""
    total = Score()
    for case, log, truth in cases():
        total.add(case, change(log.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape"), truth)
    return total


def main() -> None:
    verbose = "-v" in sys.argv
    chosen = [a for a in sys.argv[1:] if a != "-v"] or list(VARIATIONS)
    for name in chosen:
        total = score_variation(VARIATIONS[name])
        shares = " ".join(f"{n}={total.share(n):.3f}" for n in ("boots", "exceptions", "panics", "backtraces", "stack words", "presence", "details", "crash shown"))
        print(f"{name:18} {shares} false={total.counts['false crashes']} faults={total.counts['faults']}", flush=True)
        if verbose:
            for case, notes in total.differences.items():
                print(f"    {case}: {'; '.join(notes)}")


if __name__ == "__main__":
    main()
