"""``espmon backup PORT FILE``: copy the flash into a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from espmon.cli.flash_options import Console, in_loader, loader_options, port_argument, size_option, told_as_json


@click.command()
@port_argument
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--size", callback=size_option, metavar="SIZE", help="Only so much of the flash, from its beginning.")
@click.option("--like", "stored", multiple=True, type=click.Path(exists=True, dir_okay=False), metavar="FILE", help="Take sectors that this file holds from it; repeatable.")
@click.option("--force", is_flag=True, help="Write over FILE.")
@loader_options
@told_as_json
def backup(port: str, file: str, size: int | None, stored: tuple[str, ...], force: bool, **wishes: Any) -> None:
    """Copy the whole flash into FILE.

    Blank sectors and those that a stored image holds are known by their digests and not transferred. An interrupted
    backup leaves FILE.part and goes on from there.
    """
    from espmon.app.flashing import Flasher, stored_sectors
    from espmon.errors import UsageProblem

    path = Path(file)
    if os.path.exists(path) and not force:
        raise UsageProblem(f"{file} exists.", "Name another file, or add --force.")

    def read(flasher: Flasher, console: Console) -> None:
        count, digest = flasher.backup(path, size=size, known=stored_sectors([Path(s) for s in stored]))
        total = count.read + count.blank + count.kept + count.stored
        parts = [f"{count.read >> 10} KiB read", f"{count.blank >> 10} KiB blank"]
        if count.kept:
            parts.append(f"{count.kept >> 10} KiB kept from an earlier attempt")
        if count.stored:
            parts.append(f"{count.stored >> 10} KiB known from stored images")
        console.result(
            "backup",
            f"{file}: {total >> 10} KiB, verified ({', '.join(parts)}).\nSHA-256 {digest}",
            file=file,
            size=total,
            sha256=digest,
            read=count.read,
            blank=count.blank,
            kept=count.kept,
            stored=count.stored,
        )

    in_loader(port, wishes, read)
