"""``espmon chip PORT``: which chip, MAC, flash and fuses."""

from __future__ import annotations

from typing import Any

import click

from espmon.cli.flash_options import Console, in_loader, loader_options, port_argument, told_as_json


@click.command()
@port_argument
@loader_options
@told_as_json
def chip(port: str, **wishes: Any) -> None:
    """Ask a board which chip it is: MAC, flash, security.

    The board is reset into its boot loader and then started again.
    """
    from espmon.app.flashing import Flasher

    def ask(flasher: Flasher, console: Console) -> None:
        found = flasher.identify()
        size = f"{found.flash_size >> 10} KiB" if found.flash_size else "size not known"
        identity = f"0x{found.flash_id:06x}" if found.flash_id is not None else "not readable"
        states = {
            "secure boot": found.security.secure_boot,
            "flash encryption": found.security.encryption,
            "secure download mode": found.security.secure_download,
        }
        on = [name for name, state in states.items() if state]
        console.result(
            "chip",
            f"{'chip':9} {found.title}\n"
            f"{'MAC':9} {found.mac or 'not readable'}\n"
            f"{'flash':9} {size}, id {identity}\n"
            f"{'security':9} {', '.join(on) + ' on' if on else 'open'}\n"
            f"{'loader':9} {found.loader_title} at {found.rate} baud",
            chip=found.chip.name,
            title=found.title,
            mac=found.mac or None,
            flash_id=identity if found.flash_id is not None else None,
            flash_size=found.flash_size,
            security={name.replace(" ", "_"): state for name, state in states.items()},
            loader=found.loader,
            rate=found.rate,
        )

    in_loader(port, wishes, ask)
