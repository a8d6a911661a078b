"""The monitor of one port: what a person uses every day. Wires port, decoder, symbols, screen and keyboard together.

The calling thread (the main one) is the only owner of the screen; the port has a thread of its own, so has the keyboard
and so have the symbols. Nothing that a person or a slow ELF does makes the port wait.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espmon.app.keys import Keyboard, KeyMachine, Typed, help_lines
from espmon.app.keys import Wish as KeyWish
from espmon.app.listener import Decodes, Flash, Listener, Run, Send, download_sequence, reset_sequence
from espmon.app.outbox import Item, Outbox, Slot
from espmon.app.rate import RateFollower, follower_at
from espmon.errors import (
    EXIT_BOOT_LOOP_SEEN,
    EXIT_CRASH_SEEN,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_TIMEOUT,
    ElfUnusable,
    OutputUnwritable,
    PortProblem,
)
from espmon.events import BootLoop, Crash, DecoderFault, DownloadMode, Event, PortChanged, Reset, ResetCaused, Text
from espmon.port import SerialPort
from espmon.sinks.console import Console
from espmon.sinks.jsonl import JsonLines
from espmon.sinks.lines import LEVELS, LineRules, LineWatch, compile_pattern
from espmon.sinks.rawlog import RawLog
from espmon.sinks.screen import NullScreen, OutputClosed, Screen, forget_output
from espmon.sinks.textlog import TextLog
from espmon.sinks.words import Tone
from espmon.values import Value, positional_value, value

if TYPE_CHECKING:
    from types import FrameType

    from espmon.app.explainer import Explainer

IDLE_S = 0.1  # after this long without a byte, an unfinished letter or line is shown as it is
LAST_WORDS_S = 5.0  # how long the end waits for a crash that is still being looked up
PIPED_AHEAD = 65536  # bytes of piped input that are read ahead of what the board has taken
FIRST_LINE_S = 0.05  # how long the decoder's imports wait for it; the system holds what the board says meanwhile
LOOK_UP_S = 1.0  # the longest wait: a signal that comes just before one begins doesn't end it, its handler runs afterwards
IN_ORDER_S = 10.0  # how long later events are held back for one that is being looked up


@value
class MonitorOptions(Value):
    """What the command line asks for. `baud` None: find it out. Patterns are regular expressions as typed."""

    port: str
    baud: int | None = None
    elfs: Sequence[str] = ()
    log: str | None = None
    raw_log: str | None = None
    timestamps: bool = False
    level: str | None = None
    filters: Sequence[str] = ()
    excludes: Sequence[str] = ()
    eol: str | None = None
    repl: bool = False
    until: str | None = None
    fail_on: Sequence[str] = ()
    timeout_s: float | None = None
    json: bool = False
    lines: bool = False
    source_roots: Sequence[str] = ()
    all_stack_words: bool = False
    reconnect: bool = True
    reset: bool = False
    images: Sequence[tuple[int, str]] = ()
    colour: str = "auto"


@positional_value
class _Ended(Value):
    """The listener's thread has ended."""


@positional_value
class _Signalled(Value):
    number: int


@positional_value
class _ElfProblem(Value):
    problem: ElfUnusable


