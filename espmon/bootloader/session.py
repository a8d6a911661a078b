"""From a silent port to a loader that works: reset, SYNC, which chip, stub, rate; and back to a running application.

A :class:`Session` climbs down a ladder of *rungs*: each names a way from the ROM's loader to a better one. When a rung
does not start, or dies in the middle of the work, the board gets a fresh reset and the next rung is tried; the last is
the ROM itself. Operations are written so that running them again continues where the flash is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from espmon.bootloader.actions import Note, Now, SetLines, Steps, Wait
from espmon.bootloader.errors import (
    BoardReset,
    ChipUnknown,
    GaveUp,
    LoaderProblem,
    LoaderRefused,
    LoaderSilent,
    NoSyncReply,
    OtherChip,
    StubNotStarted,
)
from espmon.bootloader.flash import size_of_id
from espmon.bootloader.link import SYNC_PATIENCE_S, Link, SyncReply
from espmon.bootloader.loader import RATES, Loader, RomLoader, StubLoader, StubPayload, parse_security
from espmon.bootloader.loaders import LOADERS, MAGIC_ADDRESS, WATCHDOG_KEY, LoaderFacts, by_chip_id, by_magic
from espmon.bootloader.notes import LineReset, LoaderMet, Retried, Stage
from espmon.bootloader.packets import Op
from espmon.bootloader.resets import HARD, NONE, SEQUENCES, ResetSequence
from espmon.chips import Chip

T = TypeVar("T")

# The rate at which every ROM listens after reset.
ROM_RATE = 115200
# SYNCs after one reset. Some adapters lose the first few (CH340 on some kernels needed eight).
SYNCS_PER_RESET = 8
FIRST_PATIENCE_S = 0.03
RESETS = 7
# Starting again after the loader was lost in the middle of the work.
RESTARTS = 4

Opener = Callable[[RomLoader], Steps[Loader]]
Finder = Callable[[Link, LoaderFacts], Steps[Loader | None]]


@dataclass(frozen=True, slots=True)
class Rung:
    """One way from the ROM's loader to another: `open` is given the connected ROM and returns the loader to use.

    `find` meets one that an earlier session left running and that does not answer SYNC.
    """

    name: str
    open: Opener
    find: Finder | None = None


@dataclass(frozen=True, slots=True)
class Found(SyncReply):
    """Nobody answered SYNC, but `loader` was running already."""

    loader: Loader


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """What keeps a chip from being written like any other. None: could not be read."""

    secure_boot: bool | None = False
    encryption: bool | None = False
    secure_download: bool = False

    @property
    def word(self) -> str | None:
        """``download``, ``encryption`` or ``boot`` for what is on, None for an open chip."""
        if self.secure_download:
            return "download"
        if self.encryption:
            return "encryption"
        return "boot" if self.secure_boot else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPlan:
    """How to reach the loader.

    `sequences`: resets to try in turn. `rate`: the link rate wanted. `first_rate`: where SYNC starts, None for the
    fastest that the chip may understand. `chip`: what it must be, None to find out. `stubs`: payloads by name
    (:attr:`LoaderFacts.stubs`). `rungs`: ways to try before them, by chip name. `use_stub` False: the ROM only.
    `native_usb`: the port is the chip's own USB, whose watchdogs must be stopped. `read_boot`: finds the reset cause in
    boot text that was received (second argument) at another rate than it was sent. `application_rate`: where the host
    listens when the board starts again.
    """

    sequences: tuple[ResetSequence, ...] = SEQUENCES["unix"]
    hard_reset: ResetSequence = HARD
    rate: int = 460800
    first_rate: int | None = None
    chip: Chip | None = None
    stubs: Mapping[str, StubPayload] = field(default_factory=dict)
    rungs: Mapping[str, tuple[Rung, ...]] = field(default_factory=dict)
    use_stub: bool = True
    native_usb: bool = False
    resets: int = RESETS
    read_boot: Callable[[bytes, int], str | None] | None = None
    application_rate: int | None = None

    @property
    def can_reset(self) -> bool:
        """False when no line reaches the board and a person must press buttons."""
        return any(s.actions for s in self.sequences)


def connect(plan: SessionPlan) -> Steps[tuple[Link, SyncReply]]:
    """Reset the board into its loader and have SYNC answered. Raises :class:`NoSyncReply`."""
    heard = b""
    tried = 0
    rates: list[int] = []
    echoed = False
    for attempt in range(plan.resets):
        sequence = plan.sequences[attempt % len(plan.sequences)]
        rate = _sync_rate(plan, attempt)
        rates.append(rate)
        link = Link(rate)
        yield from link.set_rate(rate, "asked")
        yield from link.drop_pending()
        yield Note(Stage("reset", sequence.name))
        if sequence is not NONE:
            yield Note(LineReset(sequence.name))
        yield from sequence.run()
        yield from link.drop_pending()
        link.strays = 0
        yield Note(Stage("sync", f"{rate} baud"))
        # A reset that works is answered within the first SYNCs; a fast rate that the ROM does not follow never is.
        syncs = SYNCS_PER_RESET if attempt or rate <= ROM_RATE else 5
        for number in range(syncs):
            tried += 1
            # The ESP8266's ROM measures the rate by the first SYNC and does not answer it.
            answer = yield from link.sync_once(FIRST_PATIENCE_S if number == 0 else SYNC_PATIENCE_S)
            if answer is not None:
                yield from link.drain()
                # A rate that damages answers to SYNC is none to begin with; the next reset tries the ROM's own.
                if rate > ROM_RATE and plan.can_reset and link.damaged + link.strays:
                    break
                return link, answer
        yield from link.drop_pending()
        if not plan.can_reset:
            for name, rungs in plan.rungs.items():
                if plan.chip not in (None, LOADERS[name].chip):
                    continue
                for find in dict.fromkeys(rung.find for rung in rungs if rung.find is not None):
                    loader = yield from find(link, LOADERS[name])
                    if loader is not None:
                        return link, Found("esp8266", loader)
        heard += link.heard
        echoed = echoed or link.echoes > 0
    raise NoSyncReply(tried, heard, echoed=echoed, rates=tuple(dict.fromkeys(rates)))


def _sync_rate(plan: SessionPlan, attempt: int) -> int:
    base = min(ROM_RATE, plan.rate)
    if not plan.can_reset:
        # A stub that was left running keeps the rate it was given.
        others = [r for r in dict.fromkeys((plan.rate, *RATES)) if r != base]
        return base if attempt % 2 == 0 else others[attempt // 2 % len(others)]
    if plan.first_rate is not None and attempt < 2:
        return plan.first_rate
    # The ESP8266's ROM measures the rate of SYNC, so it can be met at the final one: the stub uploads four times faster.
    if attempt == 0 and plan.rate > ROM_RATE and (plan.chip is None or plan.chip.image_chip_id is None):
        return plan.rate
    return base


def identify(link: Link, answer: SyncReply) -> Steps[tuple[LoaderFacts, Security]]:
    """Which chip answers, and its security state. Raises :class:`ChipUnknown`."""
    if answer.family == "esp8266":
        return LOADERS["esp8266"], Security()
    found = yield from link.query(Op.GET_SECURITY_INFO)
    if found is not None and len(found.body) - link.status_length >= 12:
        flags, crypt, chip_id = parse_security(found.body[: len(found.body) - link.status_length])
        security = Security(
            secure_boot=bool(flags & 1), encryption=crypt.bit_count() % 2 == 1, secure_download=bool(flags & 4)
        )
        if chip_id is None:
            return LOADERS["esp32s2"], security
        facts = by_chip_id(chip_id)
        if facts is None:
            raise ChipUnknown(f"chip id {chip_id}")
        return facts, security
    # Some ROMs answer a command that they do not know several times over.
    yield from link.drain(0.1)
    try:
        magic, _ = yield from link.ask(Op.READ_REG, MAGIC_ADDRESS.to_bytes(4, "little"))
    except LoaderRefused:
        return LOADERS["esp32s2"], Security(secure_download=True)
    facts = by_magic(magic)
    if facts is None:
        raise ChipUnknown(f"ROM word 0x{magic:08x}")
    return facts, Security(secure_boot=None, encryption=None) if facts.crypt else Security()


def read_fuses(loader: Loader, security: Security) -> Steps[Security]:
    """Security from the fuse registers, where the loader's own command did not tell."""
    facts = loader.facts
    if security.secure_boot is not None or facts.crypt is None or facts.secure_boot is None:
        return security
    crypt = (yield from loader.read_register(facts.crypt[0])) & facts.crypt[1]
    boot = (yield from loader.read_register(facts.secure_boot[0])) & facts.secure_boot[1]
    return Security(secure_boot=boot != 0, encryption=crypt.bit_count() % 2 == 1)


