"""The boot ROM's first part: says why it starts, looks at the straps, and starts the loader or the image in flash.

Pure. Texts and their order as logs of real boards and the emulated ESP8266 with the real ROM show them.
"""

from __future__ import annotations

from dataclasses import replace

from espmon.board.firmware import run_firmware
from espmon.board.from_flash import WATCHDOG, checked, esp8266_from_flash, tell
from espmon.board.idf import is_second_stage, second_stage
from espmon.board.image import Image, image_digest, read_image
from espmon.board.loader import Loader
from espmon.board.machine import HALT, Machine, Program, Sleep
from espmon.board.payloads import payload_for
from espmon.board.registers import Registers
from espmon.board.stub import FlasherStub

# The ESP8266's own numbers (banner "rst cause") and the ESP32 family's ("rst:0x").
BROWNOUT = 0xF  # the ESP32 family's
POWER_ON = 1
EXTERNAL_PIN = 2
SOFTWARE = 3
ROM_START = 0.003  # from EN rising to the first letter
RTC_WATCHDOG_TIME = 0.4  # between two starts of an ESP32 with nothing in flash


def life(machine: Machine, cause: int) -> Program:
    """Everything from one reset pulse to the next: ROM, loader or application, restarts included."""
    if machine.settings.stub_left and machine.boots == 0:
        machine.boots += 1
        machine.frame_end = 0xC0
        machine.rate = 115200.0
        cause = yield from FlasherStub(machine, Registers(machine)).run()
    while cause != HALT:
        machine.frame_end = 0xC0  # whatever ran before the reset
        machine.boots += 1
        if machine.silicon.chip.name == "esp8266":
            cause = yield from _esp8266(machine, cause)
        else:
            cause = yield from _esp32(machine, cause)
    return HALT


def _esp8266(machine: Machine, cause: int) -> Program:
    settings = machine.settings
    machine.rate = machine.rom_rate
    if cause in (SOFTWARE, WATCHDOG) and settings.banner_rate:
        machine.rate = float(settings.banner_rate)
    yield Sleep(ROM_START)
    straps = machine.straps
    mode = straps.gpio15 << 2 | straps.boot << 1 | straps.gpio2
    if cause == SOFTWARE and settings.soft_restart_sticks and machine.downloaded:
        mode = 1
    # a restart by software repeats the pin's cause (`rst cause:2`), as observed on boards
    shown = EXTERNAL_PIN if cause == SOFTWARE else cause
    text = machine.silicon.banner.format(cause=shown, strap=mode, sdio=settings.sdio)
    if cause == WATCHDOG:
        text += "wdt reset\r\n"
    if shown == 0:
        text += "unknown reset\r\n"
    yield from tell(machine, text)
    if mode == 1:
        return (yield from Loader(machine, payload_for).run())
    if mode & 4:
        yield from tell(machine, "waiting for host\r\n")
        return HALT
    if mode != 3:
        yield from tell(machine, "ets_main.c ")
        return HALT
    return (yield from esp8266_from_flash(machine))


def _esp32(machine: Machine, cause: int) -> Program:
    silicon, settings = machine.silicon, machine.settings
    machine.rate = machine.rom_rate
    yield Sleep(ROM_START)
    download = not machine.straps.boot
    value, mode = silicon.boot_download if download else silicon.boot_flash
    name = silicon.reset_names.get(cause, "UNKNOWN")
    text = f"{silicon.banner}rst:0x{cause:x} ({name}),boot:0x{value:x} ({mode})\r\n"
    if silicon.saved_pc and cause != POWER_ON:
        text += f"{'Core0 ' if silicon.spi_prefix else ''}Saved PC:0x{silicon.chip.code_ranges[1][0] + 0x1234:08x}\r\n"
    yield from tell(machine, text)
    if settings.weak_after < machine.boots <= settings.weak_after + settings.weak_supply:
        yield Sleep(RTC_WATCHDOG_TIME)
        return BROWNOUT
    if download:
        yield from tell(machine, "waiting for download\r\n")
        return (yield from Loader(machine, payload_for).run())
    image = checked(machine, read_image(machine.flash, silicon))
    guarded = settings.secure_boot or settings.encryption
    foreign = guarded and image_digest(machine.flash, silicon) != machine.trusted
    if settings.encryption and foreign:
        # the ROM decrypts what was never encrypted
        image = replace(image, fault="magic", first_word=image.first_word ^ 0x5A3C96E1)
    if not machine.flash.present:
        yield from tell(machine, "flash read err, 1000\r\nets_main.c 371 \r\n")
    elif image.fault in ("magic", "segments", "chip"):
        for _ in range(8):
            yield from tell(machine, f"invalid header: 0x{image.first_word:08x}\r\n")
            yield Sleep(0.02)
    else:
        if settings.secure_boot and foreign:
            yield from tell(machine, "secure boot verification failed\r\nets_main.c 329 \r\n")
        else:
            yield from tell(machine, _esp32_load_text(machine, image))
            if image.fault is None and is_second_stage(image):
                return (yield from second_stage(machine))
            if image.fault is None:
                return (yield from run_firmware(machine, image))
    # the RTC watchdog restarts it
    yield Sleep(RTC_WATCHDOG_TIME)
    return 0x10


def _esp32_load_text(machine: Machine, image: Image) -> str:
    silicon = machine.silicon
    out = []
    if silicon.chip.name == "esp32":
        out.append(
            "configsip: 0, SPIWP:0xee\r\nclk_drv:0x00,q_drv:0x00,d_drv:0x00,cs0_drv:0x00,hd_drv:0x00,wp_drv:0x00\r\n"
        )
    elif silicon.spiwp:
        out.append("SPIWP:0xee\r\n")
    out.append(f"{silicon.spi_prefix}mode:{image.mode.upper()}, clock div:2\r\n")
    for segment in image.segments:
        out.append(f"load:0x{segment.address:08x},len:{silicon.load_len.format(len(segment.content))}\r\n")
    if image.fault == "checksum":
        out.append(f"csum err:0x{image.checksum:02x}!=0x{image.stored:02x}\r\nets_main.c 384 \r\n")
    elif image.fault == "hash":
        out.append("SHA-256 comparison failed:\r\n")
    elif image.fault is not None:
        out.append("ets_main.c 384 \r\n")
    else:
        out.append(f"entry 0x{image.entry:08x}\r\n")
    return "".join(out)
