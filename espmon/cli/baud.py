"""``espmon baud PORT``: the board's baud rate, found out from what it says."""

from __future__ import annotations

import json

import click

from espmon.cli.monitor import complete_ports


@click.command()
@click.argument("port", shell_complete=complete_ports)
@click.option("--from", "start", type=click.IntRange(50, 20_000_000), default=115200, show_default=True, metavar="RATE", help="The rate to begin with.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0.1), default=10.0, show_default=True, metavar="S", help="Listen at most S seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def baud(port: str, start: int, timeout_s: float, as_json: bool) -> None:
    """Find out at which baud rate a board talks.

    Listens only: the board is not reset and nothing is sent to it. Prints the rate; how it was found goes to standard
    error. Status 26 when nothing arrived, only the boot ROM did, or no rate explains what did.
    """
    from espmon.app.baudrate import find_rate

    found = find_rate(port, start=start, timeout_s=timeout_s)
    if as_json:
        steps = [{"baud": rate, "reason": why} for rate, why in found.steps]
        click.echo(
            json.dumps(
                {"port": port, "baud": found.rate, "sure": found.sure, "rom_baud": found.rom_rate, "seconds": found.seconds,
                 "received": found.received, "text": found.text, "steps": steps}
            )
        )  # fmt: skip
        return
    for rate, why in found.steps:
        click.echo(f"{rate} baud: {why}", err=True)
    if found.rom_rate is not None and found.rom_rate != found.rate:
        click.echo(f"The boot ROM talks at {found.rom_rate} baud.", err=True)
    if not found.sure:
        told = f"{found.text} bytes of text were read at it" if found.text else "what arrived was sent at it, and nothing came since"
        click.echo(f"Not sure: {told}, {found.received} bytes arrived in {found.seconds} s.", err=True)
    click.echo(str(found.rate))
