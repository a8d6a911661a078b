"""``espmon flash PORT ADDR FILE ...``: write what differs, verify, start."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from espmon.cli.flash_options import Console, in_loader, loader_options, pairs, port_argument, told_as_json
from espmon.errors import EXIT_WRITTEN_NOT_VERIFIED


@click.command()
@port_argument
@click.argument("files", nargs=-1, metavar="ADDR FILE [ADDR FILE]...")
@loader_options
@told_as_json
def flash(port: str, files: tuple[str, ...], **wishes: Any) -> None:
    """Write files to flash, only sectors that differ, and verify them.

    ADDR is where FILE goes (0x0, 0x10000; a multiple of 0x1000). An interrupted write never leaves half an image that
    boots: run the same command again. Status 23: written, but this chip's boot ROM alone cannot read it back.
    """
    from espmon.app.flashing import Flasher, files_from

    regions = files_from((address, Path(name)) for address, name in pairs(files))

    def write(flasher: Flasher, console: Console) -> int:
        start = time.monotonic()
        done = flasher.flash(regions)
        seconds = time.monotonic() - start
        facts = {"verified": done.verified, "sectors_written": done.sectors, "sectors": done.of, "retries": done.retries}
        if not done.verified:
            mends = "run it again without --no-stub" if wishes["no_stub"] else "pip install 'espmon[stub]'"
            console.result(
                "flash",
                f"Written ({done.sectors} sectors, {seconds:.1f} s), not verified: the boot ROM of this chip cannot read "
                f"its flash. To verify: {mends}",
                **facts,
            )
            return EXIT_WRITTEN_NOT_VERIFIED
        what = (
            f"{done.sectors} of {done.of} sectors written and verified"
            if done.sectors
            else f"Nothing to do: all {done.of} sectors hold this already"
        )
        console.result("flash", f"{what} ({seconds:.1f} s).", **facts)
        return 0

    status = in_loader(port, wishes, write)
    if status:
        sys.exit(status)
