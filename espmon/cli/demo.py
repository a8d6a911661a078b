"""`espmon demo`: a healthy boot and a crash on a virtual board; no hardware, no terminal, ends by itself."""

from __future__ import annotations

import sys

import click

SUMMARY = "Show a boot and a decoded crash on a virtual board; ends by itself."


@click.command(help=SUMMARY, short_help=SUMMARY)
@click.option("--json", "as_json", is_flag=True, help="Print the events as JSON, one per line.")
@click.option("--lines", is_flag=True, help="With --json: the text as well.")
@click.option(
    "--crash",
    type=click.Choice(["load", "store", "illegal", "divide", "watchdog", "memory"]),
    default="load",
    show_default=True,
    help="Which of the firmware's bugs strikes.",
)
def demo(as_json: bool, lines: bool, crash: str) -> None:
    from espmon.app.demo import run_demo

    sys.exit(run_demo(json=as_json, lines=lines, crash=crash))
