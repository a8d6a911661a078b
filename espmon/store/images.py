"""Known-good flash images, kept by digest with what is known of the board that they are for.

An image is one or more pieces, each a file's bytes for a flash offset. Its digest is a SHA-256 over offsets and pieces, so
the same firmware has one name wherever it came from. Nothing is half in the store: pieces first, then the manifest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espmon.errors import InputUnreadable
from espmon.store.atomic import write_atomically

# The largest flash of any supported module.
LARGEST_FLASH = 128 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """A kept image. `pieces`: (flash offset, bytes). `chip`, `mac`, `flash_bytes`: of the board it was read from or
    is meant for, None when the user named only files. `origin`: ``named``, ``learnt`` or ``backup``."""

    digest: str
    pieces: tuple[tuple[int, bytes], ...]
    origin: str = "named"
    port: str | None = None
    chip: str | None = None
    mac: str | None = None
    flash_bytes: int | None = None
    added: float = 0.0
    source: str = ""

    @property
    def size(self) -> int:
        """Bytes of all pieces."""
        return sum(len(content) for _, content in self.pieces)


def image_digest(pieces: Sequence[tuple[int, bytes]]) -> str:
    """The name of an image: SHA-256 over every piece's offset and content digest, in order of offsets."""
    whole = hashlib.sha256()
    for offset, content in sorted(pieces):
        whole.update(f"{offset:08x}:{hashlib.sha256(content).hexdigest()};".encode())
    return whole.hexdigest()


class ImageStore:
    """The folder `root`: ``DIGEST.json`` manifests and ``piece-SHA256`` files."""

    def __init__(self, root: Path, limit_bytes: int | None = None) -> None:
        self.root = root
        self.limit_bytes = limit_bytes

    def add(self, pieces: Sequence[tuple[int, bytes]], **about: Any) -> StoredImage:
        """Keeps an image. `about`: the other fields of :class:`StoredImage`. Raises :class:`InputUnreadable`."""
        image = StoredImage(digest=image_digest(pieces), pieces=tuple(sorted(pieces)), added=time.time(), **about)
        manifest: dict[str, Any] = {
            "pieces": [],
            "origin": image.origin,
            "port": image.port,
            "chip": image.chip,
            "mac": image.mac,
            "flash_bytes": image.flash_bytes,
            "added": image.added,
            "source": image.source,
        }
        try:
            self.root.mkdir(mode=0o750, parents=True, exist_ok=True)
            for offset, content in image.pieces:
                sha = hashlib.sha256(content).hexdigest()
                path = self.root / f"piece-{sha}"
                if not path.exists():
                    write_atomically(path, content)
                manifest["pieces"].append({"offset": offset, "sha256": sha, "size": len(content)})
            write_atomically(self.root / f"{image.digest}.json", json.dumps(manifest).encode())
        except OSError as error:
            raise InputUnreadable(f"{self.root}: {error.strerror}", "is the disk full?") from None
        self.gc(keep=image.digest)
        return image

    def get(self, digest: str) -> StoredImage | None:
        """The image with this digest (or one that begins so, 8 digits at least), its pieces checked; None if damaged or absent."""
        if not re.fullmatch(r"[0-9a-f]{8,64}", digest):
            return None
        found = [p for p in self._manifests() if p.stem.startswith(digest)]
        if len(found) != 1:
            return None
        pieces: list[tuple[int, bytes]] = []
        try:
            manifest = json.loads(found[0].read_text("utf-8"))
            for piece in manifest["pieces"]:
                if not _DIGEST.fullmatch(piece["sha256"]) or piece["size"] > LARGEST_FLASH:
                    return None
                content = (self.root / f"piece-{piece['sha256']}").read_bytes()
                if hashlib.sha256(content).hexdigest() != piece["sha256"]:
                    return None  # damaged on the disk: not known-good any more
                pieces.append((int(piece["offset"]), content))
            if image_digest(pieces) != found[0].stem:
                return None
            known = ("origin", "port", "chip", "mac", "flash_bytes", "added", "source")
            return StoredImage(digest=found[0].stem, pieces=tuple(pieces), **{k: manifest[k] for k in known})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _manifests(self) -> list[Path]:
        try:
            return [p for p in self.root.iterdir() if p.suffix == ".json" and _DIGEST.fullmatch(p.stem)]
        except OSError:
            return []

    def all(self) -> list[dict[str, Any]]:
        """The manifests, newest first, with `digest` and `size`; pieces are not read."""
        out = []
        for path in self._manifests():
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                manifest = json.loads(path.read_text("utf-8"))
                manifest["digest"] = path.stem
                manifest["size"] = sum(p["size"] for p in manifest["pieces"])
                out.append(manifest)
        return sorted(out, key=lambda m: m.get("added", 0.0), reverse=True)

    def known_good(self, port: str) -> str | None:
        """The digest of the newest image that was learnt from, or added for, `port`."""
        return next((m["digest"] for m in self.all() if m.get("port") == port and m.get("origin") != "backup"), None)

    def gc(self, *, keep: str) -> None:
        """Removes backups, then learnt images, oldest first, until the limit holds; images named by the user stay."""
        if self.limit_bytes is None:
            return
        rank = {"backup": 0, "learnt": 1}
        going = [m for m in self.all() if m.get("origin") in rank and m["digest"] != keep]
        going.sort(key=lambda m: (rank[m["origin"]], m.get("added", 0.0)))
        # the newest learnt image of a port is its known-good one
        newest = {m.get("port"): m["digest"] for m in reversed(self.all()) if m.get("origin") == "learnt"}
        for manifest in going:
            if self._disk_bytes() <= self.limit_bytes:
                return
            if manifest["digest"] in newest.values():
                continue
            with contextlib.suppress(OSError):
                (self.root / f"{manifest['digest']}.json").unlink()
            used = {p["sha256"] for m in self.all() for p in m["pieces"]}
            for path in self.root.glob("piece-*"):
                if path.name[6:] not in used:
                    with contextlib.suppress(OSError):
                        path.unlink()

    def _disk_bytes(self) -> int:
        total = 0
        for path in self.root.glob("piece-*"):
            with contextlib.suppress(OSError):
                total += path.stat().st_size
        return total
