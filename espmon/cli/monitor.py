"""``espmon PORT``, ``espmon monitor PORT``: watch a port."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from espmon.errors import PortNotFound, UsageProblem

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from espmon.app.attached import AttachedPort
    from espmon.app.monitor import MonitorOptions


def baud_rate(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    """A number of baud, or ``auto`` (None)."""
    if value.lower() == "auto":
        return None
    try:
        rate = int(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no baud rate: a number such as 115200, or auto") from None
    if not 50 <= rate <= 20_000_000:
        raise click.BadParameter(f"{rate} baud is out of range (50 to 20000000)")
    return rate


def complete_ports(ctx: click.Context, param: click.Parameter | None, incomplete: str) -> list[CompletionItem]:
    """Ports of this machine, with what is on them, for the shell's completion."""
    from click.shell_completion import CompletionItem

    from espmon.port import list_ports

    items = []
    for port in list_ports():
        short = port.device.rsplit("/", 1)[-1]
        for name in (port.device, short):
            if name.startswith(incomplete) and (name == port.device or incomplete):
                items.append(CompletionItem(name, help=port.adapter or port.description))
                break
    items += [CompletionItem(name, help="board of the daemon") for name in _boards_of_daemon() if name.startswith(incomplete)]
    return items


def image_option(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[int, str], ...]:
    """``0x10000=app.bin`` as a pair."""
    out = []
    for value in values:
        address, equals, name = value.partition("=")
        try:
            out.append((int(address, 0), name))
        except ValueError:
            equals = ""
        if not equals or not name:
            raise click.BadParameter(f"{value!r} is no address and file: 0x10000=app.bin")
    return tuple(out)


LEVELS = ("error", "warning", "info", "debug", "verbose")  # those of espmon.sinks.lines, which a test compares


