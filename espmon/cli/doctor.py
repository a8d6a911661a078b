"""``espmon doctor PORT``: measure, then say what is most probably wrong."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from espmon.cli.flash_options import Console, port_argument, told_as_json
from espmon.errors import EXIT_NOT_MEASURED


@click.command()
@port_argument
@click.option("--active", is_flag=True, help="Also reset the board, talk to its boot loader and load a stub into its RAM.")
@click.option("-b", "--baud", type=click.IntRange(50, 20_000_000), default=115200, metavar="RATE", help="Where to listen first.  [default: 115200]")
@click.option("--flash-baud", type=click.IntRange(9600, 4_000_000), metavar="RATE", help="Highest link rate to measure.  [default: 460800]")
@click.option("--before", default="auto", metavar="HOW", help="How to reach download mode: auto, none, a sequence's name, D0|R1|W0.1|...")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.option("-v", "--verbose", is_flag=True, help="Tell each step; list the other causes that fit as well.")
@told_as_json
def doctor(
    port: str, active: bool, baud: int, flash_baud: int | None, before: str, as_json: bool, verbose: bool
) -> None:
    """Find out why a board cannot be reached or does not run.

    Without --active it only listens and reads lines: nothing is sent, the board is not reset. Status 0: measured;
    26: could not measure.
    """
    from espmon.app.doctor import examine
    from espmon.app.flashing import FlashOptions

    console = Console(as_json=as_json, verbose=verbose)
    if not active and not as_json and sys.stdin.isatty() and sys.stderr.isatty():
        active = click.confirm("Reset the board and talk to its boot loader as well? Its firmware restarts.", err=True)
    console.say("Listening ..." if not active else "Listening, then asking the board ... (up to a minute)")
    options = FlashOptions(flash_baud=flash_baud or 460800, before=before)
    found = examine(port, active=active, baud=baud, options=options, noted=console.noted)
    first, *others = found.findings or (None,)
    if as_json:
        console.result(
            "doctor",
            "",
            port=port,
            measured=found.measured,
            cause=asdict(first) if first else None,
            others=[f.code for f in others if f],
            facts=list(found.facts),
            left_out=list(found.left_out),
        )
    else:
        lines = [f"- {fact}" if not fact.startswith("  |") else fact for fact in found.facts]
        if found.left_out:
            lines += ["", "Left out, since it resets the board or talks to it (--active does it):"]
            lines += [f"- {step}" for step in found.left_out]
        lines.append("")
        if first:
            lines += [f"Most probably: {first.cause}", f"What to do:    {first.remedy}"]
        else:
            lines.append("Nothing of what was measured points to a cause.")
        if verbose and others:
            lines += ["", "Also possible:"] + [f"- {f.cause}" for f in others if f]
        console.result("doctor", "\n".join(lines))
    if not found.measured:
        sys.exit(EXIT_NOT_MEASURED)
