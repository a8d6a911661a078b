"""``espmon erase PORT [REGION]``: make flash blank."""

from __future__ import annotations

import sys
from typing import Any

import click

from espmon.cli.flash_options import Console, in_loader, loader_options, number, port_argument, told_as_json
from espmon.errors import UsageProblem


@click.command()
@port_argument
@click.argument("region", required=False, metavar="[START:SIZE]")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before all of the flash is erased.")
@loader_options
@told_as_json
def erase(port: str, region: str | None, yes: bool, **wishes: Any) -> None:
    """Erase flash, all of it or a region.

    START:SIZE (0x3fc000:16K) or START-END (0x3fc000-0x400000), whole sectors of 0x1000. Settings, calibration and file
    systems in it are lost.
    """
    from espmon.app.flashing import Flasher

    start, size = _region(region)
    if size is None and not yes:
        if not sys.stdin.isatty():
            raise UsageProblem("Erasing all of the flash was not confirmed.", "Add --yes, or name a region.")
        click.confirm(f"Erase all of the flash of the board at {port}?", abort=True, err=True)

    def blank(flasher: Flasher, console: Console) -> None:
        done = flasher.erase(start, size)
        console.result(
            "erase", f"{done >> 10} KiB erased from 0x{start:x}.", start=f"0x{start:08x}", size=done
        )

    in_loader(port, wishes, blank)


def _region(text: str | None) -> tuple[int, int | None]:
    if text is None or text == "all":
        return 0, None
    if ":" in text:
        start, _, size = text.partition(":")
        return number(start), number(size)
    start, dash, end = text.partition("-")
    if not dash or number(end) <= number(start):
        raise UsageProblem(f"{text!r} is no region.", "Write START:SIZE or START-END, for example 0x3fc000:16K.")
    return number(start), number(end) - number(start)
