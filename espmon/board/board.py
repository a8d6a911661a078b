"""The virtual board: a chip, its flash, its reset circuit and both directions of its UART, on a clock of its own.

Pure: no thread, no file, no wall clock. Time is an argument and only runs when :meth:`Board.advance` is called::

    board = Board(settings_from([("crash", "load")]))
    board.set_rate(115200)
    board.advance(2.0)
    board.host_read()

Adapters (`sim://`, the RFC 2217 server) map wall time onto it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from espmon.board.image import image_digest
from espmon.board.line import Wire
from espmon.board.link import FaultyLink, LinkFaults
from espmon.board.machine import Drain, Listen, Machine, Program, Sleep, Straps, Wait
from espmon.board.nor import Cells, FlashTimes, NorFlash, PowerCut
from espmon.board.rom import EXTERNAL_PIN, POWER_ON, life
from espmon.board.settings import BoardSettings
from espmon.board.silicon import SILICON

HOST_BUFFER = 1 << 20  # bytes that the host's driver keeps for a program that does not read
CHIP_BUFFER = 1 << 16  # bytes that the chip's buffers hold while its program is busy
COLLECT_EVERY = 1000  # events
NEVER = float("inf")
USUAL_RATES = (
    1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600,
)  # fmt: skip


class Board:
    """One board. Build as many as you like: there is no shared state.

    `cells` is the flash's content (bytearray or mmap; its length must be the flash size); None: FF everywhere.
    `logs`: what the demo firmware prints for each crash (`espmon.board.demo.crash_logs()`).
    """

    def __init__(
        self,
        settings: BoardSettings | None = None,
        cells: Cells | None = None,
        *,
        logs: Mapping[str, bytes] | None = None,
    ) -> None:
        self.settings = s = settings or BoardSettings()
        self.silicon = SILICON[s.chip]
        self.random = random.Random(s.seed)
        self.now = 0.0
        self.flash = NorFlash(
            bytearray(b"\xff") * s.flash_size if cells is None else cells,
            maker=s.flash_maker,
            claimed=s.flash_claims or None,
            id_override=s.flash_id if s.flash_id >= 0 else None,
            writable=not s.write_protected,
            slow=s.slow_erase,
            times=FlashTimes(),
        )
        self.flash.budget = s.cut_at or s.brownout or None
        self.flash.erase_budget = s.cut_erase or None
        self.to_chip = Wire(s.receiver(), exact=s.exact, mark=b"\xc0")
        self.to_host = Wire(s.receiver(), exact=s.exact)
        self.host_rate = 115200.0
        self._received = bytearray()  # waiting for the host's program
        self._held: list[tuple[float, bytes]] = []  # inside the adapter (latency)
        self.overrun = 0  # bytes that no one read in time
        self._heard = bytearray()  # waiting for the chip's program
        self.link_to = FaultyLink(
            LinkFaults(
                lose=s.lose_to or s.lose,
                corrupt=s.corrupt_to or s.corrupt,
                duplicate=s.duplicate,
                drop_bytes=s.drop_bytes,
            ),
            random.Random(s.seed * 2 + 1),
        )
        self.link_from = FaultyLink(
            LinkFaults(
                lose=s.lose_from or s.lose,
                corrupt=s.corrupt_from or s.corrupt,
                duplicate=s.duplicate,
                drop_bytes=s.drop_bytes,
            ),
            random.Random(s.seed * 2 + 2),
        )
        self.machine = Machine(s, self.silicon, self.flash, self.random, self._say, logs or {})
        if s.secure_boot or s.encryption:
            self.machine.trusted = image_digest(self.flash, self.silicon)
        self.machine.pins = lambda: Straps(boot=self._boot_pin, gpio15=s.gpio15_high, gpio2=not s.gpio2_low)
        self.dtr = self.rts = False
        self._boot_pin = not s.boot_low
        self._en = False
        self._en_at = NEVER  # when EN reaches high
        self._usb_armed = self._usb_download = self._usb_pulse = False
        self._power = not s.no_power
        self._program: Program | None = None
        self._wake = NEVER
        self._listens = False
        # bytes that the loader may still hear before the board resets or loses power
        self._limit: int | None = s.cut_rx_at or s.reset_at or None
        self.resets = 0
        self._cause = POWER_ON
        if self._power and not s.en_low:
            self._en_at = s.en_rise

    # --- time

    def next_event(self) -> float | None:
        """The earliest time at which something may happen or a byte may have arrived; None when all is quiet."""
        at = min(self._wake, self._en_at, self.to_chip.next_arrival() or NEVER, self.to_host.next_arrival() or NEVER)
        if self._held:
            at = min(at, self._held[0][0])
        return None if at == NEVER else at

    def advance(self, now: float) -> None:
        """Let the board live until `now` (seconds since it was built). Going back is not possible, and ignored."""
        events = 0
        while True:
            events += 1
            if events % COLLECT_EVERY == 0:
                self._collect()  # a host that looks once an hour must not make the wire remember the hour
            arrival = self.to_chip.next_arrival()
            at = min(self._wake, self._en_at, NEVER if arrival is None else arrival)
            if at > now:
                break
            self.now = self.machine.now = max(self.now, at)
            if self._en_at <= at:
                self._rise()
            elif arrival is not None and arrival <= at:
                self._hear()
            else:
                self._wake = NEVER
                self._run()
        if now > self.now:
            self.now = self.machine.now = now
        self._collect()

    # --- the host's end

    def set_rate(self, rate: float) -> float:
        """Set the host port's baud rate; returns the one the adapter really has. Raises ValueError when refused."""
        s = self.settings
        if s.refuse_above and rate > s.refuse_above:
            raise ValueError(f"this adapter does not do {rate:.0f} baud")
        if s.round_rates:
            rate = min(USUAL_RATES, key=lambda usual: abs(usual - rate))
        self._collect()
        self.host_rate = float(rate)
        return self.host_rate

    def set_lines(self, dtr: bool | None = None, rts: bool | None = None) -> None:
        """Set DTR and RTS as pyserial counts them: True is asserted, the pin low. None leaves a line alone."""
        self.dtr = self.dtr if dtr is None else dtr
        self.rts = self.rts if rts is None else rts
        self._lines()

    def host_write(self, content: bytes) -> int:
        """Bytes leave the host's port from now on, at its rate. Returns how many the adapter took."""
        s = self.settings
        if s.write_stall:
            return 0
        self.link_to.frame_end = self.machine.frame_end
        self.to_chip.mark = bytes([self.machine.frame_end])
        lost = self.link_to.lost_bytes
        arriving = self.link_to.carry(content)
        lost = self.link_to.lost_bytes - lost
        if arriving and s.echo:
            self.to_host.send(self.now, self.host_rate, arriving)
        if not self._power or s.swapped or s.no_rx:
            lost, arriving = lost + len(arriving), b""
        if lost:
            self.to_chip.occupy(self.now, self.host_rate, lost)
        if arriving:
            self.to_chip.send(self.now, self.host_rate, self._too_fast(arriving, self.host_rate))
        return len(content)

    def host_read(self, limit: int | None = None) -> bytes:
        """What has been received by now, at most `limit` bytes."""
        self._collect()
        out = bytes(self._received[:limit])
        del self._received[: len(out)]
        return out

    @property
    def host_waiting(self) -> int:
        """How many bytes `host_read` would give."""
        self._collect()
        return len(self._received)

    @property
    def damaged(self) -> int | None:
        """Bytes with framing errors that the host's UART has had, None for an adapter that doesn't say."""
        return self.to_host.damaged if self.settings.counts_errors else None

    @property
    def sending_until(self) -> float:
        """When everything the host has written will have left its port."""
        return self.to_chip.free_at

    def discard_received(self) -> None:
        """Throw away what was received by now."""
        self._collect()
        self._received.clear()

    def power(self, on: bool) -> None:
        """Plug the supply in or out. Switching on is a power-on reset; flash keeps its content."""
        if on == self._power:
            return
        self._power = on
        if on:
            self._cause = POWER_ON
            self._en_at = self.now + self.settings.en_rise
        else:
            self._stop()

    # --- inside

    def _collect(self) -> None:
        heard = self.to_host.receive(self.now, self.host_rate)
        if heard:
            if self.settings.stuck_bit >= 0:
                heard = bytes(byte | (1 << (self.settings.stuck_bit & 7)) for byte in heard)
            if self.settings.latency:
                self._held.append((self.now + self.settings.latency, heard))
            else:
                self._received += heard
        while self._held and self._held[0][0] <= self.now:
            self._received += self._held.pop(0)[1]
        if len(self._received) > HOST_BUFFER:
            self.overrun += len(self._received) - HOST_BUFFER
            del self._received[: len(self._received) - HOST_BUFFER]

    def _too_fast(self, content: bytes, rate: float) -> bytes:
        """Above the cable's limit about one byte in fifty is damaged."""
        if not self.settings.baud_limit or rate <= self.settings.baud_limit:
            return content
        damaged = bytearray(content)
        for i in range(len(damaged)):
            if self.random.random() < 0.02:
                damaged[i] ^= 1 << self.random.randrange(8)
        return bytes(damaged)

    def _say(self, content: bytes) -> None:
        s = self.settings
        self.link_from.frame_end = self.machine.frame_end
        lost = self.link_from.lost_bytes
        arriving = self.link_from.carry(content)
        lost = self.link_from.lost_bytes - lost
        if s.swapped or s.no_tx:
            lost, arriving = lost + len(arriving), b""
        if lost:
            self.to_host.occupy(self.now, self.machine.rate, lost)
        if arriving:
            self.to_host.send(self.now, self.machine.rate, self._too_fast(arriving, self.machine.rate))

    def _lines(self) -> None:
        s = self.settings
        wiring = "none" if s.no_reset else s.wiring
        usb_reset = False
        boot, en = True, True
        if wiring == "nodemcu":
            # two transistors: a line pulls its pin only while the other line is not asserted
            boot, en = not (self.dtr and not self.rts), not (self.rts and not self.dtr)
        elif wiring == "direct":
            boot, en = not self.dtr, not self.rts
        elif wiring == "usb-jtag":
            # USB-Serial/JTAG: with RTS inactive DTR arms download mode; RTS alone resets the core, once, on its edge
            if not self.rts:
                self._usb_armed = self.dtr
            pulse = self.rts and not self.dtr
            if pulse and not self._usb_pulse:
                self._usb_download = self._usb_armed
            usb_reset, self._usb_pulse = pulse and not self._usb_pulse, pulse
            boot = not self._usb_download
        self._boot_pin = (boot or s.boot_high) and not s.boot_low
        en = en and not s.en_low
        if not self._power:
            return
        if not en:
            if self._en or self._en_at != NEVER:
                self._cause = EXTERNAL_PIN if self.silicon.chip.name == "esp8266" else POWER_ON
                self._stop()
        elif usb_reset:
            self._stop()
            names = self.silicon.reset_names.items()
            self._cause = next((code for code, name in names if "USB_UART" in name), POWER_ON)
            self._en_at = self.now
        elif not self._en and self._en_at == NEVER:
            self._en_at = self.now + s.en_rise

    def _stop(self) -> None:
        """The chip stands still: EN is low or the power is gone."""
        self.to_chip.receive(self.now, self.machine.rate)
        self._collect()
        self.to_host.cut(self.now)
        self._program, self._wake, self._listens = None, NEVER, False
        self._heard.clear()
        self._en, self._en_at = False, NEVER
        self.machine.loading = False

    def _rise(self) -> None:
        """EN reaches high: the straps are latched and the ROM starts."""
        self._en, self._en_at = True, NEVER
        self.resets += 1
        self.machine.straps = self.machine.pins()
        self.machine.autobaud = self.machine.downloaded = self.machine.loading = False
        self._start(life(self.machine, self._cause))

    def _start(self, program: Program) -> None:
        self._program = program
        self._step(lambda: next(program))

    def _run(self) -> None:
        """Resume the program: its wait is over."""
        program = self._program
        if program is None:
            return
        heard = b""
        if self._listens:
            heard = bytes(self._heard)
            self._heard.clear()
        self._listens = False
        self._step(lambda: program.send(heard))

    def _step(self, resume: Callable[[], Wait]) -> None:
        try:
            wait = resume()
        except StopIteration:
            self._program = None  # halted until the next reset
            return
        except PowerCut:
            self._supply_fails()
            return
        self._listens = isinstance(wait, Listen)
        if isinstance(wait, Sleep):
            self._wake = self.now + wait.seconds
        elif isinstance(wait, Drain):
            self._wake = max(self.now, self.to_host.free_at)
        elif self._heard:
            self._wake = self.now
        else:
            self._wake = NEVER if wait.seconds is None else self.now + wait.seconds

    def _supply_fails(self) -> None:
        """The supply dips (the board restarts) or is gone for good (`power(True)` brings it back)."""
        self._stop()
        self.flash.budget = self.flash.erase_budget = None
        self._limit = None
        if self.settings.cut_at or self.settings.cut_erase or self.settings.cut_rx_at:
            self._power = False
        else:
            self._cause = POWER_ON if self.silicon.chip.name == "esp8266" else 0xF
            self._en_at = self.now + 0.05

    def _hear(self) -> None:
        """Bytes have reached the chip."""
        machine = self.machine
        if machine.autobaud:
            # the ROM measures the pulses of the first SYNC and sets its divider; that SYNC itself is lost
            heard = self.to_chip.receive(self.now, self.host_rate)
            if b"U" * 16 in heard:
                machine.rate = machine.divided(self.host_rate)
                machine.autobaud = False
            return
        heard = self.to_chip.receive(self.now, machine.rate)
        if self._program is None or not heard:
            return
        if machine.loading and self._limit is not None:
            if len(heard) >= self._limit:
                self._limit = None
                if self.settings.cut_rx_at:
                    self._supply_fails()
                else:
                    self._stop()
                    self._cause = EXTERNAL_PIN if self.silicon.chip.name == "esp8266" else POWER_ON
                    self._en_at = self.now + 0.05
                return
            self._limit -= len(heard)
        self._heard += heard
        del self._heard[CHIP_BUFFER:]
        if self._listens:
            self._wake = NEVER
            self._run()
