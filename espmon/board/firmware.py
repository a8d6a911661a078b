"""What runs once the ROM has started an image: models of applications that print, crash, restart or stay silent.

Pure. The demo firmware's crash logs are the captured output of the real ELF in symbols/demo; they are handed in, this
module reads no files. An image may say itself what it does: the text ``espmon-board:app=...;crash=...;`` anywhere in
its segments overrides the board's settings, so that one image can be good and another bad.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from espmon.board.image import Image
from espmon.board.machine import HALT, Drain, Listen, Machine, Part, Program, Sleep
from espmon.board.settings import BoardSettings, settings_from
from espmon.errors import UsageProblem

_CHOICE = re.compile(rb"espmon-board:([a-z0-9_=;.-]{1,200})")
CRASH_ORDER = ("load", "store", "illegal", "divide", "watchdog", "memory")
SOFTWARE = 3

#: crash name -> what the demo firmware printed from its start to its restart; filled by the adapter (board.demo)
Logs = Mapping[str, bytes]


def choices_of(image: Image) -> list[tuple[str, str]]:
    """What an image says about itself, as (name, text) pairs; nothing for ordinary images."""
    for segment in image.segments:
        found = _CHOICE.search(segment.content)
        if found:
            pairs = (part.split("=", 1) for part in found[1].decode("ascii").split(";") if "=" in part)
            return [
                (name, text) for name, text in pairs if name in ("app", "crash", "crashes", "pace", "baud", "rounds")
            ]
    return []


def run_firmware(machine: Machine, image: Image) -> Program:
    """Run what `image` stands for; returns the cause of the next reset."""
    settings = machine.settings
    try:
        settings = settings_from(choices_of(image), settings)
    except UsageProblem:
        settings = replace(settings, app="silent")
    if machine.silicon.chip.name == "esp8266":
        if settings.rf_check and machine.flash.read(machine.flash.size - 0x4000, 1) != b"\x05":
            found = machine.flash.read(machine.flash.size - 0x4000, 1)[0]
            machine.rate = machine.rom_rate
            yield Sleep(0.05)
            machine.say(f"rf_cal[0] !=0x05,is 0x{found:02X}\r\n".encode())
            yield Drain()
            yield Sleep(0.2)
            return SOFTWARE
    yield Sleep(settings.startup)
    machine.rate = float(settings.baud)
    crash = _crash_of(machine, settings)
    if crash == "brownout" and machine.silicon.chip.name == "esp8266":
        crash = "none"  # this chip does not notice
    machine.crashes += crash != "none"
    if settings.app == "weather" and (crash == "none" or machine.silicon.chip.name != "esp8266"):
        yield from _weather(machine, settings, limit=0 if crash == "none" else 3 + settings.rounds)
    elif settings.app == "weather":
        yield from _recorded(machine, settings, machine_logs(machine)[crash])
    elif settings.app == "uptime":
        yield from _uptime(machine, settings, crash != "none")
    elif settings.app == "echo":
        yield from _echo(machine)
    elif settings.app == "chatter":
        yield from _chatter(machine, settings)
    elif settings.app == "binary":
        yield from _binary(machine, settings)
    else:
        yield Listen(None)
        return HALT
    if crash == "brownout":
        machine.say(b"\r\nBrownout detector was triggered\r\n\r\n")
        yield Drain()
    if crash == "watchdog" and machine.silicon.chip.name != "esp8266":
        return 7
    return SOFTWARE if machine.silicon.chip.name == "esp8266" else 0xC


def machine_logs(machine: Machine) -> Logs:
    """The crash logs that this machine was given."""
    return machine.logs


def _crash_of(machine: Machine, settings: BoardSettings) -> str:
    if settings.crash == "none" or (settings.crashes and machine.crashes >= settings.crashes):
        return "none"
    if settings.crash == "any":
        return CRASH_ORDER[machine.crashes % len(CRASH_ORDER)]
    return settings.crash


START = b"\r\nweather station 1.2.0\r\nsensors: temperature humidity pressure light\r\nwifi: connected to garden, 192.168.4.17\r\n"


def _round(number: int, memory: list[int]) -> bytes:
    """One healthy round, as the demo firmware computes it (symbols/demo/src)."""
    temperature = 214 + number % 5 - 3
    humidity = (561 - number % 7) * 980 // 1000
    pressure = 10132 + number % 3 + 12
    memory.append(temperature)
    del memory[:-16]
    mean = sum(memory) // len(memory)
    lines = [f"mean temperature {mean // 10}.{mean % 10} C", f"report {number}"]
    for name, value, unit in (
        ("temperature", temperature, "C"),
        ("humidity", humidity, "%"),
        ("pressure", pressure, "hPa"),
    ):
        lines.append(f"  {name} {value // 10}.{value % 10} {unit}")
    return ("\r\n".join(lines) + "\r\n").encode()


def _weather(machine: Machine, settings: BoardSettings, limit: int) -> Part:
    machine.say(START)
    yield Drain()
    number, memory = 0, []  # type: int, list[int]
    while not limit or number < limit:
        number += 1
        machine.say(_round(number, memory))
        yield Drain()
        yield Sleep(settings.pace)


def _recorded(machine: Machine, settings: BoardSettings, log: bytes) -> Part:
    """A captured log, paced at its rounds; `rounds` healthy ones are put in front."""
    at = len(START) if log.startswith(START) else 0
    machine.say(log[:at])
    yield Drain()
    memory: list[int] = []
    for number in range(1, settings.rounds + 1):
        machine.say(_round(number, memory))
        yield Drain()
        yield Sleep(settings.pace)
    for part in re.split(rb"(?=mean temperature|\r\n-{15} CUT HERE|\r\nUser exception)", log[at:], flags=0):
        if not part:
            continue
        if part.startswith((b"\r\n-", b"\r\nUser")) and b"Soft WDT" in log:
            yield Sleep(3.2 if part.startswith(b"\r\n-") and b"Exception" in part else 0.0)
        machine.say(part)
        yield Drain()
        if part.startswith(b"mean"):
            yield Sleep(settings.pace)
    yield Sleep(settings.restart)


def _uptime(machine: Machine, settings: BoardSettings, crash: bool) -> Part:
    rounds = 0
    while not crash or rounds < 3 + settings.rounds:
        machine.say(f"I ({312 + int(rounds * settings.pace * 1000)}) app: running, round {rounds}\r\n".encode())
        yield Drain()
        yield Sleep(settings.pace)
        rounds += 1
    machine.say(b"\r\nI am going down now\r\n")
    yield Drain()


def _echo(machine: Machine) -> Part:
    machine.say(b"\r\nready\r\n")
    yield Drain()
    while True:
        heard = yield Listen(None)
        machine.say(heard.replace(b"\r", b"\r\n"))
        yield Drain()


def _chatter(machine: Machine, settings: BoardSettings) -> Part:
    number = 0
    while True:
        number += 1
        machine.say(b"debug: loop %d, heap %d, still here\r\n" % (number, 40000 - number % 100))
        yield Drain()
        yield Sleep(settings.pace / 100)


def _binary(machine: Machine, settings: BoardSettings) -> Part:
    while True:
        machine.say(bytes(machine.random.randrange(256) for _ in range(64)))
        yield Drain()
        yield Sleep(settings.pace / 10)
