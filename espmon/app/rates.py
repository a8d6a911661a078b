"""Where bytes that were sent at another baud rate become events: `espmon.uart` finds them, `espmon.decode` knows the words.

A banner that was read out of garbage says no more than the same banner in plain text, so its meaning is asked of the
decoder with the text that the ROM printed; only what could not be read is taken back out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from espmon.events import Boot, BootMode, DownloadMode, Event, ResetCause, WrongRate
from espmon.uart.banner import Banner, BannerReader
from espmon.uart.capture import Stretch, garbage, read_capture

_SDIO = frozenset({4, 5, 6, 7})
# Where it isn't known whether X is 2 or 3, and the ROM has stopped with its own `ets_main.c`.
_STOPPED = "the ROM stopped: nothing bootable in flash"
# A capture is read in pieces that end in text; one that holds none for so long is cut anyway.
_PIECE = 1 << 20


def boot_from(banner: Banner, rate: int | None) -> Boot:
    """The event for a banner that was sent at `rate` and read out of garbage; its place is not filled in."""
    cause, x, y = banner.cause, banner.x, banner.y
    # any SDIO mode means the same; any other unknown mode means nothing
    like = x if x is not None else 7 if banner.x_class and banner.x_class <= _SDIO else None
    text = f"\n ets Jan  8 2013,rst cause:{2 if cause is None else cause}, boot mode:({3 if like is None else like},{y or 0})\n\n"
    from espmon.decode import Decoder  # 70 ms: not while a port waits to be opened

    told = next((event for event in Decoder().feed(text.encode()) if isinstance(event, Boot)), None)
    raw = f"{'?' if x is None else x},{'?' if y is None else y}"
    mode: BootMode | None = BootMode(raw=raw)
    if like is not None and told is not None and told.boot_mode is not None:
        mode = replace(told.boot_mode, raw=raw)
    elif banner.tail == "ets_main.c" and banner.x_class and banner.x_class <= {2, 3}:
        mode = BootMode(raw=raw, meaning=_STOPPED)
    elif raw == "?,?":
        mode = None
    reset = ResetCause(code=None)
    if cause is not None and told is not None and told.reset is not None:
        reset = told.reset
    return Boot(
        chip="esp8266",
        rom=told.rom if told is not None else None,
        reset=reset,
        boot_mode=mode,
        inferred=True,
        rate=rate,
        confidence=banner.confidence,
    )


def stretch_events(stretch: Stretch, received: bytes, received_at: int, line: int | None, at: float | None) -> Iterator[Event]:
    """`WrongRate` and the boots of one stretch; `line` is the line that ``received[0]`` stands on (None: not known)."""

    def lines(start: int, end: int) -> tuple[int | None, int | None]:
        if line is None:
            return None, None
        first = line + received.count(b"\n", 0, start)
        return first, first + received.count(b"\n", start, max(start, end - 1))

    if stretch.sent_at is not None or stretch.slower:
        first, last = lines(stretch.start, stretch.end)
        yield WrongRate(
            line=first,
            end_line=last,
            at=at,
            received_at=received_at,
            sent_at=stretch.sent_at,
            confidence=stretch.confidence,
            bytes=stretch.end - stretch.start,
            boots=len(stretch.banners),
        )
    for banner in stretch.banners:
        first, last = lines(banner.start, banner.end)
        boot = boot_from(banner, stretch.sent_at)
        yield replace(boot, line=first, end_line=last, at=at)
        if boot.boot_mode is not None and boot.boot_mode.download and boot.boot_mode.raw is not None:
            from espmon.decode import causes

            meaning, remedies = causes.DOWNLOAD
            message = f"boot mode:({boot.boot_mode.raw})"
            yield DownloadMode(line=first, end_line=last, at=at, message=message, meaning=meaning, remedies=remedies)


class CaptureDecoder:
    """A decoder for bytes that were received at `received_at` baud: as `Decoder`, and what was sent at other rates is told
    at the place where it stands. No times: for files."""

    def __init__(self, received_at: int, *, file: str | None = None) -> None:
        self._received_at = received_at
        from espmon.decode import Decoder

        self._decoder = Decoder(file=file)
        self._reader = BannerReader(received_at)
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[Event]:
        """The events of what is complete with `data`: everything up to the last line that ends in text."""
        self._pending += data
        end = self._pending.rfind(b"\n") + 1
        for _ in range(100):
            if not end or next(garbage(bytes(self._pending[max(0, end - 64) : end])), None) is None:
                break
            end = self._pending.rfind(b"\n", 0, end - 1) + 1
        else:
            end = 0
        if not end and len(self._pending) > _PIECE:
            end = len(self._pending)
        return self._read(end)

    def close(self) -> list[Event]:
        """The input has ended."""
        return [*self._read(len(self._pending)), *self._decoder.close()]

    def _read(self, end: int) -> list[Event]:
        received = bytes(self._pending[:end])
        del self._pending[:end]
        out: list[Event] = []
        done = 0
        for stretch in read_capture(received, self._received_at, self._reader):
            out += self._decoder.feed(received[done : stretch.start])
            line = self._decoder.line - received.count(b"\n", 0, stretch.start)
            done = stretch.start
            for event in stretch_events(stretch, received, self._received_at, line, None):
                out += self._decoder.insert(event)
        out += self._decoder.feed(received[done:])
        return out
