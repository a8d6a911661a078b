"""Flashing through a port that espmon owns: what the commands, the monitor's hotkey and recovery share.

Everything here takes an open :class:`~espmon.port.SerialPort`, tells what happens to callbacks, can be stopped by an
event, and prints nothing. A :class:`Flasher` is one stay in the board's loader::

    with Flasher(port, options, tell=print) as flasher:
        flasher.flash([Region(offset=0, content=firmware, source="firmware.bin")])
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from espmon.app.folders import default_state_dir
from espmon.app.remembered import Remembered
from espmon.bootloader.actions import Action, Steps
from espmon.bootloader.diagnosis import Evidence, diagnose
from espmon.bootloader.errors import (
    FlashDiffers,
    LoaderProblem,
    NeedsStub,
    NoSyncReply,
    PastEnd,
    Refused,
    SendStalled,
    Stopped,
    WrongFlashSize,
)
from espmon.bootloader.examine import explain_silence
from espmon.bootloader.flash import SECTOR
from espmon.bootloader.guards import (
    check_address,
    check_flash,
    check_readable,
    check_real_size,
    check_security,
    plan_regions,
)
from espmon.bootloader.loader import RATES, Loader, StubLoader
from espmon.bootloader.notes import Heard, LineReset, Stage, Transferred
from espmon.bootloader.read import Backup, Piece, ReadCount, check_backup, sector_digests
from espmon.bootloader.resets import BY_NAME, HARD, HARD_USB, NONE, SEQUENCES, ResetSequence, parse_custom
from espmon.bootloader.session import Rung, Security, Session, SessionPlan, is_esp8285, read_mac
from espmon.bootloader.write import Region, Written, verify_regions, write_regions
from espmon.chips import CHIPS, Chip
from espmon.errors import EspmonError, InputUnreadable, PortGone, PortProblem, UsageProblem
from espmon.events import Event, Progress, Recovery, ResetCaused
from espmon.port import Chunk, SerialPort, run_steps
from espmon.store.images import ImageStore
from espmon.store.stubs import find_stubs

T = TypeVar("T")
Tell = Callable[[Event], None]
Noted = Callable[[object], None]

# Native USB of the chips themselves.
_ESPRESSIF = 0x303A
_USB_JTAG = 0x1001
# Progress is told this often at most.
_TELL_S = 0.1
# The rate of transfer is an average over this long.
_RATE_WINDOW_S = 3.0
# The newest stored images are searched for known sectors; more would cost more memory than they save time.
_STORED_IMAGES = 16
# Clean sessions at a lowered rate before the next higher one is tried again.
_CLEAN_SESSIONS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashOptions:
    """How to reach the loader and how to leave it.

    `flash_baud`: link rate, None: what is remembered for the adapter, else 460800. `before`: ``auto``, ``none`` (the board
    is in download mode already), the name of a sequence or one written out. `after`: ``reset`` or ``none``. `chip`: what
    the board must be. `flash_size`: bytes, where the flash's id does not tell. `stub` False: the boot ROM only.
    """

    flash_baud: int | None = None
    before: str = "auto"
    after: str = "reset"
    chip: str | None = None
    flash_size: int | None = None
    stub: bool = True
    resets: int = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipReport:
    """Who answered. `flash_size` in bytes, None where it could not be told."""

    chip: Chip
    title: str
    mac: str
    flash_id: int | None
    flash_size: int | None
    security: Security
    loader: str
    loader_title: str
    rate: int


class LinkMemory:
    """Which link rates worked with which adapter, and which chip answered there; `path` None: for this run only."""

    def __init__(self, path: Path | None = None) -> None:
        self._adapters = Remembered(path)

    def rate(self, key: str, usual: int) -> int:
        """The rate to begin with: the one that worked, a step more after some clean sessions."""
        rate = self._adapters.number(key, "rate", 9600, 4_000_000)
        if rate is None:
            return usual
        if rate < usual and (self._adapters.number(key, "clean", 0, 1 << 30) or 0) >= _CLEAN_SESSIONS:
            return min((r for r in RATES if r > rate), default=rate)
        return rate

    def chip(self, key: str) -> str | None:
        """Which chip answered last time; a hint for where SYNC starts, no more."""
        found = self._adapters.of(key).get("chip")
        return found if isinstance(found, str) and found in CHIPS else None

    def remember(self, key: str, *, rate: int, asked: int, chip: str, clean: bool) -> None:
        """A session ended well at `rate`, having asked for `asked`."""
        again = clean and rate < asked and self._adapters.number(key, "rate", 1, 1 << 30) == rate
        count = (self._adapters.number(key, "clean", 0, 1 << 30) or 0) + 1 if again else 0
        self._adapters.keep(key, {"rate": rate, "clean": count, "chip": chip})


def default_memory() -> LinkMemory:
    """The memory of this user."""
    import platformdirs

    return LinkMemory(Path(platformdirs.user_state_dir("espmon", appauthor=False)) / "flash-rates.json")


def sequences_for(port: SerialPort, before: str) -> tuple[ResetSequence, ...]:
    """The reset sequences to try on this port. Raises :class:`~espmon.errors.UsageProblem` for an unknown name."""
    if before == "none":
        return (NONE,)
    if before != "auto":
        if before in BY_NAME:
            return (BY_NAME[before],)
        if "|" in before or before[:1] in "DRWU":
            return (parse_custom(before),)
        raise UsageProblem(
            f"There is no reset sequence {before}.", f"Known: auto, {', '.join(BY_NAME)}, or D0|R1|W0.1|..."
        )
    name = port.device.lower()
    if name.startswith("socket://") or port.is_pty:
        return SEQUENCES["no-lines"]
    if name.startswith("rfc2217://"):
        return SEQUENCES["rfc2217"]
    if port.is_url:
        return SEQUENCES["sim"]
    if native_usb(port):
        return SEQUENCES["usb-jtag"]
    return SEQUENCES["windows" if os.name == "nt" else "unix"]


def native_usb(port: SerialPort) -> bool:
    """True when the port is a chip's own USB-Serial/JTAG."""
    return port.identity.vid == _ESPRESSIF and port.identity.pid == _USB_JTAG