def read_mac(loader: Loader) -> Steps[str]:
    """The factory MAC address, ``aa:bb:cc:dd:ee:ff``."""
    facts = loader.facts
    if facts.mac is not None:
        low = yield from loader.read_register(facts.mac)
        high = yield from loader.read_register(facts.mac + 4)
        octets = (high & 0xFFFF).to_bytes(2, "big") + low.to_bytes(4, "big")
    else:
        mac0 = yield from loader.read_register(0x3FF00050)
        mac1 = yield from loader.read_register(0x3FF00054)
        mac3 = yield from loader.read_register(0x3FF0005C)
        if mac3 & 0xFFFFFF:
            vendor = (mac3 & 0xFFFFFF).to_bytes(3, "big")
        else:
            vendor = {0: b"\x18\xfe\x34", 1: b"\xac\xd0\x74"}.get(mac1 >> 16 & 0xFF, b"\0\0\0")
        octets = vendor + (mac1 & 0xFFFF).to_bytes(2, "big") + bytes([mac0 >> 24])
    return octets.hex(":")


def is_esp8285(loader: Loader) -> Steps[bool]:
    """True for the ESP8266 with flash inside (fuse bits 4 and 80), which runs in mode dout only."""
    if loader.facts.image_header:
        return False
    low = yield from loader.read_register(0x3FF00050)
    third = yield from loader.read_register(0x3FF00058)
    return bool(low & 1 << 4 or third & 1 << 16)


