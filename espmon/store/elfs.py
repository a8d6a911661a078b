"""ELF files kept by their SHA-256, so that a crash of last month's firmware is still decoded with last month's symbols.

A file is kept once, whatever its name. The store is bounded: what was not used for longest goes first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from espmon.errors import ElfUnusable
from espmon.store.atomic import write_atomically

# No firmware's ELF with debug sections is larger; the bound keeps a wrong path from filling the disk.
LARGEST_ELF = 512 << 20
_SHA = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredElf:
    """One kept ELF: `path` in the store, `source` where it came from, `added` and `used` Unix seconds, size in bytes."""

    sha256: str
    path: Path
    source: str
    added: float
    used: float
    size: int


class ElfStore:
    """The folder `root`; safe to use from several processes (each change is one rename)."""

    def __init__(self, root: Path, limit_bytes: int | None = None) -> None:
        self.root = root
        self.limit_bytes = limit_bytes
        self._seen: dict[str, tuple[int, int, str]] = {}

    def add(self, source: Path) -> StoredElf:
        """Keeps `source`; an ELF that is here already is only marked as used. Raises :class:`ElfUnusable`."""
        try:
            before = source.stat()
            if before.st_size > LARGEST_ELF:
                raise ElfUnusable(str(source), f"is larger than {LARGEST_ELF >> 20} MiB, no firmware is")
            with source.open("rb") as f:
                if f.read(4) != b"\x7fELF":
                    raise ElfUnusable(str(source), "is no ELF file", "name the .elf that the build makes, not the .bin")
            self.root.mkdir(mode=0o750, parents=True, exist_ok=True)
            fresh = self.root / f".new-{os.getpid()}-{time.monotonic_ns()}"
            digest = hashlib.sha256()
            try:
                with source.open("rb") as f, fresh.open("xb") as out:
                    while block := f.read(1 << 20):
                        digest.update(block)
                        out.write(block)
                sha256 = digest.hexdigest()
                target = self.root / f"{sha256}.elf"
                if target.exists():
                    fresh.unlink()
                    os.utime(target)
                else:
                    os.replace(fresh, target)
                    about = {"source": str(source), "mtime": before.st_mtime, "added": time.time()}
                    write_atomically(self.root / f"{sha256}.json", json.dumps(about).encode())
            finally:
                with contextlib.suppress(FileNotFoundError):
                    fresh.unlink()
        except OSError as error:
            raise ElfUnusable(str(source), error.strerror or str(error)) from None
        self._seen[str(source)] = (before.st_mtime_ns, before.st_size, sha256)
        kept = self._read(target)
        self.gc(keep={sha256})
        return kept

    def look(self, source: Path) -> tuple[StoredElf, bool] | None:
        """The ELF at `source` now: kept if it is new or changed (True). None while it is missing or half written."""
        try:
            now = source.stat()
        except OSError:
            return None
        seen = self._seen.get(str(source))
        if seen is not None and seen[:2] == (now.st_mtime_ns, now.st_size):
            kept = self.get(seen[2])
            if kept is not None:
                return kept, False
        if time.time() - now.st_mtime < 1.0:
            return None  # the linker may still be writing
        try:
            return self.add(source), True
        except ElfUnusable:
            return None

    def _read(self, path: Path) -> StoredElf:
        stat = path.stat()
        source, added = "", stat.st_mtime
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
            about = json.loads(path.with_suffix(".json").read_text("utf-8"))
            source, added = str(about.get("source", "")), float(about.get("added", added))
        return StoredElf(sha256=path.stem, path=path, source=source, added=added, used=stat.st_mtime, size=stat.st_size)

    def get(self, sha256: str) -> StoredElf | None:
        """The ELF with this digest, or with one that begins so (at least 8 digits, as ESP-IDF prints); None if absent."""
        wanted = sha256.lower()
        if not re.fullmatch(r"[0-9a-f]{8,64}", wanted):
            return None
        if len(wanted) == 64:  # asked every two seconds for each board
            with contextlib.suppress(OSError):
                return self._read(self.root / f"{wanted}.elf")
            return None
        found = [p for p in self._paths() if p.stem.startswith(wanted)]
        if len(found) != 1:
            return None
        with contextlib.suppress(OSError):
            return self._read(found[0])
        return None

    def _paths(self) -> list[Path]:
        try:
            return [p for p in self.root.iterdir() if p.suffix == ".elf" and _SHA.fullmatch(p.stem)]
        except OSError:
            return []

    def all(self) -> list[StoredElf]:
        """All kept ELFs, the last used first."""
        out = []
        for path in self._paths():
            with contextlib.suppress(OSError):
                out.append(self._read(path))
        return sorted(out, key=lambda e: e.used, reverse=True)

    def gc(self, *, keep: Iterable[str] = (), limit_bytes: int | None = None) -> list[StoredElf]:
        """Removes the longest unused ones until the limit holds, never those in `keep`. Returns what went."""
        limit = self.limit_bytes if limit_bytes is None else limit_bytes
        if limit is None:
            return []
        kept = self.all()
        total = sum(e.size for e in kept)
        protected = set(keep)
        gone = []
        while kept and total > limit:
            elf = kept.pop()
            if elf.sha256 in protected:
                continue
            total -= elf.size
            gone.append(elf)
            for path in (elf.path, elf.path.with_suffix(".json")):
                with contextlib.suppress(OSError):
                    path.unlink()
        return gone


def expand(patterns: Iterable[str]) -> list[Path]:
    """The ELF files that `patterns` name: files, build folders (searched three levels deep), or glob patterns."""
    out: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            for depth in ("*.elf", "*/*.elf", "*/*/*.elf"):
                out += sorted(path.glob(depth))
        elif any(c in pattern for c in "*?["):
            anchor = Path(path.anchor) if path.is_absolute() else Path()
            with contextlib.suppress(ValueError, OSError):
                out += sorted(anchor.glob(str(path.relative_to(path.anchor)) if path.is_absolute() else pattern))
        else:
            out.append(path)
    return list(dict.fromkeys(p for p in out if not p.is_dir()))