def own_rungs() -> Mapping[str, tuple[Rung, ...]]:
    """espmon's own stub, where there is one: it is tried before Espressif's."""
    from espmon.bootloader import stub

    rungs: Callable[[], Mapping[str, tuple[Rung, ...]]] | None = getattr(stub, "rungs", None)
    return {} if rungs is None else rungs()


def read_boot(heard: bytes, rate: int) -> str | None:
    """The reset cause of an ESP8266's boot banner (sent at 74880) in what was received at the link's rate."""
    from espmon.uart.banner import BannerReader

    banners = BannerReader(rate).read(heard[-4096:])
    if not banners:
        return None
    return f"rst cause:{'?' if banners[-1].cause is None else banners[-1].cause}"


class Flasher:
    """One stay in a board's loader. `tell` gets events, `noted` every note of the Steps, `heard` every chunk read."""

    def __init__(
        self,
        port: SerialPort,
        options: FlashOptions | None = None,
        *,
        tell: Tell | None = None,
        noted: Noted | None = None,
        heard: Callable[[Chunk], None] | None = None,
        stop: threading.Event | None = None,
        memory: LinkMemory | None = None,
        rungs: Mapping[str, tuple[Rung, ...]] | None = None,
    ) -> None:
        self.port = port
        self.options = options = options or FlashOptions()
        self.memory = memory if memory is not None else default_memory()
        self.stop = stop
        self._tell = tell
        self._noted = noted
        self._heard = heard
        self._progress = _Pace()
        self._application_baud = port.baud
        self._left = False
        self._asked = options.flash_baud or self.memory.rate(self._key, 460800)
        self.plan = self._plan(rungs)
        self.session = Session(self.plan)
        self._trusted_size = False

    def _plan(self, rungs: Mapping[str, tuple[Rung, ...]] | None) -> SessionPlan:
        options = self.options
        chip = CHIPS.get(options.chip) if options.chip else None
        if options.chip and chip is None:
            raise UsageProblem(f"There is no chip {options.chip}.", f"Known: {', '.join(CHIPS)}")
        first: int | None = None
        remembered = self.memory.chip(self._key)
        if chip is None and remembered is not None:
            first = self._asked if remembered == "esp8266" else min(115200, self._asked)
        usb = native_usb(self.port)
        return SessionPlan(
            sequences=sequences_for(self.port, options.before),
            hard_reset=HARD_USB if usb else HARD,
            rate=self._asked,
            first_rate=first,
            chip=chip,
            stubs=find_stubs() if options.stub else {},
            rungs=(own_rungs() if rungs is None else rungs) if options.stub else {},
            use_stub=options.stub,
            native_usb=usb,
            resets=options.resets,
            read_boot=read_boot,
            application_rate=self._application_baud,
        )

    @property
    def _key(self) -> str:
        return self.port.identity.key if not self.port.is_url else f"url:{self.port.device}"

    # --- running Steps -----------------------------------------------------------------------------------------------

    def run(self, steps: Steps[T], *, stoppable: bool = True) -> T:
        """Play Steps on the port. Errors of the client leave with a diagnosis."""
        return run_steps(
            self.port, steps, heard=self._heard, noted=self._on_note, stop=self.stop if stoppable else None
        )

    def _on_note(self, fact: object) -> None:
        if self._noted is not None:
            self._noted(fact)
        if self._tell is None:
            return
        if isinstance(fact, Transferred):
            event = self._progress.event(fact, self.port.name)
            if event is not None:
                self._tell(event)
        elif isinstance(fact, LineReset):
            self._tell(ResetCaused(by="espmon", how=fact.how, port=self.port.name, at=time.time()))

    def _work(self, operation: Callable[[Loader], Steps[T]], guarded: bool = True, reads: bool = False) -> T:
        def checked(loader: Loader) -> Steps[T]:
            if guarded:
                # Reading first and writing then, in one stay, is guarded twice.
                if reads:
                    check_readable(self.session.security)
                else:
                    check_security(self.session.security)
            if guarded and not self._trusted_size:
                yield from self._check(loader)
            return (yield from operation(loader))

        try:
            return self.run(self.session.run(checked))
        except LoaderProblem as problem:
            if isinstance(problem, NeedsStub) and not self.options.stub:
                problem.hint = "Run it again without --no-stub."
            self._explain(problem)
            raise
        except PortProblem as problem:
            findings = diagnose(Evidence(open_error=problem.code, failure=problem.code))
            if findings and problem.hint is None:
                problem.hint = findings[0].remedy
            raise

    def work(self, operation: Callable[[Loader], Steps[T]]) -> T:
        """Run an operation of the caller's own in the loader, after the guards that need the chip."""
        return self._work(operation)

    def _check(self, loader: Loader) -> Steps[None]:
        if self.options.flash_size is not None:
            self.session.flash_size = self.options.flash_size
            yield from loader.attach(self.options.flash_size)
        check_flash(self.session.flash_id, self.session.flash_size)
        if self.session.flash_size is not None and self.options.flash_size is None:
            yield from check_real_size(loader, self.session.flash_size, loader.facts.chip.boot_offset)
        self._trusted_size = True

    def _explain(self, problem: LoaderProblem) -> None:
        """Put the most probable cause, from the same table that `doctor` uses, into the error."""
        if isinstance(problem, (Refused, Stopped)):
            return
        evidence = Evidence(failure=problem.code, reset_meanwhile=getattr(problem, "cause", None))
        if isinstance(problem, NoSyncReply):
            try:
                evidence = self.run(explain_silence(self.plan, problem))
            except EspmonError:
                return
        findings = diagnose(evidence)
        if findings:
            problem.diagnosis = f"{findings[0].cause} {findings[0].remedy}"
            problem.hint = problem.diagnosis

    # --- entering and leaving ----------------------------------------------------------------------------------------

    def __enter__(self) -> Flasher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an interrupted write the loader is the safe place: nothing half written runs there.
        # An adapter that takes nothing would only be waited for once more.
        if isinstance(error, (PortProblem, SendStalled)) or (isinstance(error, Stopped) and "incomplete" in error.state):
            self.restore_rate()
            return
        try:
            self.leave()
        except EspmonError:
            if error is None:
                raise

    def leave(self) -> bool:
        """Start the application again, if so asked; True when the board left the loader."""
        if self._left:
            return True
        left = False
        loader = self.session.loader
        if loader is not None:
            restarts = self.session.restarts
            self.memory.remember(
                self._key, rate=loader.link.rate, asked=self._asked, chip=loader.facts.chip.name, clean=restarts == 0
            )
        if self.options.after == "reset" and (loader is not None or self.plan.can_reset):
            left = self._left = self.run(self.session.leave(), stoppable=False)
        self.restore_rate()
        return left

    def restore_rate(self) -> None:
        """The port back to the application's rate."""
        with contextlib.suppress(PortProblem):
            self.port.set_baud(self._application_baud)

    # --- operations --------------------------------------------------------------------------------------------------

    def identify(self) -> ChipReport:
        """Which chip, MAC, flash and fuses."""

        def look(loader: Loader) -> Steps[ChipReport]:
            security = self.session.security
            mac = "" if security.secure_download else (yield from read_mac(loader))
            small = False if security.secure_download else (yield from is_esp8285(loader))
            return ChipReport(
                chip=loader.facts.chip,
                title="ESP8285" if small else loader.chip_title,
                mac=mac,
                flash_id=self.session.flash_id,
                flash_size=self.options.flash_size or self.session.flash_size,
                security=security,
                loader=loader.kind,
                loader_title=loader.title,
                rate=loader.link.rate,
            )

        return self._work(look, guarded=False)

    def regions(self, files: Sequence[Region], loader: Loader) -> list[Region]:
        """The files checked against this board; raises what is wrong with them."""
        return plan_regions(files, loader.facts.chip, self.session.flash_size)

    def flash(self, files: Sequence[Region]) -> Written:
        """Make flash hold these files. `verified` in the result tells whether the loader could read back."""

        def write(loader: Loader) -> Steps[Written]:
            regions = self.regions(files, loader)
            return (yield from write_regions(loader, regions, loader.facts.chip.boot_offset))

        return self._work(write)

    def compare(self, files: Sequence[Region]) -> list[int]:
        """Addresses of sectors in which flash differs from the files; empty when it holds them."""

        for file in files:
            check_address(file)

        def verify(loader: Loader) -> Steps[list[int]]:
            for file in files:
                if self.session.flash_size is not None and file.end > self.session.flash_size:
                    raise PastEnd(file.source, file.end, self.session.flash_size)
            return (yield from verify_regions(loader, files))

        return self._work(verify, reads=True)

    def erase(self, offset: int = 0, size: int | None = None) -> int:
        """Erase whole sectors, or all of the flash; returns how many bytes. What was erased is seen to be blank."""

        def erase(loader: Loader) -> Steps[int]:
            flash_size = self.session.flash_size
            if flash_size is None:
                raise WrongFlashSize("The size of the flash is not known; give it with --flash-size.")
            length = flash_size - offset if size is None else size
            if offset % SECTOR or length % SECTOR:
                raise UsageProblem("Only whole sectors can be erased.", "Give multiples of 0x1000.")
            if offset + length > flash_size:
                raise PastEnd("the region", offset + length, flash_size)
            yield from _erase(loader, offset, length, flash_size)
            return length

        return self._work(erase)

    def backup(
        self, path: Path, *, size: int | None = None, known: Mapping[bytes, bytes] | None = None
    ) -> tuple[ReadCount, str]:
        """Copy the flash into `path`; the count and the file's SHA-256.

        An interrupted one leaves `path` + ``.part`` and goes on from there the next time.
        """
        part = path.with_name(path.name + ".part")

        def read(loader: Loader) -> Steps[tuple[ReadCount, str]]:
            length = size or self.session.flash_size
            if length is None:
                raise WrongFlashSize("The size of the flash is not known; give it with --flash-size.")
            if self.session.flash_size is not None and length > self.session.flash_size:
                raise PastEnd("the backup", length, self.session.flash_size)
            before = _read_file(part, length)
            with part.open("r+b" if os.path.exists(part) else "w+b") as file:
                count = yield from _store_pieces(Backup(loader, length, before, known).run(), file.fileno())
                file.truncate(length)
                file.flush()
                os.fsync(file.fileno())
            content = part.read_bytes()
            check_backup(hashlib.md5(content, usedforsecurity=False).digest(), count.digest)
            part.replace(path)
            return count, hashlib.sha256(content).hexdigest()

        try:
            return self._work(read, reads=True)
        except OSError as error:
            raise InputUnreadable(f"{part}: {error.strerror}", "Name a file that can be written.") from error


