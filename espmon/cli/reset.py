"""``espmon reset PORT``: pull the reset line."""

from __future__ import annotations

import click

from espmon.cli.flash_options import Console, port_argument
from espmon.errors import PortProblem


@click.command()
@port_argument
@click.option("--download", is_flag=True, help="Into download mode, where it waits for a flasher.")
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON.")
def reset(port: str, download: bool, as_json: bool) -> None:
    """Reset a board by its RTS and DTR lines."""
    from espmon.app.attached import open_port
    from espmon.app.flashing import reset_board

    console = Console(as_json=as_json, verbose=False)
    with open_port(port, 115200) as there:
        if not there.set_lines(dtr=False, rts=False):
            raise PortProblem(port, f"{port} has no DTR and RTS lines: the board can't be reset through it", "Press the board's reset button.")
        how = reset_board(there, download=download, tell=console.tell if as_json else None)
    if not as_json:
        console.result("reset", f"Reset{' into download mode' if download else ''} (sequence {how}).")