class Monitor:
    """One run of the monitor: :meth:`run` returns the exit status (``docs/exit-codes.md``).

    Raises `UsageProblem` for a pattern that is none, `PortProblem` when the port can't be opened (or is gone, without
    reconnecting), `LogUnwritable` for a log file. `screen` and `rate` are for tests and for the rate's own issue.
    """

    def __init__(
        self,
        options: MonitorOptions,
        *,
        screen: Screen | None = None,
        rate: RateFollower | None = None,
        port: SerialPort | None = None,
    ) -> None:
        self.options = options
        self._port = port  # one that the daemon holds; None: open our own
        rules = LineRules(
            [compile_pattern(each, "--filter") for each in options.filters],
            [compile_pattern(each, "--exclude") for each in options.excludes],
            options.level,
        )
        watch = LineWatch(compile_pattern(options.until, "--until")) if options.until is not None else None
        self._log = TextLog(options.log) if options.log else None
        self._raw_log = RawLog(options.raw_log) if options.raw_log else None
        self._log_off: TextLog | None = None
        self._json = JsonLines(sys.stdout.buffer, lines=options.lines) if options.json else None
        self._console = Console(
            NullScreen() if options.json else screen or Screen(colour=options.colour),
            rules=rules,
            timestamps=options.timestamps,
            log=self._log,
            watch=watch,
            has_elf=bool(options.elfs),
            roots=_project_folders(options.elfs),
        )
        self._errors: Screen | None = None
        # with --json the text is only shaped where somebody reads it
        self._shapes_text = not options.json or watch is not None or self._log is not None
        self._rate_was_auto = rate is None and options.baud is None
        self._rate = rate or follower_at(options.port, options.baud)
        self._outbox = Outbox()
        self._pending: deque[Item] = deque()  # facts in their order, while the first is being looked up
        self._explainer: Explainer | None = None
        self._listener: Listener | None = None
        self._keyboard: Keyboard | None = None
        self._status: int | None = None
        self._timed_out = False  # what the decoder still held then may yet decide the status
        self._greeted = False
        self._first_line = threading.Event()  # is on the screen
        self._told_raw_log = False
        self._told_fault = False
        self._to_download = False  # our last reset was into download mode

    # --- the run ----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        options = self.options
        machine = KeyMachine(repl=options.repl, eol=options.eol, keys=Keyboard.is_terminal())
        listener = self._listener = self._make_listener()
        keyboard = self._keyboard = Keyboard(
            machine, self._outbox.wish, lambda: listener.backlog < PIPED_AHEAD and self._outbox.wishes_waiting < 16
        )
        deadline = time.monotonic() + options.timeout_s if options.timeout_s is not None else None
        try:
            with self._signals():
                listener.start()
                try:
                    self._show_until_done(deadline)
                    self._last_words()
                except (OutputClosed, BrokenPipeError):
                    forget_output()
        finally:
            keyboard.stop()
            listener.stop()
            self._leave()
        if listener.fault is not None:
            raise listener.fault
        if self._status is None and listener.failure is not None:
            raise listener.failure
        return EXIT_OK if self._status is None else self._status

    def _make_listener(self) -> Listener:
        options = self.options
        port = self._port or SerialPort(options.port, self._rate.baud)
        return Listener(
            port,
            self._make_decoder,
            self._rate,
            tell=self._put,
            keep=self._raw_log.write if self._raw_log is not None else None,
            reconnect=options.reconnect,
            reset_first=options.reset,
            finished=lambda: self._outbox.wish(_Ended()),
        )

    def _make_decoder(self) -> Decodes:
        """In the port's thread. Its imports keep the interpreter busy, so the first line goes before them."""
        self._first_line.wait(FIRST_LINE_S)
        from espmon.decode import Decoder

        return Decoder(port=self.options.port)

    def _put(self, events: Sequence[Event]) -> None:
        """In the port's thread."""
        items: list[Item] = []
        for event in events:
            if has_addresses(event):
                slot = Slot(event)
                items.append(slot)
                self._explain(slot)
            else:
                items.append(event)
        self._outbox.put(items)

    def _explain(self, slot: Slot) -> None:
        if self._explainer is None:
            from espmon.app.explainer import Explainer

            self._explainer = Explainer(
                self.options.elfs,
                source_roots=self.options.source_roots,
                all_stack_words=self.options.all_stack_words,
                ready=self._outbox.nudge,
                problem=lambda problem: self._outbox.wish(_ElfProblem(problem)),
            )
            self._explainer.start()
        self._explainer.explain(slot)

    def _show_until_done(self, deadline: float | None) -> None:
        console, options = self._console, self.options
        while self._status is None:
            patience = IDLE_S if console.withholding else LOOK_UP_S
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    if not self._greeted and self._listener is not None and not self._listener.port.is_open:
                        hint = "Check that the server answers." if "://" in options.port else "Give it more time: --timeout."
                        raise PortProblem(options.port, f"{options.port} was not open after {options.timeout_s:g} s", hint)
                    self._status = EXIT_TIMEOUT if options.until is not None else EXIT_OK
                    self._timed_out = True
                    return
                patience = min(patience, left)
            began = time.monotonic()
            wishes, items = self._outbox.take(patience)
            ended = False
            for wish in wishes:
                ended = self._obey(wish) or ended
            if not wishes and not items and console.withholding and time.monotonic() - began >= IDLE_S / 2:
                console.idle()
            for item in items:
                self._show(item)
                if self._status is not None:
                    break
            self._show_ready()
            console.flush()
            if self._greeted:
                self._first_line.set()
            self._complain()
            if ended and self._status is None:
                while items:  # what the listener told before it ended
                    _, items = self._outbox.take(0)
                    for item in items:
                        self._show(item)
                return

    def _last_words(self) -> None:
        """After the decision to end: what the decoder still holds, and crashes that are being looked up."""
        assert self._listener is not None
        self._listener.stop()
        if self._listener.ident is not None:
            self._listener.join(2.0)
        items: Sequence[Item] = (None,)  # type: ignore[assignment]
        while items:
            _, items = self._outbox.take(0)
            for item in items:
                self._show(item)
        limit = time.monotonic() + LAST_WORDS_S
        for item in self._pending:
            if isinstance(item, Slot):
                item.ready.wait(max(0.0, limit - time.monotonic()))
                item.ready.set()
        self._show_ready()
        self._console.close()

    def _leave(self) -> None:
        if self._explainer is not None:
            self._explainer.stop()
        for log in (self._log, self._log_off, self._raw_log):
            if log is not None:
                log.close()

    # --- events -----------------------------------------------------------------------------------------------------

    def _show(self, item: Item) -> None:
        if isinstance(item, Text):
            self._tell(item)
        elif self.options.json:  # the contract: in input order
            if isinstance(item, Slot):
                item.ready.wait(IN_ORDER_S)
            self._tell_item(item)
        elif self._pending or isinstance(item, Slot):  # facts keep their order, text goes on
            self._pending.append(item)
            self._show_ready()
        else:
            self._tell(item)

    def _show_ready(self) -> None:
        pending = self._pending
        while pending:
            first = pending[0]
            if isinstance(first, Slot) and not first.ready.is_set() and time.monotonic() - first.since < IN_ORDER_S:
                return
            self._tell_item(pending.popleft())

    def _tell_item(self, item: Item) -> None:
        if isinstance(item, Slot):
            self._tell(item.event, item)
            if item.fault is not None and not self._told_fault:
                self._told_fault = True
                self._tell(DecoderFault(format="symbols", error=item.fault, port=item.event.port, at=item.event.at))
        else:
            self._tell(item)

    def _tell(self, event: Event, slot: Slot | None = None) -> None:
        options = self.options
        if self._json is not None:
            self._json.write(event)
        if isinstance(event, Text):
            if self._shapes_text:
                self._console.show(event)
                if self._console.matched and self._status is None:
                    self._status = EXIT_OK
            return
        if isinstance(event, PortChanged) and event.state == "opened":
            self._greet(event)
        elif isinstance(event, PortChanged) and event.state == "gone" and not options.reconnect:
            self._say(f"{event.port} is gone", "warning")
        else:
            if isinstance(event, ResetCaused):
                self._to_download = "download" in (event.how or "")
            elif isinstance(event, DownloadMode) and self._to_download:  # it was asked for: no mishap to be remedied
                event = replace(event, remedies=("Ctrl-T r runs the firmware again.",))
            self._console.show(event, slot.source if slot is not None else None)
        if self._status is None or self._timed_out:
            if isinstance(event, Crash) and "crash" in options.fail_on:
                self._status, self._timed_out = EXIT_CRASH_SEEN, False
            elif isinstance(event, BootLoop) and "boot-loop" in options.fail_on:
                self._status, self._timed_out = EXIT_BOOT_LOOP_SEEN, False

    def _greet(self, event: PortChanged) -> None:
        """The first line on the screen; the keyboard is taken once the port is ours."""
        assert self._keyboard is not None
        self._greeted = True
        words = f"{event.port} at {event.baud} baud"
        if self._rate_was_auto:
            words += " (to begin with; the rate follows the board)"
        if event.reason:
            words += f"; {event.reason}"
        keys = ["Ctrl-] quits, Ctrl-T h lists the keys"] if self._keyboard.machine.keys else []
        self._console.notice(words, "quiet", *keys)
        self._warn_of_sharing()
        self._keyboard.start()
        if self.options.elfs and self._explainer is None:
            self._explain_nothing()

    def _explain_nothing(self) -> None:
        """Starts the symbols' thread: a bad ELF is told now, not at the first crash."""
        slot = Slot(Event())
        self._explain(slot)

    def _warn_of_sharing(self) -> None:
        from espmon.port import holders

        assert self._listener is not None
        port = self._listener.port
        if port.is_url or port.is_pty:
            return
        if others := holders(port.device):
            self._say(
                f"{', '.join(map(str, others[:3]))} has this port open too: each of you gets only a part", "warning"
            )

    def _complain(self) -> None:
        if self._raw_log is not None and self._raw_log.problem and not self._told_raw_log:
            self._told_raw_log = True
            self._say(f"{self._raw_log.path} can't be written: {self._raw_log.problem}", "bad")
            self._console.flush()
        if self._log is not None and self._log.problem:
            problem, self._log.problem = self._log.problem, None
            if not self._log.lost:
                return
            self._log.lost = 0
            self._say(f"{self._log.path} can't be written: {problem}", "bad")

    def _say(self, what: str, tone: Tone = "quiet", *more: str) -> None:
        """A line of our own. With --json standard output is the events' alone, so it goes to standard error."""
        self._console.notice(what, tone, *more)
        if not self.options.json:
            return
        if self._errors is None:
            self._errors = Screen(sys.stderr, colour="never")
        with contextlib.suppress(OutputClosed, OutputUnwritable):
            self._errors.write("".join(f"{'        ' if number else 'espmon: '}{line}\n" for number, line in enumerate((what, *more))))

    # --- wishes -----------------------------------------------------------------------------------------------------

    def _obey(self, wish: object) -> bool:
        """Carries out one wish; True when the listener has ended."""
        console, listener = self._console, self._listener
        assert listener is not None
        match wish:
            case Typed(data=data):
                listener.ask(Send(data))
            case KeyWish.QUIT:
                self._status = EXIT_OK
            case KeyWish.INTERRUPT:
                self._status = EXIT_INTERRUPTED
            case _Signalled(number=number):
                self._status = EXIT_INTERRUPTED if number == signal.SIGINT else 128 + number
            case KeyWish.HELP:
                self._say("Keys", "quiet", *help_lines())
            case KeyWish.RESET:
                listener.ask(Run(reset_sequence, "key"))
            case KeyWish.DOWNLOAD:
                listener.ask(Run(download_sequence, "key", "into download mode"))
            case KeyWish.FLASH:
                if self._port is not None:
                    pairs = " ".join(f"{offset:#x} {name}" for offset, name in self.options.images) or "ADDRESS FILE"
                    self._say(f"The daemon holds this port: `espmon flash {self.options.port} {pairs}` goes through it")
                elif images := [(offset, Path(name)) for offset, name in self.options.images]:
                    listener.ask(Flash(tuple(images)))
                else:
                    self._say("No image to flash: start with --image ADDRESS=FILE")
            case KeyWish.TIMESTAMPS:
                console.timestamps = not console.timestamps
                self._say(f"Timestamps {'on' if console.timestamps else 'off'}")
            case KeyWish.LOG:
                self._switch_log()
            case KeyWish.PAUSE:
                self._switch_pause()
            case KeyWish.LEVEL:
                self._next_level()
            case KeyWish.UNKNOWN:
                self._say("No such key in the menu; Ctrl-T h lists them")
            case _ElfProblem(problem=problem):
                self._say(problem.message, "warning", *([problem.hint] if problem.hint else []))
            case _Ended():
                return True
        return False

    def _switch_log(self) -> None:
        if self._console.log is not None:
            self._say(f"Log off: {self._console.log.path}")
            self._console.flush()
            self._log_off, self._console.log = self._console.log, None
        else:
            if self._log_off is None:
                path = time.strftime("espmon-%Y%m%d-%H%M%S.log")
                try:
                    self._log_off = self._log = TextLog(path)
                except Exception as error:  # noqa: BLE001 - a read-only folder must not end the monitor
                    self._say(str(error), "bad")
                    return
            self._console.log, self._log_off = self._log_off, None
            self._say(f"Log on: {self._console.log.path}")

    def _switch_pause(self) -> None:
        console = self._console
        if console.paused:
            console.paused = False
            missed = f", {console.unseen:,} characters were not shown" if console.unseen else ""
            console.unseen = 0
            self._say(f"Output goes on{missed}")
        else:
            self._say("Output paused; Ctrl-T y goes on")
            console.flush()
            console.paused = True

    def _next_level(self) -> None:
        order = list(reversed(LEVELS))
        now = self._console.rules.level or "verbose"
        level = order[(order.index(now) + 1) % len(order)]
        self._console.rules.level = level
        self._say(f"Shown: {'everything' if level == 'verbose' else f'{level} and worse'}")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT, SIGTERM and SIGHUP end the run the orderly way; SIGCONT takes the keyboard again."""

        def arrived(number: int, frame: FrameType | None) -> None:
            if self._status is not None or number in self._seen_signals:  # the second time we don't wait for anything
                if self._keyboard is not None:
                    self._keyboard.stop()
                os._exit(EXIT_INTERRUPTED if number == signal.SIGINT else 128 + number)
            self._seen_signals.add(number)
            self._outbox.wish_from_signal(_Signalled(number))

        def continued(number: int, frame: FrameType | None) -> None:
            if self._keyboard is not None:
                self._keyboard.resume()

        self._seen_signals: set[int] = set()
        before: dict[int, Any] = {}
        names = ["SIGINT", "SIGTERM"] + (["SIGHUP"] if sys.platform != "win32" else ["SIGBREAK"])
        try:
            for name in names:
                number = getattr(signal, name)
                before[number] = signal.signal(number, arrived)
            if sys.platform != "win32":
                before[signal.SIGCONT] = signal.signal(signal.SIGCONT, continued)
        except ValueError:  # not the main thread: a library user's own business
            pass
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _project_folders(elfs: Sequence[str]) -> list[str]:
    if not elfs:
        return []
    from espmon.app.source import project_folder

    return [str(project_folder(elf)) for elf in elfs]


def has_addresses(event: Event) -> bool:
    """True for events that the symbolizer can say more about."""
    return isinstance(event, Crash) or (isinstance(event, Reset) and bool(event.registers or event.backtraces))