def _erase(loader: Loader, offset: int, length: int, flash_size: int) -> Steps[None]:
    from espmon.bootloader.actions import Note
    from espmon.bootloader.flash import BLANK

    yield Note(Stage("erase"))
    if isinstance(loader, StubLoader) and length == flash_size:
        yield from loader.erase_chip()
        done = length
    else:
        done = 0
    step = 0x40000
    while done < length:
        part = min(step, length - done)
        yield from loader.erase(offset + done, part)
        done += part
        yield Note(Transferred("erase", done, length))
    if not loader.can_hash:
        return
    blank = hashlib.md5(usedforsecurity=False)
    for at in range(0, length, step):
        blank.update(BLANK * min(step, length - at))
    yield from loader.resync()
    if (yield from loader.md5(offset, length)) != blank.digest():
        raise FlashDiffers(
            tuple(range(offset, offset + length, SECTOR))[:8],
            "It is not blank after erasing: the flash is write-protected or broken.",
        )


def _store_pieces(steps: Steps[ReadCount], descriptor: int) -> Generator[Action, object, ReadCount]:
    """Pass the Steps on, writing each piece that they tell of to its place in the file."""
    from espmon.bootloader.actions import Note

    result: object = None
    failure: BaseException | None = None
    while True:
        try:
            action = steps.send(result) if failure is None else steps.throw(failure)
        except StopIteration as end:
            count: ReadCount = end.value
            return count
        failure = None
        if isinstance(action, Note) and isinstance(action.fact, Piece):
            if not action.fact.keep:
                os.lseek(descriptor, action.fact.offset, os.SEEK_SET)
                os.write(descriptor, action.fact.content)
            result = None
            continue
        try:
            result = yield action
        except Exception as error:  # noqa: BLE001  (passed on into the Steps, which decide)
            failure = error


