"""What must hold before the first erase. Every check raises its own type of refusal, with the reason."""

from __future__ import annotations

from collections.abc import Sequence

from espmon.bootloader.actions import Steps
from espmon.bootloader.errors import (
    FlashUnreadable,
    ImageDamaged,
    NotBootable,
    PastEnd,
    RegionsOverlap,
    SecurityForbids,
    WrongChip,
    WrongFlashSize,
)
from espmon.bootloader.flash import BLANK, NO_FLASH_IDS, SECTOR, sectors_of
from espmon.bootloader.image import Image, ImageFault, has_header, identify, inner_application
from espmon.bootloader.loader import Loader, _digest
from espmon.bootloader.session import Security
from espmon.bootloader.write import Region
from espmon.chips import CHIPS, Chip
from espmon.errors import UsageProblem


def plan_regions(files: Sequence[Region], chip: Chip, flash_size: int | None) -> list[Region]:
    """The regions to write for these files, each marked whether it is an image; a file that spans the boot offset is
    cut there, since what the chip boots is written by other rules.

    Raises what is wrong: :class:`WrongChip`, :class:`ImageDamaged`, :class:`NotBootable`, :class:`PastEnd`,
    :class:`WrongFlashSize`, :class:`RegionsOverlap`, or :class:`~espmon.errors.UsageProblem`.
    """
    out: list[Region] = []
    for file in files:
        check_address(file)
        if flash_size is not None and file.end > flash_size:
            raise PastEnd(file.source, file.end, flash_size)
        out += _split(file, chip, flash_size)
    taken: dict[int, str] = {}
    for region in out:
        for sector in sectors_of(region.offset, len(region.content)):
            if sector in taken:
                raise RegionsOverlap(taken[sector], region.source)
            taken[sector] = region.source
    return out


def check_address(file: Region) -> None:
    """Raises :class:`~espmon.errors.UsageProblem` for an empty file or one that does not begin with a sector."""
    if not file.content:
        raise UsageProblem(f"{file.source} is empty.", "Name a file with content.")
    if file.offset % SECTOR or file.offset < 0:
        raise UsageProblem(f"0x{file.offset:x} is not where a flash sector begins.", "Addresses are multiples of 0x1000.")


def _split(file: Region, chip: Chip, flash_size: int | None) -> list[Region]:
    boot = chip.boot_offset
    if file.offset < boot < file.end:
        before = Region(offset=file.offset, content=file.content[: boot - file.offset], source=file.source)
        rest = Region(offset=boot, content=file.content[boot - file.offset :], source=file.source)
        return [before, _checked(rest, chip, flash_size)]
    return [_checked(file, chip, flash_size)]


def _checked(file: Region, chip: Chip, flash_size: int | None) -> Region:
    boots = file.offset == chip.boot_offset
    if not has_header(file.content):
        if boots:
            raise NotBootable(file.source, file.offset)
        return file
    try:
        image = identify(file.content, chip)
        inner = inner_application(file.content) if boots and image.chip == "esp8266" and image.end <= SECTOR else None
    except ImageFault as fault:
        raise ImageDamaged(file.source, str(fault)) from None
    if image.chip != chip.name and image.fault is None:
        other = CHIPS[image.chip].title if image.chip else f"a chip with id {image.chip_id}"
        raise WrongChip(file.source, other, chip.title)
    for part in (image, inner):
        if part is not None and part.fault:
            raise ImageDamaged(file.source, part.fault)
    if boots:
        _size_fits(file, image, flash_size)
    return Region(offset=file.offset, content=file.content, source=file.source, image=True)


def _size_fits(file: Region, image: Image, flash_size: int | None) -> None:
    if image.flash_size and flash_size and image.flash_size > flash_size:
        raise WrongFlashSize(
            f"{file.source} was built for {image.flash_size >> 10} KiB of flash, the board has {flash_size >> 10} KiB."
        )


def check_security(security: Security) -> None:
    """Raises :class:`SecurityForbids` for a chip whose fuses forbid plain writing."""
    doing = "what is written would not run, or lock the chip"
    if security.secure_download:
        raise SecurityForbids("Secure download mode", "the loader lets nobody read, hash or erase")
    if security.encryption:
        raise SecurityForbids("Flash encryption", doing)
    if security.secure_boot:
        raise SecurityForbids("Secure boot", doing)


def check_readable(security: Security) -> None:
    """Raises :class:`SecurityForbids` for a chip whose flash cannot be read, or says nothing when it is.

    Secure boot alone changes nothing for a reader.
    """
    if security.secure_download:
        raise SecurityForbids("Secure download mode", "the loader lets nobody read, hash or erase")
    if security.encryption:
        raise SecurityForbids("Flash encryption", "what is in flash is readable to this one chip only")


def check_flash(flash_id: int | None, flash_size: int | None) -> None:
    """Raises :class:`FlashUnreadable` when no flash chip answers, :class:`WrongFlashSize` when its size is not known."""
    if flash_id is None:
        return
    if flash_id in NO_FLASH_IDS:
        raise FlashUnreadable(flash_id)
    if flash_size is None:
        raise WrongFlashSize(f"The flash chip's id 0x{flash_id:06x} does not tell its size; give it with --flash-size.")


def check_real_size(loader: Loader, flash_size: int, boot_offset: int) -> Steps[None]:
    """Raises :class:`WrongFlashSize` for a flash chip that is smaller than its id says.

    Such a chip leaves high address bits out, so that the same sectors appear again at half the claimed size. A sector
    that is blank proves nothing; two equal ones are compared over a longer stretch before anybody is accused.
    """
    if not loader.can_hash:
        return
    half = flash_size // 2
    first = yield from loader.md5(boot_offset, SECTOR)
    if first == _digest(BLANK * SECTOR) or first != (yield from loader.md5(half + boot_offset, SECTOR)):
        return
    if first == (yield from loader.md5(boot_offset + SECTOR, SECTOR)):
        return  # the same everywhere: no proof
    length = min(half - boot_offset, 0x40000)
    if (yield from loader.md5(boot_offset, length)) == (yield from loader.md5(half + boot_offset, length)):
        raise WrongFlashSize(
            f"The flash chip says it has {flash_size >> 10} KiB, but its contents repeat after {half >> 10} KiB or less."
        )
