"""One port's raw log: a bounded ring that takes bytes at once, and the segment that they are written to.

:meth:`PortLog.append` never touches the disk; one writer thread (:mod:`espmon.store.logwriter`) empties the rings. When the
disk refuses, bytes wait in the ring; when the ring is full the oldest are dropped and become a gap record with their exact
count.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from espmon.store.atomic import write_atomically
from espmon.store.segments import REFUSALS, Kind, Segment, boot_id, mark_torn, pack_record, segments

_log = logging.getLogger(__name__)

MIB = 1 << 20
# Batches closer together than this share an index record: a line's host time is this exact.
INDEX_EVERY_S = 0.01
# While the disk refuses: how many marks wait, and how far apart in time small reads may be to become one. What waits is
# bounded in bytes; these bound what goes with each.
_MARKS_WAITING = 1000
_MERGE_S = 1.0
_MERGE_BYTES = 4096
# A difference between the wall clock's and the monotonic clock's advance that is written down as a jump.
CLOCK_JUMP_S = 1.0
# Index bytes that wait in memory while the disk is full; older time stamps are dropped first, the bytes they time stay.
_INDEX_BACKLOG = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLimits:
    """Bounds of the raw logs. Sizes in bytes, ages in seconds; None means no bound."""

    segment_bytes: int = 16 * MIB
    segment_s: float = 86_400.0
    keep_bytes: int | None = 512 * MIB
    keep_s: float | None = 90 * 86_400.0
    keep_bytes_total: int | None = None
    low_water: int = 64 * MIB
    ring_bytes: int = 4 * MIB
    rings_total: int = 128 * MIB
    sync_s: float = 5.0
    compress: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LogGap:
    """Bytes that the log of `port` misses: how many, why, and when it was noticed (Unix seconds)."""

    port: str
    bytes: int | None
    reason: str
    at: float


@dataclass(slots=True)
class _Mark:
    kind: Kind
    at: float
    mono: float
    payload: dict[str, Any]


class PortLog:
    """The raw log of one port. `append` and `mark` may be called from any thread; the rest belongs to the writer."""

    def __init__(self, root: Path, name: str, limits: LogLimits) -> None:
        self.name = name
        self.folder = root / name
        self.limits = limits
        self.ring_bytes = limits.ring_bytes
        self.bytes_received = 0  # handed in by the reader
        self.bytes_stored = 0  # written to the segment file
        self.bytes_lost = 0
        self.full = False  # the disk refuses; bytes wait in the ring
        self.segment: Segment | None = None
        self._lock = threading.Lock()
        self._ring: deque[tuple[float, float, bytes] | _Mark] = deque()
        self._waiting = 0
        self._marks = 0  # handed in since the disk last took all that waited
        self._lost = 0  # bytes dropped from the ring since the last gap record
        self._lost_at = 0.0
        self._lost_why = ""
        self._raw = -1
        self._idx = -1
        self._size = 0
        self._opened_mono = 0.0
        self._index_backlog = bytearray()
        self._last_index_mono = float("-inf")
        self._clock_offset: float | None = None
        self._synced = 0
        self._next_seq: int | None = None
        self._begun = False

    # --- any thread ---

    def append(self, data: bytes, at: float, mono: float) -> None:
        """Hands `data`, received at `at` (Unix s, `mono` monotonic s), to the log. Never blocks on the disk."""
        with self._lock:
            self.bytes_received += len(data)
            last = self._ring[-1] if self.full and self._ring else None
            if last is not None and not isinstance(last, _Mark) and len(last[2]) < _MERGE_BYTES and mono - last[1] < _MERGE_S:
                self._ring[-1] = (last[0], last[1], last[2] + data)
            else:
                self._ring.append((at, mono, data))
            self._waiting += len(data)
            if self._waiting > self.ring_bytes:
                self._drop(at)

    def _drop(self, at: float) -> None:
        kept: list[_Mark] = []
        while self._waiting > self.ring_bytes and self._ring:
            item = self._ring.popleft()
            if isinstance(item, _Mark):
                kept.append(item)
                continue
            excess = self._waiting - self.ring_bytes
            when, mono, data = item
            if len(data) > excess:
                self._ring.appendleft((when, mono, data[excess:]))
                dropped = excess
            else:
                dropped = len(data)
            self._waiting -= dropped
            self._lost += dropped
            self.bytes_lost += dropped
            self._lost_at = at
            self._lost_why = "disk full" if self.full else "disk too slow"
        # marks are few; those of the dropped stretch stand right behind the gap
        self._ring.extendleft(reversed(kept[-64:]))

    def mark(self, what: str, at: float, mono: float, **facts: Any) -> None:
        """Writes into the index that something happened to the port here (``lent``, ``reset-caused`` ...)."""
        self._mark(_Mark(Kind.MARK, at, mono, {"what": what, **facts}))

    def _mark(self, mark: _Mark) -> None:
        with self._lock:
            if self._marks < _MARKS_WAITING:
                self._marks += 1
                self._ring.append(mark)

    def gap(self, count: int | None, reason: str, at: float, mono: float) -> None:
        """Writes down that `count` bytes (None: unknown) were lost before the log saw them."""
        self._mark(_Mark(Kind.GAP, at, mono, {"bytes": count, "reason": reason}))

    @property
    def waiting(self) -> int:
        """Bytes in the ring, not yet on the disk."""
        return self._waiting

    # --- writer thread ---

    @property
    def is_open(self) -> bool:
        """True while a segment is open for writing."""
        return self._raw >= 0

    def drain(self, now: float, mono: float, *, allowed: bool = True) -> list[LogGap]:
        """Writes what waits; the first call ends segments that a dead run left open. `allowed` False (disk below the low-water mark) leaves it in the ring. Returns new gaps.

        Never raises for what the disk does: a refused write sets `full` and is tried again by the next call.
        """
        gaps: list[LogGap] = []
        if not self._begun:
            self._begun = True
            for segment, record in mark_torn(self.folder, now):
                _log.info("%s: %s, %s", segment.raw_path, record.payload["reason"], record.payload)
        if not allowed:
            self.full = True
            return gaps
        if not self._ring and not self._lost and not self._index_backlog:
            if self._raw >= 0 and self._size and mono - self._opened_mono >= self.limits.segment_s:
                self._close_segment(now, mono)
            return gaps
        try:
            if self._raw < 0:
                self._open_segment(now, mono)
            elif self._size >= self.limits.segment_bytes or (
                self._size and mono - self._opened_mono >= self.limits.segment_s
            ):
                self._rotate(now, mono)
            self._flush_index()
            with self._lock:
                items = list(self._ring)
                self._ring.clear()
                lost, self._lost = self._lost, 0
                lost_at, why = self._lost_at, self._lost_why
            if lost:
                self._index(Kind.GAP, lost_at, mono, {"bytes": lost, "reason": why})
                gaps.append(LogGap(port=self.name, bytes=lost, reason=why, at=lost_at))
            written = 0
            try:
                written = self._write(items, gaps)
            finally:
                if written < len(items):
                    self._put_back(items[written:])
            self.full = False
            self._marks = 0
            self._flush_index()
        except OSError as error:
            if error.errno not in REFUSALS:
                _log.warning("log of %s: %s", self.name, error)
            self.full = True
            if error.errno in (errno.ENOENT, errno.ESTALE, errno.EBADF):
                self._abandon()
        return gaps

    def _write(self, items: list[tuple[float, float, bytes] | _Mark], gaps: list[LogGap]) -> int:
        """Writes items in order, neighbouring bytes in one call; returns how many are done. A short write splits an item."""
        done = 0
        while done < len(items):
            item = items[done]
            if isinstance(item, _Mark):
                self._index(item.kind, item.at, item.mono, item.payload)
                if item.kind is Kind.GAP:
                    gaps.append(
                        LogGap(
                            port=self.name, bytes=item.payload["bytes"], reason=str(item.payload["reason"]), at=item.at
                        )
                    )
                done += 1
                continue
            run: list[bytes] = []
            until = done
            starts: list[tuple[float, float, int]] = []
            size = self._size
            while until < len(items):
                following = items[until]
                if isinstance(following, _Mark):
                    break
                at, mono, data = following
                starts.append((at, mono, size))
                size += len(data)
                run.append(data)
                until += 1
                if size - self._size >= 256 * 1024:
                    break
            block = run[0] if len(run) == 1 else b"".join(run)
            try:
                count = os.write(self._raw, block)
            except OSError:
                items[:] = items[done:]
                self._put_back(items)
                items.clear()
                raise
            self._size += count
            self.bytes_stored += count
            with self._lock:
                self._waiting -= count
            for at, mono, offset in starts:
                if offset < self._size or not count:
                    self._time(at, mono, offset)
            if count < len(block):
                # the disk took a part: split, the rest stays first in the queue
                left = count
                while left and left >= len(run[0]):
                    left -= len(run.pop(0))
                    done += 1
                first = items[done]
                assert not isinstance(first, _Mark)
                items[done] = (first[0], first[1], first[2][left:])
                self._put_back(items[done:])
                items.clear()
                raise OSError(errno.ENOSPC, "short write")
            done = until
        return done

    def _time(self, at: float, mono: float, offset: int) -> None:
        clock_offset = at - mono
        if self._clock_offset is not None and abs(clock_offset - self._clock_offset) >= CLOCK_JUMP_S:
            self._index(Kind.CLOCK, at, mono, {"by_s": round(clock_offset - self._clock_offset, 3)}, offset)
            self._last_index_mono = float("-inf")
        self._clock_offset = clock_offset
        if mono - self._last_index_mono >= INDEX_EVERY_S:
            self._last_index_mono = mono
            self._index(Kind.BATCH, at, mono, None, offset)

    def _put_back(self, items: list[tuple[float, float, bytes] | _Mark]) -> None:
        with self._lock:
            self._ring.extendleft(reversed(items))
            if self._waiting > self.ring_bytes:
                last = self._ring[-1]
                self._drop(last.at if isinstance(last, _Mark) else last[0])

    def _index(
        self, kind: Kind, at: float, mono: float, payload: dict[str, Any] | None = None, offset: int | None = None
    ) -> None:
        if kind is Kind.BATCH and len(self._index_backlog) > _INDEX_BACKLOG:
            return
        self._index_backlog += pack_record(kind, at, mono, self._size if offset is None else offset, payload)

    def _flush_index(self) -> None:
        if self._index_backlog and self._idx >= 0:
            count = os.write(self._idx, self._index_backlog)
            del self._index_backlog[:count]

    def _open_segment(self, now: float, mono: float) -> None:
        self.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        if self._next_seq is None:
            self._next_seq = max((s.seq for s in segments(self.folder)), default=0) + 1
        opened = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
        segment = Segment(self.folder, self._next_seq, opened)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_BINARY", 0)
        flags |= getattr(os, "O_CLOEXEC", 0)
        head = pack_record(
            Kind.OPEN,
            now,
            mono,
            0,
            {"format": 1, "port": self.name, "boot_id": boot_id(), "sync_s": self.limits.sync_s},
        )
        idx = os.open(segment.index_path, flags, 0o640)
        try:
            os.write(idx, head)
            raw = os.open(segment.raw_path, flags, 0o640)
        except OSError:
            os.close(idx)
            with contextlib.suppress(OSError):
                segment.index_path.unlink()
            raise
        self._next_seq += 1
        self._idx, self._raw, self._size, self._synced = idx, raw, 0, 0
        self._opened_mono = mono
        self._last_index_mono = float("-inf")
        self.segment = segment
        with contextlib.suppress(OSError):
            write_atomically(self.folder / "latest", (segment.raw_path.name + "\n").encode())

    def _rotate(self, now: float, mono: float) -> None:
        """Opens the new segment first, then closes the old one: at no moment is there no place to write to."""
        old_raw, old_idx, old_size = self._raw, self._idx, self._size
        backlog = bytes(self._index_backlog)
        self._index_backlog.clear()
        try:
            self._open_segment(now, mono)
        except OSError:
            self._index_backlog[:0] = backlog
            raise
        self._end(old_raw, old_idx, old_size, now, mono, backlog)

    def _close_segment(self, now: float, mono: float) -> None:
        if self._raw < 0:
            return
        backlog = bytes(self._index_backlog)
        self._index_backlog.clear()
        raw, idx, size = self._raw, self._idx, self._size
        self._raw = self._idx = -1
        self._end(raw, idx, size, now, mono, backlog)

    @staticmethod
    def _end(raw: int, idx: int, size: int, now: float, mono: float, backlog: bytes) -> None:
        with contextlib.suppress(OSError):
            os.fsync(raw)
            os.write(idx, backlog + pack_record(Kind.CLOSE, now, mono, size))
            os.fsync(idx)
        for fd in (raw, idx):
            with contextlib.suppress(OSError):
                os.close(fd)

    def _abandon(self) -> None:
        """The files vanished under us (an administrator, a failed mount): start anew at the next bytes."""
        for fd in (self._raw, self._idx):
            with contextlib.suppress(OSError):
                os.close(fd)
        self._raw = self._idx = -1
        self._next_seq = None

    def vanished(self, now: float, mono: float) -> bool:
        """True when the open segment's file was deleted by somebody else; the log then starts a new one and states the gap."""
        if self._raw < 0 or self.segment is None:
            return False
        if self.segment.raw_path.exists():
            return False
        _log.error("%s was removed by somebody else", self.segment.raw_path)
        self.gap(self._size, f"{self.segment.raw_path.name} was removed by somebody else", now, mono)
        self._abandon()
        return True

    def sync(self, now: float, mono: float) -> None:
        """fsync of what was written since the last one; recorded, so that a power cut's damage can be bounded."""
        if self._raw < 0 or self._synced == self._size:
            return
        try:
            os.fsync(self._raw)
            self._synced = self._size
            self._index(Kind.SYNC, now, mono)
            self._flush_index()
            os.fsync(self._idx)
        except OSError as error:
            if error.errno not in REFUSALS:
                _log.warning("log of %s: fsync: %s", self.name, error)

    def close(self, now: float, mono: float) -> list[LogGap]:
        """Writes what waits and ends the segment. What the disk still refuses is returned as a gap."""
        gaps = self.drain(now, mono)
        if self._waiting:
            gaps.append(LogGap(port=self.name, bytes=self._waiting, reason="disk full at exit", at=now))
            self._index(Kind.GAP, now, mono, {"bytes": self._waiting, "reason": "disk full at exit"})
        self._close_segment(now, mono)
        return gaps
