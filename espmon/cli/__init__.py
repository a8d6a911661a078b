"""The command line: one file per command, imported only when that command runs (``espmon --help`` stays fast).

Level 5. :data:`COMMANDS` is the only list of commands: name -> ("module", "attribute", one-line help). The help stands
here so that listing the commands imports none of them; a test compares it with each command's own.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import io
import os
import sys
from typing import TYPE_CHECKING, Any

import click

import espmon
from espmon.errors import EXIT_INTERRUPTED, EXIT_OK, EspmonError, InputUnreadable, OutputUnwritable, UsageProblem

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# name: (module below espmon.cli, attribute, short help). Order is the order of `espmon --help`.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "monitor": ("monitor", "monitor", "Watch a port; `espmon PORT` is the same."),
    "decode": ("decode", "decode", "Explain the resets and crashes in log files."),
    "symbolize": ("symbolize", "symbolize", "Turn addresses into functions, files and lines."),
    "baud": ("baud", "baud", "Find out at which baud rate a board talks."),
    "ports": ("ports", "ports", "List the serial ports and what is on them."),
    "flash": ("flash", "flash", "Write files to flash, only sectors that differ, and verify them."),
    "verify": ("verify", "verify", "Compare flash with files; status 24 when it differs."),
    "backup": ("backup", "backup", "Copy the whole flash into FILE."),
    "erase": ("erase", "erase", "Erase flash, all of it or a region."),
    "chip": ("chip", "chip", "Ask a board which chip it is: MAC, flash, security."),
    "reset": ("reset", "reset", "Reset a board by its RTS and DTR lines."),
    "doctor": ("doctor", "doctor", "Find out why a board cannot be reached or does not run."),
    "daemon": ("daemon", "daemon", "Watch all configured boards until a signal: log, decode, count crashes, recover."),
    "status": ("status", "status", "Show every board: state, last reset, crashes, gaps, recovery."),
    "events": ("events", "events", "Print events of all boards or of NAME, oldest first."),
    "logs": ("logs", "logs", "Print the log of the board NAME, each line with the host's time."),
    "crashes": ("crashes", "crashes", "List crashes by fingerprint: how often, first and last seen, boards, firmware."),
    "symbols": ("symbols", "symbols", "Keep ELF files by their SHA-256, so that old firmware's crashes can be decoded."),
    "lend": ("lend", "lend", "Run COMMAND while the daemon keeps its hands off the board's port; take the port back afterwards."),
    "release": ("lend", "release", "Make the daemon let the board's port go until `espmon reclaim NAME`; prints the device."),
    "reclaim": ("lend", "reclaim", "Give a released port back to the daemon."),
    "recover": ("recover", "recover", "Bring the board PORT back: reset, compare its flash with the known-good image, write what differs."),
    "image": ("image", "image", "Keep known-good flash images, which recovery compares boards with and repairs them from."),
    "config": ("config", "config", "Check, show or begin the daemon's configuration."),
    "service": ("service", "service", "Run the daemon as a service: systemd, launchd or Task Scheduler."),
    "reload": ("daemon", "reload", "Make the daemon read its configuration again; ports whose settings stayed are not touched."),
    "completion": ("completion", "completion", "Print the completion script for your shell."),
    "demo": ("demo", "demo", "Show three virtual boards under the daemon: crashes decoded, damaged flash found and repaired; ends by itself."),
    "sim": ("sim", "sim", "Run a virtual board (RFC 2217 server) that esptool and espmon can flash and watch."),
}
_GROUP_OPTIONS = frozenset({"-h", "--help", "--version", "--"})


class EspmonGroup(click.Group):
    """A group that loads commands late and reads ``espmon PORT ...`` as ``espmon monitor PORT ...``.

    Options of the monitor may stand before the port as well: whatever begins with something that is neither a command
    nor an option of the group belongs to the monitor. A port that is named like a command: ``espmon monitor NAME``.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"espmon.cli.{module}"), attribute)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and "monitor" in COMMANDS and args[0] not in COMMANDS and args[0] not in _GROUP_OPTIONS:
            ctx.meta["espmon.first_word"] = args[0]
            args = ["monitor", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as mistake:
            # `espmon decod crash.txt`: the monitor has no such argument, but that is not what was meant
            word = ctx.meta.get("espmon.first_word", "-")
            if not word.startswith("-") and mistake.ctx is not None and mistake.ctx.info_name == "monitor":
                from espmon.cli.monitor import no_such_word

                if told := no_such_word(word):
                    raise told from None
            raise

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from espmon.cli.monitor import complete_ports, monitor

        found = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-"):  # options of the monitor may stand before the port
            known = {item.value for item in found}
            found += [item for item in monitor.shell_complete(click.Context(monitor, parent=ctx), incomplete) if item.value not in known]
        else:
            found += complete_ports(ctx, None, incomplete)
        return found

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage("espmon", "PORT [OPTIONS]", "Usage: ")
        formatter.write_usage("espmon", "COMMAND [ARGS]...", "       ")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, text) for name, (_, _, text) in COMMANDS.items()]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