class Session:
    """One stay in a board's loader. Make it, `run` operations in it, `leave`."""

    def __init__(self, plan: SessionPlan) -> None:
        self.plan = plan
        self.loader: Loader | None = None
        self.security = Security()
        self.flash_id: int | None = None
        self.flash_size: int | None = None
        self.rate_limit = plan.rate
        self.heard = b""
        self.restarts = 0
        self.rung = 0
        self.found_stub = False
        self._early_rate = True
        self._uploaded = False
        self._boots_heard = 0

    # --- opening -----------------------------------------------------------------------------------------------------

    def open(self) -> Steps[Loader]:
        """Climb down the ladder until a loader works."""
        problem: LoaderProblem | None = None
        for _ in range(10):
            first = self.plan.first_rate
            link, answer = yield from connect(
                replace(
                    self.plan,
                    rate=self.rate_limit,
                    first_rate=first if first is not None and first <= self.rate_limit else None,
                )
            )
            try:
                loader = yield from self._open_rung(link, answer)
                yield from self._prepare(loader)
            except (LoaderSilent, LoaderRefused, StubNotStarted, GaveUp) as error:
                problem = error
                self._keep(link)
                yield Note(Retried("loader", error.message, self.rung + 1))
                if not self.plan.can_reset:
                    raise
                if link.rate > ROM_RATE or (isinstance(error, LoaderSilent) and error.op == Op.CHANGE_BAUDRATE):
                    # Above the ROM's own rate the rate is suspected first.
                    self._early_rate = False
                    self.rate_limit = max(ROM_RATE, _slower(self.rate_limit))
                else:
                    self.rung += 1
                continue
            self._keep(link)
            # What was heard so far is the boot that we caused; from here on boot text means trouble.
            link.forget_heard()
            loader.wanted_rate = self.rate_limit
            self.loader = loader
            yield Note(LoaderMet(loader.kind, loader.title, loader.link.rate))
            return loader
        raise problem or AssertionError("unreachable")

    def _keep(self, link: Link) -> None:
        self.heard = (self.heard + link.heard)[-0x8000:]

    def _open_rung(self, link: Link, answer: SyncReply) -> Steps[Loader]:
        yield Note(Stage("identify"))
        if isinstance(answer, Found) and self.plan.chip in (None, answer.loader.facts.chip):
            return answer.loader
        facts, self.security = yield from identify(link, answer)
        chip = self.plan.chip
        if chip is not None and chip is not facts.chip:
            raise OtherChip(chip.title, facts.chip.title)
        if answer.family == "stub":
            self.found_stub = self.found_stub or not self._uploaded
            return StubLoader(link, facts)
        rom = RomLoader(link, facts)
        self.security = yield from read_fuses(rom, self.security)
        if self.plan.native_usb:
            yield from _stop_watchdogs(rom)
        forbidden = self.security.secure_download or self.security.secure_boot
        rungs = () if forbidden or not self.plan.use_stub else self._rungs(facts)
        if self.rung >= len(rungs):
            return rom
        if self._early_rate and facts.rom_rate and facts.rom_rate_scale is None and link.rate < self.rate_limit:
            yield Note(Stage("rate", f"{self.rate_limit} baud"))
            yield from rom.change_rate(self.rate_limit, "asked")
        rung = rungs[self.rung]
        yield Note(Stage("stub", rung.name))
        self._uploaded = True
        return (yield from rung.open(rom))

    def _rungs(self, facts: LoaderFacts) -> tuple[Rung, ...]:
        own = self.plan.rungs.get(facts.chip.name, ())
        payloads = [self.plan.stubs[name] for name in facts.stubs if name in self.plan.stubs]
        if not payloads:
            return own
        # The first once more after a fresh reset; where a chip has another payload for old revisions, that one next.
        return (*own, *(_stub_rung(p) for p in (payloads[0], payloads[-1])))

    def _prepare(self, loader: Loader) -> Steps[None]:
        yield from loader.attach()
        if loader.can_change_rate and loader.link.rate < self.rate_limit:
            yield from self._raise_rate(loader)
        if self.security.secure_download:
            return
        if self.flash_id is None:
            self.flash_id = yield from loader.flash_id()
            self.flash_size = size_of_id(self.flash_id)
        if self.flash_size and loader.facts.image_header:
            yield from loader.attach(self.flash_size)

    def _raise_rate(self, loader: Loader) -> Steps[None]:
        while loader.link.rate < self.rate_limit:
            yield Note(Stage("rate", f"{self.rate_limit} baud"))
            if (yield from loader.change_rate(self.rate_limit, "asked")):
                return
            self.rate_limit = _slower(self.rate_limit)

    # --- working -----------------------------------------------------------------------------------------------------

    def run(self, operation: Callable[[Loader], Steps[T]]) -> Steps[T]:
        """Run an operation; when the loader is lost in it, start again with a fresh reset, slower, down the ladder.

        The operation must be one that can be run again and then continues (it looks at the flash first).
        """
        while True:
            loader = self.loader or (yield from self.open())
            try:
                return (yield from operation(loader))
            except (LoaderSilent, LoaderRefused, GaveUp) as error:
                self._keep(loader.link)
                self.loader = None
                cause = loader.link.boot_text
                if cause is None and self.plan.read_boot is not None:
                    cause = self.plan.read_boot(loader.link.heard, loader.link.rate)
                if cause is not None:
                    self._boots_heard += 1
                    # Once can be somebody's finger. A supply that is too weak does it again and again.
                    if self._boots_heard > 1 or "rown" in cause.lower():
                        raise BoardReset(loader.link.heard, cause) from error
                self.restarts += 1
                yield Note(Retried("session", error.message, self.restarts))
                if self.restarts > RESTARTS or not self.plan.can_reset:
                    raise
                if self.restarts > 1:
                    self.rate_limit = max(ROM_RATE, _slower(self.rate_limit))
                if self.restarts == RESTARTS and loader.kind != "rom":
                    self.rung += 1

    # --- leaving -----------------------------------------------------------------------------------------------------

    def leave(self) -> Steps[bool]:
        """Start the application: by the reset line, and where that is not wired by the loader itself.

        True when the board was heard booting or the loader is gone; False: press reset, it still waits in the loader.
        """
        yield Note(Stage("leave"))
        loader = self.loader
        link = loader.link if loader is not None else Link(ROM_RATE)
        if loader is not None and not self.security.secure_download:
            with contextlib.suppress(LoaderProblem):
                yield from loader.prepare_reset()
        if self.plan.can_reset:
            loader_rate = link.rate
            if self.plan.application_rate is not None:
                yield from link.set_rate(self.plan.application_rate, "asked")
            yield Note(LineReset(self.plan.hard_reset.name))
            yield from self.plan.hard_reset.run()
            yield SetLines(False, False)
            if (yield from self._gone(link, loader_rate)):
                self.loader = None
                return True
        if loader is None:
            return False
        try:
            yield from loader.start_application()
        except LoaderProblem:
            return False
        gone = yield from self._gone(link, link.rate)
        if gone:
            self.loader = None
        return gone

    def _gone(self, link: Link, loader_rate: int) -> Steps[bool]:
        """Whether the loader has left: anything heard that is no answer, or silence after SYNC."""
        yield from link.drop_pending()
        link.forget_heard()
        start: float = yield Now()
        now = start
        # Boot text comes within 0.1 s of a reset, garbled at our rate perhaps; it ends the wait.
        while now - start < 0.4:
            packet = yield from link.next_packet(0.1)
            if link.heard or (packet is not None and len(packet) > 0):
                return True
            now = yield Now()
        listening = link.rate
        if listening != loader_rate:
            yield from link.set_rate(loader_rate, "asked")
        for _ in range(2):
            if (yield from link.sync_once()) is not None:
                yield from link.drain()
                return False
        if listening != loader_rate:
            yield from link.set_rate(listening, "asked")
        return True


def _stub_rung(payload: StubPayload) -> Rung:
    def start(rom: RomLoader) -> Steps[Loader]:
        return (yield from rom.upload(payload))

    return Rung(payload.name, start)


def _slower(rate: int) -> int:
    return max((r for r in RATES if r < rate), default=rate)


def _stop_watchdogs(loader: Loader) -> Steps[None]:
    """Native USB: the ROM leaves the RTC watchdog running, and it would end a long write."""
    dog = loader.facts.watchdog
    if dog is None:
        return
    yield from loader.write_registers((dog.protect, WATCHDOG_KEY), (dog.config, 0), (dog.protect, 0))
    if dog.super_protect is not None and dog.super_config is not None:
        value = yield from loader.read_register(dog.super_config)
        # "feed yourself": bit 31 on the chips with the older key, bit 18 on the later ones
        bit = 31 if dog.super_key != WATCHDOG_KEY else 18
        yield from loader.write_registers(
            (dog.super_protect, dog.super_key), (dog.super_config, value | 1 << bit), (dog.super_protect, 0)
        )
    yield Wait(0.0)
