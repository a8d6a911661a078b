"""The rungs of the recovery ladder, and other stays in a board's loader, on ports that the supervisor lends."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import espmon.events as ev
from espmon.app.flashing import ChipReport, Flasher, FlashOptions
from espmon.app.recovery import Do, RungResult
from espmon.app.supervisor import Supervisor
from espmon.app.treatment import TABLE_BYTES, TABLE_OFFSET, Treatment, in_loader, partitions
from espmon.app.watch import Watch
from espmon.bootloader.actions import Steps
from espmon.bootloader.flash import SECTOR
from espmon.bootloader.image import ImageFault, has_header, inner_application, parse
from espmon.bootloader.loader import Loader
from espmon.bootloader.write import Region
from espmon.errors import UsageProblem
from espmon.port import Chunk, SerialPort
from espmon.store.images import ImageStore, StoredImage

WHO = "recovery"
# Arduino's EEPROM sector and Espressif's calibration and parameter sectors end every ESP8266 flash.
_ESP8266_KEPT = 0x5000
_MAPPED = 0x10000  # where the SDK's linker scripts put code that runs from flash
_APP = 0  # a partition's type


class Watched:
    """A watched board as the rungs need it (:class:`~espmon.app.treatment.HeldBoard`), worked on by `who`."""

    def __init__(self, supervisor: Supervisor, watch: Watch, who: str) -> None:
        self._supervisor = supervisor
        self._watch = watch
        self._who = who

    @property
    def name(self) -> str:
        return self._watch.name

    @property
    def baud(self) -> int:
        return self._watch.rate.baud

    @property
    def chip(self) -> str | None:
        chip: str | None = self._watch.section.chip
        return chip

    @property
    def flash_baud(self) -> int | None:
        rate: int | None = self._watch.section.flash_baud
        return rate

    @property
    def power_cycle(self) -> Sequence[str] | None:
        command: Sequence[str] | None = self._watch.section.power_cycle
        return command

    @property
    def image(self) -> str | None:
        return self._watch.policy.settings.image

    @property
    def images(self) -> ImageStore:
        return self._supervisor.images

    @property
    def stop(self) -> threading.Event:
        return self._supervisor.stop_operations

    def now(self) -> float:
        return time.time()

    def borrow(self) -> contextlib.AbstractContextManager[SerialPort]:
        return self._supervisor.borrow(self._watch, self._who)

    def pulse(self, port: SerialPort) -> None:
        self._supervisor.pulse(self._watch, port, self._who)

    def was_reset(self, how: str) -> None:
        self._supervisor.was_reset(self._watch, self._who, how)

    def left_loader(self) -> None:
        self._watch.reset_at = time.time()

    def heard(self, chunk: Chunk) -> None:
        self._watch.frames_heard(chunk)

    def tell(self, event: ev.Event) -> None:
        self._supervisor.tell(self._watch, event)

    def publish(self, event: ev.Event) -> None:
        self._supervisor.publish(self._watch, event)

    def journal(self, what: str, *, durable: bool = False, **facts: Any) -> None:
        write = self._supervisor.database.audit_now if durable else self._supervisor.database.audit
        write(time.time(), self._watch.name, self._who, what, **facts)

    def recorded(self) -> tuple[str | None, str | None]:
        return self._supervisor.database.board(self._watch.name)

    def remember(self, report: ChipReport) -> None:
        self._supervisor.remember_board(self._watch, report.mac or None, report.chip.name, report.flash_size)


class Rungs:
    """The supervisor's executor: :meth:`run` is called from an operation thread and returns how it went."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._treatments: dict[str, Treatment] = {}

    def run(self, watch: Watch, do: Do) -> RungResult:
        """Carries out one rung. Raises :class:`Stopped` when the daemon ends, `StoreUnusable` without a journal."""
        treatment = self._treatments.get(watch.name)
        if treatment is None:
            treatment = self._treatments[watch.name] = Treatment(Watched(self._supervisor, watch, WHO))
        return treatment.run(do)

    def leave(self, watch: Watch) -> None:
        """Lets the board out of its loader, if it is still in there."""
        treatment = self._treatments.pop(watch.name, None)
        if treatment is not None:
            treatment.leave()


@contextlib.contextmanager
def enter(
    supervisor: Supervisor, watch: Watch, who: str, *, chip: str | None = None, options: FlashOptions | None = None
) -> Iterator[Flasher]:
    """A stay in the loader of a watched board; its port comes out of the reader and goes back. Raises `PortProblem`."""
    with in_loader(Watched(supervisor, watch, who), chip=chip, options=options) as flasher:
        yield flasher


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
        table = flash[TABLE_OFFSET : TABLE_OFFSET + SECTOR]
        pieces.append((TABLE_OFFSET, table))
        for kind, _, offset, size in partitions(table[:TABLE_BYTES]):
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


