"""Measuring a board from its port: what is heard, whether the lines reset it, who answers, how good the link is.

Steps that return :class:`~espmon.bootloader.diagnosis.Evidence`. Listening changes nothing; everything that resets the
board or talks to it is in :func:`ask`.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

from espmon.bootloader.actions import Discard, Note, Now, Receive, Send, SetBaud, SetLines, Steps, Wait
from espmon.bootloader.diagnosis import Evidence, RateQuality, boot_mode
from espmon.bootloader.errors import LoaderProblem, NoSyncReply, SendStalled, WrongFlashSize
from espmon.bootloader.flash import BLANK, NO_FLASH_IDS, SECTOR
from espmon.bootloader.guards import check_real_size
from espmon.bootloader.image import ImageFault, has_header, identify
from espmon.bootloader.link import TICK_S, Link
from espmon.bootloader.loader import Loader, _digest
from espmon.bootloader.notes import LineReset, Stage
from espmon.bootloader.packets import SYNC_PAYLOAD, Op, request
from espmon.bootloader.session import Session, SessionPlan, is_esp8285
from espmon.bootloader.slip import encode

# Where boards talk, the most usual first.
LISTEN_RATES = (115200, 74880, 9600, 57600, 38400, 19200, 230400, 460800, 921600)
LISTEN_S = 3.0
# Many applications print once a second.
LOOK_S = 1.2
READABLE = 0.85
# An image larger than this is not read only to check it.
LARGEST_CHECK = 0x100000
QUALITY_EXCHANGES = 24
QUALITY_RATES = (115200, 230400, 460800, 921600)


def readable_share(data: bytes) -> float:
    """Share of bytes that are ordinary text; 0.0 for too few to tell."""
    if len(data) < 8:
        return 0.0
    return sum(32 <= b < 127 or b in b"\r\n\t\x1b" for b in data) / len(data)


def as_text(data: bytes) -> str:
    """The readable lines of what was heard; lines of noise are left out."""
    lines = []
    for line in data.replace(b"\r", b"\n").split(b"\n"):
        if line and sum(32 <= b < 127 for b in line) >= READABLE * len(line):
            lines.append("".join(chr(b) for b in line if 32 <= b < 127))
    return "\n".join(lines)


def listen(rate: int, seconds: float, enough: int = 1 << 16) -> Steps[bytes]:
    """What arrives within `seconds` at `rate`."""
    yield SetBaud(rate)
    start: float = yield Now()
    heard: bytes = yield Discard()
    left = seconds
    while left > TICK_S and len(heard) < enough:
        heard += yield Receive(left, 256)
        now: float = yield Now()
        left = start + seconds - now
    return heard


def overhear(first_rate: int, evidence: Evidence, seconds: float = LISTEN_S) -> Steps[Evidence]:
    """Listen without touching anything, first at `first_rate`; where that gives no text, at the other usual rates."""
    yield Note(Stage("sync", "listening"))
    heard = yield from listen(first_rate, seconds)
    evidence = replace(evidence, idle_bytes=len(heard), idle_seconds=seconds, idle_rate=first_rate)
    if not heard:
        return evidence
    best, rate = heard, first_rate
    if readable_share(heard) < READABLE:
        for other in LISTEN_RATES:
            if other == first_rate:
                continue
            there = yield from listen(other, LOOK_S)
            if readable_share(there) > max(readable_share(best), 0.7):
                best, rate = there, other
                if readable_share(there) > 0.95:
                    break
    text = as_text(best)
    if rate != first_rate and text:
        best = yield from listen(rate, seconds)
        text += "\n" + as_text(best)
    unreadable = readable_share(best) < 0.5 and boot_mode(text) is None
    return replace(evidence, idle_text=text, idle_rate=rate, unreadable=unreadable)


def _boot_heard(plan: SessionPlan, download: bool) -> Steps[tuple[int, int, str]]:
    """`(bytes, rate, text)` after a reset, listened to at the ROMs' two rates."""
    count, best_rate, text = 0, 0, ""
    for rate in (74880, 115200):
        yield SetBaud(rate)
        yield Discard()
        sequence = plan.sequences[0] if download else plan.hard_reset
        yield Note(LineReset(sequence.name))
        yield from sequence.run()
        if not download:
            yield SetLines(False, False)
        heard = yield from listen(rate, 0.5 if download else 1.6)
        count += len(heard)
        found = as_text(heard)
        if boot_mode(found) or (len(found) > len(text) and not boot_mode(text)):
            text, best_rate = found, rate
        elif not download:
            # the application's own rate is not the ROM's: keep both
            text += "\n" + found
        if boot_mode(found) and download:
            break
    return count, best_rate, text


def ask(plan: SessionPlan, evidence: Evidence) -> Steps[Evidence]:
    """Reset the board, talk to its loader, measure the link, look at flash; then let it run again."""
    # Begin at the rate that always works; higher ones are measured afterwards.
    session = Session(replace(plan, resets=min(plan.resets, 4), rate=min(plan.rate, 115200), first_rate=None))
    try:
        if plan.can_reset:
            yield Note(Stage("reset", "listening to an ordinary start"))
            count, rate, text = yield from _boot_heard(plan, download=False)
            evidence = replace(evidence, reset_bytes=count, reset_rate=rate or None, reset_text=text)
            yield Note(Stage("reset", "asking for download mode"))
            count, _, text = yield from _boot_heard(plan, download=True)
            evidence = replace(evidence, download_bytes=count, download_text=text)
        evidence = yield from _echo(evidence)
        try:
            loader = yield from session.open()
        except NoSyncReply as silent:
            return replace(evidence, sync="", syncs=silent.attempts, echoed=evidence.echoed or silent.echoed)
        evidence = replace(
            evidence,
            sync="stub" if session.found_stub else "rom",
            chip=loader.facts.chip.name,
            flash_id=session.flash_id,
            flash_size=session.flash_size,
            secure=session.security.word,
        )
        if session.security.secure_download:
            return evidence
        evidence = yield from _flash(loader, evidence)
        rates: list[RateQuality] = []
        yield from _quality(loader, plan.rate, rates)
        evidence = replace(evidence, rates=tuple(rates))
    except SendStalled:
        return replace(evidence, stalled=True)
    except LoaderProblem as problem:
        return replace(evidence, failure=problem.code, sync=evidence.sync if evidence.sync is not None else "rom")
    finally_text = yield from _leave(session, plan)
    return replace(evidence, idle_text=evidence.idle_text + "\n" + finally_text) if finally_text else evidence


