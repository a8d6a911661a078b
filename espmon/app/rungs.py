"""Carries out the rungs of the recovery ladder, and other stays in a board's loader, on a port that the supervisor lends.

A compare that found differences keeps the stay open for the write that follows: the board is entered once. Guards that
need the chip are here (MAC and chip as recorded, flash size, fuses, a whole image); those that need only events are in
:mod:`espmon.app.recovery`.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import espmon.events as ev
from espmon.app.commands import LeftAlone, run_command
from espmon.app.flashing import ChipReport, Flasher, FlashOptions
from espmon.app.recovery import Do, Rung, RungResult
from espmon.app.supervisor import Supervisor
from espmon.app.watch import Watch
from espmon.bootloader.actions import Steps
from espmon.bootloader.errors import Refused
from espmon.bootloader.flash import SECTOR, runs, sectors_of
from espmon.bootloader.image import ImageFault, has_header, inner_application, parse
from espmon.bootloader.loader import Loader
from espmon.bootloader.write import Region
from espmon.errors import EspmonError, PortProblem, UsageProblem
from espmon.events import Recovery
from espmon.store.images import StoredImage

_log = logging.getLogger(__name__)

WHO = "recovery"
# Without a configured rate: hardly anything is sent, and this one works on every adapter and cable.
CAREFUL_BAUD = 115_200
# ESP8266: SDK parameters in the last three sectors of the flash (Wi-Fi credentials); Espressif's flash map.
_SDK_PARAMETERS = 0x3000
# Arduino's EEPROM sector and Espressif's calibration and parameter sectors end every ESP8266 flash.
_ESP8266_KEPT = 0x5000
_MAPPED = 0x10000  # where the SDK's linker scripts put code that runs from flash
# ESP32 family: the partition table's place and entry shape (IDF documentation); type 1 is data, subtype 2 NVS, 1 PHY.
_TABLE_OFFSET, _TABLE_BYTES, _ENTRY = 0x8000, 0xC00, 32
_DATA, _APP, _NVS, _PHY = 1, 0, 2, 1


@dataclass(slots=True)
class Stay:
    """A board in its loader, between two rungs."""

    stack: contextlib.ExitStack
    flasher: Flasher
    report: ChipReport
    image: StoredImage
    regions: list[Region]
    differing: list[int] = field(default_factory=list)


class Rungs:
    """The executor: :meth:`run` is called from an operation thread and returns how it went."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._stays: dict[str, Stay] = {}

    def run(self, watch: Watch, do: Do) -> RungResult:
        """Carries out one rung. Raises `PortProblem` and other told errors: the rung has failed then."""
        try:
            match do.rung:
                case Rung.RESET:
                    with self._supervisor.borrow(watch, WHO) as port:
                        self._supervisor.pulse(watch, port, WHO)
                    return RungResult(outcome="done")
                case Rung.POWER:
                    return self._power_cycle(watch)
                case Rung.LEAVE:
                    with enter(self._supervisor, watch, WHO) as flasher:
                        flasher.identify()
                    return RungResult(outcome="done")
                case Rung.COMPARE:
                    return self._compare(watch, do)
                case Rung.WRITE | Rung.WHOLE:
                    return self._write(watch, do)
                case Rung.ERASE:
                    return self._erase_parameters(watch, do)
        except Refused as refusal:
            self.leave(watch)
            return RungResult(outcome="refused", reason=refusal.message)
        except EspmonError:
            self._abandon(watch)
            raise

    def leave(self, watch: Watch) -> None:
        """Lets the board out of its loader, if it is still in there."""
        stay = self._stays.pop(watch.name, None)
        if stay is not None:
            with contextlib.suppress(EspmonError):
                stay.stack.close()

    def _abandon(self, watch: Watch) -> None:
        """After a failure in the loader: a board with an incomplete image stays there, others run on."""
        stay = self._stays.pop(watch.name, None)
        if stay is not None:
            with contextlib.suppress(EspmonError):
                stay.stack.close()

    def _say(self, watch: Watch, do: Do, step: str, outcome: str, reason: str | None = None) -> None:
        event = Recovery(at=time.time(), port=watch.name, step=step, outcome=outcome, reason=reason, incident=do.incident)
        self._supervisor.publish(watch, event)
        self._supervisor.database.audit(time.time(), watch.name, WHO, f"{step} {outcome}", incident=do.incident, reason=reason)

    def _power_cycle(self, watch: Watch) -> RungResult:
        command = list(watch.section.power_cycle)
        try:
            status, _ = run_command(command, self._supervisor.stop_operations.is_set, timeout_s=60.0)
        except LeftAlone:
            return RungResult(outcome="failed", reason=f"the daemon ended while {command[0]} ran")
        except (OSError, subprocess.TimeoutExpired) as error:
            return RungResult(outcome="failed", reason=f"{command[0]}: {error}")
        if status:
            return RungResult(outcome="failed", reason=f"{command[0]} ended with status {status}")
        self._supervisor.was_reset(watch, WHO, "power cycle")
        return RungResult(outcome="done")

    # --- in the loader ---

    def _enter(self, watch: Watch) -> Stay:
        """Enters the loader and checks that this is the board that the image is for. Raises :class:`Refused`."""
        digest = watch.policy.settings.image
        image = self._supervisor.images.get(digest) if digest else None
        if image is None:
            raise Refused("The known-good image is missing in the store, or damaged.", "Add it again: espmon image add.")
        stack = contextlib.ExitStack()
        try:
            flasher = stack.enter_context(enter(self._supervisor, watch, WHO, chip=watch.section.chip or image.chip))
            report = flasher.identify()
            self._check_identity(watch, image, report)
            files = [Region(offset=o, content=c, source=image.source or image.digest[:12]) for o, c in image.pieces]
            regions: list[Region] = []

            def plan(loader: Loader) -> Steps[None]:
                regions.extend(flasher.regions(files, loader))
                return
                yield  # a generator, although nothing is asked of the board

            flasher.work(plan)
        except BaseException:
            stack.close()
            raise
        self._supervisor.remember_board(watch, report.mac or None, report.chip.name, report.flash_size)
        stay = self._stays[watch.name] = Stay(stack, flasher, report, image, regions)
        return stay

    def _check_identity(self, watch: Watch, image: StoredImage, report: ChipReport) -> None:
        database = self._supervisor.database
        row = database.now(lambda c: c.execute("SELECT mac, chip FROM boards WHERE port = ?", (watch.name,)).fetchone())
        recorded_mac, recorded_chip = row or (None, None)
        for what, expected, found in (
            ("MAC", image.mac or recorded_mac, report.mac),
            ("chip", image.chip or recorded_chip, report.chip.name),
        ):
            if expected and found and expected.lower() != found.lower():
                raise Refused(
                    f"Another board is plugged in: its {what} is {found}, recorded is {expected}.",
                    "If the board was exchanged on purpose, add or learn its image again.",
                )
        if image.flash_bytes and report.flash_size and image.flash_bytes != report.flash_size:
            raise Refused(f"The flash has {report.flash_size} bytes, the image is of a board with {image.flash_bytes}.")

    def _compare(self, watch: Watch, do: Do) -> RungResult:
        stay = self._enter(watch)
        stay.differing = stay.flasher.compare(stay.regions)
        of = sum(len(sectors_of(r.offset, len(r.content))) for r in stay.regions)
        if not stay.differing:
            self.leave(watch)
            return RungResult(outcome="done", differs=False, reason=f"all {of} sectors equal the known-good image")
        first = ", ".join(f"0x{a:x}" for a in stay.differing[:4])
        more = " ..." if len(stay.differing) > 4 else ""
        return RungResult(outcome="done", differs=True, reason=f"{len(stay.differing)} of {of} sectors differ ({first}{more})")

    def _write(self, watch: Watch, do: Do) -> RungResult:
        stay = self._stays.get(watch.name)
        if stay is None:
            stay = self._enter(watch)
            stay.differing = stay.flasher.compare(stay.regions)
        supervisor = self._supervisor
        spans = runs(stay.differing)
        supervisor.database.audit_now(
            time.time(), watch.name, WHO, "write begins",
            incident=do.incident, image=stay.image.digest, mac=stay.report.mac, spans=[list(s) for s in spans],
        )  # fmt: skip
        self._back_up(watch, do, stay, spans)
        if do.rung is Rung.WHOLE:
            for region in stay.regions:
                stay.flasher.erase(region.offset, -(-len(region.content) // SECTOR) * SECTOR)
        written = stay.flasher.flash(stay.regions)
        if not written.verified:
            self._say(watch, do, "verify", "failed", "this loader cannot read back")
            self.leave(watch)
            return RungResult(outcome="failed", reason="written, but it could not be verified")
        self._say(watch, do, "verify", "done", f"{written.of} sectors hold the image")
        supervisor.database.audit(time.time(), watch.name, WHO, "write ends", incident=do.incident, sectors=written.sectors)
        self.leave(watch)
        return RungResult(outcome="done", reason=f"{written.sectors} sectors written")

    def _back_up(self, watch: Watch, do: Do, stay: Stay, spans: list[tuple[int, int]]) -> None:
        """Keeps what is about to be overwritten, in the image store."""
        if not spans:
            return
        self._say(watch, do, "backup", "started")
        kept: list[tuple[int, bytes]] = []
        for offset, size in spans:

            def read(loader: Loader, offset: int = offset, size: int = size) -> Steps[bytes]:
                return (yield from loader.read(offset, size))

            kept.append((offset, stay.flasher.work(read)))
        backup = self._supervisor.images.add(
            kept, origin="backup", port=watch.name, chip=stay.report.chip.name, mac=stay.report.mac or None,
            flash_bytes=stay.report.flash_size, source=do.incident,
        )  # fmt: skip
        self._say(watch, do, "backup", "done", f"{backup.size} bytes kept as {backup.digest[:12]}")

    def _erase_parameters(self, watch: Watch, do: Do) -> RungResult:
        """Erases what a firmware makes anew by itself: SDK parameters (ESP8266), NVS and PHY data (ESP32)."""
        stay = self._stays.get(watch.name) or self._enter(watch)
        size = stay.report.flash_size
        if size is None:
            raise Refused("The flash's size is not known, so the parameters' place isn't either.")
        if stay.report.chip.name == "esp8266":
            spans = [(size - _SDK_PARAMETERS, _SDK_PARAMETERS)]
        else:

            def table(loader: Loader) -> Steps[bytes]:
                return (yield from loader.read(_TABLE_OFFSET, _TABLE_BYTES))

            spans = [
                (offset, length)
                for kind, subtype, offset, length in partitions(stay.flasher.work(table))
                if kind == _DATA and subtype in (_NVS, _PHY)
            ]
        if not spans:
            self.leave(watch)
            return RungResult(outcome="failed", reason="no partition with parameters was found")
        self._supervisor.database.audit_now(
            time.time(), watch.name, WHO, "erase begins", incident=do.incident, spans=[list(s) for s in spans]
        )
        self._back_up(watch, do, stay, spans)
        for offset, length in spans:
            stay.flasher.erase(offset, length)
        self.leave(watch)
        return RungResult(outcome="done", reason=f"{sum(n for _, n in spans)} bytes of parameters erased")


@contextlib.contextmanager
def enter(supervisor: Supervisor, watch: Watch, who: str, *, chip: str | None = None, options: FlashOptions | None = None) -> Iterator[Flasher]:
    """A stay in the loader of a watched board; its port comes out of the reader and goes back. Raises `PortProblem`."""

    def tell(event: ev.Event) -> None:
        if isinstance(event, ev.ResetCaused):
            if event.how == flasher.plan.hard_reset.name:
                # told just before the lines move: so the boot text is heard at its own rate. We came in by these lines.
                with contextlib.suppress(PortProblem):
                    port.set_baud(watch.rate.baud)
            supervisor.was_reset(watch, who, event.how or "reset")
        else:
            supervisor.tell(watch, event)

    with supervisor.borrow(watch, who) as port:
        flasher = Flasher(
            port,
            options or FlashOptions(flash_baud=watch.section.flash_baud or CAREFUL_BAUD, chip=chip),
            tell=tell,
            heard=watch.frames_heard,
            stop=supervisor.stop_operations,
        )
        try:
            with flasher:
                yield flasher
        finally:
            watch.reset_at = time.time()


def partitions(table: bytes) -> list[tuple[int, int, int, int]]:
    """(type, subtype, offset, size) of an ESP-IDF partition table's entries; nothing for what is none."""
    out = []
    for at in range(0, len(table) - _ENTRY + 1, _ENTRY):
        entry = table[at : at + _ENTRY]
        if entry[:2] != b"\xaa\x50":
            break
        out.append((entry[2], entry[3], int.from_bytes(entry[4:8], "little"), int.from_bytes(entry[8:12], "little")))
    return out


def firmware_of(flash: bytes, chip: str, boot_offset: int) -> list[tuple[int, bytes]]:
    """The pieces of a whole flash that are firmware: what a known-good image may hold.

    Parameters, calibration, NVS and file systems are left out, since they change while a board is healthy. Raises
    :class:`UsageProblem` when the flash holds nothing that would boot.
    """
    try:
        image = parse(flash[boot_offset:], esp8266=chip == "esp8266")
        if image.fault:
            raise ImageFault(image.fault)
        if chip == "esp8266":
            return _firmware_on_esp8266(flash, image.end)
        pieces = [(boot_offset, flash[boot_offset : boot_offset + _whole_sectors(image.end)])]
        table = flash[_TABLE_OFFSET : _TABLE_OFFSET + SECTOR]
        pieces.append((_TABLE_OFFSET, table))
        for kind, _, offset, size in partitions(table[:_TABLE_BYTES]):
            content = flash[offset : offset + size]
            if kind == _APP and has_header(content):
                application = parse(content, esp8266=False)
                if application.fault is None:
                    pieces.append((offset, content[: _whole_sectors(application.end)]))
    except ImageFault as fault:
        raise UsageProblem(f"what is in the flash would not boot: {fault}", "learn from a board that works") from None
    return pieces


def _whole_sectors(size: int) -> int:
    return -(-size // SECTOR) * SECTOR


def _firmware_on_esp8266(flash: bytes, end: int) -> list[tuple[int, bytes]]:
    """The firmware's pieces: with the application behind an eboot its header says where it ends. In SDK layouts mapped code
    has no header: what follows the image, and what lies at 0x10000, up to a blank sector."""
    inner = inner_application(flash) if end <= SECTOR else None
    if inner is not None:
        if inner.fault:
            raise ImageFault(inner.fault)
        return [(0, flash[: _whole_sectors(SECTOR + inner.end)])]
    limit = len(flash) - _ESP8266_KEPT

    def run_from(at: int) -> int:
        while at < limit and flash[at : at + SECTOR].strip(b"\xff"):
            at += SECTOR
        return at

    first = run_from(_whole_sectors(end))
    pieces = [(0, flash[:first])]
    if first < _MAPPED and run_from(_MAPPED) > _MAPPED:
        pieces.append((_MAPPED, flash[_MAPPED : run_from(_MAPPED)]))
    return pieces


def learn(supervisor: Supervisor, watch: Watch, who: str, *, force: bool = False) -> StoredImage:
    """Reads the firmware back from a healthy board and keeps it as its known-good image.

    The flash is read and compared with the chip's own digest, which is a second reading. Costs the board two resets. Raises
    :class:`UsageProblem` when it was not healthy for long enough, or holds nothing that boots.
    """
    needed = float(supervisor.config.recovery.learn_after_s)
    since = watch.healthy_since or watch.opened_at
    healthy = time.time() - since
    if watch.policy.incident is not None or (healthy < needed and not force):
        raise UsageProblem(
            f"{watch.name} was healthy for {max(0.0, healthy):.0f} s; {needed:.0f} s are asked for ([recovery] learn_after_s)",
            "wait, or use --force when you know that it works",
        )
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory(dir=supervisor.state_dir) as folder, enter(supervisor, watch, who) as flasher:
        report = flasher.identify()
        path = Path(folder) / "flash.bin"
        flasher.backup(path)
        pieces = firmware_of(path.read_bytes(), report.chip.name, report.chip.boot_offset)

        def again(loader: Loader) -> Steps[bool]:
            for offset, content in pieces:
                if (yield from loader.differing(offset, content)):
                    return False
            return True

        if not flasher.work(again):
            raise UsageProblem("two readings of the flash differ", "the board may be writing to it; try again")
    supervisor.remember_board(watch, report.mac or None, report.chip.name, report.flash_size)
    image = supervisor.images.add(
        pieces, origin="learnt", port=watch.name, chip=report.chip.name, mac=report.mac or None,
        flash_bytes=report.flash_size, source=f"read from {watch.name}",
    )  # fmt: skip
    supervisor.database.audit(time.time(), watch.name, who, "image learnt", image=image.digest)
    supervisor.image_changed(watch.name)
    return image


def flash(supervisor: Supervisor, watch: Watch, who: str, files: list[Region], options: FlashOptions) -> dict[str, int | bool]:
    """Writes files for a person, through the port that the daemon holds. Raises what the flasher raises."""
    supervisor.database.audit_now(
        time.time(), watch.name, who, "flash begins", files=[[r.offset, len(r.content), r.source] for r in files]
    )
    with enter(supervisor, watch, who, options=options) as flasher:
        written = flasher.flash(files)
    supervisor.database.audit(time.time(), watch.name, who, "flash ends", sectors=written.sectors, verified=written.verified)
    return {"verified": written.verified, "sectors_written": written.sectors, "sectors": written.of, "retries": written.retries}


