"""Scores the decoder on tests/corpus: ``python -m tests.score_corpus [FOLDER] [-v]`` prints what it finds and misses.

A case is a folder with ``log.txt`` and ``truth.json`` (tests/corpus/README.md). What the truth marks as nested, as part
of another message or as hinted at only isn't demanded; reports of earlier crashes may be `reset` or `crash` events.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from espmon.decode import Decoder
from espmon.decode.causes import exception_number
from espmon.events import Text, to_json_object

CORPUS = Path(__file__).parent / "corpus"
PRESENCE = ("flash-error", "download-mode", "brownout", "core-dump", "boot-loop", "host-error")
MAY_CRASH = {
    "exception", "panic", "abort", "assert", "lua-panic", "stack-overflow", "heap-corruption", "oom", "cache-error",
    "wdt", "stack-dump", "coredump", "brownout",
}  # fmt: skip
Facts = list[dict[str, Any]]


def facts_of(log: bytes, chunk: int = 65536) -> Facts:
    """What the decoder says about `log`, as JSON objects, without the text."""
    decoder = Decoder(file="log.txt")
    events = [e for i in range(0, len(log), chunk) for e in decoder.feed(log[i : i + chunk])] + decoder.close()
    return [json.loads(json.dumps(to_json_object(e))) for e in events if not isinstance(e, Text)]


def cases(folder: Path = CORPUS) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """(name, log, truth) of each case."""
    for truth in sorted(folder.glob("*/truth.json")):
        yield truth.parent.name, (truth.parent / "log.txt").read_bytes(), json.loads(truth.read_text("utf-8"))


def _address(value: Any) -> int:
    return int(str(value), 16)


def _registers(fact: dict[str, Any]) -> dict[str, int]:
    return {name: _address(value) for name, value in fact.get("registers", {}).items()}


def _common(wanted: list[Any], found: list[Any]) -> int:
    """How many of `wanted` are in `found`, in order."""
    matcher = SequenceMatcher(None, wanted, found, autojunk=False)
    return sum(block.size for block in matcher.get_matching_blocks())


@dataclass
class Score:
    """Counts over all cases, and what differed in each."""

    counts: Counter[str] = field(default_factory=Counter)
    differences: dict[str, list[str]] = field(default_factory=dict)

    def share(self, name: str) -> float:
        """found / (wanted + invented); 1.0 where nothing was wanted."""
        wanted = self.counts[f"{name} wanted"] + self.counts[f"{name} invented"]
        return self.counts[f"{name} found"] / wanted if wanted else 1.0

    def add(self, case: str, log: bytes, truth: dict[str, Any]) -> None:
        notes: list[str] = []
        facts = facts_of(log)
        crashes = [f for f in facts if f["type"] in ("crash", "reset")]
        self._boots(truth, facts, notes)
        self._crashes(truth, crashes, notes)
        self._addresses(truth, crashes, notes)
        self._presence(truth, facts, notes)
        faults = [f for f in facts if f["type"] == "decoder-fault"]
        self.counts["faults"] += len(faults)
        notes += [f"fault: {f['error']}" for f in faults]
        if notes:
            self.differences[case] = notes

    def _count(self, name: str, found: int, wanted: int, invented: int, notes: list[str]) -> None:
        self.counts[f"{name} found"] += found
        self.counts[f"{name} wanted"] += wanted
        self.counts[f"{name} invented"] += invented
        if found != wanted or invented:
            notes.append(f"{name}: {found} of {wanted}, {invented} invented")

    def _boots(self, truth: dict[str, Any], facts: Facts, notes: list[str]) -> None:
        def told(fact: dict[str, Any]) -> tuple[Any, Any]:
            raw = (fact["boot_mode"] or {}).get("raw")
            mode = None if raw is None else tuple(int(x) for x in raw.split(",")) if "," in raw else _address(raw)
            return (fact["reset"] or {}).get("code"), mode

        wanted = []
        for boot in truth.get("boots", []):
            mode = tuple(boot["boot_mode"]) if "boot_mode" in boot else None
            wanted.append((boot.get("reset_cause"), _address(boot["boot_strap"]) if "boot_strap" in boot else mode))
        found = [told(f) for f in facts if f["type"] == "boot" and told(f) != (None, None)]
        right = _common(wanted, found)
        self._count("boots", right, len(wanted), len(found) - right, notes)

    def _crashes(self, truth: dict[str, Any], crashes: Facts, notes: list[str]) -> None:
        left = list(crashes)
        wanted: list[tuple[str, int | None, dict[str, int], bool]] = []
        for e in truth.get("exceptions", []):
            regs = {k: _address(v) for k, v in e.get("registers", {}).items()}
            optional = bool("part_of" in e or e.get("nested") or (truth.get("decoded_only") and not regs))
            wanted.append(("exceptions", e["number"], regs, optional))
        dumps = {d.get("panic"): d for d in truth.get("register_dumps", []) if not d.get("second_core")}
        for i, panic in enumerate(truth.get("panics", [])):
            regs = {k.lower(): _address(v) for k, v in dumps.get(i, {}).get("registers", {}).items()}
            wanted.append(("panics", exception_number(panic["reason"] or ""), regs, bool(panic.get("nested"))))
        if None in dumps:
            regs = {k.lower(): _address(v) for k, v in dumps[None]["registers"].items()}
            wanted.append(("panics", None, regs, False))
        for name, number, regs, optional in sorted(wanted, key=lambda w: w[3]):
            for fact in left:
                told = (fact["exception"] or {}).get("number")
                same = told == number or (name == "panics" and None in (told, number))
                if same and regs.items() <= _registers(fact).items():
                    left.remove(fact)
                    self._count(name, 1, 1, 0, notes)
                    break
            else:
                if not optional:
                    self._count(name, 0, 1, 0, notes)
        if truth["must_crash"]:
            self._count("crash shown", int(bool(crashes)), 1, 0, notes)
        if truth.get("near_miss") or not set(truth["kind"]) & MAY_CRASH:
            false = [f for f in crashes if f["type"] == "crash"]
            self.counts["false crashes"] += len(false)
            notes += [f"false crash in line {f['line']}: {f['kind']}" for f in false]

    def _addresses(self, truth: dict[str, Any], crashes: Facts, notes: list[str]) -> None:
        def pairs(frames: list[dict[str, Any]]) -> tuple[tuple[int, int | None], ...]:
            return tuple((_address(f["pc"]), _address(f["sp"]) if f.get("sp") else None) for f in frames)

        wanted = [pairs(b["frames"]) for b in truth.get("backtraces", [])]
        found = [pairs(b) for c in crashes if c["type"] == "crash" for b in c["backtraces"]]
        right = _common(wanted, found)
        self._count("backtraces", right, len(wanted), len(found) - right, notes)
        words = [_address(w) for w in truth.get("stack", {}).get("code_words", [])]
        if truth["chip"] == "esp8266" or words:
            told = [_address(w) for c in crashes for s in c["stacks"] for w in s["code_words"]]
            right = _common(words, told)
            self._count("stack words", right, len(words), len(told) - right, notes)

    def _presence(self, truth: dict[str, Any], facts: Facts, notes: list[str]) -> None:
        types = {f["type"] for f in facts}
        for name in PRESENCE:
            wanted = name in truth["must_show"]
            extra = name in types and not wanted and name not in truth["may_show"]
            self._count("presence", int(wanted and name in types), int(wanted), int(extra), notes)
        said = json.dumps(facts, ensure_ascii=False)
        for key in ("elf_sha256", "task"):
            if key in truth:
                self._count("details", int(str(truth[key])[:9] in said), 1, 0, notes)
        if "last_failed_alloc" in truth:
            alloc = truth["last_failed_alloc"]
            right = any((f.get("last_failed_alloc") or {}).get("size") == alloc["size"] for f in facts)
            self._count("details", int(right), 1, 0, notes)
        if "panic_location" in truth:
            place = truth["panic_location"]
            right = any((f.get("location") or {}).get("line") == place["line"] for f in facts)
            self._count("details", int(right), 1, 0, notes)


def score(folder: Path = CORPUS) -> Score:
    """The score of all cases of a folder."""
    total = Score()
    for case, log, truth in cases(folder):
        total.add(case, log, truth)
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=CORPUS)
    parser.add_argument("-v", "--verbose", action="store_true", help="say what differs in each case")
    options = parser.parse_args()
    total = score(options.folder)
    if options.verbose:
        for case, notes in total.differences.items():
            print(f"{case}: {'; '.join(notes)}")
    for name in ("boots", "exceptions", "panics", "backtraces", "stack words", "presence", "details", "crash shown"):
        counts = total.counts
        print(f"{name:12} {total.share(name):.3f}  {counts[f'{name} found']} of {counts[f'{name} wanted']}, {counts[f'{name} invented']} invented")
    print(f"false crashes {total.counts['false crashes']}, decoder faults {total.counts['faults']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
