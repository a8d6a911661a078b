"""``espmon symbolize``: addresses -> functions, files and lines, without a toolchain."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator

import click

from espmon.errors import UsageProblem

_ADDRESS = re.compile(r"(?:0[xX])?([0-9a-fA-F]{1,8})\Z")
# a piped text may be a whole log; what cannot be an address in it is a mistake worth telling, so lines stay short
_MAX_WORD = 64


def _parse(word: str) -> int:
    match = _ADDRESS.match(word)
    if match is None:
        shown = ascii(word[:_MAX_WORD])
        raise UsageProblem(f"{shown} is not an address", "Give hexadecimal addresses of up to 8 digits, with or without 0x, such as 0x40201234.")
    return int(match[1], 16)


def _addresses(words: tuple[str, ...]) -> Iterator[int]:
    for word in words:
        if word == "-":
            if sys.stdin.isatty():
                from espmon.cli.decode import END_OF_INPUT

                click.echo(f"espmon: addresses, please; {END_OF_INPUT} ends", err=True)
            for line in sys.stdin:
                for piece in line.replace(",", " ").split():
                    yield _parse(piece)
        else:
            for piece in word.replace(",", " ").split():
                yield _parse(piece)


@click.command(short_help="Turn addresses into functions, files and lines.")
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
@click.option("--elf", "elfs", multiple=True, metavar="FILE", help="ELF file of the firmware; repeat for a boot loader's. The first that has an address answers it.")
@click.option("--chip", metavar="NAME", help="Chip, for names in its boot ROM (esp8266, esp32c3 ...). Known from most ELF files.")
@click.option("--call-site", is_flag=True, help="The addresses are return addresses: look up the call before each.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per address.")
def symbolize(addresses: tuple[str, ...], elfs: tuple[str, ...], chip: str | None, call_site: bool, as_json: bool) -> None:
    """Turn addresses into functions, files and lines.

    ADDRESS is hexadecimal, with or without 0x; "-" reads addresses from standard input.
    """
    from espmon.chips import CHIPS
    from espmon.cli import tell
    from espmon.events import Address, to_json_value
    from espmon.symbolize import Symbolizer

    if chip is not None and chip.lower().replace("-", "") not in CHIPS:
        from espmon.cli import nearest

        near = nearest(chip.lower(), list(CHIPS)) or list(CHIPS)
        raise UsageProblem(f"no chip is called {chip!a}", f"Known: {', '.join(near)}.")
    if not elfs and chip is None:
        raise UsageProblem("nothing to look addresses up in", "Give --elf FILE, or --chip NAME for the boot ROM alone.")
    wanted = list(_addresses(addresses))
    symbolizer = Symbolizer(elfs, chip=chip.lower().replace("-", "") if chip else None)
    problems = symbolizer.problems
    for program in symbolizer.programs:
        if program.elf is None and program.problem is not None:
            raise program.problem
    for problem in problems:
        tell(problem)
    out = sys.stdout
    for address in wanted:
        frames = symbolizer.lookup(address, call_site=call_site)
        if as_json:
            out.write(json.dumps({"address": str(Address(address)), "frames": to_json_value(frames)}, ensure_ascii=True) + "\n")
            continue
        head = f"{Address(address)}: "
        if not frames:
            out.write(head + "unknown\n")
        for number, frame in enumerate(frames):
            name = frame.function or "?"
            if frame.file is not None:
                where = f" at {frame.file}" + (f":{frame.line}" if frame.line is not None else "")
            else:
                name += f"+{frame.offset:#x}" if frame.offset else ""
                where = " (boot ROM)" if frame.module == "rom" else ""
            out.write((head if number == 0 else " " * len(head) + "inlined by ") + name + where + "\n")
