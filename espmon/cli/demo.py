"""`espmon demo`: the whole story on virtual boards; no hardware, no terminal, ends by itself."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from espmon.events import Event

SUMMARY = (
    "Show three virtual boards under the daemon: crashes decoded, damaged flash found and repaired; ends by itself."
)


@click.command(help=SUMMARY, short_help=SUMMARY)
@click.option("--json", "as_json", is_flag=True, help="Print the events as JSON, one per line.")
@click.option(
    "--crash",
    type=click.Choice(["load", "store", "illegal", "divide", "watchdog", "memory"]),
    help="Show one board in the monitor instead, with this bug of its firmware.",
)
@click.option("--lines", is_flag=True, help="With --crash and --json: the text as well.")
def demo(as_json: bool, crash: str | None, lines: bool) -> None:
    if crash is not None:
        from espmon.app.demo import run_demo

        sys.exit(run_demo(json=as_json, lines=lines, crash=crash))
    from espmon.app.story import run_story

    told = _Json() if as_json else _Words()
    good = run_story(told.tell, told.finished)
    sys.exit(0 if good else 1)


class _Json:
    def tell(self, event: Event) -> None:
        from espmon.events import Progress, to_json_line
        from espmon.sinks.jsonl import print_json_line

        if not isinstance(event, Progress):
            print_json_line(to_json_line(event))

    def finished(self, status: dict[str, Any]) -> None:
        pass


# A step of the recovery that is over, in words that say what it was for.
_STEPS = {
    "reset": "reset by its EN line",
    "leave-download-mode": "into download mode and out again",
    "compare": "compared with the good image",
    "backup": "backup",
    "verify": "read back",
    "write": "repair",
}
_COLUMNS = 80


class _Words:
    """One line for each thing worth telling, and a few words at the end: 22 lines of 80 columns, one screen."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False)
        self._start = time.monotonic()
        self._told_boot = False
        self._crashes = 0
        self._console.print(
            "Three boards: [b]kitchen[/b] is healthy, [b]garden[/b] has a bug, [b]garage[/b] has damaged flash.\n"
        )

    def _line(self, port: str, text: str, style: str = "") -> None:
        from rich.text import Text

        room = _COLUMNS - 18
        self._console.print(
            Text(f"{time.monotonic() - self._start:5.1f} s  ", style="dim"),
            Text(f"{port:<8} ", style="bold"),
            Text(text if len(text) <= room else text[: room - 1] + "…", style=style),
            sep="",
            soft_wrap=True,
        )

    def tell(self, event: Event) -> None:
        import espmon.events as ev

        port = event.port or ""
        match event:
            case ev.Boot(reset=reset):
                if port == "garage" and reset is not None and reset.abnormal and not self._told_boot:
                    self._told_boot = True
                    self._line(port, f"boot after a {reset.meaning}", "yellow")
            case ev.Crash():
                self._crashes += 1
                if self._crashes == 1:
                    self._line(port, event.explanation or event.kind, "red")
                    for number, frame in enumerate([f for f in event.frames if f.function][:2]):
                        where = f" at {frame.file.removeprefix('./')}:{frame.line}" if frame.file else ""
                        self._line("", f"  {'in' if number == 0 else 'called from'} {frame.function}{where}", "red")
                else:
                    self._line(port, f"the same crash again, {self._crashes} times now [{(event.fingerprint or '')[:12]}]", "red")
            case ev.BootLoop(boots=boots, cause=cause, period_s=period):
                self._line(port, f"boot loop: {boots} boots, {period} s apart, {cause}", "bold yellow")
            case ev.Recovery(step=step, outcome=outcome, reason=reason):
                because = f": {reason}" if reason else ""
                if outcome == "done":
                    self._line(port, _STEPS.get(step, step) + because, "cyan")
                elif outcome != "started":
                    self._line(port, outcome + because, "bold green" if outcome == "recovered" else "yellow")

    def finished(self, status: dict[str, Any]) -> None:
        from espmon.cli.daemon_options import amount

        self._console.print()
        notes = {
            "kitchen": "healthy all the time",
            "garden": f"{self._crashes} crashes, one bug",
            "garage": "repaired, and left its settings alone",
        }
        for name, port in status["ports"].items():
            self._line(name, f"{amount(port['bytes'])} logged, {notes.get(name, '')}")
        self._console.print("For your boards: espmon config init, espmon daemon. One board: espmon PORT.")
