"""Carries out the rungs of the recovery ladder, and other stays in a board's loader, on a board whose port somebody holds.

The daemon's supervisor and `espmon recover PORT` without a daemon both hold boards; what the rungs need of them is
:class:`HeldBoard`. A compare that found differences keeps the stay open for the write that follows: the board is entered
once. Guards that need the chip are here (MAC and chip as recorded, flash size, fuses, a whole image); those that need
only events are in :mod:`espmon.app.recovery`.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import espmon.events as ev
from espmon.app.commands import LeftAlone, run_command
from espmon.app.flashing import ChipReport, Flasher, FlashOptions
from espmon.app.recovery import Do, Rung, RungResult
from espmon.bootloader.actions import Steps
from espmon.bootloader.errors import BoardReset, Refused, Stopped
from espmon.bootloader.flash import SECTOR, runs, sectors_of
from espmon.bootloader.loader import Loader
from espmon.bootloader.write import Region
from espmon.errors import EspmonError, PortGone, PortProblem
from espmon.events import Recovery
from espmon.port import Chunk, SerialPort
from espmon.store.database import StoreUnusable
from espmon.store.images import ImageStore, StoredImage

# Without a configured rate: hardly anything is sent, and this one works on every adapter and cable.
CAREFUL_BAUD = 115_200
# ESP8266: SDK parameters in the last three sectors of the flash (Wi-Fi credentials); Espressif's flash map.
_SDK_PARAMETERS = 0x3000
# ESP32 family: the partition table's place and entry shape (IDF documentation); type 1 is data, subtype 2 NVS, 1 PHY.
TABLE_OFFSET, TABLE_BYTES, _ENTRY = 0x8000, 0xC00, 32
_DATA, _NVS, _PHY = 1, 2, 1
# A ROM's own words for a brownout; not the firmware's, which stand in every image that is read back.
_BROWNOUT = re.compile(rb"rst:0x[0-9a-f]{1,2} \(\w*(?:BROWN|_BOD)")
_RECENT_BYTES = 4096


class HeldBoard(Protocol):
    """A board whose port somebody holds, as the rungs need it. All is called from one thread at a time."""

    @property
    def name(self) -> str:
        """What it is called in events."""

    @property
    def baud(self) -> int:
        """The application's rate."""

    @property
    def chip(self) -> str | None:
        """What a person says it is."""

    @property
    def flash_baud(self) -> int | None:
        """The wished rate in the loader."""

    @property
    def power_cycle(self) -> Sequence[str] | None:
        """The command that switches it off and on."""

    @property
    def image(self) -> str | None:
        """The digest of its known-good image."""

    @property
    def images(self) -> ImageStore:
        """Where that image and backups are."""

    @property
    def stop(self) -> threading.Event:
        """Set when whoever holds it wants to end: the block under way is finished."""

    def now(self) -> float:
        """Unix seconds."""

    def borrow(self) -> contextlib.AbstractContextManager[SerialPort]:
        """The open port, for nobody else meanwhile. Raises `PortProblem`."""

    def pulse(self, port: SerialPort) -> None:
        """Pulls the reset line and says so. Raises `PortProblem` when there is none."""

    def was_reset(self, how: str) -> None:
        """The board was reset: its next boot is our doing."""

    def left_loader(self) -> None:
        """The stay is over: a boot heard now is our doing."""

    def heard(self, chunk: Chunk) -> None:
        """Bytes received while the board is in its loader."""

    def tell(self, event: ev.Event) -> None:
        """Something of the moment (progress)."""

    def publish(self, event: ev.Event) -> None:
        """Something to be kept."""

    def journal(self, what: str, *, durable: bool = False, **facts: Any) -> None:
        """An audit line; with `durable` it is on the disk when this returns. Raises `EspmonError` when it can't be."""

    def recorded(self) -> tuple[str | None, str | None]:
        """(MAC, chip) of the board as known from before."""

    def remember(self, report: ChipReport) -> None:
        """What the chip says of itself."""


@dataclass(slots=True)
class Stay:
    """A board in its loader, between two rungs."""

    stack: contextlib.ExitStack
    flasher: Flasher
    report: ChipReport
    image: StoredImage
    regions: list[Region]
    differing: list[int] = field(default_factory=list)


