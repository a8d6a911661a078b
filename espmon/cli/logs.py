"""``espmon logs NAME``: the raw log as text with times, or as the exact bytes."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from espmon.cli.daemon_options import CONTEXT, moment, names_daemon
from espmon.errors import UsageProblem

if TYPE_CHECKING:
    from espmon.store.logreader import Stretch
    from espmon.store.segments import Record


@click.command(context_settings=CONTEXT)
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
        raise UsageProblem("--raw gives the exact bytes; --grep and --json don't go with it")
    try:
        pattern = re.compile(grep.encode()) if grep is not None else None
    except re.error as error:
        raise UsageProblem(f"--grep {grep!r} is no regular expression: {error}") from None
    reach = find_daemon(config_path, state_dir)
    folder = reach.log_dir / name
    if not PORT_NAME.fullmatch(name) or not folder.is_dir():
        known = sorted(p.name for p in reach.log_dir.iterdir() if p.is_dir()) if reach.log_dir.is_dir() else []
        raise UsageProblem(f"there is no log of {name!r} in {reach.log_dir}", f"logs of: {', '.join(known)}" if known else "has the daemon run?")
    start_time = moment(since) if since else None
    end_time: float | None = None
    if boot is not None:
        start_time, end_time = _boot_range(reach.database, name, boot)
    start = tail_start(folder, max_bytes) if max_bytes is not None else None
    stretches = read_log(folder, since=start_time, start=start)
    if boot is not None:
        stretches = _from_banner(_until(stretches, end_time))
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


def _boot_range(database: Path, name: str, number: int) -> tuple[float, float | None]:
    from espmon.store.database import boot_times, open_reader

    if number >= 0:
        raise UsageProblem("--boot counts back from the last one: -1, -2 ...")
    with open_reader(database) as c:
        times = boot_times(c, name)
    if -number > len(times):
        raise UsageProblem(f"{name}: only {len(times)} boots are known")
    return times[number], times[number + 1] if number < -1 else None


def _until(stretches: Iterator[Stretch], end: float | None) -> Iterator[Stretch]:
    for piece in stretches:
        if end is not None and piece.at is not None and piece.at >= end:
            return
        yield piece


_BANNER = re.compile(rb" ?ets [A-Z][a-z]{2} |ESP-ROM:|rst:0x")


def _from_banner(stretches: Iterator[Stretch]) -> Iterator[Stretch]:
    """Without what stands before the boot banner in the batch that holds it."""
    from dataclasses import replace

    first = True
    for piece in stretches:
        if first and piece.raw:
            first = False
            if (m := _BANNER.search(piece.raw)) is not None:
                piece = replace(piece, raw=piece.raw[m.start() :])
        yield piece


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


def _print_lines(name: str, stretches: Iterator[Stretch], pattern: re.Pattern[bytes] | None, as_json: bool) -> None:
    from espmon.store.logreader import text_lines

    write, flush = sys.stdout.write, sys.stdout.flush
    for at, item in text_lines(stretches):
        if isinstance(item, bytes):
            if pattern is not None and pattern.search(item) is None:
                continue
            text = "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in item.decode("utf-8", "replace"))
            write(json.dumps({"at": _iso(at), "port": name, "text": text}) + "\n" if as_json else f"{_local(at)}  {text}\n")
        elif pattern is None:
            note = _in_words(item)
            write(json.dumps({"at": _iso(at), "port": name, "note": note}) + "\n" if as_json else f"{_local(at)}  --- {note}\n")
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


def _local(at: float | None) -> str:
    if at is None:
        return " " * 23
    try:
        return datetime.fromtimestamp(at).isoformat(" ", "milliseconds")  # noqa: DTZ006 - people read local time
    except (ValueError, OverflowError, OSError):
        return " " * 23


def _iso(at: float | None) -> str | None:
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