@click.command()
@click.argument("port", shell_complete=complete_ports)
@click.option("--elf", "elfs", multiple=True, metavar="FILE", type=click.Path(), help="Firmware ELF for functions and lines; repeatable (application, bootloader).")
@click.option("-b", "--baud", callback=baud_rate, default="auto", metavar="RATE", help="Baud rate, or auto.  [default: auto]")
@click.option("--log", metavar="FILE", type=click.Path(dir_okay=False), help="Append the text as shown, without colours.")
@click.option("--raw-log", metavar="FILE", type=click.Path(dir_okay=False), help="Append the exact bytes that came.")
@click.option("-t", "--timestamps", is_flag=True, help="Begin each line with the time.")
@click.option("--level", type=click.Choice(LEVELS), help="Hide lines below this level (lines without a level stay).")
@click.option("--filter", "filters", multiple=True, metavar="REGEX", help="Show only lines that match; repeatable.")
@click.option("--exclude", "excludes", multiple=True, metavar="REGEX", help="Hide lines that match; repeatable.")
@click.option("--eol", type=click.Choice(["crlf", "lf", "cr"]), help="What the Enter key sends (AT firmware wants crlf).")
@click.option("--repl", is_flag=True, help="Ctrl-C goes to the board; Ctrl-] quits.")
@click.option("--reset", is_flag=True, help="Reset the board once the port is open.")
@click.option("--image", "images", multiple=True, callback=image_option, metavar="ADDR=FILE", help="What Ctrl-T f flashes through the open port; repeatable.")
@click.option("--no-reconnect", is_flag=True, help="End when the board is unplugged instead of waiting for it.")
@click.option("--until", metavar="REGEX", help="End with status 0 when a line matches.")
@click.option("--fail-on", type=click.Choice(["crash", "boot-loop"]), multiple=True, help="End with status 20 (crash) or 21 (boot-loop) when one is seen; repeatable.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), metavar="S", help="End after S seconds: status 22 with --until, else 0.")
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON, one per line, instead of text.")
@click.option("--lines", is_flag=True, help="With --json: print the text as well.")
@click.option("--source-root", "source_roots", multiple=True, metavar="DIR", type=click.Path(), help="Look here too for source files to quote; repeatable.")
@click.option("--all-stack-words", is_flag=True, help="Show every stack word that is a code address, call or not.")
@click.option("--color", "colour", type=click.Choice(["auto", "always", "never"]), default="auto", help="Colours.  [default: auto]")
@click.pass_context
def monitor(ctx: click.Context, /, port: str, **wishes: Any) -> None:
    """Watch a port; `espmon PORT` is the same.

    PORT is a device (/dev/ttyUSB0, ttyUSB0, COM3) or a URL (rfc2217://host:port, socket://host:port, sim://esp8266). The
    board is not reset by opening it. Ctrl-] quits, Ctrl-T h lists the keys.
    """
    from espmon.app.monitor import Monitor, MonitorOptions

    as_json = wishes.pop("as_json")
    if wishes["lines"] and not as_json:
        raise UsageProblem("--lines goes with --json only", "Without --json all text is shown anyway.")
    options = MonitorOptions(port=port, json=as_json, reconnect=not wishes.pop("no_reconnect"), **wishes)
    held = _held(port)
    try:
        status = Monitor(options).run() if held is None else _attach(held, options)
    except PortNotFound as problem:
        raise _unknown_word(ctx, port, problem) from None
    sys.exit(status)


def _held(port: str) -> AttachedPort | None:
    """The port through the daemon that has it; None at once when no daemon can be here."""
    from espmon.app.presence import may_run

    if not may_run():
        return None
    from espmon.app.attached import attached

    return attached(port)


def _attach(port: AttachedPort, options: MonitorOptions) -> int:
    """Watch a port that the daemon holds, through it: at its rate, with its ELFs where none are named."""
    from dataclasses import replace

    from espmon.app.monitor import Monitor

    port.open()
    click.echo(f"espmon: the daemon holds {port.device}; attached to it", err=True)
    if options.baud not in (None, port.baud):
        click.echo(f"        It listens at {port.baud} baud; --baud {options.baud} is not applied.", err=True)
    return Monitor(replace(options, elfs=options.elfs or port.elfs, baud=port.baud), port=port).run()


def _unknown_word(ctx: click.Context, word: str, problem: PortNotFound) -> Exception:
    """A first word that is neither a command nor looks like a port: perhaps a command was meant."""
    return (no_such_word(word) if "espmon.first_word" in ctx.meta else None) or problem


def no_such_word(word: str) -> UsageProblem | None:
    """What to say of a first word that is no command; None when it is or may be a port."""
    from espmon.cli import COMMANDS, nearest
    from espmon.port import device_path, list_ports, looks_like_port, similar

    if looks_like_port(word) or device_path(word) != word:
        return None
    if not word.strip():
        return UsageProblem("the port's name is empty", "`espmon ports` lists the ports of this machine.")
    if word == "help":
        return UsageProblem("there is no command and no port help", "`espmon --help` lists the commands, `espmon COMMAND --help` explains one.")
    if word == "-":
        return UsageProblem("a monitor needs a port, - is none", "`espmon decode -` reads a log from standard input.")
    boards = _boards_of_daemon()
    close = [f"`espmon {name}`" for name in nearest(word, list(COMMANDS))]
    listed = list_ports()
    close += [*nearest(word, boards), *similar(word, listed)]
    hint = f"Did you mean {' or '.join(close)}?" if close else "`espmon --help` lists the commands."
    if not close and boards:
        hint += f" The daemon's boards: {', '.join(boards[:8])}"
    elif not close and listed:
        hint += f" Ports here: {', '.join(p.device for p in listed[:5])}"
    return UsageProblem(f"there is no command and no port {word}", hint)


def _boards_of_daemon() -> list[str]:
    from espmon.app.presence import may_run

    if not may_run():
        return []
    from espmon.app.reach import board_names

    return board_names()
