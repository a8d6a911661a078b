"""The raw log: append-only segments of exactly the bytes received, and an index that says when each came.

One folder per port. A segment is ``SEQ-OPENED.log`` (raw bytes, later ``.log.gz``) and ``SEQ-OPENED.idx``; SEQ is a running
number of eight digits, because a clock can jump and a number can't; OPENED is the opening time in UTC. No segment is
ever renamed or opened again: a new process starts a new segment and marks what the old one left unfinished.

:meth:`PortLog.append` never touches the disk. It puts bytes into a bounded ring, and one writer thread
(:class:`LogWriter`) empties the rings. When the disk refuses, bytes wait in the ring; when the ring is full the oldest
are dropped and become a gap record with their exact count. ``docs/design/store.md`` has the reasons.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import json
import logging
import os
import re
import shutil
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO

_log = logging.getLogger(__name__)

MIB = 1 << 20

# An index record: magic, kind, reserved, payload length, reserved, host time (Unix s), monotonic time (s), byte offset
# in the segment; then the payload (JSON, UTF-8) and a CRC-32 of all before it. Little endian.
_HEAD = struct.Struct("<2sBBHHddQ")
_CRC = struct.Struct("<I")
_MAGIC = b"\xa5E"
_PAYLOAD_LIMIT = 4096

# Batches closer together than this share an index record: a line's host time is this exact.
INDEX_EVERY_S = 0.01
# The writer gathers what several reads bring: what a kill can lose at most.
_GATHER_S = 0.05
# While the disk refuses: how many marks wait, and how far apart in time small reads may be to become one. What waits is
# bounded in bytes; these bound what goes with each.
_MARKS_WAITING = 1000
_MERGE_S = 1.0
_MERGE_BYTES = 4096
# A difference between the wall clock's and the monotonic clock's advance that is written down as a jump.
CLOCK_JUMP_S = 1.0
# Index bytes that wait in memory while the disk is full; older time stamps are dropped first, the bytes they time stay.
_INDEX_BACKLOG = 256 * 1024

_NAME = re.compile(r"(?P<seq>\d{8,})-(?P<opened>\d{8}T\d{6}Z)\.(?P<ext>log|log\.gz|idx)")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


class Kind(IntEnum):
    """What an index record says."""

    OPEN = 1  # segment begins; payload: format, boot id of the host, port name
    BATCH = 2  # bytes from this offset on were received at this time
    MARK = 3  # something happened to the port; payload says what (lent, returned, reset caused, ...)
    GAP = 4  # bytes missing at this offset; payload: bytes (null: unknown), reason
    CLOCK = 5  # the wall clock jumped; payload: by_s
    SYNC = 6  # everything before this offset was on the disk
    CLOSE = 7  # segment ends in order at this offset
    TORN = 8  # found unfinished by a later run; payload: reason, untimed (bytes without a time), suspect (bytes not synced)


@dataclass(frozen=True, slots=True)
class Record:
    """One believed index record. `at` Unix seconds, `mono` seconds of the writer's monotonic clock."""

    kind: Kind
    at: float
    mono: float
    offset: int
    payload: dict[str, Any] = field(default_factory=dict)


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


def _pack(kind: Kind, at: float, mono: float, offset: int, payload: dict[str, Any] | None = None) -> bytes:
    body = b"" if not payload else json.dumps(payload, separators=(",", ":")).encode()
    if len(body) > _PAYLOAD_LIMIT:
        body = b'{"truncated":true}'
    record = _HEAD.pack(_MAGIC, kind, 0, len(body), 0, at, mono, offset) + body
    return record + _CRC.pack(zlib.crc32(record))


