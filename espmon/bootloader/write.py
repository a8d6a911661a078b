"""Writing so that an interrupted write never boots half an image, and only what differs is written.

Order: the first sector of every image being written is erased, the boot offset's first; then everything else; then,
when the rest has been verified, the first sectors, their headers last, the boot offset's last; then a digest over each
whole region. What was lost on the way is found by digests and written again, in smaller transactions while the link is bad.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from espmon.bootloader.actions import Note, Steps
from espmon.bootloader.errors import FlashDiffers, GaveUp, LoaderRefused, LoaderSilent, NeedsStub, Stopped
from espmon.bootloader.flash import BLANK, BLOCK, SECTOR, round_up, runs, sectors_of
from espmon.bootloader.loader import FLASH_FLOOR_S, FLASH_WORK, RATES, Loader, Meter, RomLoader, _digest
from espmon.bootloader.notes import Retried, Stage

# A clean link takes everything in one transaction; each failure quarters it down to 16 KiB, each success doubles it.
LARGEST_TRANSACTION = 1 << 24
SMALLEST_TRANSACTION = 4 * SECTOR
# So much without an error, and a rate that was lowered is raised by one step.
CLEAN_BEFORE_FASTER = 4 * BLOCK
# Failures without any sector gained.
PATIENCE = 12
ROUNDS = 3
WORN = "Written several times and still different: the flash is worn out or write-protected, or the supply dips."


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """`content` for flash at `offset` (a sector's address). `image`: it has a header and is written first sector last."""

    offset: int
    content: bytes
    source: str = ""
    image: bool = False

    @property
    def end(self) -> int:
        """First address after it."""
        return self.offset + len(self.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a write came to. `verified` False: this loader cannot read back. `sectors` written of `of` asked for."""

    verified: bool
    sectors: int
    of: int
    retries: int = 0


class Writer:
    """One write of some regions through one loader; made anew for each attempt, since flash itself is the state."""

    def __init__(self, loader: Loader, regions: Sequence[Region], boot_offset: int) -> None:
        self.loader = loader
        # Applications before what starts them: the boot offset's image comes last of all.
        self.regions = sorted(regions, key=lambda r: (r.offset == boot_offset, r.offset))
        self.boot_offset = boot_offset
        self.limit = LARGEST_TRANSACTION
        self.retries = 0
        self.sectors = 0
        self.clean = 0
        # Regions whose every byte a digest covered after it was written.
        self.proven: list[Region] = []
        self.incomplete = False

    def run(self) -> Steps[Written]:
        """Write and verify. Raises :class:`FlashDiffers` when it does not hold; :class:`Stopped` says what is left."""
        try:
            if not self.loader.can_hash:
                return (yield from self._blind())
            return (yield from self._exact())
        except Stopped as stop:
            raise Stopped(self.state()) from stop

    def state(self) -> str:
        """What the flash holds if writing ends now, for people."""
        if not self.incomplete:
            return "Nothing that was running is damaged: the flash holds what it held."
        if not any(r.image for r in self.regions):
            return "The flash is incomplete where data was being written. Run the same command again to finish."
        return (
            "The flash is incomplete, and the first sector of the image is blank, so that nothing half written can run. "
            "Run the same command again to finish."
        )

    @property
    def _total(self) -> int:
        return sum(len(sectors_of(r.offset, len(r.content))) for r in self.regions)

    # --- with digests ------------------------------------------------------------------------------------------------

    def _exact(self) -> Steps[Written]:
        wrong: list[tuple[Region, list[int]]] = []
        for _ in range(ROUNDS):
            yield Note(Stage("compare"))
            wrong = []
            for region in self.regions:
                sectors = yield from self.loader.differing(region.offset, region.content)
                if sectors:
                    wrong.append((region, sectors))
            if not wrong:
                self.incomplete = False
                return Written(verified=True, sectors=self.sectors, of=self._total, retries=self.retries)
            yield from self._round(wrong)
            yield Note(Stage("verify"))
            if (yield from self._holds([r for r, _ in wrong if r not in self.proven])):
                self.incomplete = False
                return Written(verified=True, sectors=self.sectors, of=self._total, retries=self.retries)
        raise FlashDiffers(tuple(s for _, sectors in wrong for s in sectors), WORN)

    def _holds(self, regions: Sequence[Region]) -> Steps[bool]:
        for region in regions:
            # A late answer to an earlier digest must not pass as this one.
            yield from self.loader.resync()
            if not (yield from self.loader.holds(region.offset, region.content)):
                return False
        return True

    def _round(self, wrong: list[tuple[Region, list[int]]]) -> Steps[None]:
        images = [r for r, _ in wrong if r.image]
        yield Note(Stage("invalidate"))
        # The boot image first: from here on nothing boots until all is whole.
        for region in sorted(images, key=lambda r: r.offset != self.boot_offset):
            self.incomplete = True
            yield from self._invalidate(region)
        self.incomplete = True
        firsts = {r.offset for r in images}
        rest = [(r, [s for s in sectors if s not in firsts]) for r, sectors in wrong]
        firsts_size = sum(min(SECTOR, len(r.content)) for r in images)
        meter = Meter("write", firsts_size + sum(min(SECTOR, r.end - s) for r, sectors in rest for s in sectors))
        yield Note(Stage("write"))
        mostly = [r for r, sectors in wrong if 2 * len(sectors) >= len(sectors_of(r.offset, len(r.content)))]
        for region, sectors in rest:
            yield from self._write_sectors(region, sectors, meter, at_once=region in mostly)
        # Every other sector was compared or written and seen right: only now may the images become valid.
        for region in images:
            if region in mostly and not (yield from self._tail_holds(region)):
                return  # the next round finds what was lost; the image stays invalid meanwhile
        for region in images:
            yield from self._write_sectors(region, [region.offset], meter)
            if region in mostly:
                self.proven.append(region)

    def _tail_holds(self, region: Region) -> Steps[bool]:
        tail = region.content[SECTOR:]
        if not tail:
            return True
        last = FLASH_FLOOR_S + min(len(tail), BLOCK * 4) * FLASH_WORK
        for attempt in range(PATIENCE):
            try:
                if attempt:
                    yield from self.loader.resync()
                found = yield from self.loader.md5(region.offset + SECTOR, len(tail), work_s=last)
                return found == _digest(tail)
            except LoaderRefused as error:
                # The status of the last block arrives here; the command itself was not done.
                if attempt + 1 == PATIENCE:
                    raise
                yield Note(Retried("digest", error.message, attempt + 1))
        return False

    def _invalidate(self, region: Region) -> Steps[None]:
        for attempt in range(PATIENCE):
            try:
                if (yield from self.loader.md5(region.offset, SECTOR)) == _digest(BLANK * SECTOR):
                    return
                yield from self.loader.erase(region.offset, SECTOR)
            except (LoaderSilent, LoaderRefused) as error:
                yield from self._recover(error, attempt + 1)
        raise FlashDiffers(
            (region.offset,), "The sector cannot be erased: the flash chip is write-protected or broken."
        )

    def _write_sectors(self, region: Region, sectors: list[int], meter: Meter, *, at_once: bool = False) -> Steps[None]:
        """Write these sectors of a region and see each right; `at_once`: the caller will, by one digest over all."""
        work = deque(runs(sectors))
        failures = 0
        while work:
            offset, size = work.popleft()
            if size > self.limit:
                work.appendleft((offset + self.limit, size - self.limit))
                size = self.limit
            at = offset - region.offset
            content = region.content[at : at + size]
            before = meter.done
            first = region.image and offset == region.offset
            write = self.loader.write_first if first else self.loader.write
            try:
                yield from write(offset, content, meter)
                if at_once and not self.retries:
                    self.sectors += size // SECTOR
                    continue
                last = FLASH_FLOOR_S + len(content) * FLASH_WORK
                if self.loader.proves_writes or (yield from self.loader.holds(offset, content, work_s=last)):
                    self.sectors += size // SECTOR
                    failures = 0
                    yield from self._went_well(size)
                    continue
                reason: Exception | None = None
            except (LoaderSilent, LoaderRefused) as error:
                reason = error
            failures += 1
            taken = self.loader.taken // SECTOR * SECTOR if reason is not None else 0
            yield from self._recover(reason, failures)
            if failures > PATIENCE:
                raise GaveUp("write", failures, str(reason) if reason else "the digest of what was written is wrong")
            # What was acknowledged is most likely there: one digest tells, else look sector by sector.
            good = 0
            if taken and (yield from self.loader.md5(offset, taken)) == _digest(content[:taken]):
                good = taken
                left = list(range(offset + good, offset + size, SECTOR))
            elif reason is None:
                left = yield from self.loader.differing(offset, content)
            else:
                left = list(range(offset, offset + size, SECTOR))
            gained = size // SECTOR - len(left)
            self.sectors += gained
            if gained:
                failures = 0
            elif reason is None and failures > ROUNDS:
                raise FlashDiffers(tuple(left), WORN)
            meter.done = before + gained * SECTOR
            work.extendleft(reversed(runs(left)))

    def _recover(self, reason: Exception | None, count: int) -> Steps[None]:
        self.retries += 1
        self.clean = 0
        text = str(reason) if reason is not None else "the digest of what was written is wrong"
        yield Note(Retried("transaction", text, count))
        size = min(self.limit, BLOCK * 4)
        self.limit = max(SMALLEST_TRANSACTION, size // 4 if size <= BLOCK * 4 else BLOCK)
        if not (yield from self.loader.resync()):
            if reason is not None:
                raise reason
            raise LoaderSilent(0x08, 2.0, self.loader.link.heard)
        # Errors that come with damage, not with plain loss, are the rate's.
        if self.retries >= 3 and self.retries % 3 == 0 and self.loader.can_change_rate:
            slower = max((r for r in RATES if r < self.loader.link.rate), default=None)
            if slower is not None:
                yield Note(Stage("rate", f"{slower} baud"))
                yield from self.loader.change_rate(slower, "errors")

    def _went_well(self, size: int) -> Steps[None]:
        self.limit = min(LARGEST_TRANSACTION, self.limit * 2)
        self.clean += size
        loader = self.loader
        if self.clean < CLEAN_BEFORE_FASTER or loader.link.rate >= loader.wanted_rate or not loader.can_change_rate:
            return
        self.clean = 0
        faster = min((r for r in RATES if r > loader.link.rate), default=loader.link.rate)
        yield Note(Stage("rate", f"{faster} baud"))
        if not (yield from loader.change_rate(faster, "clean")):
            loader.wanted_rate = loader.link.rate

    # --- without digests: ESP8266's ROM alone ------------------------------------------------------------------------

    def _blind(self) -> Steps[Written]:
        loader = self.loader
        if not isinstance(loader, RomLoader):
            raise NeedsStub(loader.chip_title, "compute digests of flash")
        total = self._total
        meter = Meter("write", total * SECTOR)
        for region in self.regions:
            if len(sectors_of(region.offset, len(region.content))) == 1:
                raise NeedsStub(loader.chip_title, "write a single sector without its neighbour")
        # Erasing from the front makes the first sector invalid first; no sector is erased again after that, so the
        # first ones can be programmed last.
        yield Note(Stage("erase"))
        for region in sorted(self.regions, key=lambda r: r.offset != self.boot_offset):
            self.incomplete = True
            yield from loader.erase(region.offset, round_up(len(region.content), SECTOR))
        yield Note(Stage("write"))
        for region in self.regions:
            start = SECTOR if region.image else 0
            yield from loader.program(region.offset + start, region.content[start:], meter)
        for region in self.regions:
            if region.image:
                yield from loader.write_first(region.offset, region.content[:SECTOR], meter)
        self.incomplete = False
        return Written(verified=False, sectors=total, of=total, retries=self.retries)


def write_regions(loader: Loader, regions: Sequence[Region], boot_offset: int) -> Steps[Written]:
    """Make flash hold the regions. Run again after any interruption it continues with what still differs."""
    return (yield from Writer(loader, regions, boot_offset).run())


def verify_regions(loader: Loader, regions: Sequence[Region]) -> Steps[list[int]]:
    """Addresses of sectors that do not hold what the regions say."""
    if not loader.can_hash:
        raise NeedsStub(loader.chip_title, "read back or hash its flash")
    out: list[int] = []
    for region in regions:
        yield Note(Stage("verify", region.source))
        yield from loader.resync()
        out += yield from loader.differing(region.offset, region.content)
    return out
