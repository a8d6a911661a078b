"""``espmon decode``: what a log file says, without a port."""

from __future__ import annotations

import codecs
import functools
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from espmon.cli import tell
from espmon.errors import EXIT_INTERRUPTED, InputUnreadable
from espmon.events import Crash, Event, Reset, Text

if TYPE_CHECKING:
    from espmon.symbolize import Symbolizer

_CHUNK = 262144
END_OF_INPUT = "Ctrl-Z and Enter" if sys.platform == "win32" else "Ctrl-D"
_QUOTED_FRAMES = 24


def _unreadable(name: str, error: OSError) -> InputUnreadable:
    hint = "Check the path; use - to read standard input."
    if isinstance(error, PermissionError):
        hint = f"Make the file readable for you, or pipe it in: espmon decode - < {name}"
    elif isinstance(error, IsADirectoryError):
        hint = "Name the files inside the folder, not the folder."
    return InputUnreadable(f"cannot read {name}: {error.strerror or type(error).__name__}", hint)


def _explainer(elfs: tuple[Path, ...], all_stack_words: bool) -> Callable[[Event], Event]:
    """What fills frames into crashes. Without ELFs only boot ROM functions have names: nothing is loaded before a crash."""
    if not elfs:
        return _rom_names
    from platformdirs import user_cache_path

    from espmon.symbolize import Symbolizer

    symbolizer = Symbolizer(elfs, index_dir=user_cache_path("espmon", False) / "index", all_stack_words=all_stack_words)
    told: set[str] = set()

    def tell_problems() -> None:
        for problem in symbolizer.problems:
            if problem.message not in told:
                told.add(problem.message)
                tell(problem)

    def explain(event: Event) -> Event:
        match event:
            case Crash():
                event = symbolizer.explain(event)
            case Reset():
                event = symbolizer.explain(event)
        tell_problems()
        return event

    tell_problems()
    return explain


def _rom_names(event: Event) -> Event:
    """The event with frames when at least one address is a boot ROM function, as it is otherwise."""
    explained: Crash | Reset
    match event:
        case Crash():
            explained = _rom_symbolizer().explain(event)
        case Reset():
            explained = _rom_symbolizer().explain(event)
        case _:
            return event
    return explained if any(frame.function for frame in explained.frames) else event


@functools.cache
def _rom_symbolizer() -> Symbolizer:
    from espmon.symbolize import Symbolizer

    return Symbolizer([])


def _for_people(
    lines: bool, named: bool, elfs: tuple[Path, ...], source_roots: tuple[str, ...]
) -> tuple[Callable[[Event], None], Callable[[], None]]:
    """(write, close): each fact with the line it stands on, crashes as the monitor shows them, with their source lines."""
    from espmon.app.source import SourceFiles, project_folder
    from espmon.sinks.console import Console
    from espmon.sinks.screen import Screen
    from espmon.sinks.words import notice_lines

    source = SourceFiles([*source_roots, *(project_folder(elf) for elf in elfs)])
    console = Console(Screen(), has_elf=bool(elfs), roots=source.roots)

    def source_lines(crash: Crash) -> dict[tuple[str, int], str]:
        found = {}
        for frame in crash.frames[:_QUOTED_FRAMES]:
            if frame.file and frame.line:
                text = source.line(frame.file, frame.line)
                if text is not None and text.strip():
                    found[frame.file, frame.line] = text
        return found

    def write(event: Event) -> None:
        if isinstance(event, Text):
            if lines:
                console.show(event)
        elif isinstance(event, Crash):
            console.notice(f"{_place(event, named)}: crash", "bad")
            console.show(event, source_lines(event))
        elif told := notice_lines(event):
            console.notice(f"{_place(event, named)}: {told[1][0]}", told[0], *told[1][1:])
        console.flush()

    return write, console.close


def _place(event: Event, named: bool) -> str:
    from espmon.sinks.neutral import one_line

    lines = f"{event.line}" if event.end_line in (None, event.line) else f"{event.line}-{event.end_line}"
    return f"{one_line(event.file)}:{lines}" if named else f"line {lines}"


