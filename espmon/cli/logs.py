"""``espmon logs NAME``: the raw log as text with times, or as the exact bytes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from espmon.cli.daemon_options import local_time, moment, names_daemon
from espmon.errors import UsageProblem

if TYPE_CHECKING:
    from espmon.store.logreader import Stretch
    from espmon.store.segments import Record


@click.command()
@click.argument("name")
@names_daemon
@click.option("--since", metavar="TIME", help="Only from TIME on: 10m, 2h, 3d (ago) or an ISO time.")
@click.option("--boot", type=int, metavar="N", help="Only from one boot on: -1 the last one, -2 the one before ...")
@click.option("--grep", metavar="REGEX", help="Only lines that match.")
@click.option("--raw", is_flag=True, help="The exact bytes, to a file or a pipe.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--max-bytes", type=click.IntRange(min=1), metavar="N", help="At most the last N bytes of the log.")
@click.option("--json", "as_json", is_flag=True, help="Lines as JSON: at, port, text; notes as at, port, note.")
def logs(
    name: str,
    config_path: str | None,
    state_dir: str | None,
    since: str | None,
    boot: int | None,
    grep: str | None,
    raw: bool,
    follow: bool,
    max_bytes: int | None,
    as_json: bool,
) -> None:
    """Print the log of the board NAME, each line with the host's time."""
    from espmon.app.config import PORT_NAME
    from espmon.app.reach import find_daemon
    from espmon.store.logreader import read_log, tail_start

    if raw and (grep or as_json):
        raise UsageProblem("--raw gives the exact bytes; --grep and --json don't go with it", "Leave --raw out, or pipe the bytes into grep -a.")
    try:
        pattern = re.compile(grep) if grep is not None else None
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageProblem(f"--grep {grep!r} is no regular expression: {error}", "Escape special characters with \\.") from None
    reach = find_daemon(config_path, state_dir)
    folder = reach.log_dir / name
    if not PORT_NAME.fullmatch(name) or not os.path.isdir(folder):
        known = sorted(p.name for p in reach.log_dir.iterdir() if p.is_dir()) if os.path.isdir(reach.log_dir) else []
        raise UsageProblem(f"there is no log of {name!r} in {reach.log_dir}", f"Logs of: {', '.join(known)}" if known else "`espmon daemon` writes logs; --state-dir names its folder.")
    start_time = moment(since) if since else None
    begin: _BootStart | None = None
    end: _BootStart | None = None
    if boot is not None:
        begin, end = _boot_range(reach.database, name, boot)
        start_time = begin.earliest
    start = tail_start(folder, max_bytes) if max_bytes is not None else None
    stretches = read_log(folder, since=start_time, start=start)
    if begin is not None:
        stretches = _from(_until(stretches, end), begin)
    if follow:
        stretches = _followed(folder, stretches)
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        if raw:
            out = sys.stdout.buffer
            for piece in stretches:
                out.write(piece.raw)
                out.flush()
        else:
            _print_lines(name, stretches, pattern, as_json)


_BANNER = re.compile(rb" ?ets [A-Z][a-z]{2} |ESP-ROM:|rst:0x")
# A banner received at another rate: at least six bytes that are no text, close together.
_GARBAGE = re.compile(rb"(?:[^\t\r\n\x20-\x7e][\x00-\xff]{0,2}?){6}")


class _BootStart:
    """Where a boot begins in the log: at its banner, which came some time before the boot was told (`at`, Unix seconds)."""

    def __init__(self, at: float, *, inferred: bool) -> None:
        self.at = at
        # A banner may come in two batches. Garbage is told to be one only when enough of what follows has been heard.
        self.earliest = at - (1.5 if inferred else 0.3)
        self._look = _GARBAGE if inferred else _BANNER

    def within(self, piece: Stretch) -> int | None:
        """Where in `piece` the boot begins; None: not in there."""
        if piece.at is None or piece.at < self.earliest or piece.note is not None:
            return None
        if (found := self._look.search(piece.raw)) is not None:  # garbage begins with a few letters, too
            return piece.raw.rfind(b"\n", 0, found.start()) + 1
        return 0 if piece.at >= self.at else None


