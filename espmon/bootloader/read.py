"""Reading a whole flash without transferring what is known: blank, stored before, or read by an earlier attempt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from espmon.bootloader.actions import Note, Steps
from espmon.bootloader.errors import FlashDiffers, NeedsStub
from espmon.bootloader.flash import BLANK, BLOCK, SECTOR
from espmon.bootloader.loader import Loader, Meter, _digest
from espmon.bootloader.notes import Stage

QUARTER = 4 * SECTOR


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the backup is known: `content` at `offset`. `how`: ``read``, ``blank``, ``kept`` or ``stored``.

    `keep` False: it stands in the partial file already and need not be written.
    """

    offset: int
    content: bytes
    how: str

    @property
    def keep(self) -> bool:
        return self.how == "kept"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadCount:
    """How many bytes of a backup came from where; `digest` is the MD5 that the chip itself computed over all of it."""

    read: int
    blank: int
    kept: int
    stored: int
    digest: bytes


def sector_digests(contents: Iterable[bytes]) -> dict[bytes, bytes]:
    """MD5 -> content of every sector and 64 KiB block of stored images, blank ones left out."""
    out: dict[bytes, bytes] = {}
    for content in contents:
        for size in (SECTOR, BLOCK):
            for at in range(0, len(content) - size + 1, size):
                part = content[at : at + size]
                if part.count(BLANK) != size:
                    out.setdefault(_digest(part), bytes(part))
    return out


class Backup:
    """Reads `size` bytes from 0 on. What is found is told in :class:`Piece` notes; the caller writes them to a file."""

    def __init__(
        self, loader: Loader, size: int, partial: bytes = b"", known: Mapping[bytes, bytes] | None = None
    ) -> None:
        self.loader = loader
        self.size = size
        self.partial = partial
        self.known = known or {}
        self.meter = Meter("read", size)
        self.count = {"read": 0, "blank": 0, "kept": 0, "stored": 0}

    def run(self) -> Steps[ReadCount]:
        """The whole flash. Raises :class:`FlashDiffers` when it changed while it was read, :class:`NeedsStub`."""
        if not self.loader.can_read or not self.loader.can_hash:
            raise NeedsStub(self.loader.chip_title, "read its flash")
        yield Note(Stage("read"))
        for block in range(0, self.size, BLOCK):
            yield from self._part(block, min(BLOCK, self.size - block))
        yield Note(Stage("verify"))
        yield from self.loader.resync()
        digest = yield from self.loader.md5(0, self.size)
        return ReadCount(**self.count, digest=digest)

    def _found(self, offset: int, content: bytes, how: str) -> Steps[None]:
        self.count[how] += len(content)
        yield Note(Piece(offset, content, how))
        if how != "read":
            yield from self.meter.add(len(content))

    def _known(self, offset: int, size: int) -> Steps[bool]:
        digest = yield from self.loader.md5(offset, size)
        if digest == _digest(BLANK * size):
            yield from self._found(offset, BLANK * size, "blank")
            return True
        kept = self.partial[offset : offset + size]
        if len(kept) == size and _digest(kept) == digest:
            yield from self._found(offset, kept, "kept")
            return True
        stored = self.known.get(digest)
        if stored is not None and len(stored) == size:
            yield from self._found(offset, stored, "stored")
            return True
        return False

    def _part(self, offset: int, size: int) -> Steps[None]:
        if self.loader.reads_blank_free and not self.known and not self.partial:
            content = yield from self.loader.read(offset, size)
            how = "blank" if content.count(BLANK) == size else "read"
            yield from self._found(offset, content, how)
            if how == "read":
                yield from self.meter.add(size)
            return
        if (yield from self._known(offset, size)):
            return
        unknown: list[tuple[int, int]] = []
        # Asking costs some 10 ms, reading 4 KiB 45 ms at 921600 and 360 ms at 115200.
        for quarter in range(offset, offset + size, QUARTER):
            length = min(QUARTER, offset + size - quarter)
            if size > QUARTER and (yield from self._known(quarter, length)):
                continue
            if not self.known and not self.partial:
                unknown.append((quarter, length))
                continue
            for sector in range(quarter, quarter + length, SECTOR):
                if not (yield from self._known(sector, min(SECTOR, quarter + length - sector))):
                    unknown.append((sector, min(SECTOR, quarter + length - sector)))
        joined: list[tuple[int, int]] = []
        for at, length in unknown:
            if joined and sum(joined[-1]) == at:
                joined[-1] = (joined[-1][0], joined[-1][1] + length)
            else:
                joined.append((at, length))
        for at, length in joined:
            content = yield from self.loader.read(at, length, self.meter)
            yield from self._found(at, content, "read")


def check_backup(content_digest: bytes, chip_digest: bytes) -> None:
    """Raises :class:`FlashDiffers` when the file is not what the chip says that it holds."""
    if content_digest != chip_digest:
        raise FlashDiffers((0,), "The flash changed while it was read. Run the same command again: it continues.")