def _leave(session: Session, plan: SessionPlan) -> Steps[str]:
    with contextlib.suppress(LoaderProblem):
        yield from session.leave()
    return ""


def _echo(evidence: Evidence) -> Steps[Evidence]:
    """Send a SYNC and look whether it comes back as it is, or as it is but for one bit."""
    link = Link(115200)
    yield from link.set_rate(115200, "asked")
    yield from link.drop_pending()
    sent = encode(request(Op.SYNC, SYNC_PAYLOAD))
    heard = b""
    for _ in range(3):
        yield Send(sent)
        heard += yield Receive(0.15, len(sent))
        yield Wait(0.05)
        heard += yield Discard()
    if sent in heard:
        return replace(evidence, echoed=True)
    return replace(evidence, echoed=False, stuck_bit=stuck_bit(heard))


def stuck_bit(heard: bytes) -> int | None:
    """The bit that is always set in answers that would be right without it: 0 to 7, else None.

    A frame of a loader holds zeros, so some byte has every bit clear; looked for is the SYNC answer's shape.
    """
    if len(heard) < 14:
        return None
    shape = bytes.fromhex("010802000707")
    for bit in range(8):
        mask = 1 << bit
        if any(b & mask == 0 for b in heard):
            continue
        wanted = bytes(b | mask for b in shape)
        if wanted[:4] in heard:
            return bit
    return None


def _flash(loader: Loader, evidence: Evidence) -> Steps[Evidence]:
    size = evidence.flash_size
    evidence = replace(evidence, esp8285=(yield from is_esp8285(loader)))
    if evidence.flash_id in NO_FLASH_IDS or not size:
        return evidence
    boot = loader.facts.chip.boot_offset
    if loader.can_hash:
        try:
            yield from check_real_size(loader, size, boot)
            evidence = replace(evidence, aliased=False)
        except WrongFlashSize:
            evidence = replace(evidence, aliased=True)
    if not loader.can_read:
        return evidence
    if (yield from loader.md5(boot, SECTOR)) == _digest(BLANK * SECTOR):
        return replace(evidence, image_fault="flash is blank where the chip boots", image_whole=False)
    head = yield from loader.read(boot, SECTOR)
    if not has_header(head):
        return replace(evidence, image_fault="there is no image header where the chip boots", image_whole=False)
    length = SECTOR
    while True:
        try:
            image = identify(head, loader.facts.chip)
            break
        except ImageFault as fault:
            # Not all of it was read yet. Read on only where there is a reason to doubt it.
            length *= 4
            if length > LARGEST_CHECK or boot + length > size:
                return replace(evidence, image_fault=str(fault) if evidence.boots else None)
            head += yield from loader.read(boot + len(head), length - len(head))
    return replace(
        evidence,
        header_mode=image.mode,
        header_size=image.flash_size,
        image_fault=image.fault,
        image_whole=image.fault is None,
    )


def _quality(loader: Loader, fastest: int, out: list[RateQuality]) -> Steps[None]:
    """Exchanges that got through at each rate, the lowest first; ends where a rate does not work."""
    link = loader.link
    rates = [r for r in QUALITY_RATES if r <= max(fastest, 115200)] if loader.can_change_rate else [link.rate]
    for rate in rates:
        yield Note(Stage("rate", f"measuring {rate} baud"))
        good, before = 0, link.damaged
        try:
            if (yield from loader.change_rate(rate, "asked")):
                for _ in range(QUALITY_EXCHANGES):
                    if (yield from loader.probe()):
                        good += 1
                    elif not (yield from loader.resync()):
                        break
        except LoaderProblem:
            out.append(RateQuality(rate, QUALITY_EXCHANGES, good, link.damaged - before))
            return
        out.append(RateQuality(rate, QUALITY_EXCHANGES, good, link.damaged - before))
        if good < QUALITY_EXCHANGES // 2:
            return


def explain_silence(plan: SessionPlan, problem: NoSyncReply) -> Steps[Evidence]:
    """After SYNC went unanswered: what an ordinary start and a download start print, for the diagnosis."""
    text = as_text(problem.heard)
    evidence = Evidence(
        sync="", syncs=problem.attempts, idle_bytes=len(problem.heard), idle_text=text, echoed=problem.echoed
    )
    if not plan.can_reset:
        return evidence
    evidence = replace(evidence, idle_bytes=0, idle_text="")
    count, rate, text = yield from _boot_heard(plan, download=False)
    evidence = replace(evidence, reset_bytes=count, reset_rate=rate or None, reset_text=text)
    count, _, text = yield from _boot_heard(plan, download=True)
    evidence = replace(evidence, download_bytes=count, download_text=text)
    if not evidence.echoed:
        evidence = yield from _echo(evidence)
    yield from plan.hard_reset.run()
    yield SetLines(False, False)
    return evidence
