"""`espmon sim CHIP`: a virtual board, as a serial device server or talking to this terminal."""

from __future__ import annotations

import sys
from pathlib import Path

import click

SUMMARY = "Run a virtual board (RFC 2217 server) that esptool and espmon can flash and watch."


def _parameters(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from espmon.board.settings import PARAMETERS, described

    for name, default, text in described(PARAMETERS):
        click.echo(f"{name:20} {default:10} {text}")
    ctx.exit()


@click.command(help=SUMMARY, short_help=SUMMARY)
@click.argument("chip", metavar="CHIP|URL")
@click.option(
    "--rfc2217", "listen", metavar="HOST:PORT", help="Where to listen (port 0: any). Default: 127.0.0.1:2217."
)
@click.option(
    "--flash", type=click.Path(path_type=Path, dir_okay=False), help="Flash image; kept, made blank if missing."
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="NAME=VALUE",
    help="Something that is wrong with the board (repeatable).",
)
@click.option(
    "--set", "choices", multiple=True, metavar="NAME=VALUE", help="Any other parameter of the board (repeatable)."
)
@click.option("--speed", type=float, help="Seconds of the board per second of the wall.  [default: 1]")
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_parameters,
    help="List all parameters and faults.",
)
def sim(
    chip: str,
    listen: str | None,
    flash: Path | None,
    faults: tuple[str, ...],
    choices: tuple[str, ...],
    speed: float | None,
) -> None:
    from espmon.board.live import LiveBoard, open_flash
    from espmon.board.rfc2217 import Rfc2217Server
    from espmon.board.settings import FAULTS, settings_from
    from espmon.board.urls.protocol_sim import settings_of
    from espmon.errors import UsageProblem

    url = chip if chip.startswith("sim://") else f"sim://{chip}"
    settings, named = settings_of(url)
    flash = flash or named
    pairs = []
    for text in (*choices, *faults):
        name, sign, value = text.partition("=")
        if text in faults and name.replace("-", "_").lower() not in FAULTS:
            raise UsageProblem(f"no fault {name!r}", f"faults: {', '.join(FAULTS)}")
        pairs.append((name, value if sign else "1"))
    if speed is not None:
        pairs.append(("speed", str(speed)))
    settings = settings_from(pairs, settings)
    if "en_rise" not in dict(pairs) and "en_rise" not in url and "en-rise" not in url:
        # pyserial's RFC 2217 client needs 50 ms and more per change of a line, EN has to wait for the boot pin
        settings = settings_from([("en_rise", str(0.1 * settings.speed))], settings)
    host, _, number = (listen or "127.0.0.1:2217").rpartition(":")
    if not number.isdigit() or int(number) > 65535:
        raise UsageProblem(f"--rfc2217 {listen}: not HOST:PORT", "for instance --rfc2217 127.0.0.1:2217")
    live = LiveBoard(settings, open_flash(flash, settings) if flash else None)
    server = Rfc2217Server(live, host.strip("[]") or "127.0.0.1", int(number), lambda text: click.echo(text, err=True))
    click.echo(f"{settings.chip} at {server.url}" + (f", flash in {flash}" if flash else ""))
    sys.stdout.flush()
    try:
        server.serve()
    except KeyboardInterrupt:
        server.stop()