@click.group(
    cls=EspmonGroup,
    invoke_without_command=True,
    # every command's context inherits these
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(espmon.__version__, prog_name="espmon")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Watch the serial port of an ESP8266 or ESP32, understand its resets and crashes, bring it back."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def nearest(word: str, names: list[str]) -> list[str]:
    """Up to three of `names` that look like `word`, best first."""
    return difflib.get_close_matches(word, names, 3, 0.5)


def tell(error: EspmonError) -> None:
    """Two lines on standard error: what happened, what to do. Names in them come from files, networks and devices."""
    click.echo(f"espmon: {_visible(error.message.removesuffix('.'))} [{error.code}]", err=True)
    if error.hint:
        hint = _visible(error.hint)
        if not hint.startswith(("espmon ", "chmod ", "sudo ")):  # else it begins with a command as it is typed
            hint = hint[:1].upper() + hint[1:]
        click.echo(f"        {hint}", err=True)


def _visible(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def _mend_standard_streams() -> None:
    """Whoever started us may have closed them (``>&-``): then Python has None there, and the next file opened their number."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdin, sys.stdout, sys.stderr):  # a code page of Windows, LANG=C: a board's letters must not end us
        if isinstance(stream, io.TextIOWrapper) and not stream.closed:
            stream.reconfigure(errors="backslashreplace")


def main(args: list[str] | None = None) -> Any:
    """Entry point of the program: runs a command, turns told errors into their exit status."""
    _mend_standard_streams()
    if "_ESPMON_COMPLETE" in os.environ:
        importlib.import_module("espmon.cli.completion")  # PowerShell's protocol is ours
    told: EspmonError
    try:
        status = cli.main(args=args, prog_name="espmon", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else EXIT_OK)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(EXIT_INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as group:  # `espmon config`: its help is the answer
        group.show()
        sys.exit(group.exit_code)
    except click.ClickException as mistake:
        told = _in_two_lines(mistake)
    except EspmonError as error:
        told = error
    except BrokenPipeError:  # `espmon logs NAME | head`
        _forget_output()
        sys.exit(1)
    except PermissionError as error:
        if error.filename is None:
            raise
        told = InputUnreadable(f"no permission for {error.filename}", "Choose another place, or see docs/daemon.md, permissions.")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        told = OutputUnwritable(error.strerror or str(error))
    if isinstance(told, OutputUnwritable):
        _forget_output()
    tell(told)
    sys.exit(told.exit_status)


def _forget_output() -> None:
    from espmon.sinks.screen import forget_output

    forget_output()


def _in_two_lines(mistake: click.ClickException) -> EspmonError:
    """What click says of a wrong command line, in the shape of our own errors."""
    message = " ".join(mistake.format_message().split()).removesuffix(".")
    path = mistake.ctx.command_path if isinstance(mistake, click.UsageError) and mistake.ctx is not None else "espmon"
    if isinstance(mistake, click.FileError):
        return InputUnreadable(f"{mistake.ui_filename}: {' '.join(mistake.message.split())}", "Check the path and who may use it.")
    return UsageProblem(message[:1].lower() + message[1:], f"`{path} --help` says how it is used.")