def _read_file(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except FileNotFoundError:
        return b""


class _Pace:
    """Progress events from byte counts: not too many, with rate and time left."""

    def __init__(self) -> None:
        self._told = 0.0
        self._seen: list[tuple[float, int]] = []
        self._operation = ""

    def event(self, fact: Transferred, port: str) -> Progress | None:
        now = time.monotonic()
        if fact.operation != self._operation or (self._seen and fact.done < self._seen[-1][1]):
            self._operation, self._seen, self._told = fact.operation, [], 0.0
        self._seen = [*[(t, d) for t, d in self._seen if now - t <= _RATE_WINDOW_S][-64:], (now, fact.done)]
        if now - self._told < _TELL_S and fact.done < fact.total:
            return None
        self._told = now
        (t0, d0), (t1, d1) = self._seen[0], self._seen[-1]
        rate = (d1 - d0) / (t1 - t0) if t1 > t0 and d1 > d0 else None
        return Progress(
            operation=fact.operation,
            done=fact.done,
            total=fact.total,
            rate=rate,
            left_s=(fact.total - fact.done) / rate if rate else None,
            port=port,
            at=time.time(),
        )


def stored_sectors(files: Sequence[Path]) -> dict[bytes, bytes]:
    """Sectors by digest of these files and of espmon's image store, for :meth:`Flasher.backup`.

    Raises :class:`~espmon.errors.InputUnreadable` for a file that cannot be read; a damaged store counts as empty.
    """
    contents: list[bytes] = [region.content for region in files_from((0, path) for path in files)]
    store = ImageStore(default_state_dir() / "image")
    for manifest in store.all()[:_STORED_IMAGES]:
        image = store.get(manifest["digest"])
        if image is not None:
            contents += [content for _, content in image.pieces]
    return sector_digests(contents)


def flash_while_watching(
    port: SerialPort,
    images: Sequence[tuple[int, Path]],
    *,
    tell: Tell,
    heard: Callable[[Chunk], None] | None = None,
    text: Callable[[bytes], None] | None = None,
    stop: threading.Event | None = None,
    memory: LinkMemory | None = None,
) -> bool:
    """Flash `images` through a port that is being watched, from the thread that owns it; True when that went well.

    What happens is told as `Recovery` events (step ``write``) and `Progress`; nothing but :class:`PortGone` is raised.
    `heard` gets every chunk, for the raw log; `text` what stood outside the loader's frames and was sent at the
    application's rate, such as the boot that follows.
    """
    rate = port.baud

    def noted(fact: object) -> None:
        if isinstance(fact, Heard) and text is not None and fact.rate == rate:
            text(fact.raw)

    def say(outcome: str, reason: str) -> None:
        tell(Recovery(step="write", outcome=outcome, reason=reason, port=port.name, at=time.time()))

    names = ", ".join(path.name for _, path in images)
    say("started", names)
    start = time.monotonic()
    try:
        files = files_from(images)
        with Flasher(port, tell=tell, noted=noted, heard=heard, stop=stop, memory=memory) as flasher:
            done = flasher.flash(files)
    except PortGone:
        raise
    except EspmonError as problem:
        refused = isinstance(problem, (Refused, UsageProblem))
        say("refused" if refused else "failed", f"{problem.message} {problem.hint or ''}".strip())
        return False
    how = "verified" if done.verified else "not verified: this loader cannot read back"
    say("done", f"{done.sectors} of {done.of} sectors written, {how} ({time.monotonic() - start:.1f} s)")
    return True


def files_from(pairs: Iterable[tuple[int, Path]]) -> list[Region]:
    """Read files to be written. Raises :class:`~espmon.errors.InputUnreadable`."""
    out = []
    for offset, path in pairs:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputUnreadable(f"{path}: {error.strerror}", "Check the name.") from error
        out.append(Region(offset=offset, content=content, source=str(path)))
    return out


def reset_board(port: SerialPort, *, download: bool = False, tell: Tell | None = None) -> str:
    """Reset the board by its lines, into the firmware or into download mode; the sequence's name."""
    sequence = sequences_for(port, "auto")[0] if download else (HARD_USB if native_usb(port) else HARD)
    if sequence is NONE:
        raise UsageProblem(f"{port.name} has no lines that could reset a board.", "Press the reset button.")

    def steps() -> Steps[None]:
        yield from sequence.run()

    if tell is not None:
        tell(ResetCaused(by="espmon", how=sequence.name, port=port.name, at=time.time()))
    run_steps(port, steps())
    return sequence.name
