"""Closed segments: compressed, and deleted oldest first when they are too many, too old, or the disk is nearly full."""

from __future__ import annotations

import contextlib
import gzip
import logging
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from espmon.store.portlog import LogLimits
from espmon.store.segments import REFUSALS, Segment, segments

_log = logging.getLogger(__name__)

_Found = tuple[float, int, Segment]  # when written to last (Unix s), bytes on the disk


def pack_segment(segment: Segment) -> bool:
    """Compresses a closed segment, the bytes before their index; a file goes only when its packed one is on the disk. True
    when both are packed."""
    bytes_done = _pack(segment.raw_path, segment.packed_path)
    return bytes_done and _pack(segment.index_path, segment.packed_index_path)


def _pack(plain: Path, packed: Path) -> bool:
    if packed.exists():
        # renamed into place, then interrupted: the packed one is whole
        with contextlib.suppress(FileNotFoundError):
            plain.unlink()
        return True
    fresh = packed.with_name(packed.name + ".new")
    try:
        with plain.open("rb") as source, fresh.open("wb") as sink:
            with gzip.GzipFile(filename="", mode="wb", fileobj=sink, compresslevel=6, mtime=0) as z:
                shutil.copyfileobj(source, z, 256 * 1024)
            sink.flush()
            os.fsync(sink.fileno())
            found = os.fstat(source.fileno())
        os.utime(fresh, ns=(found.st_atime_ns, found.st_mtime_ns))  # its age counts from the last byte, not from now
        os.replace(fresh, packed)
        plain.unlink()
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        if error.errno not in REFUSALS and not isinstance(error, FileNotFoundError):
            _log.warning("%s: %s", plain, error)
        return False
    return True


class Retention:
    """Looks after the closed segments below `root`, a folder per port."""

    def __init__(self, root: Path, limits: LogLimits) -> None:
        self._root = root
        self._limits = limits
        # packed segments never change: ten thousand of them need not be asked each time (when written to last, bytes)
        self._packed: dict[Segment, tuple[float, int]] = {}

    def keep(
        self,
        now: float,
        *,
        open_segments: Collection[Segment],
        low_on_space: Callable[[], bool],
        free_bytes: Callable[[], int | None],
        stop: Callable[[], bool],
        by_age: bool = True,
    ) -> None:
        """Compresses, and deletes what the limits say; `open_segments` are never touched. Raises OSError."""
        limits = self._limits
        everything: list[_Found] = []
        packed: dict[Segment, tuple[float, int]] = {}
        for folder in sorted(p for p in self._root.iterdir() if p.is_dir()) if self._root.is_dir() else []:
            mine: list[_Found] = []
            for segment in segments(folder):
                if segment in open_segments:
                    continue
                facts = self._packed.get(segment)
                if facts is None:
                    done = not segment.raw_path.exists() and not segment.index_path.exists()
                    if limits.compress and not done and segment.closed() and not low_on_space():
                        done = pack_segment(segment)
                    facts = ended(segment), segment.disk_bytes()
                    if done:
                        packed[segment] = facts
                else:
                    packed[segment] = facts
                if stop():
                    return
                mine.append((*facts, segment))
            everything += _prune(mine, limits.keep_bytes, limits.keep_s if by_age else None, now)
        self._packed = packed
        everything.sort(key=lambda e: e[0])
        everything = _prune(everything, limits.keep_bytes_total, None, now)
        while low_on_space() and everything:
            free = free_bytes()
            if free is None or free >= limits.low_water * 3 // 2:
                break
            _, size, segment = everything.pop(0)
            _log.warning("disk nearly full: deleting %s (%d bytes)", segment.raw_path, size)
            segment.remove()


def ended(segment: Segment) -> float:
    """When it was written to last (Unix s), 0.0 when it is gone."""
    for path in (segment.index_path, segment.packed_index_path, segment.packed_path, segment.raw_path):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def _prune(found: list[_Found], keep_bytes: int | None, keep_s: float | None, now: float) -> list[_Found]:
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