def _recoder(start: bytes) -> Callable[[bytes], bytes] | None:
    """UTF-16 (what `>` in Windows PowerShell writes) becomes UTF-8; everything else stays as it is."""
    name = "utf-16-le" if start.startswith(codecs.BOM_UTF16_LE) else "utf-16-be" if start.startswith(codecs.BOM_UTF16_BE) else ""
    if not name:
        return None
    decoder = codecs.getincrementaldecoder(name)("replace")
    return lambda data: decoder.decode(data).removeprefix("\ufeff").encode("utf-8", "replace")


def _run(
    stream: IO[bytes], name: str, baud: int | None, write: Callable[[Event], None], explain: Callable[[Event], Event]
) -> None:
    from espmon.app.rates import CaptureDecoder
    from espmon.decode import Decoder

    decoder = Decoder(file=name) if baud is None else CaptureDecoder(baud, file=name)

    def pass_on(events: Iterable[Event]) -> None:
        for event in events:
            write(explain(event))

    read = getattr(stream, "read1", stream.read)  # a pipe's bytes are shown as they come
    recode: Callable[[bytes], bytes] | None = None
    first = True
    while data := read(_CHUNK):
        if first:
            first = False
            recode = _recoder(data) if baud is None else None
        pass_on(decoder.feed(recode(data) if recode else data))
    pass_on(decoder.close())


@click.command("decode", short_help="Explain the resets and crashes in log files.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, allow_dash=True))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per event (docs/events.md).")
@click.option("--lines", is_flag=True, help="Print the ordinary text as well.")
@click.option(
    "--elf",
    "elfs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="ELF of the firmware (repeatable): adds functions and lines.",
)
@click.option(
    "--baud",
    type=click.IntRange(300, 10_000_000),
    metavar="RATE",
    help="The rate at which FILES were received: finds what was sent at another, and reads ROM banners in it.",
)
@click.option(
    "--source-root",
    "source_roots",
    multiple=True,
    metavar="DIR",
    type=click.Path(),
    help="Look here too for source files to quote; repeatable.",
)
@click.option("--all-stack-words", is_flag=True, help="Show every code-like stack word, not only likely frames.")
@click.pass_context
def decode(
    ctx: click.Context,
    files: tuple[Path, ...],
    as_json: bool,
    lines: bool,
    elfs: tuple[Path, ...],
    baud: int | None,
    source_roots: tuple[str, ...],
    all_stack_words: bool,
) -> None:
    """Explain the resets and crashes in log FILES.

    Without FILES, or for the name -, standard input is read. The exit status is 0 when everything was read to its end,
    whatever was found in it, and 3 when a file could not be read.
    """
    from espmon.sinks.screen import OutputClosed, forget_output

    close: Callable[[], None] = lambda: None  # noqa: E731 - one of two closers
    if as_json:
        from espmon.sinks.jsonl import JsonLines

        write: Callable[[Event], None] = JsonLines(sys.stdout.buffer, lines=lines).write
    else:
        write, close = _for_people(lines, len(files) > 1, elfs, source_roots)
    status = 0
    told = False

    def passes_on(event: Event) -> None:
        nonlocal told
        told = told or not isinstance(event, Text)
        write(event)

    try:
        explain = _explainer(elfs, all_stack_words)
        for path in files or (Path("-"),):
            name = str(path)
            try:
                if name == "-":
                    if sys.stdin.isatty():
                        click.echo(f"espmon: paste the log here, then press {END_OF_INPUT}", err=True)
                    _run(sys.stdin.buffer, "-", baud, passes_on, explain)
                else:
                    with path.open("rb") as stream:
                        _run(stream, name, baud, passes_on, explain)
            except BrokenPipeError:
                raise
            except OSError as error:
                problem = _unreadable(name, error)
                tell(problem)
                status = problem.exit_status
        close()
        if not told and not as_json and not status:
            click.echo("espmon: no boot, reset, crash or error that espmon knows is in it", err=True)
            if baud is None:
                click.echo("        If it is garbage: --baud RATE, the rate it was received at, reads what was sent at another.", err=True)
    except (BrokenPipeError, OutputClosed):
        forget_output()  # Whoever read it has gone: that is no failure of ours. Python would complain again at exit.
        ctx.exit(0)
    except KeyboardInterrupt:
        ctx.exit(EXIT_INTERRUPTED)
    ctx.exit(status)
