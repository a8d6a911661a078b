"""What can go wrong between a loader and us: types with their facts as fields, a stable code and what to do.

Failures of the link or the board end with exit status 9; refusals, where a guard keeps flash from harm, with 25.
"""

from __future__ import annotations

from espmon.bootloader import packets
from espmon.errors import EXIT_INTERRUPTED, EXIT_REFUSED, EXIT_VERIFY_FAILED, EspmonError

STUB_COMMAND = "pip install 'espmon[stub]'"


class LoaderProblem(EspmonError):
    """Base: the board's loader cannot be reached or does not do what it was asked.

    `diagnosis` is filled by the caller that measured the port (one sentence for the cause, one for the remedy).
    """

    code = "loader"
    exit_status = 9

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.heard: bytes = b""
        self.diagnosis: str | None = None


class NoSyncReply(LoaderProblem):
    """SYNC was sent and not answered. `attempts`, what was `heard` meanwhile, whether our own bytes were `echoed`."""

    code = "no-sync-reply"

    def __init__(self, attempts: int, heard: bytes, *, echoed: bool = False, rates: tuple[int, ...] = ()) -> None:
        if echoed:
            what, hint = (
                "only our own bytes came back",
                "TX and RX are joined, or the adapter echoes: check the wiring; with one plug in each, nothing comes back.",
            )
        elif not heard:
            what, hint = (
                "not one byte was heard",
                "Check power, that TX and RX are crossed, and GND; then hold GPIO0 (BOOT) low and press reset.",
            )
        else:
            what, hint = (
                f"{len(heard)} bytes of other text were heard",
                "The board runs, but not in download mode: hold GPIO0 (BOOT) low, press reset, try again.",
            )
        super().__init__(f"No answer from the boot loader after {attempts} SYNCs: {what}.", hint)
        self.attempts = attempts
        self.heard = heard
        self.echoed = echoed
        self.rates = rates


class LoaderSilent(LoaderProblem):
    """A command was not answered in time."""

    code = "loader-silent"

    def __init__(self, op: int, timeout_s: float, heard: bytes = b"") -> None:
        super().__init__(f"The loader did not answer {packets.op_name(op)} within {timeout_s:.1f} s.")
        self.op = op
        self.timeout_s = timeout_s
        self.heard = heard


class LoaderRefused(LoaderProblem):
    """A command was answered with an error; `error` is status byte << 8 | error byte."""

    code = "loader-refused"

    def __init__(self, op: int, error: int) -> None:
        super().__init__(f"{packets.op_name(op)} failed: {packets.error_meaning(error)} (0x{error:04x}).")
        self.op = op
        self.error = error

    @property
    def unsupported(self) -> bool:
        """True when the loader does not know the command at all."""
        return self.error >> 8 in (0xC3, 0xFF) or (self.error >> 8 == 1 and self.error & 0xFF == 5)


class StubNotStarted(LoaderProblem):
    """The stub was uploaded and did not report."""

    code = "stub-not-started"

    def __init__(self, heard: bytes) -> None:
        super().__init__("The flasher stub was uploaded but did not start.")
        self.heard = heard


class BoardReset(LoaderProblem):
    """The board began to boot in the middle of an operation: `heard` is its text, `cause` what it says."""

    code = "board-reset"

    def __init__(self, heard: bytes, cause: str) -> None:
        super().__init__(
            f"The board reset itself during the operation ({cause}).",
            "Most often the supply is too weak: use another USB port or cable, or a supply of its own; then run it again.",
        )
        self.heard = heard
        self.cause = cause


class GaveUp(LoaderProblem):
    """The operation failed too often; `reason` is the last failure."""

    code = "gave-up"

    def __init__(self, operation: str, attempts: int, reason: str) -> None:
        super().__init__(
            f"Gave up to {operation} after {attempts} attempts; the last one: {reason}",
            "Try a lower --flash-baud, a shorter cable, another USB port.",
        )
        self.operation = operation
        self.attempts = attempts
        self.reason = reason


class FlashDiffers(LoaderProblem):
    """Flash does not hold what it should: `sectors` are the addresses of sectors that differ."""

    code = "flash-differs"
    exit_status = EXIT_VERIFY_FAILED

    def __init__(self, sectors: tuple[int, ...], hint: str | None = None) -> None:
        shown = ", ".join(f"0x{s:x}" for s in sectors[:8]) + (" ..." if len(sectors) > 8 else "")
        count = "1 sector" if len(sectors) == 1 else f"{len(sectors)} sectors"
        super().__init__(f"Flash differs in {count}: {shown}.", hint)
        self.sectors = sectors