def _boot_range(database: Path, name: str, number: int) -> tuple[_BootStart, _BootStart | None]:
    from espmon.store.database import boot_times, event_lines, open_reader

    if number >= 0:
        raise UsageProblem("--boot counts back from the last one", "Write -1 for the last boot, -2 for the one before it.")
    with open_reader(database) as c:
        times = boot_times(c, name)
        if -number > len(times):
            raise UsageProblem(f"{len(times)} boots of {name} are known, not {-number}", "`espmon logs NAME` without --boot prints all there is.")

        def start(at: float) -> _BootStart:
            told: dict[str, Any] = next((json.loads(line) for _, line in event_lines(c, port=name, types=("boot",), since=at)), {})
            return _BootStart(at, inferred=bool(told.get("inferred")))

        return start(times[number]), start(times[number + 1]) if number < -1 else None


def _from(stretches: Iterator[Stretch], begin: _BootStart) -> Iterator[Stretch]:
    from dataclasses import replace

    for piece in stretches:
        at = begin.within(piece)
        if at is not None:
            yield replace(piece, raw=piece.raw[at:], offset=piece.offset + at)
            break
    yield from stretches


def _until(stretches: Iterator[Stretch], end: _BootStart | None) -> Iterator[Stretch]:
    from dataclasses import replace

    for piece in stretches:
        at = end.within(piece) if end is not None else None
        if at is None:
            yield piece
            continue
        if at:
            yield replace(piece, raw=piece.raw[:at])
        return


def _followed(folder: Path, stretches: Iterator[Stretch]) -> Iterator[Stretch]:
    from espmon.store.logreader import read_log

    at = (0, 0)
    for piece in stretches:
        at = (piece.seq, piece.offset + len(piece.raw))
        yield piece
    if at == (0, 0):
        from espmon.store.logreader import end_of_log

        at = end_of_log(folder)
    while True:
        came = False
        for piece in read_log(folder, start=at):
            if piece.note is None:
                came = True
                at = (piece.seq, piece.offset + len(piece.raw))
                yield piece
        if not came:
            time.sleep(0.1)


def _print_lines(name: str, stretches: Iterator[Stretch], pattern: re.Pattern[str] | None, as_json: bool) -> None:
    from espmon.sinks.neutral import Neutralizer, plain
    from espmon.sinks.screen import wants_colour
    from espmon.store.logreader import text_lines

    write, flush = sys.stdout.write, sys.stdout.flush
    coloured = not as_json and wants_colour(sys.stdout.isatty())
    neutral = Neutralizer()
    for at, item in text_lines(stretches):
        if isinstance(item, bytes):
            shown = neutral.feed(item) + neutral.flush()
            text = plain(shown)
            if pattern is not None and pattern.search(text) is None:
                continue
            if coloured and shown != text:
                text = shown + "\x1b[0m"
            write(json.dumps({"at": _iso(at), "port": name, "text": text}) + "\n" if as_json else f"{local_time(at)}  {text}\n")
        elif pattern is None:
            note = _in_words(item)
            write(json.dumps({"at": _iso(at), "port": name, "note": note}) + "\n" if as_json else f"{local_time(at)}  --- {note}\n")
        flush()


def _in_words(record: Record) -> str:
    facts: dict[str, Any] = dict(record.payload)
    what = str(facts.pop("what", record.kind.name.lower()))
    if what == "gap":
        what = f"{facts.pop('bytes', None)} bytes are missing: {facts.pop('reason', '')}"
    elif what == "torn":
        what = f"the log was cut off here: {facts.pop('reason', '')}"
    elif what == "clock":
        what = f"the clock jumped by {facts.pop('by_s', '?')} s"
    more = ", ".join(f"{k} {v}" for k, v in facts.items() if v not in (None, 0))
    text = what + (f" ({more})" if more else "")
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _iso(at: float | None) -> str | None:
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
