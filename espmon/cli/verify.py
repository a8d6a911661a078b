"""``espmon verify PORT ADDR FILE ...``: compare flash with files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from espmon.cli.flash_options import Console, in_loader, loader_options, pairs, port_argument, told_as_json
from espmon.errors import EXIT_VERIFY_FAILED


@click.command()
@port_argument
@click.argument("files", nargs=-1, metavar="ADDR FILE [ADDR FILE]...")
@loader_options
@told_as_json
def verify(port: str, files: tuple[str, ...], **wishes: Any) -> None:
    """Compare flash with files; status 24 when it differs.

    Nothing is transferred but digests.
    """
    from espmon.app.flashing import Flasher, files_from

    regions = files_from((address, Path(name)) for address, name in pairs(files))

    def compare(flasher: Flasher, console: Console) -> int:
        differing = flasher.compare(regions)
        if not differing:
            console.result("verify", "Flash holds these files.", equal=True, sectors=[])
            return 0
        shown = ", ".join(f"0x{s:x}" for s in differing[:8]) + (" ..." if len(differing) > 8 else "")
        console.result(
            "verify",
            f"Flash differs in {len(differing)} sector{'s' if len(differing) > 1 else ''}: {shown}",
            equal=False,
            sectors=[f"0x{s:08x}" for s in differing],
        )
        return EXIT_VERIFY_FAILED

    status = in_loader(port, wishes, compare)
    if status:
        sys.exit(status)