class ChipUnknown(LoaderProblem):
    """The loader answers, but which chip it is cannot be told; nothing is written to such a chip."""

    code = "chip-unknown"

    def __init__(self, fact: str) -> None:
        super().__init__(f"The boot loader answers, but its chip is not known ({fact}).", "Name the chip with --chip.")
        self.fact = fact


class SendStalled(LoaderProblem):
    """The host could not hand its bytes to the adapter: that is no silence of the chip."""

    code = "send-stalled"

    def __init__(self, port: str = "") -> None:
        super().__init__(
            f"The serial adapter takes no more bytes{f' ({port})' if port else ''}.",
            "Unplug the adapter and plug it in again; switch flow control off; try a lower --flash-baud.",
        )


class Stopped(LoaderProblem):
    """Somebody asked to stop; `state` says in which state the board was left."""

    code = "interrupted"
    exit_status = EXIT_INTERRUPTED

    def __init__(self, state: str = "") -> None:
        super().__init__(f"Interrupted. {state}".strip())
        self.state = state


# --- refusals -------------------------------------------------------------------------------------------------------


class Refused(LoaderProblem):
    """A guard refused to touch the flash; nothing was written."""

    code = "refused"
    exit_status = EXIT_REFUSED


class WrongChip(Refused):
    """The image is for another chip."""

    code = "wrong-chip"

    def __init__(self, source: str, image_chip: str, chip: str) -> None:
        super().__init__(
            f"{source} is an image for {image_chip}, the board is {chip}.", "Build or choose the right image."
        )


class OtherChip(Refused):
    """The board is not the chip that it was said to be."""

    code = "other-chip"

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"The board is {found}, not {expected}.", "Check which board is at this port, or leave --chip out.")


class ImageDamaged(Refused):
    """The image's own checksum, digest or length is wrong."""

    code = "image-damaged"

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source} is damaged: {reason}.", "Build or download it again.")


class NotBootable(Refused):
    """Data without an image header was to be written where the chip boots from."""

    code = "not-bootable"

    def __init__(self, source: str, offset: int) -> None:
        super().__init__(
            f"{source} has no image header, and 0x{offset:x} is where the chip boots from.",
            "Check the address; files without a header may go anywhere else.",
        )


class PastEnd(Refused):
    """A region does not fit into the flash."""

    code = "past-end"

    def __init__(self, source: str, end: int, flash_size: int) -> None:
        super().__init__(
            f"{source} would end at 0x{end:x}, the flash ends at 0x{flash_size:x}.",
            "Choose an image for this flash size.",
        )


class WrongFlashSize(Refused):
    """The image's header or the flash chip's id promises more flash than there is."""

    code = "wrong-flash-size"

    def __init__(self, message: str) -> None:
        super().__init__(message, "Build for the real flash size; a chip that lies about its size should be replaced.")


class FlashUnreadable(Refused):
    """The flash chip's id is no id: the flash bus does not work."""

    code = "flash-unreadable"

    def __init__(self, flash_id: int) -> None:
        super().__init__(
            f"The flash chip does not answer (id 0x{flash_id:06x}).",
            "Disconnect everything from the flash pins (GPIO6 to GPIO11 on ESP8266 and ESP32); check the supply.",
        )


class RegionsOverlap(Refused):
    """Two files would be written over each other."""

    code = "regions-overlap"

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second} share flash sectors.", "Check the addresses.")


class SecurityForbids(Refused):
    """Secure boot, flash encryption or secure download mode is on."""

    code = "security"

    def __init__(self, what: str, consequence: str) -> None:
        super().__init__(f"{what} is on: {consequence}.", "Use the keys and tools of whoever made the device.")
        self.what = what


class NeedsStub(Refused):
    """This chip's boot ROM alone cannot do it."""

    code = "needs-stub"

    def __init__(self, chip: str, what: str) -> None:
        super().__init__(
            f"The boot ROM of {chip} cannot {what}, and no flasher stub was found or none starts.",
            f"Install it: {STUB_COMMAND}",
        )
