"""`espmon doctor`: measure a port and what hangs on it, and name the most probable cause."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from espmon.app.flashing import Flasher, FlashOptions, LinkMemory
from espmon.bootloader.diagnosis import Evidence, Finding, boot_mode, diagnose
from espmon.bootloader.errors import SendStalled
from espmon.bootloader.examine import ask, overhear
from espmon.errors import PortGone, PortProblem
from espmon.port import SerialPort, holders, is_url, list_ports

# What only --active does; told when it is left out.
ACTIVE_STEPS = (
    "whether DTR and RTS reset the board, and what it prints then",
    "whether our own bytes come back (echo)",
    "whether the boot loader answers SYNC",
    "chip, fuses, flash id, the image's header",
    "link quality at several rates (uploads a stub into RAM)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What was measured (`evidence`, and as sentences in `facts`), what follows from it, and what was left out."""

    evidence: Evidence
    facts: tuple[str, ...]
    findings: tuple[Finding, ...]
    left_out: tuple[str, ...]

    @property
    def measured(self) -> bool:
        """False when the port could not be opened or went away: then only that is known."""
        return self.evidence.open_error is None


def examine(
    name: str,
    *,
    active: bool,
    baud: int = 115200,
    options: FlashOptions | None = None,
    memory: LinkMemory | None = None,
    noted: Callable[[object], None] | None = None,
    stop: threading.Event | None = None,
    seconds: float = 3.0,
) -> Examination:
    """Measure the port `name`. Without `active` the board is listened to and nothing else.

    Raises what the Steps let pass when asked to `stop`.
    """
    facts: list[str] = []
    evidence = Evidence()
    port = SerialPort(name, baud)
    adapter = next((p for p in list_ports() if p.device == port.device), None)
    if adapter is not None:
        evidence = replace(evidence, adapter=adapter.adapter)
        what = adapter.adapter or adapter.description or "no USB adapter"
        facts.append(f"adapter: {what}{f' ({adapter.usb_id})' if adapter.usb_id else ''}")
    if not is_url(name):
        for holder in holders(port.device):
            evidence = replace(evidence, holder=str(holder.name or holder.pid))
            facts.append(f"also held by: {holder.name or 'a program'} (process {holder.pid})")
    try:
        port.open()
    except PortProblem as problem:
        facts.append(problem.message)
        evidence = replace(evidence, open_error=problem.code)
        return Examination(evidence=evidence, facts=tuple(facts), findings=tuple(diagnose(evidence)), left_out=())
    try:
        port.remember_identity()
        flasher = Flasher(port, options, noted=noted, stop=stop, memory=memory)
        try:
            evidence = flasher.run(overhear(baud, evidence, seconds))
            if active:
                evidence = flasher.run(ask(flasher.plan, evidence))
        except SendStalled:
            evidence = replace(evidence, stalled=True)
        except PortGone as problem:
            evidence = replace(evidence, open_error=problem.code)
        flasher.restore_rate()
    finally:
        port.dispose()
    facts += describe(evidence)
    return Examination(
        evidence=evidence,
        facts=tuple(facts),
        findings=tuple(diagnose(evidence)),
        left_out=() if active else ACTIVE_STEPS,
    )


def describe(e: Evidence) -> list[str]:
    """The measurements as sentences, in the order in which they were made."""
    out: list[str] = []
    if e.idle_bytes is not None:
        if not e.idle_bytes:
            out.append(f"listening {e.idle_seconds:g} s: nothing heard")
        else:
            kind = "bytes that are no text at any usual rate" if e.unreadable else f"text at {e.idle_rate} baud"
            out.append(f"listening {e.idle_seconds:g} s: {e.idle_bytes} bytes, {kind}")
            out += [f"  | {line}" for line in e.idle_text.splitlines()[-4:] if line.strip()]
    if e.boots:
        out.append(f"boots heard meanwhile: {e.boots}")
    if e.reset_bytes is not None:
        mode = boot_mode(e.reset_text)
        said = f"boot mode {mode}" if mode else ("text, but no boot banner" if e.reset_text.strip() else "no text")
        out.append(f"reset by RTS: {e.reset_bytes} bytes heard, {said if e.reset_bytes else 'nothing happened'}")
        out += [f"  | {line}" for line in e.reset_text.splitlines()[-3:] if line.strip()]
    if e.download_bytes is not None:
        out.append(
            f"reset into download mode: {f'boot mode {e.download_mode}' if e.download_mode else 'no boot banner'}"
        )
    if e.echoed:
        out.append("echo: what was sent came back")
    if e.stuck_bit is not None:
        out.append(f"answers have bit {e.stuck_bit} always set")
    if e.sync == "":
        out.append(f"boot loader: no answer to {e.syncs} SYNCs")
    elif e.sync:
        out.append(f"boot loader: answers ({e.chip or 'chip not known'}{', by a stub' if e.sync == 'stub' else ''})")
    if e.secure:
        out.append(f"security: {e.secure}")
    if e.flash_id is not None:
        size = f"{e.flash_size >> 10} KiB" if e.flash_size else "no size"
        out.append(f"flash: id 0x{e.flash_id:06x}, {size}{', contents repeat' if e.aliased else ''}")
    if e.image_fault:
        out.append(f"image in flash: {e.image_fault}")
    elif e.header_mode:
        built = f"{e.header_size >> 10} KiB" if e.header_size else "unknown size"
        out.append(f"image in flash: whole, mode {e.header_mode}, built for {built}")
    for quality in e.rates:
        damaged = f", {quality.damaged} damaged" if quality.damaged else ""
        out.append(f"link at {quality.rate} baud: {quality.good} of {quality.tried} exchanges{damaged}")
    if e.stalled:
        out.append("the adapter takes no bytes to send")
    if e.failure:
        out.append(f"ended early: {e.failure}")
    return out
