"""The raw log on the disk: append-only segments of exactly the bytes received, and an index that says when each came.

One folder per port. A segment is ``SEQ-OPENED.log`` (raw bytes) and ``SEQ-OPENED.idx``, both later with ``.gz``; SEQ is a running
number of eight digits, because a clock can jump and a number can't; OPENED is the opening time in UTC. No segment is
ever renamed or opened again: a new process starts a new segment and marks what the old one left unfinished
(:func:`mark_torn`). Written by :mod:`espmon.store.portlog`, read by :mod:`espmon.store.logreader`, compressed and deleted by
:mod:`espmon.store.retention`. ``docs/design/store.md`` has the reasons.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import json
import logging
import os
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO

_log = logging.getLogger(__name__)

# An index record: magic, kind, reserved, payload length, reserved, host time (Unix s), monotonic time (s), byte offset
# in the segment; then the payload (JSON, UTF-8) and a CRC-32 of all before it. Little endian.
_HEAD = struct.Struct("<2sBBHHddQ")
_CRC = struct.Struct("<I")
_MAGIC = b"\xa5E"
_PAYLOAD_LIMIT = 4096

_NAME = re.compile(r"(?P<seq>\d{8,})-(?P<opened>\d{8}T\d{6}Z)\.(?P<ext>log|log\.gz|idx)")
# What a disk says that is full, failing or read-only: tried again, told once.
REFUSALS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})


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


def pack_record(kind: Kind, at: float, mono: float, offset: int, payload: dict[str, Any] | None = None) -> bytes:
    """An index record as bytes; a payload that is too long is replaced by a note that it was."""
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

    @property
    def packed_index_path(self) -> Path:
        return self.folder / f"{self.stem}.idx.gz"

    @property
    def _paths(self) -> tuple[Path, ...]:
        # data first, so that a removal that is interrupted leaves no index without bytes unnoticed for long
        return self.raw_path, self.packed_path, self.index_path, self.packed_index_path

    def disk_bytes(self) -> int:
        """Bytes that the segment's files take."""
        total = 0
        for path in self._paths:
            with contextlib.suppress(OSError):
                total += path.stat().st_size
        return total

    def records(self) -> list[Record]:
        """The believed index records, in the order written. A missing index is an empty list."""
        try:
            return list(parse_index(self.index_path.read_bytes()))
        except OSError:
            return list(parse_index(self._packed_index()))

    def _packed_index(self) -> bytes:
        out = bytearray()
        try:
            with gzip.open(self.packed_index_path, "rb") as f:
                while piece := f.read(256 * 1024):
                    out += piece
        except (OSError, EOFError, zlib.error):
            pass  # none, or damaged: what was readable is believed as far as its checksums go
        return bytes(out)

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
        """Deletes the segment."""
        for path in self._paths:
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


def boot_id() -> str | None:
    """The kernel's identity of this run of the machine; None where the system has none. A power cut changes it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def mark_torn(folder: Path, now: float) -> list[tuple[Segment, Record]]:
    """Ends the segments that an earlier run left open, by appending a TORN record. Nothing is deleted or cut.

    Call it before the first write of a new run, by the only process that writes here. After a kill all bytes are good and
    only those since the last index record have no time of their own (`untimed`). When the machine restarted since,
    bytes behind the last SYNC record are `suspect`: the file system may have lost or zeroed them.
    """
    found: list[tuple[Segment, Record]] = []
    here = boot_id()
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
                f.write(pack_record(Kind.TORN, now, 0.0, size, payload))
        except OSError as error:
            _log.warning("%s: %s", segment.index_path, error)
            continue
        found.append((segment, record))
    return found