class Treatment:
    """The rungs on one board: :meth:`run` carries out one and returns how it went."""

    def __init__(self, board: HeldBoard) -> None:
        self.board = board
        self._stay: Stay | None = None
        self._recent = bytearray()

    def run(self, do: Do) -> RungResult:
        """Carries out one rung. Raises :class:`Stopped` when it was asked to end, `StoreUnusable` without a journal."""
        self._recent.clear()
        try:
            match do.rung:
                case Rung.RESET:
                    with self.board.borrow() as port:
                        self.board.pulse(port)
                    return RungResult(outcome="done")
                case Rung.POWER:
                    return self._power_cycle()
                case Rung.LEAVE:
                    with self._entered() as flasher:
                        flasher.identify()
                    return RungResult(outcome="done")
                case Rung.COMPARE:
                    return self._compare()
                case Rung.WRITE | Rung.WHOLE:
                    return self._write(do)
                case Rung.ERASE:
                    return self._erase_parameters(do)
        except Refused as refusal:
            self.leave()
            return RungResult(outcome="refused", reason=refusal.message)
        except PortGone as gone:
            self.leave()
            return RungResult(outcome="lost", reason=gone.message)
        except (Stopped, StoreUnusable):
            self.leave()
            raise
        except EspmonError as error:
            self.leave()
            return RungResult(outcome="failed", reason=error.message, brownout=self._browned_out(error))

    def leave(self) -> None:
        """Lets the board out of its loader, if it is still in there; one with an incomplete image stays."""
        stay, self._stay = self._stay, None
        if stay is not None:
            with contextlib.suppress(EspmonError):
                stay.stack.close()

    def _browned_out(self, error: EspmonError) -> bool:
        """True when the ROM said, in the middle of the operation, that the supply voltage fell."""
        words = bytes(self._recent)
        if isinstance(error, BoardReset):
            words += error.heard + error.cause.encode("latin-1", "replace")
        return _BROWNOUT.search(words) is not None

    def _heard(self, chunk: Chunk) -> None:
        self._recent += chunk.data
        del self._recent[:-_RECENT_BYTES]
        self.board.heard(chunk)

    def _entered(self, chip: str | None = None) -> contextlib.AbstractContextManager[Flasher]:
        return in_loader(self.board, chip=chip, heard=self._heard)

    def _say(self, do: Do, step: str, outcome: str, reason: str | None = None) -> None:
        board = self.board
        board.publish(
            Recovery(at=board.now(), port=board.name, step=step, outcome=outcome, reason=reason, incident=do.incident)
        )
        board.journal(f"{step} {outcome}", incident=do.incident, reason=reason)

    def _power_cycle(self) -> RungResult:
        command = list(self.board.power_cycle or ())
        try:
            status, _ = run_command(command, self.board.stop.is_set, timeout_s=60.0)
        except LeftAlone:
            return RungResult(outcome="failed", reason=f"the daemon ended while {command[0]} ran")
        except (OSError, subprocess.TimeoutExpired) as error:
            return RungResult(outcome="failed", reason=f"{command[0]}: {error}")
        if status:
            return RungResult(outcome="failed", reason=f"{command[0]} ended with status {status}")
        self.board.was_reset("power cycle")
        return RungResult(outcome="done")

    # --- in the loader ---

    def _enter(self) -> Stay:
        """Enters the loader and checks that this is the board that the image is for. Raises :class:`Refused`."""
        board = self.board
        image = board.images.get(board.image) if board.image else None
        if image is None:
            raise Refused("The known-good image is missing in the store, or damaged.", "Add it again: espmon image add.")
        stack = contextlib.ExitStack()
        try:
            flasher = stack.enter_context(self._entered(board.chip or image.chip))
            report = flasher.identify()
            self._check_identity(image, report)
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
        board.remember(report)
        stay = self._stay = Stay(stack, flasher, report, image, regions)
        return stay

    def _check_identity(self, image: StoredImage, report: ChipReport) -> None:
        recorded_mac, recorded_chip = self.board.recorded()
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

    def _compare(self) -> RungResult:
        stay = self._enter()
        stay.differing = stay.flasher.compare(stay.regions)
        of = sum(len(sectors_of(r.offset, len(r.content))) for r in stay.regions)
        if not stay.differing:
            self.leave()
            return RungResult(outcome="done", differs=False, reason=f"all {of} sectors equal the known-good image")
        first = ", ".join(f"0x{a:x}" for a in stay.differing[:4])
        more = " ..." if len(stay.differing) > 4 else ""
        return RungResult(outcome="done", differs=True, reason=f"{len(stay.differing)} of {of} sectors differ ({first}{more})")

    def _write(self, do: Do) -> RungResult:
        stay = self._stay
        if stay is None:
            stay = self._enter()
            stay.differing = stay.flasher.compare(stay.regions)
        spans = runs(stay.differing)
        self.board.journal(
            "write begins", durable=True,
            incident=do.incident, image=stay.image.digest, mac=stay.report.mac, spans=[list(s) for s in spans],
        )  # fmt: skip
        self._back_up(do, stay, spans)
        if do.rung is Rung.WHOLE:
            for region in stay.regions:
                stay.flasher.erase(region.offset, -(-len(region.content) // SECTOR) * SECTOR)
        written = stay.flasher.flash(stay.regions)
        if not written.verified:
            self._say(do, "verify", "failed", "this loader cannot read back")
            self.leave()
            return RungResult(outcome="failed", reason="written, but it could not be verified")
        self._say(do, "verify", "done", f"{written.of} sectors hold the image")
        self.board.journal("write ends", incident=do.incident, sectors=written.sectors)
        self.leave()
        return RungResult(outcome="done", reason=f"{written.sectors} sectors written")

    def _back_up(self, do: Do, stay: Stay, spans: list[tuple[int, int]]) -> None:
        """Keeps what is about to be overwritten, in the image store."""
        if not spans:
            return
        self._say(do, "backup", "started")
        kept: list[tuple[int, bytes]] = []
        for offset, size in spans:

            def read(loader: Loader, offset: int = offset, size: int = size) -> Steps[bytes]:
                return (yield from loader.read(offset, size))

            kept.append((offset, stay.flasher.work(read)))
        backup = self.board.images.add(
            kept, origin="backup", port=self.board.name, chip=stay.report.chip.name, mac=stay.report.mac or None,
            flash_bytes=stay.report.flash_size, source=do.incident,
        )  # fmt: skip
        self._say(do, "backup", "done", f"{backup.size} bytes kept as {backup.digest[:12]}")

    def _erase_parameters(self, do: Do) -> RungResult:
        """Erases what a firmware makes anew by itself: SDK parameters (ESP8266), NVS and PHY data (ESP32)."""
        stay = self._stay or self._enter()
        size = stay.report.flash_size
        if size is None:
            raise Refused("The flash's size is not known, so the parameters' place isn't either.")
        if stay.report.chip.name == "esp8266":
            spans = [(size - _SDK_PARAMETERS, _SDK_PARAMETERS)]
        else:

            def table(loader: Loader) -> Steps[bytes]:
                return (yield from loader.read(TABLE_OFFSET, TABLE_BYTES))

            spans = [
                (offset, length)
                for kind, subtype, offset, length in partitions(stay.flasher.work(table))
                if kind == _DATA and subtype in (_NVS, _PHY)
            ]
        if not spans:
            self.leave()
            return RungResult(outcome="failed", reason="no partition with parameters was found")
        self.board.journal("erase begins", durable=True, incident=do.incident, spans=[list(s) for s in spans])
        self._back_up(do, stay, spans)
        for offset, length in spans:
            stay.flasher.erase(offset, length)
        self.leave()
        return RungResult(outcome="done", reason=f"{sum(n for _, n in spans)} bytes of parameters erased")


@contextlib.contextmanager
def in_loader(
    board: HeldBoard, *, chip: str | None = None, options: FlashOptions | None = None, heard: Callable[[Chunk], None] | None = None
) -> Iterator[Flasher]:
    """A stay in the board's loader; `heard` gets every chunk (the board itself by default). Raises `PortProblem`."""

    def tell(event: ev.Event) -> None:
        if isinstance(event, ev.ResetCaused):
            if event.how == flasher.plan.hard_reset.name:
                # told just before the lines move: so the boot text is heard at its own rate. We came in by these lines.
                with contextlib.suppress(PortProblem):
                    port.set_baud(board.baud)
            board.was_reset(event.how or "reset")
        else:
            board.tell(event)

    with board.borrow() as port:
        flasher = Flasher(
            port,
            options or FlashOptions(flash_baud=board.flash_baud or CAREFUL_BAUD, chip=chip),
            tell=tell,
            heard=heard or board.heard,
            stop=board.stop,
        )
        try:
            with flasher:
                yield flasher
        finally:
            board.left_loader()


def partitions(table: bytes) -> list[tuple[int, int, int, int]]:
    """(type, subtype, offset, size) of an ESP-IDF partition table's entries; nothing for what is none."""
    out = []
    for at in range(0, len(table) - _ENTRY + 1, _ENTRY):
        entry = table[at : at + _ENTRY]
        if entry[:2] != b"\xaa\x50":
            break
        out.append((entry[2], entry[3], int.from_bytes(entry[4:8], "little"), int.from_bytes(entry[8:12], "little")))
    return out
