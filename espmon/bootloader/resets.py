"""Ways to reset a board with DTR and RTS, as data.

True is asserted: DTR pulls GPIO0 low, RTS pulls EN low, through the usual pair of transistors only while the other line
is released. Which sequence a board needs depends on its circuit and on how its adapter's driver sets the lines; so a
client tries them in turn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from espmon.bootloader.actions import Action, SetLines, Steps, Wait
from espmon.errors import UsageProblem


@dataclass(frozen=True, slots=True)
class ResetSequence:
    """A named list of line changes and waits."""

    name: str
    actions: tuple[Action, ...]

    def run(self) -> Steps[None]:
        """The sequence as Steps."""
        yield from self.actions


def _classic(name: str, hold_s: float) -> ResetSequence:
    return ResetSequence(
        name,
        (
            SetLines(dtr=False),
            SetLines(rts=True),
            Wait(0.1),
            SetLines(dtr=True),
            SetLines(rts=False),
            Wait(hold_s),
            SetLines(dtr=False),
        ),
    )


def _tight(name: str, hold_s: float) -> ResetSequence:
    # Both lines in one call: with one after the other GPIO0 can be released for the instant at which EN rises.
    return ResetSequence(
        name,
        (
            SetLines(False, False),
            SetLines(True, True),
            SetLines(False, True),
            Wait(0.1),
            SetLines(True, False),
            Wait(hold_s),
            SetLines(False, False),
            SetLines(dtr=False),
        ),
    )


# 0.05 s suits most boards; a large capacitor at EN needs the longer hold.
CLASSIC = _classic("classic", 0.05)
CLASSIC_LONG = _classic("classic-long", 0.55)
TIGHT = _tight("tight", 0.05)
TIGHT_LONG = _tight("tight-long", 0.55)
# Chips with USB-Serial/JTAG inside watch for these transitions; they must pass through (asserted, asserted).
USB_JTAG = ResetSequence(
    "usb-jtag",
    (
        SetLines(rts=False),
        SetLines(dtr=False),
        Wait(0.1),
        SetLines(dtr=True),
        SetLines(rts=False),
        Wait(0.1),
        SetLines(rts=True),
        SetLines(dtr=False),
        SetLines(rts=True),
        Wait(0.1),
        SetLines(dtr=False),
        SetLines(rts=False),
    ),
)
# Boards whose adapter lines are wired straight or inverted.
INVERTED = ResetSequence(
    "inverted",
    (
        SetLines(dtr=True, rts=False),
        Wait(0.1),
        SetLines(dtr=False, rts=True),
        Wait(0.05),
        SetLines(dtr=True, rts=True),
    ),
)
NONE = ResetSequence("none", ())

HARD = ResetSequence("hard", (SetLines(False, True), Wait(0.1), SetLines(rts=False)))
# Native USB needs longer: the host polls the lines.
HARD_USB = ResetSequence("hard-usb", (SetLines(False, True), Wait(0.2), SetLines(rts=False), Wait(0.2)))

# What to try, in turn, by kind of port.
SEQUENCES: Mapping[str, tuple[ResetSequence, ...]] = {
    "unix": (TIGHT, CLASSIC, TIGHT_LONG, CLASSIC_LONG),
    "windows": (CLASSIC, CLASSIC_LONG),
    "rfc2217": (CLASSIC, CLASSIC_LONG),
    "sim": (TIGHT, CLASSIC, TIGHT_LONG, CLASSIC_LONG),
    "usb-jtag": (USB_JTAG, CLASSIC),
    "no-lines": (NONE,),
}
BY_NAME: Mapping[str, ResetSequence] = {
    s.name: s for s in (CLASSIC, CLASSIC_LONG, TIGHT, TIGHT_LONG, USB_JTAG, INVERTED, NONE, HARD, HARD_USB)
}

_STEP = re.compile(r"(?:([DR])([01])|W(\d*\.?\d+)|U([01]),([01]))")
_LONGEST_S = 10.0


def parse_custom(text: str) -> ResetSequence:
    """A sequence written like ``D0|R1|W0.1|D1|R0|W0.05|D0``: lines DTR and RTS, `W` seconds, ``U<dtr>,<rts>`` for both.

    Raises :class:`~espmon.errors.UsageProblem`. Waits add up to at most 10 s.
    """
    actions: list[Action] = []
    waited = 0.0
    for part in text.split("|"):
        found = _STEP.fullmatch(part.strip())
        if not found:
            raise UsageProblem(
                f"{part.strip()!r} is no step of a reset sequence.", "Steps are D0 D1 R0 R1 U<0|1>,<0|1> W<seconds>."
            )
        line, value, wait, dtr, rts = found.groups()
        if wait is not None:
            waited += float(wait)
            if waited > _LONGEST_S:
                raise UsageProblem("The reset sequence waits for more than 10 s.", "Shorten its W steps.")
            actions.append(Wait(float(wait)))
        elif line == "D":
            actions.append(SetLines(dtr=value == "1"))
        elif line == "R":
            actions.append(SetLines(rts=value == "1"))
        else:
            actions.append(SetLines(dtr == "1", rts == "1"))
    return ResetSequence("custom", tuple(actions))
