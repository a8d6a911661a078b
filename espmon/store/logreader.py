"""Reads raw logs, also while they are written: bytes with their times and the notes between them, or as lines of text."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from espmon.store.segments import Kind, Record, Segment, segments


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a log reader yields: `raw` bytes received at `at` (Unix s, None: unknown), or a `note` between bytes."""

    at: float | None
    raw: bytes = b""
    note: Record | None = None
    seq: int = 0
    offset: int = 0


_NOTES = (Kind.MARK, Kind.GAP, Kind.CLOCK, Kind.TORN)


def read_segment(segment: Segment, *, since: float | None = None, from_offset: int = 0) -> Iterator[Stretch]:
    """The bytes of a segment in order with their times, and the notes where they belong. `since` skips older batches."""
    size_limit = 64 * 1024
    records = segment.records()
    timed = sorted((r for r in records if r.kind in (Kind.BATCH, *_NOTES)), key=lambda r: r.offset)
    start = from_offset
    at: float | None = next((r.at for r in records if r.kind is Kind.OPEN), None)
    if since is not None:
        older = [r for r in timed if r.kind is Kind.BATCH and r.at < since]
        newer = [r for r in timed if r.kind is Kind.BATCH and r.at >= since]
        if newer:
            start = max(start, newer[0].offset)
        elif older or (at is not None and at < since):
            # everything in here is older; the bytes behind the last time stamp belong to it
            notes = [r for r in timed if r.kind is not Kind.BATCH and r.at >= since]
            yield from (Stretch(r.at, note=r, seq=segment.seq, offset=r.offset) for r in notes)
            return
    try:
        raw = segment.open_raw()
    except OSError:
        return
    with raw:
        position = 0
        if start:
            try:
                raw.seek(start)
            except (OSError, EOFError):
                return
            position = start
        todo = deque(timed)
        while todo and todo[0].offset < position:
            passed = todo.popleft()
            if passed.kind is Kind.BATCH:
                at = passed.at
        while True:
            while todo and todo[0].offset <= position:
                record = todo.popleft()
                if record.kind is Kind.BATCH:
                    at = record.at
                elif since is None or record.at >= since:
                    yield Stretch(record.at, note=record, seq=segment.seq, offset=position)
            want = size_limit if not todo else min(size_limit, todo[0].offset - position)
            try:
                data = raw.read(want)
            except (OSError, EOFError, zlib.error):
                return  # a damaged packed file: what was readable was given
            if not data:
                break
            yield Stretch(at, data, seq=segment.seq, offset=position)
            position += len(data)
        for record in todo:
            if record.kind is not Kind.BATCH and (since is None or record.at >= since):
                yield Stretch(record.at, note=record, seq=segment.seq, offset=position)


def read_log(folder: Path, *, since: float | None = None, start: tuple[int, int] | None = None) -> Iterator[Stretch]:
    """The whole log of a port, oldest first. `start`: (segment number, byte offset) to begin at."""
    for segment in segments(folder):
        if start is not None and segment.seq < start[0]:
            continue
        offset = start[1] if start is not None and segment.seq == start[0] else 0
        yield from read_segment(segment, since=since, from_offset=offset)


def end_of_log(folder: Path) -> tuple[int, int]:
    """(segment number, byte offset) behind the last byte stored now: where a follower begins."""
    found = segments(folder)
    if not found:
        return (0, 0)
    last = found[-1]
    try:
        return (last.seq, last.raw_path.stat().st_size)
    except OSError:
        return (last.seq + 1, 0)


def tail_start(folder: Path, max_bytes: int) -> tuple[int, int]:
    """(segment number, byte offset) so that at most `max_bytes` raw bytes follow."""
    left = max_bytes
    at = (0, 0)
    for segment in reversed(segments(folder)):
        size = raw_size(segment)
        if size >= left:
            return (segment.seq, size - left)
        left -= size
        at = (segment.seq, 0)
    return at


def raw_size(segment: Segment) -> int:
    """Raw bytes in the segment, from the file or, when packed, from its CLOSE record."""
    try:
        return segment.raw_path.stat().st_size
    except OSError:
        records = segment.records()
        return max((r.offset for r in records if r.kind in (Kind.CLOSE, Kind.TORN)), default=0)


def text_lines(
    stretches: Iterable[Stretch], *, limit: int = 64 * 1024
) -> Iterator[tuple[float | None, bytes | Record]]:
    """The text view: (time of the first byte, line without its end) and the notes. A line is cut at `limit` bytes."""
    pending = bytearray()
    began: float | None = None
    after_return = False  # the last line ended in "\r" at the end of a stretch: a "\n" that follows belongs to it
    for piece in stretches:
        if piece.note is not None:
            if pending:
                yield began, bytes(pending)
                pending.clear()
            yield piece.at, piece.note
            continue
        for part in piece.raw.splitlines(keepends=True):
            if after_return and part == b"\n":
                after_return = False
                continue
            after_return = part.endswith(b"\r")
            if not pending:
                began = piece.at
            pending += part
            if part.endswith((b"\n", b"\r")) or len(pending) >= limit:
                yield began, bytes(pending).rstrip(b"\r\n")
                pending.clear()
    if pending:
        yield began, bytes(pending)
