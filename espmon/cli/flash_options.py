"""What the commands that talk to a board's loader share: options, Ctrl-C, progress on a terminal or as JSON."""

from __future__ import annotations

import functools
import json
import signal
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from espmon.cli.monitor import complete_ports
from espmon.errors import EspmonError, UsageProblem

if TYPE_CHECKING:
    from espmon.app.flashing import Flasher, FlashOptions
    from espmon.events import Event

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_UNITS = {"k": 1 << 10, "m": 1 << 20}


def number(text: str) -> int:
    """A count of bytes or an address: decimal, ``0x`` hexadecimal, with ``K``/``KB``/``M``/``MB`` at its end."""
    low = text.strip().lower().removesuffix("b") if not text.lower().startswith("0x") else text.strip().lower()
    unit = _UNITS.get(low[-1:], 1) if not low.startswith("0x") else 1
    try:
        value = int(low[:-1] if unit > 1 else low, 0) * unit
    except ValueError:
        raise UsageProblem(f"{text!r} is no address or size.", "Write 0x1000, 4096, 4K or 4MB.") from None
    if not 0 <= value <= 1 << 32:
        raise UsageProblem(f"{text} is out of range.", "Flash addresses go from 0 to 0xffffffff.")
    return value


def size_option(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Callback of options that take a size."""
    return None if value is None else number(value)


def port_argument(command: F) -> F:
    """The PORT argument with completion."""
    return click.argument("port", shell_complete=complete_ports)(command)


def loader_options(command: F) -> F:
    """Options of every command that enters the loader."""
    options = (
        click.option("--flash-baud", type=click.IntRange(9600, 4_000_000), metavar="RATE", help="Link rate while in the loader.  [default: what worked for this adapter, else 460800]"),
        click.option("-b", "--baud", type=click.IntRange(50, 20_000_000), default=115200, metavar="RATE", help="The application's rate, to which the port returns.  [default: 115200]"),
        click.option("--before", default="auto", metavar="HOW", help="How to reach download mode: auto, none (it is in it), a sequence's name, or D0|R1|W0.1|..."),
        click.option("--after", type=click.Choice(["reset", "none"]), default="reset", help="What to do at the end.  [default: reset]"),
        click.option("--chip", metavar="NAME", help="Refuse any other chip than this (esp8266, esp32c3, ...)."),
        click.option("--flash-size", callback=size_option, metavar="SIZE", help="Size of the flash (4MB) where its id does not tell the truth."),
        click.option("--no-stub", is_flag=True, help="Use the boot ROM only."),
        click.option("--json", "as_json", is_flag=True, help="Print events and the result as JSON, one per line."),
        click.option("-v", "--verbose", is_flag=True, help="Tell each step and each retry."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


class Console:
    """Where a loader command's messages go: JSON lines to standard output, or text, with a progress bar on a terminal."""

    def __init__(self, *, as_json: bool, verbose: bool) -> None:
        self.as_json = as_json
        self.verbose = verbose
        self._bar: Any = None
        self._task: Any = None
        self._operation = ""
        self.loader = ""

    def tell(self, event: Event) -> None:
        """An event of the flasher."""
        if self.as_json:
            from espmon.events import to_json_line
            from espmon.sinks.jsonl import print_json_line

            print_json_line(to_json_line(event))
            return
        from espmon.events import Progress

        if isinstance(event, Progress):
            self._progress(event)

    def noted(self, fact: object) -> None:
        """A note of the Steps."""
        from espmon.bootloader.notes import LoaderMet, RateChanged, Retried, Stage

        if isinstance(fact, LoaderMet):
            self.loader = fact.kind
            self.say(f"Through {fact.title} at {fact.rate} baud.")
        if self.as_json or not self.verbose:
            return
        if isinstance(fact, Stage):
            self.say(f"{fact.name} {fact.detail}".strip())
        elif isinstance(fact, Retried):
            self.say(f"again ({fact.count}): {fact.what}: {fact.reason}")
        elif isinstance(fact, RateChanged) and fact.reason != "asked":
            self.say(f"{fact.rate} baud ({fact.reason})")

    def say(self, text: str) -> None:
        """A message for people, on standard error."""
        self.close_bar()
        if not self.as_json:
            click.echo(text, err=True)

    def result(self, kind: str, text: str, **facts: Any) -> None:
        """What came of it, on standard output."""
        self.close_bar()
        if self.as_json:
            sys.stdout.write(json.dumps({"type": kind, **facts, "loader": self.loader}) + "\n")
        elif text:
            click.echo(text)
        sys.stdout.flush()

    def _progress(self, event: Any) -> None:
        if not sys.stderr.isatty():
            return
        if self._bar is None or event.operation != self._operation:
            self.close_bar()
            from rich.console import Console as RichConsole
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            self._bar = Progress(
                TextColumn("{task.description:7}"),
                BarColumn(),
                DownloadColumn(binary_units=True),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=RichConsole(stderr=True),
                transient=False,
            )
            self._bar.start()
            self._operation = event.operation
            self._task = self._bar.add_task(event.operation, total=event.total)
        self._bar.update(self._task, completed=event.done, total=event.total)

    def close_bar(self) -> None:
        """Leave the bar on the screen and give the terminal back."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def options_from(wishes: dict[str, Any]) -> FlashOptions:
    """The loader options of a command line."""
    from espmon.app.flashing import FlashOptions

    return FlashOptions(
        flash_baud=wishes["flash_baud"],
        before=wishes["before"],
        after=wishes["after"],
        chip=wishes["chip"],
        flash_size=wishes["flash_size"],
        stub=not wishes["no_stub"],
    )


def stop_on_ctrl_c(stop: threading.Event, console: Console) -> None:
    """From now on Ctrl-C once sets `stop`, twice stops at once."""

    def interrupted(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        console.say("Stopping, to leave the board in a safe state ... (Ctrl-C again: at once)")

    signal.signal(signal.SIGINT, interrupted)


def in_loader(port_name: str, wishes: dict[str, Any], work: Callable[[Flasher, Console], T]) -> T:
    """Open the port, do `work` in the board's loader, leave it; Ctrl-C once asks to stop, twice stops at once."""
    from espmon.app.attached import open_port
    from espmon.app.flashing import Flasher

    console = Console(as_json=wishes["as_json"], verbose=wishes["verbose"])
    stop = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    try:
        with open_port(port_name, wishes["baud"], stop) as port:
            stop_on_ctrl_c(stop, console)
            with Flasher(port, options_from(wishes), tell=console.tell, noted=console.noted, stop=stop) as flasher:
                return work(flasher, console)
    finally:
        signal.signal(signal.SIGINT, before)
        console.close_bar()


def told_as_json(command: F) -> F:
    """With ``--json`` an error is an object on standard output as well: code, message, hint."""

    @functools.wraps(command)
    def wrapped(*args: Any, **wishes: Any) -> Any:
        try:
            return command(*args, **wishes)
        except EspmonError as error:
            if wishes.get("as_json"):
                sys.stdout.write(
                    json.dumps({"type": "error", "code": error.code, "message": error.message, "hint": error.hint}) + "\n"
                )
                sys.stdout.flush()
            raise

    return wrapped  # type: ignore[return-value]


def pairs(words: tuple[str, ...]) -> list[tuple[int, str]]:
    """``ADDR FILE ADDR FILE ...`` as pairs. Raises :class:`~espmon.errors.UsageProblem`."""
    if not words or len(words) % 2:
        raise UsageProblem("Addresses and files come in pairs.", "For example: 0x0 firmware.bin")
    return [(number(address), name) for address, name in zip(words[::2], words[1::2], strict=True)]