def parse_index(blob: bytes) -> Iterator[Record]:
    """The records of an index whose checksum is right; torn or overwritten stretches are skipped. Never raises."""
    at = 0
    while (at := blob.find(_MAGIC, at)) >= 0:
        head_end = at + _HEAD.size
        if head_end + _CRC.size > len(blob):
            # a torn record at the end; a shorter whole one may still start behind its magic
            at += 1
            continue
        _, kind, _, length, _, when, mono, offset = _HEAD.unpack_from(blob, at)
        end = head_end + length
        if (
            length > _PAYLOAD_LIMIT
            or end + _CRC.size > len(blob)
            or _CRC.unpack_from(blob, end)[0] != zlib.crc32(blob[at:end])
        ):
            at += 1
            continue
        payload: dict[str, Any] = {}
        if length:
            with contextlib.suppress(ValueError):
                loaded = json.loads(blob[head_end:end])
                payload = loaded if isinstance(loaded, dict) else {}
        with contextlib.suppress(ValueError):
            yield Record(Kind(kind), when, mono, offset, payload)
        at = end + _CRC.size


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment on the disk, open or closed."""

    folder: Path
    seq: int
    opened: str

    @property
    def stem(self) -> str:
        return f"{self.seq:08d}-{self.opened}"

    @property
    def raw_path(self) -> Path:
        return self.folder / f"{self.stem}.log"

    @property
    def packed_path(self) -> Path:
        return self.folder / f"{self.stem}.log.gz"

    @property
    def index_path(self) -> Path:
        return self.folder / f"{self.stem}.idx"

    def disk_bytes(self) -> int:
        """Bytes that the segment's files take."""
        total = 0
        for path in (self.raw_path, self.packed_path, self.index_path):
            with contextlib.suppress(OSError):
                total += path.stat().st_size
        return total

    def records(self) -> list[Record]:
        """The believed index records, in the order written. A missing index is an empty list."""
        try:
            return list(parse_index(self.index_path.read_bytes()))
        except OSError:
            return []

    def closed(self) -> bool:
        """True when a CLOSE or TORN record ends the segment: nobody writes to it any more."""
        try:
            with self.index_path.open("rb") as f:
                f.seek(0, os.SEEK_END)
                f.seek(max(0, f.tell() - 2 * _PAYLOAD_LIMIT))
                tail = f.read()
        except OSError:
            return True
        return any(r.kind in (Kind.CLOSE, Kind.TORN) for r in parse_index(tail))

    def open_raw(self) -> BinaryIO:
        """The raw bytes as a file, unpacked when needed. Raises OSError when the segment was removed meanwhile."""
        try:
            return self.raw_path.open("rb")
        except FileNotFoundError:
            return gzip.open(self.packed_path, "rb")  # type: ignore[return-value]  # GzipFile is a BinaryIO in all that we use

    def remove(self) -> None:
        """Deletes the segment: data first, so that an index never outlives its bytes unnoticed for long."""
        for path in (self.raw_path, self.packed_path, self.index_path):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def segments(folder: Path) -> list[Segment]:
    """All segments of a port's folder, oldest first. An unreadable or missing folder has none."""
    found: dict[str, Segment] = {}
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    for name in names:
        m = _NAME.fullmatch(name)
        if m and m["ext"] != "idx":
            found[f"{m['seq']}-{m['opened']}"] = Segment(folder, int(m["seq"]), m["opened"])
    return sorted(found.values(), key=lambda s: s.seq)


def _boot_id() -> str | None:
    """The kernel's identity of this run of the machine; None where the system has none. A power cut changes it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


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
                lost_at = self._lost_at
            if lost:
                self._index(Kind.GAP, lost_at, mono, {"bytes": lost, "reason": "disk full"})
                gaps.append(LogGap(port=self.name, bytes=lost, reason="disk full", at=lost_at))
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
            if error.errno not in _FULL:
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
        self._index_backlog += _pack(kind, at, mono, self._size if offset is None else offset, payload)

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
        head = _pack(
            Kind.OPEN,
            now,
            mono,
            0,
            {"format": 1, "port": self.name, "boot_id": _boot_id(), "sync_s": self.limits.sync_s},
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
            os.write(idx, backlog + _pack(Kind.CLOSE, now, mono, size))
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

    def vanished(self) -> bool:
        """True when the open segment's file was deleted by somebody else; the log then starts a new one."""
        if self._raw < 0 or self.segment is None:
            return False
        if self.segment.raw_path.exists():
            return False
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
            if error.errno not in _FULL:
                _log.warning("log of %s: fsync: %s", self.name, error)

    def close(self, now: float, mono: float) -> list[LogGap]:
        """Writes what waits and ends the segment. What the disk still refuses is returned as a gap."""
        gaps = self.drain(now, mono)
        if self._waiting:
            gaps.append(LogGap(port=self.name, bytes=self._waiting, reason="disk full at exit", at=now))
            self._index(Kind.GAP, now, mono, {"bytes": self._waiting, "reason": "disk full at exit"})
        self._close_segment(now, mono)
        return gaps


