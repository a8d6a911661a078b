"""From tokens to facts: one open dump, one boot under way, and what the runs between boots had in common.

The interpreter sees the lines that may matter, in order; the decoder skips the others. All its state is bounded.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from espmon.decode import causes
from espmon.decode.dump import Dump, to_crash, to_reset
from espmon.decode.formats import DROP, END, FORMATS, IDLE, SPLIT, Format, Rule, idf_body
from espmon.decode.formats import esp8266 as esp8266_format
from espmon.decode.formats.rom import SENTENCES
from espmon.decode.lines import DECODED, QUIET, TORN, clean, peel
from espmon.decode.scan import Lexer, Token, source_code
from espmon.events import (
    Address,
    Boot,
    BootLoop,
    BootMode,
    CoreDump,
    DecoderFault,
    Event,
    LimitReached,
    ResetCause,
)

# A boot banner and the ROM's and loaders' lines after it: what is ambiguous elsewhere counts inside this many lines.
_BANNER_LINES = 40
# All lines that follow a banner so closely are looked at.
_WATCHED_LINES = 30
# Lines between the ROM's own line and its reset line (mail quotes put empty ones between).
_ROM_LINES = 10
# The same message again within this many lines is the same event.
_SAME_LINES = 50
# A run with more lines, or one that lasted longer, was healthy before it failed: no boot loop.
_HEALTHY_LINES = 400
_HEALTHY_SECONDS = 120.0
_MAX_SEEN = 256
_CARRY = 160
# Tasmota's JSON, wrapped by a terminal: the value under way, and how a line goes on that belongs to it.
_OPEN_JSON = re.compile(r'"(?:RestartReason|StatusSTK)\\?"\s?:?\s?(?:\{[^{}]{0,1800}|\\?"[^"{}]{0,80})?$')
_JSON_ON = re.compile(r'\s*[\w ./-]{0,40}["\],}:](?!\s\w)')
_TORN_ROW = re.compile(r"(?<!\w)[0-9a-fA-F]{8}:(?:\s{1,3}[0-9a-fA-F]{8}){0,3}\s*$")
_CORE_DUMP_FOREIGN = 4
# What some tool or person put before every line; longer ones are text.
_LONGEST_SHARED = 60
_SHORTEST = 12
_NEARLY = 0.85  # of the letters
_NEAR_LINE = 200
_SHARED_END = re.compile(r"(?<![^\W\d])(?<![^\W\d] )$")  # no prefix ends with a word: what follows would be the rest of a sentence
_OWN = re.compile(r"0x|(?<![0-9a-fA-F])[0-9a-fA-F]{8}(?![0-9a-fA-F])|#\d")  # addresses, and the numbers of frames, belong to the dump
_DIGITS = str.maketrans("123456789", "000000000")
# Comments, headings and lists: what one line of them says is told, not printed. So is what one speaker of a chat says.
_COMMENTED = re.compile(r"\s{0,8}(?:#{1,6}|/{2,3}|\*|--|;)\s")

_ENDED = "ended"
_GUESSED = frozenset({"reg-damaged"})
_BANNERS = frozenset({"rom-32", "rom-date", "boot-32", "boot-32-rough", "boot-32-cut", "boot-32-tail", "boot-8266"})

_LEXER = Lexer(spec for fmt in FORMATS for spec in fmt.tokens)
_STARTERS: dict[str, list[tuple[Format, Rule]]] = {}
_FACTS: dict[str, tuple[Format, Callable[[Any, Token], None]]] = {}
for _format in FORMATS:
    for (_state, _kind), _rule in _format.table.items():
        if _state == IDLE:
            _STARTERS.setdefault(_kind, []).append((_format, _rule))
    for _kind, _action in _format.facts.items():
        _FACTS[_kind] = (_format, _action)
_MEANT = _STARTERS.keys() | _FACTS.keys()  # kinds of tokens that mean something where nothing is open
_INSIDE = frozenset(spec.kind for fmt in FORMATS for spec in fmt.tokens if spec.inside)
_INSIDE_OF = {fmt.name: frozenset(kind for _, kind in fmt.table if kind in _INSIDE) for fmt in FORMATS}
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/= ")


_SENTENCES = tuple((sentence, tuple(sorted(Counter(sentence).items()))) for sentence in SENTENCES)
_LONGEST = min(_LONGEST_SHARED, int(max(map(len, SENTENCES)) * (2 / _NEARLY - 1)) + 1)  # no longer line is nearly one


def _could_be(line: str, length: int, letters: tuple[tuple[str, int], ...]) -> bool:
    """False when `line` holds too few of a sentence's letters, in whatever order, to be nearly that sentence: the bounds
    that difflib begins with, without its tables (most lines after a boot are asked)."""
    least = _NEARLY * (length + len(line)) / 2 - 0.01
    if len(line) < least:
        return False
    for letter, count in letters:
        missing = count - line.count(letter)
        if missing > 0:
            length -= missing
            if length < least:
                return False
    return length >= least


@dataclass(slots=True)
class _Banner:
    """A boot whose lines are still coming."""

    line: int
    end_line: int
    at: float | None
    chip: str | None
    rom: str | None
    reset: ResetCause | None = None
    mode: BootMode | None = None
    saved_pc: list[Address] = field(default_factory=list)
    blank: int = 0


class Interpreter:
    """Consumes lines, collects events in :attr:`out`."""

    def __init__(
        self, *, file: str | None, port: str | None, chip: str | None, previous: Callable[[], bytes] = lambda: b""
    ) -> None:
        self.out: list[Event] = []
        self.chip = chip
        self.full = ""
        self._file = file
        self._port = port
        self._dump: Dump | None = None
        self._carry = ""
        self._learned = 0  # how long the prefix of this line was that no pattern knows
        self._held: tuple[Token, Callable[[Any, Token], None]] | None = None
        self._banner: _Banner | None = None
        self.boots = 0
        self._rom: str | None = None  # what the board's ROM called itself
        self._line = 0
        self._at: float | None = None
        self._banner_line = -_BANNER_LINES
        self._watch_until = 0
        self._seen: dict[str, int] = {}
        self._core_dump: tuple[int, float | None, str] | None = None
        self._core_foreign = 0
        self._core_part = False
        self._previous = previous  # the line before the present one
        # boot loop: the failure of this run and of the one before, where and when this run began
        self._failed: str | None = None
        self._failed_before: str | None = None
        self._alike = 1
        self._run_line = 0
        self._run_at: float | None = None
        self._period: float | None = None

    # --- what the decoder asks -------------------------------------------------------------------------------------

    @property
    def engaged(self) -> bool:
        """True while lines without any mark of their own matter."""
        return self._line < self._watch_until or self.open or bool(self._carry)

    @property
    def open(self) -> bool:
        """True while a fact waits for lines that may still come."""
        return (
            self._dump is not None or self._banner is not None or self._core_dump is not None or self._held is not None
        )

    def line(self, raw: bytes, number: int, at: float | None) -> None:
        """One line, without its newline."""
        self._line, self._at = number, at
        try:
            text = clean(raw)
        except Exception as error:  # noqa: BLE001 - the guard around our own bugs: the stream goes on
            self._fault("lines", error)
            return
        self.full = text
        if "\r" in text or ("\\n" in text and not source_code(text[: text.index("\\n")])):
            for part in text.replace("\\r\\n", "\r").replace("\\n", "\r" if text.count("\\n") > 2 else "\\n").split("\r"):
                self._part(part)
        else:
            self._part(text)

    def finish(self, reason: str) -> None:
        """Closes what is open: at the end of the text (``eof``) or when a board fell silent (``deadline``)."""
        self._let_go([])
        self._close_dump(reason)
        self._flush_banner()
        self._close_core_dump(complete=False)
        self._carry = ""

    # --- lines -----------------------------------------------------------------------------------------------------

    def _part(self, text: str) -> None:
        text = peel(text, continued=bool(self._carry))
        blank = not text.strip()
        tokens: list[Token] = []
        quiet = not blank and not self._carry and QUIET.fullmatch(text) is not None
        if not blank and not quiet:
            try:
                text, tokens = self._tokens(text)
                shared = self._learned = self._shared(text, tokens)
                if shared:
                    text = text[shared:]
                    tokens = self._scan(text)
                elif not tokens and self.in_banner:
                    text, tokens = self._nearly(text, tokens)
            except Exception as error:  # noqa: BLE001 - guard
                self._fault("lexer", error)
        if self._held is not None and not blank:
            self._let_go(tokens)
        if not blank and self._dump is not None and self._dump.state == _ENDED and not any(t.kind in _BANNERS for t in tokens[:1]):
            self._close_dump("end")
        banner = self._banner
        if banner is not None and not blank:
            if any(t.kind == "saved-pc" for t in tokens):
                pass
            elif banner.reset is not None:
                if not DECODED.match(text):
                    self._flush_banner()
            else:
                banner.blank += 1
                if banner.blank > _ROM_LINES:
                    self._flush_banner()
        before = self._dump
        used = False
        for token in tokens:
            used = self._token(token) or used
        if self._core_dump is not None and not blank and not tokens:
            self._core_dump_line(text)
        dump = self._dump
        rest = text[max(t.end for t in tokens) :] if tokens else text
        open_json = _OPEN_JSON.search(text) if "Re" in text or "STK" in text else None
        if self._held is not None:
            if not blank:
                self._carry = text[self._held[0].start :]
        elif open_json is not None and not blank:
            self._carry = open_json[0]
        elif blank:
            pass  # what a line left over waits for the next line with text
        elif quiet or len(rest) > _CARRY or not rest.strip():
            self._carry = ""
        elif (dump is not None and dump.format.joins) or TORN.search(rest):
            self._carry = rest
        else:
            self._carry = ""
        if dump is None:
            return
        if used:
            dump.foreign = 0
            dump.end_line = max(dump.end_line, self._line)
        elif dump is before and not dump.has_body and text.strip() in ("*/", "-->"):
            self._dump = None  # a comment in source code that quotes a crash
        elif dump is before and not blank and not DECODED.match(text):
            dump.foreign += 1
            if dump.foreign > (dump.format.patience if dump.strong else min(4, dump.format.patience)):
                self._close_dump("foreign")

    def _let_go(self, tokens: list[Token]) -> None:
        """The line after a held token: either it went on here, then the first token is the whole, or it is what it is."""
        if self._held is None:
            return
        (token, otherwise), self._held = self._held, None
        if not tokens or tokens[0].start > 0 or tokens[0].kind not in ("boot-32", "guru", "tasmota-crash", "reset-info"):
            try:
                otherwise(self, token)
            except Exception as error:  # noqa: BLE001 - guard
                self._fault("rom", error)

    def _tokens(self, text: str) -> tuple[str, list[Token]]:
        """The tokens of a line; with what a wrapped line before it left over put in front, when that makes one whole."""
        if self._carry:
            carry, self._carry = self._carry, ""
            if carry.startswith('"') and _OPEN_JSON.match(carry) and not _JSON_ON.match(text):
                return text, self._scan(text)
            wholes = [carry + text]
            if text[:1].isspace() and (carry[-1:].isalnum() or carry.startswith('"')):
                wholes.insert(0 if carry.startswith('"') else 1, carry + text.lstrip())  # wrapped first, indented later
            if _TORN_ROW.search(carry):
                wholes.append(f"{carry.rstrip()} {text.lstrip()}")  # a paragraph: the newline took the place of a space
            alone = self._scan(text)
            first = alone[0] if alone else None
            for whole in wholes:
                joined = self._scan(whole)
                if joined and joined[0].start < len(carry) < joined[0].end and joined[0].kind not in _GUESSED:
                    # what stands whole in this line alone doesn't need the carry
                    if first is None or first.start > 0 or (first.kind, first.groups) != (joined[0].kind, joined[0].groups):
                        return whole, joined
            # Torn twice: the three parts may still make a whole.
            return (text if alone else carry + text), alone
        return text, self._scan(text)

    def _shared(self, text: str, tokens: list[Token]) -> int:
        """How long the beginning is that this line has in common with the one before it, digits aside, when a token stands
        right behind it: a prefix of a tool that isn't known here, or of somebody who pasted a log as comments."""
        first = tokens[0] if tokens else None
        if first is None or not 0 < first.start <= _LONGEST_SHARED or (self._dump is None and first.kind not in _MEANT):
            return 0
        before = text[: first.start]
        if first.leads or _SHARED_END.search(before) is None or _OWN.search(before) is not None:
            return 0
        before = before.translate(_DIGITS)
        previous = peel(self.previous[:_NEAR_LINE]).translate(_DIGITS)
        return len(before) if previous.startswith(before) or previous.strip() == before.strip() else 0

    def _nearly(self, text: str, tokens: list[Token]) -> tuple[str, list[Token]]:
        """A line of a boot whose letters are damaged, as what it nearly is."""
        line = text.strip()
        if not _SHORTEST <= len(line) <= _LONGEST:
            return text, tokens
        alike = [sentence for sentence, letters in _SENTENCES if _could_be(line, len(sentence), letters)]
        near = difflib.get_close_matches(line, alike, 1, _NEARLY) if alike else None
        return (near[0], self._scan(near[0])) if near else (text, tokens)

    def _scan(self, text: str) -> list[Token]:
        """The tokens of a line that mean something here."""
        tokens = _LEXER.scan(text, self._line)
        if not tokens:
            return tokens
        found = {t.kind for t in tokens}
        if found & _INSIDE:
            dump = self._dump
            mine = frozenset() if dump is None else frozenset(k for k in _INSIDE_OF[dump.format.name] if (dump.state, k) in dump.format.table)
            # A dump that begins in this very line (newlines were lost) brings its own.
            begun = frozenset().union(*(_INSIDE_OF[fmt.name] for kind in found for fmt, _ in _STARTERS.get(kind, ())))
            if not found & _INSIDE <= mine | begun:
                tokens = _LEXER.scan(text, self._line, without=_INSIDE - mine - begun)  # they may have hidden others
        return tokens

    def _token(self, token: Token) -> bool:
        fact = _FACTS.get(token.kind)
        if fact is not None:
            fmt, act = fact
            try:
                act(self, token)
            except Exception as error:  # noqa: BLE001 - guard
                self._fault(fmt.name, error)
            dump = self._dump
            if dump is not None:
                dump.foreign = max(0, dump.foreign - 1)
            return False
        return self.dump_token(token)

    def dump_token(self, token: Token) -> bool:
        """A token for the open dump, or one that begins a dump; false when it is neither."""
        dump = self._dump
        if dump is not None:
            rule = dump.format.table.get((dump.state, token.kind))
            if rule is not None:
                result = self._apply(dump, rule, token)
                if result == DROP:
                    return False
                if result != SPLIT:
                    if result == END:
                        dump.end_line = token.line
                        if dump.chip is None and self.chip is None and dump.report is None:
                            dump.state = _ENDED  # the banner that follows may name the chip
                        else:
                            self._close_dump("end")
                    else:
                        dump.state = result
                    return True
        return self._start(token)

    def _start(self, token: Token) -> bool:
        for fmt, rule in _STARTERS.get(token.kind, ()):
            dump = Dump(format=fmt, state=IDLE, line=token.line, end_line=token.line, at=self._at, boot=self.boots)
            result = self._apply(dump, rule, token)
            if result in (DROP, SPLIT):
                continue
            old = self._dump
            if old is not None:
                if token.kind == "epc" and "told" in old.marks:
                    dump.number, dump.name, dump.strong = old.number, old.name, True  # its header was taken for the old one's
                self._close_dump("new")
            self._flush_banner()
            dump.boot = self.boots
            dump.state = result
            if self._learned or _COMMENTED.match(peel(self.full[:_NEAR_LINE])):
                dump.marks.add("commented")
            self._dump = dump
            if token.kind == "epc":
                esp8266_format.garbled_header(dump, peel(clean(self._previous())))
            elif token.kind == "reg":
                idf_body.lost_header(dump, clean(self._previous()))
            if result == END:
                self._close_dump("end")
            return True
        return False

    def _apply(self, dump: Dump, rule: Rule, token: Token) -> str:
        try:
            result = rule.action(dump, token) if rule.action is not None else None
        except Exception as error:  # noqa: BLE001 - guard
            self._fault(dump.format.name, error)
            return DROP
        return result or rule.to

    def _fault(self, name: str, error: Exception) -> None:
        self._dump = None
        self._carry = ""
        self.out.append(
            DecoderFault(
                file=self._file,
                port=self._port,
                line=self._line,
                end_line=self._line,
                at=self._at,
                boot=self.boots,
                format=name,
                error=f"{type(error).__name__}: {error}"[:300],
            )
        )

    # --- dumps -----------------------------------------------------------------------------------------------------

    def _close_dump(self, reason: str, chip: str | None = None) -> None:
        dump, self._dump = self._dump, None
        if dump is None:
            return
        try:
            self._emit_dump(dump, reason, chip)
        except Exception as error:  # noqa: BLE001 - guard
            self._fault(dump.format.name, error)

    def _emit_dump(self, dump: Dump, reason: str, chip: str | None) -> None:
        if dump.limit is not None:
            self.out.append(LimitReached(**self._where(dump.line, dump.end_line, dump.at), what=dump.limit))
        if reason in ("banner", "end") and dump.kind in ("assert", "stack-smashing") and dump.message:
            dump.strong = True
        if not dump.strong or dump.kind == "terminate":
            return
        if "commented" in dump.marks and reason not in ("banner", "end") and not dump.has_body and dump.elf_sha256 is None:
            return
        if dump.report is not None:
            self.out.append(to_reset(dump, file=self._file, port=self._port, rom=self._rom))
            return
        self._settle_chip(dump, chip)
        complete = dump.format.complete(dump, reason) if dump.format.complete is not None else dump.ended
        crash = to_crash(dump, file=self._file, port=self._port, complete=complete and not dump.cut, rom=self._rom)
        self.out.append(crash)
        place = crash.registers.get("epc1", crash.registers.get("pc", crash.registers.get("mepc")))
        if place is None and crash.backtraces:
            place = crash.backtraces[0][0].pc
        number = crash.exception.number if crash.exception else None
        if crash.kind == "panic" and place is None and number is None and not crash.message:
            return  # too vague to be called the same failure twice
        self._failure(f"crash: {crash.kind}{'' if number is None else f' {number}'}{f' at {place}' if place else ''}", dump.end_line, dump.at)

    def _settle_chip(self, dump: Dump, chip: str | None) -> None:
        known = chip or self.chip
        if dump.chip is None:
            # The RTOS SDK of the ESP8266 prints ESP32-like registers, but neither EXCVADDR nor the loop registers.
            if "exccause" in dump.registers and "sar" in dump.registers and not {"excvaddr", "lbeg"} & set(dump.registers):
                if known in (None, "esp8266"):
                    dump.chip = "esp8266"
            else:
                dump.chip = known
        if dump.chip is None and 0x40100000 <= dump.registers.get("a0", 0) < 0x40300000 and 0x40100000 <= dump.registers.get("pc", 0) < 0x40300000:
            dump.chip = "esp8266"  # no register windows: its return addresses are plain ones
        if dump.chip is None and dump.framework == "esp-idf":
            pcs = [pc for frames in dump.backtraces for pc, _ in frames] + [v for k, v in dump.registers.items() if k == "pc"]
            sps = [sp for frames in dump.backtraces for _, sp in frames if sp is not None]
            if "mepc" not in dump.registers and sps:
                # Registers or an abort without any: no RISC-V chip prints such.
                xtensa = "ps" in dump.registers or "excvaddr" in dump.registers or "abort-pc" in dump.marks
                if xtensa and any(0x42000000 <= pc < 0x44000000 for pc in pcs):
                    dump.chip = "esp32s3"  # the only Xtensa chip with its flash mapped there
                elif 0x3FFA0000 <= sps[0] < 0x40000000 and any(0x400D0000 <= pc < 0x40400000 for pc in pcs):
                    # The S2 has its flash there as well, and its RAM for code below.
                    dump.chip = None if any(0x40020000 <= pc < 0x40070000 for pc in pcs) else "esp32"
        if dump.framework == "nonos-sdk" and known is not None and known.startswith("esp32"):
            dump.chip, dump.framework = known, None  # the same handler in the ROMs of the ESP32 and S2
        if dump.chip == "esp8266" and dump.framework == "esp-idf":
            dump.framework = "rtos-sdk"

    def _where(self, line: int, end_line: int, at: float | None) -> dict[str, Any]:
        return {"file": self._file, "port": self._port, "line": line, "end_line": end_line, "at": at, "boot": self.boots}

    # --- facts, called by formats -----------------------------------------------------------------------------------

    def emit(self, event: type[Event], token: Token, **facts: Any) -> None:
        """One event that stands on the token's line."""
        if self._banner is not None and self._banner.reset is not None:
            self._flush_banner()
        self.out.append(event(**self._where(token.line, token.line, self._at), **facts))

    def once(self, key: str, event: type[Event], token: Token, **facts: Any) -> None:
        """The same, but not again while the same message repeats."""
        last = self._seen.get(key)
        if len(self._seen) >= _MAX_SEEN:
            self._seen.clear()
        self._seen[key] = self._line
        if last is None or self._line - last > _SAME_LINES:
            self.emit(event, token, **facts)

    def already(self, prefix: str) -> bool:
        """True when a message with this key prefix was stated in the present boot."""
        return any(key.startswith(prefix) for key in self._seen)

    @property
    def previous(self) -> str:
        """The line before this one."""
        return clean(self._previous())

    @property
    def in_banner(self) -> bool:
        """True within the lines that a ROM or boot loader prints after a reset."""
        return self._line - self._banner_line <= _BANNER_LINES

    @property
    def on_banner_line(self) -> bool:
        """True on the line of a boot banner itself, where newlines were lost."""
        return self._line == self._banner_line

    @property
    def rom_chip(self) -> str | None:
        """The chip whose ROM line was just read, or the chip known before."""
        if self._banner is not None and self._banner.reset is None and self._banner.chip is not None:
            return self._banner.chip
        return self.chip

    def rom(self, token: Token, *, chip: str | None, rom: str) -> None:
        """The ROM's own line begins a boot."""
        if self.chip in (None, chip):
            self._rom = rom  # of what crashed before it as well
        self._close_dump("banner", chip)
        self._flush_banner()
        self._banner = _Banner(line=token.line, end_line=token.line, at=self._at, chip=chip, rom=rom)
        self._banner_line = token.line
        self._watch_until = token.line + _WATCHED_LINES

    def boot(
        self,
        token: Token,
        *,
        chip: str | None,
        rom: str | None,
        reset: ResetCause | None,
        mode: BootMode | None,
    ) -> None:
        """The reset line of a boot; the ROM's own line may stand before it."""
        banner = self._banner
        if banner is None or banner.reset is not None or banner.mode is not None:
            self._close_dump("banner", chip)
            self._flush_banner()
            banner = _Banner(line=token.line, end_line=token.line, at=self._at, chip=chip, rom=rom)
            self._banner = banner
        banner.end_line = token.line
        banner.chip = chip or banner.chip
        banner.rom = rom or banner.rom
        banner.reset, banner.mode = reset, mode
        self._banner_line = token.line
        self._watch_until = token.line + _WATCHED_LINES
        if banner.chip in ("esp8266", "esp32"):
            self._flush_banner()  # their ROMs print no saved PC

    def hold(self, token: Token, otherwise: Callable[[Any, Token], None]) -> None:
        """The token may go on in the next line; `otherwise` is called when it doesn't."""
        self._held = (token, otherwise)

    def saved_pc(self, pc: int) -> None:
        """`Saved PC` of the boot under way."""
        if self._banner is not None and len(self._banner.saved_pc) < 4:
            self._banner.saved_pc.append(Address(pc))
            self._banner.end_line = self._line

    def _flush_banner(self) -> None:
        banner, self._banner = self._banner, None
        if banner is None:
            return
        self._close_core_dump(complete=False)
        boot = Boot(
            **self._where(banner.line, banner.end_line, banner.at),
            chip=banner.chip,
            rom=banner.rom,
            reset=banner.reset,
            boot_mode=banner.mode,
            saved_pc=tuple(banner.saved_pc),
        )
        self._begin_run(boot)

    def _begin_run(self, boot: Boot) -> None:
        self.out.append(boot)
        self.boots += 1
        if boot.rom is not None or boot.chip not in (None, self.chip):
            self._rom = boot.rom
        if boot.chip is not None:
            self.chip = boot.chip
        self._seen.clear()
        self._next_run(boot)

    def insert(self, event: Event) -> None:
        """An event from elsewhere, at the place where the text is now."""
        place: dict[str, Any] = {"file": self._file, "port": self._port, "boot": self.boots}
        if isinstance(event, Boot):
            self._close_dump("banner", event.chip)
            self._flush_banner()
            self._close_core_dump(complete=False)
            self._begin_run(replace(event, **place | {"boot": self.boots}))
        else:
            self.out.append(replace(event, **place))

    def begin_core_dump(self, token: Token, kind: str, *, part: bool = False) -> None:
        """`CORE DUMP START`; `part`: something from the middle, whose beginning may be lost."""
        if part and self._core_dump is not None and self._core_dump[2] == kind:
            return
        self._core_part = part
        self._close_core_dump(complete=False)
        self._core_dump = (token.line, self._at, kind)
        self._core_foreign = 0

    def end_core_dump(self, token: Token, kind: str = "base64") -> None:
        """`CORE DUMP END`; an end without a start is a dump whose beginning is lost."""
        if self._core_dump is None:
            self.emit(CoreDump, token, format=kind, complete=False)
        else:
            self._close_core_dump(complete=not self._core_part)

    def _core_dump_line(self, text: str) -> None:
        if self._core_dump is not None and self._core_dump[2] == "base64" and not _BASE64.issuperset(text.strip("`>- ")):
            self._core_foreign += 1
            if self._core_foreign > _CORE_DUMP_FOREIGN:
                self._close_core_dump(complete=False)

    def _close_core_dump(self, *, complete: bool) -> None:
        if self._core_dump is None:
            return
        (line, at, kind), self._core_dump = self._core_dump, None
        self.out.append(CoreDump(**self._where(line, max(line, self._line), at), format=kind, complete=complete))

    # --- boot loops -------------------------------------------------------------------------------------------------

    def failure(self, signature: str, token: Token) -> None:
        """This run failed in a way of its own."""
        self._failure(signature, token.line, self._at)

    def _failure(self, signature: str, line: int, at: float | None) -> None:
        if self._failed is not None:
            return
        if self._banner is not None and self._banner.reset is not None:
            self._flush_banner()
        self._failed = signature
        healthy = line - self._run_line > _HEALTHY_LINES
        if at is not None and self._run_at is not None and at - self._run_at > _HEALTHY_SECONDS:
            healthy = True
        if healthy or signature != self._failed_before:
            self._alike = 1
            return
        self._alike += 1
        remedies = (
            "Look at the failure that repeats; espmon can write a known-good image back when it is told to.",
            *causes.BROWNOUT[1][:1],
        )
        self.out.append(
            BootLoop(
                **self._where(line, max(line, self._line), at),
                boots=self._alike,
                period_s=self._period,
                cause=signature,
                remedies=remedies,
            )
        )

    def _next_run(self, boot: Boot) -> None:
        if self._failed is None and boot.reset is not None and boot.reset.abnormal:
            self._failure(f"reset: {boot.reset.name or boot.reset.code}", boot.line or 0, boot.at)
        if self._failed is None:
            self._alike = 1
        self._failed_before, self._failed = self._failed, None
        if boot.at is not None and self._run_at is not None:
            self._period = round(boot.at - self._run_at, 3)
        self._run_line = boot.line or 0
        self._run_at = boot.at