def write_atomically(path: Path, content: bytes, *, mode: int = 0o640) -> None:
    """Replaces `path` by `content` in one step; a crash leaves the old or the new file, never a part."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), mode)
    try:
        with os.fdopen(fd, "wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        os.replace(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def mark_torn(folder: Path, now: float) -> list[tuple[Segment, Record]]:
    """Ends the segments that an earlier run left open, by appending a TORN record. Nothing is deleted or cut.

    Call it before the first write of a new run, by the only process that writes here. After a kill all bytes are good and
    only those since the last index record have no time of their own (`untimed`). When the machine restarted since,
    bytes behind the last SYNC record are `suspect`: the file system may have lost or zeroed them.
    """
    found: list[tuple[Segment, Record]] = []
    here = _boot_id()
    for segment in segments(folder):
        if not segment.raw_path.exists() or (segment.index_path.exists() and segment.closed()):
            continue  # packed segments were closed
        records = segment.records()
        try:
            size = segment.raw_path.stat().st_size
        except OSError:
            # closed and packed segments whose index was lost are complete as they are
            continue
        believed = [r for r in records if r.offset <= size]
        opened = next((r for r in records if r.kind is Kind.OPEN), None)
        restarted = opened is None or here is None or opened.payload.get("boot_id") != here
        synced = max((r.offset for r in believed if r.kind is Kind.SYNC), default=0)
        timed = max((r.offset for r in believed if r.kind is Kind.BATCH), default=0)
        payload: dict[str, Any] = {
            "reason": "the machine stopped" if restarted else "the process was killed",
            "untimed": size - timed,
        }
        if restarted:
            payload["suspect"] = size - synced
        ahead = max((r.offset for r in records), default=0) - size
        if ahead > 0:
            payload["missing"] = ahead
        record = Record(Kind.TORN, now, 0.0, size, payload)
        try:
            with segment.index_path.open("ab") as f:
                # not synced: if a power cut takes the record, the next run writes it again
                f.write(_pack(Kind.TORN, now, 0.0, size, payload))
        except OSError as error:
            _log.warning("%s: %s", segment.index_path, error)
            continue
        found.append((segment, record))
    return found


def pack_segment(segment: Segment) -> bool:
    """Compresses a closed segment; the raw file goes only when the packed one is on the disk. True when it was done."""
    raw, packed = segment.raw_path, segment.packed_path
    if packed.exists():
        # renamed into place, then interrupted: the packed one is whole
        with contextlib.suppress(FileNotFoundError):
            raw.unlink()
        return True
    fresh = packed.with_name(packed.name + ".new")
    try:
        with raw.open("rb") as source, fresh.open("wb") as sink:
            with gzip.GzipFile(filename="", mode="wb", fileobj=sink, compresslevel=6, mtime=0) as z:
                shutil.copyfileobj(source, z, 256 * 1024)
            sink.flush()
            os.fsync(sink.fileno())
        os.replace(fresh, packed)
        raw.unlink()
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        if error.errno not in _FULL and not isinstance(error, FileNotFoundError):
            _log.warning("%s: %s", raw, error)
        return False
    return True


class LogWriter:
    """The one thread that writes raw logs, and a second one that compresses and deletes.

    `on_gaps` is called from the writer thread with gaps that were recorded. `clock`: (wall, monotonic), for tests.
    """

    def __init__(
        self,
        root: Path,
        limits: LogLimits,
        *,
        on_gaps: Callable[[list[LogGap]], None] | None = None,
        on_state: Callable[[bool, int], None] | None = None,
        clock: Callable[[], tuple[float, float]] | None = None,
    ) -> None:
        self.root = root
        self.limits = limits
        self.low_on_space = False
        self._on_gaps = on_gaps
        self._on_state = on_state
        self._clock = clock or (lambda: (time.time(), time.monotonic()))
        self._logs: dict[str, PortLog] = {}
        self._lock = threading.Lock()
        self._writing = threading.Lock()  # one thread at a time in a log's files: a log may end while the writer is at it
        self._wake = threading.Event()
        self._stop = False
        self._sync_now: set[str] = set()
        self._threads: list[threading.Thread] = []
        self._keep_wake = threading.Event()

    def open(self, name: str) -> PortLog:
        """The log of port `name`; the same object as long as it is open."""
        with self._lock:
            log = self._logs.get(name)
            if log is None:
                log = self._logs[name] = PortLog(self.root, name, self.limits)
                share = max(64 * 1024, self.limits.rings_total // len(self._logs))
                for each in self._logs.values():
                    each.ring_bytes = min(self.limits.ring_bytes, share)
            return log

    def release(self, name: str) -> None:
        """Ends the log of a port that is no longer watched."""
        with self._lock:
            log = self._logs.pop(name, None)
        if log is not None:
            with self._writing:
                gaps = log.close(*self._clock())
            self._report(gaps)

    def start(self) -> None:
        """Starts the writer and the keeper threads."""
        for name, target in (("log-writer", self._write_forever), ("log-keeper", self._keep_forever)):
            thread = threading.Thread(target=target, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def wake(self) -> None:
        """There is something to write."""
        if not self._wake.is_set():
            self._wake.set()

    def sync_soon(self, name: str) -> None:
        """fsync this port's log at the next round: a crash was seen."""
        self._sync_now.add(name)
        self.wake()

    def stop(self) -> None:
        """Writes what waits, ends all segments, joins the threads."""
        self._stop = True
        self._wake.set()
        self._keep_wake.set()
        for thread in self._threads:
            thread.join(10)
        with self._lock:
            logs = list(self._logs.values())
            self._logs.clear()
        for log in logs:
            with self._writing:
                gaps = log.close(*self._clock())
            self._report(gaps)

    def _report(self, gaps: list[LogGap]) -> None:
        if gaps and self._on_gaps:
            self._on_gaps(gaps)

    def _write_forever(self) -> None:
        next_sync = next_space = 0.0
        while not self._stop:
            self._wake.wait(0.5)
            self._wake.clear()
            now, mono = self._clock()
            if mono >= next_space:
                next_space = mono + 1.0
                self._check_space()
            sync_all = mono >= next_sync
            if sync_all:
                next_sync = mono + self.limits.sync_s
            self.write_round(now, mono, sync_all=sync_all)
            # gathers what several reads bring into one write; a kill loses at most this much
            time.sleep(_GATHER_S)

    def write_round(self, now: float, mono: float, *, sync_all: bool = False) -> None:
        """One round of the writer thread: every ring emptied, and synced when due."""
        with self._lock:
            logs = list(self._logs.values())
        urgent = set()
        while self._sync_now:
            urgent.add(self._sync_now.pop())
        for log in logs:
            before = log.full
            with self._writing:
                if self._logs.get(log.name) is not log:
                    continue  # ended meanwhile
                gaps = log.drain(now, mono, allowed=not self.low_on_space)
                if sync_all or log.name in urgent:
                    log.sync(now, mono)
                if sync_all:
                    log.vanished()
            self._report(gaps)
            if log.full and not before:
                self._keep_wake.set()

    def free_bytes(self) -> int | None:
        """Free space of the log's file system for this user, None when the system doesn't tell."""
        try:
            return shutil.disk_usage(self.root).free
        except OSError:
            return None

    def _check_space(self) -> None:
        free = self.free_bytes()
        if free is None:
            return
        # resuming needs a little more than pausing, so that it does not flap
        line = self.limits.low_water + (self.limits.low_water // 4 if self.low_on_space else 0)
        low = free < line
        if low:
            self._keep_wake.set()
        if low != self.low_on_space:
            self.low_on_space = low
            if low:
                _log.error("%s: %d MiB free; raw logging pauses, crash records go on", self.root, free // MIB)
            else:
                _log.warning("%s: %d MiB free; raw logging resumes", self.root, free // MIB)
            if self._on_state:
                self._on_state(low, free)

    def _keep_forever(self) -> None:
        while not self._stop:
            self._keep_wake.wait(10.0)
            self._keep_wake.clear()
            if self._stop:
                return
            try:
                self.keep(self._clock()[0])
            except OSError as error:
                _log.warning("%s: %s", self.root, error)
            time.sleep(0.2)

    def keep(self, now: float) -> None:
        """Compresses closed segments and deletes by the limits, oldest first; open segments are never touched."""
        with self._lock:
            open_stems = {(log.name, log.segment.stem) for log in self._logs.values() if log.segment and log._raw >= 0}
        everything: list[tuple[float, int, Segment]] = []
        for folder in sorted(p for p in self.root.iterdir() if p.is_dir()) if self.root.is_dir() else []:
            mine: list[tuple[float, int, Segment]] = []
            for segment in segments(folder):
                if (folder.name, segment.stem) in open_stems:
                    continue
                if self.limits.compress and segment.raw_path.exists() and segment.closed() and not self.low_on_space:
                    pack_segment(segment)
                if self._stop:
                    return
                mine.append((_ended(segment), segment.disk_bytes(), segment))
            everything += _prune(mine, self.limits.keep_bytes, self.limits.keep_s, now)
        everything.sort(key=lambda e: e[0])
        everything = _prune(everything, self.limits.keep_bytes_total, None, now)
        while self.low_on_space and everything:
            free = self.free_bytes()
            if free is None or free >= self.limits.low_water * 3 // 2:
                break
            _, size, segment = everything.pop(0)
            _log.warning("disk nearly full: deleting %s (%d bytes)", segment.raw_path, size)
            segment.remove()


def _ended(segment: Segment) -> float:
    for path in (segment.index_path, segment.packed_path, segment.raw_path):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def _prune(
    found: list[tuple[float, int, Segment]], keep_bytes: int | None, keep_s: float | None, now: float
) -> list[tuple[float, int, Segment]]:
    """Deletes the oldest (first) ones until the rest keeps the limits; returns the rest."""
    total = sum(size for _, size, _ in found)
    kept = list(found)
    while kept and (
        (keep_bytes is not None and total > keep_bytes) or (keep_s is not None and now - kept[0][0] > keep_s)
    ):
        _, size, segment = kept.pop(0)
        total -= size
        segment.remove()
    return kept


# --- reading ---------------------------------------------------------------------------------------------------------


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
