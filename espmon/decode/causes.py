"""What a crash usually means and what to try, in plain words.

The explanation says what happened and, when the registers tell, why; the remedies are ordered by how often they help.
They are readings of a message, not proof. Exception numbers: Xtensa ISA reference (EXCCAUSE), RISC-V privileged
specification (mcause).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from espmon.events import Crash

XTENSA: Mapping[int, str] = {
    0: "IllegalInstruction", 1: "Syscall", 2: "InstructionFetchError", 3: "LoadStoreError", 4: "Level1Interrupt",
    5: "Alloca", 6: "IntegerDivideByZero", 7: "PCValue", 8: "Privileged", 9: "LoadStoreAlignment",
    12: "InstrPIFDataError", 13: "LoadStorePIFDataError", 14: "InstrPIFAddrError", 15: "LoadStorePIFAddrError",
    16: "InstTLBMiss", 17: "InstTLBMultiHit", 18: "InstFetchPrivilege", 20: "InstFetchProhibited",
    24: "LoadStoreTLBMiss", 25: "LoadStoreTLBMultiHit", 26: "LoadStorePrivilege", 28: "LoadProhibited",
    29: "StoreProhibited",
}  # fmt: skip

# REASON of a Guru Meditation -> number. Pseudo causes (watchdogs, cache, debug) have none.
XTENSA_REASONS: Mapping[str, int] = {
    **{name.lower(): n for n, name in XTENSA.items()},
    # what esp-hal calls them
    "illegal": 0, "instrerror": 2, "leveloneinterrupt": 4, "dividebyzero": 6, "nextpcvalueillegal": 7,
    "privilegedinstruction": 8, "unalignedloadstore": 9, "instrprohibited": 20, **{f"cp{n}disabled": 32 + n for n in range(8)},
    "instrfetchprohibited": 20, "instrfetcherror": 2, "instrpdaddrerror": 12, "instrpiddataerror": 12,
    **{f"cp{n}dis": 32 + n for n in range(8)},
    "loadstorepifdataerror": 13, "loadstorepifaddrerror": 15, "insttlbmultihit": 17, "instrfetchprivilege": 18,
}  # fmt: skip
RISCV: Mapping[int, str] = {
    0: "Instruction address misaligned", 1: "Instruction access fault", 2: "Illegal instruction", 3: "Breakpoint",
    4: "Load address misaligned", 5: "Load access fault", 6: "Store address misaligned", 7: "Store access fault",
    8: "Environment call from U-mode", 9: "Environment call from S-mode", 11: "Environment call from M-mode",
    12: "Instruction page fault", 13: "Load page fault", 15: "Store page fault",
}  # fmt: skip
RISCV_REASONS: Mapping[str, int] = {name.lower(): n for n, name in RISCV.items()}


def exception_number(reason: str) -> int | None:
    """The CPU's number for the reason of a panic; None for what is no CPU exception."""
    key = " ".join(reason.lower().split())
    return RISCV_REASONS.get(key, XTENSA_REASONS.get(key.replace(" ", "")))


_POISON: Mapping[int, str] = {
    0xFEEFEFFE: "the fill pattern of a stack that was never written",
    0xA5A5A5A5: "the fill pattern of a task's stack",
    0xFEFEFEFE: "the pattern of freed heap memory",
    0xCECECECE: "the pattern of heap memory that was never written",
    0xBAAD5678: "the canary behind a heap block",
    0xABBA1234: "the canary before a heap block",
    0xBAD00BAD: "what the bus returns while the flash cache is off",
    0xDEADBEEF: "a typical marker of freed or unset memory",
    0xFFFFFFFF: "erased flash, or -1 used as a pointer",
}
# Below this, a faulting address is taken for a null pointer plus the offset of a member.
_NULL_PAGE = 0x1000

_FREED = ("Look for an object used after it was deleted, or a pointer that was never set.",)
_NULL = (
    "Check the pointer before use: a failed new or malloc, an object used before begin(), a handle that is NULL.",
    "Look at the first line of your own code among the frames.",
)
_OVERRUN = (
    "Look for writes past the end of an array or buffer, and for large local arrays that overflow the stack.",
    "Put code that runs in interrupts into IRAM (IRAM_ATTR), with everything that it calls.",
)
_ACCESS = (
    "Check pointers and array indexes in the function that crashed.",
    "Look for an object that was deleted while something still used it.",
)


def _address(value: int) -> str:
    return f"0x{value:08x}"


def _text_in(value: int) -> str | None:
    raw = value.to_bytes(4, "little")
    return raw.decode("ascii") if all(0x20 <= b < 0x7F for b in raw) else None


def _fault_address(value: int, access: str) -> tuple[str, tuple[str, ...]]:
    """(end of the sentence, remedies) for an access to `value`."""
    if value < _NULL_PAGE:
        offset = f" (offset {value} in an object or array)" if value else ""
        return f"a null pointer was {access}{offset}", _NULL
    if value in _POISON:
        return f"{_address(value)} was {access} as an address: that is {_POISON[value]}", _FREED + _ACCESS
    text = _text_in(value)
    if text is not None:
        return (
            f"{_address(value)} was {access} as an address: its bytes are the text {text!r}, so a pointer was overwritten by a string",
            ("Look for a string that was copied past the end of its buffer.", *_ACCESS),
        )
    return f"the bad address {_address(value)} was {access}", _ACCESS


def _xtensa(number: int, crash: Crash) -> tuple[str, tuple[str, ...]]:
    regs = crash.registers
    address = regs.get("excvaddr")
    pc = regs.get("epc1", regs.get("pc"))
    is_8266 = crash.chip == "esp8266"
    if number in (28, 29):
        access = "read" if number == 28 else "written to"
        if address is None:
            return f"Memory was {access} through a bad pointer.", _NULL + _ACCESS
        where, remedies = _fault_address(int(address), access)
        if is_8266 and number == 29 and 0x40200000 <= address < 0x40300000:
            where = f"constant data in flash ({_address(int(address))}) was written to"
            remedies = ("Don't cast away const from string literals and PROGMEM data; copy them to RAM first.",)
        return where[0].upper() + where[1:] + ".", remedies
    if number == 0:
        if is_8266 and pc == 0x4000DCE5:
            return "An integer was divided by zero.", ("Check the divisor before dividing.",)
        why = "The CPU met an instruction that doesn't exist"
        if pc is not None and pc in _POISON:
            why += f": it jumped to {_address(int(pc))}, {_POISON[int(pc)]}"
        return why + ".", (
            "Look for a corrupted stack, function pointer or object: writes past a buffer, use after delete.",
            "Check that interrupt handlers and what they call are in IRAM (IRAM_ATTR).",
            "Check the flash mode (try dio) and the supply, if it happens in places that change from run to run.",
        )
    if number in (2, 20):
        return "The CPU jumped to an address that holds no code: a null or damaged function pointer was called.", (
            "Check callbacks and virtual calls: is the object still alive, was the handler set?",
            *_OVERRUN,
        )
    if number == 3:
        return "Flash or instruction memory was read in bytes, or written: only whole words can be read there.", (
            "Read PROGMEM data with pgm_read_byte() and its kin, or copy it with memcpy_P() first.",
        )
    if number == 4:
        return "The watchdog's interrupt stopped the program: the code below was running, it isn't itself at fault.", (
            "Call yield() or delay(0) in long loops.",
        )
    if number == 5:
        return "The program noticed that its stack was overwritten.", _OVERRUN
    if number == 6:
        return "An integer was divided by zero.", ("Check the divisor before dividing.",)
    if number == 9:
        more = ""
        if address is not None:
            text = _text_in(int(address))
            more = f" ({_address(int(address))})" if text is None else f" ({_address(int(address))}, the text {text!r})"
        return f"A value was read or written at an address that isn't aligned{more}.", (
            "Don't cast char* to int* or to a struct: copy with memcpy().",
            "Look for a pointer that was overwritten, or an object used after it was deleted.",
        )
    name = XTENSA.get(number)
    return f"The CPU raised exception {number}{f' ({name})' if name else ''}: usually a wild pointer.", _ACCESS


def _riscv(number: int, crash: Crash) -> tuple[str, tuple[str, ...]]:
    regs = crash.registers
    pc, address = regs.get("mepc", regs.get("pc")), regs.get("mtval")
    if number in (1, 2, 0) and pc is not None and (pc == 0 or int(pc) in _POISON):
        return f"The CPU jumped to {_address(int(pc))}: a null or damaged function pointer was called.", (
            "Check callbacks and virtual calls: is the object still alive, was the handler set?",
            *_OVERRUN,
        )
    if number in (5, 7):
        access = "read" if number == 5 else "written to"
        if address is None:
            return f"Memory was {access} through a bad pointer.", _NULL + _ACCESS
        where, remedies = _fault_address(int(address), access)
        return where[0].upper() + where[1:] + ".", remedies
    if number == 2:
        return "The CPU met an instruction that doesn't exist.", (
            "Check that the image fits this chip and its revision, and that the whole image was flashed.",
            "Look for a corrupted stack or function pointer.",
        )
    if number in (4, 6):
        return "A value was read or written at an address that isn't aligned.", (
            "Don't cast char* to int* or to a struct: copy with memcpy().",
        )
    if number == 3:
        return "The CPU ran into a breakpoint instruction.", ("Look for __builtin_trap(), assert(0) or a forgotten ebreak.",)
    if number == 1:
        return "The CPU tried to run code from an address that holds none.", _OVERRUN
    return f"The CPU raised exception {number} ({RISCV.get(number, 'reserved')}).", _ACCESS


_OOM = (
    "Print the free heap and the largest free block (ESP.getFreeHeap(), ESP.getMaxFreeBlockSize()) along the way.",
    "Avoid String objects that grow and shrink; reserve() them or use fixed buffers.",
    "Make TLS buffers smaller (setBufferSizes()) and keep fewer connections open.",
)
_SUPPLY = (
    "Use a stronger supply and a shorter, thicker USB cable; no unpowered hub.",
    "Put 100 to 1000 uF near the module between 3.3 V (or Vin) and GND.",
)
_WDT_8266 = (
    "Call yield() or delay(0) in every loop that can run for more than a few milliseconds.",
    "Don't wait inside callbacks and interrupt handlers: set a flag and work in loop().",
)
_WDT_EVENTS = (
    "Don't stay in a callback, timer or task for seconds: do a part of the work and go on in the next call.",
    "Keep interrupt handlers short: set a flag in them.",
)
_TASK_WDT = (
    "Give the task a delay(1) or vTaskDelay(1) in its loops, so that the idle task runs.",
    "Move long work out of callbacks (async_tcp, timers) into a task of its own.",
    "Raise the watchdog's time only when the work really takes that long.",
)
_INT_WDT = (
    "Keep interrupt handlers short: no delay, printf, floating point, or bus transfers in them.",
    "Don't keep interrupts disabled, or a critical section open, for more than a few milliseconds.",
)
_STACK = (
    "Give the task a larger stack.",
    "Move large local arrays to static or heap memory; look for deep recursion.",
)
_CACHE = (
    "Put interrupt handlers and all that they call and read into RAM (IRAM_ATTR, DRAM_ATTR).",
    "Don't register handlers as IRAM-safe (ESP_INTR_FLAG_IRAM) that use code or constants in flash.",
)
_HEAP = (
    "Look for a write past the end of a heap block, or a double free, some time before this point.",
    "Turn on heap poisoning (comprehensive) or call heap_caps_check_integrity_all() at more places to get closer.",
)


def explain(crash: Crash) -> tuple[str, tuple[str, ...]]:
    """(one plain sentence, what to try most likely first) for a finished crash."""
    kind, message = crash.kind, crash.message or ""
    where = ""
    if crash.location is not None and crash.location.file:
        where = f" at {crash.location.file}" + (f":{crash.location.line}" if crash.location.line else "")
    task = f" in task {crash.task}" if crash.task else ""
    number = crash.exception.number if crash.exception else None
    if kind == "watchdog":
        if crash.chip == "esp8266" and crash.framework != "rtos-sdk":
            if "ardware" in message:
                return "The hardware watchdog reset the chip: it hung for more than about six seconds, with interrupts off or the software watchdog disabled.", (*_WDT_8266, *_SUPPLY[:1])
            contexts = {s.context for s in crash.stacks}
            if crash.framework in ("mongoose-os", "sming"):
                return "The software watchdog stopped the program: it didn't come back to the SDK for seconds.", _WDT_EVENTS
            if contexts == {"sys"}:
                return "The software watchdog stopped the program: a callback or interrupt handler ran for more than about 3.2 seconds.", (_WDT_8266[1], _WDT_8266[0])
            return "The software watchdog stopped the program: it ran for more than about 3.2 seconds without yield().", _WDT_8266
        if "nterrupt" in message:
            return "The interrupt watchdog stopped the program: an interrupt handler or a critical section took too long.", _INT_WDT
        who = f": {crash.task} didn't let it run" if crash.task else ""
        return f"The task watchdog wasn't fed in time{who}.", _TASK_WDT
    if kind == "out-of-memory":
        if crash.last_failed_alloc is not None and crash.last_failed_alloc.size:
            return f"There was no memory left: an allocation of {crash.last_failed_alloc.size} bytes failed.", _OOM
        return "There was no memory left: new could not allocate an object.", _OOM
    if kind == "stack-smashing":
        return "A function wrote past its local variables and destroyed its return address.", (
            "Check the sizes of local arrays and of what is copied into them (strcpy, sprintf, memcpy).",
        )
    if kind == "stack-overflow":
        if crash.chip == "esp8266" and crash.framework == "arduino":
            # Both stacks have a fixed size there: 4 kB for setup() and loop(), about 6 kB for BearSSL.
            if any(s.context == "bearssl" for s in crash.stacks):
                return "The stack that BearSSL uses for TLS overflowed.", ("Use smaller keys: a certificate with an EC key needs less stack than an RSA one.", _STACK[1])
            return "The stack of setup() and loop() (4 kB) overflowed.", (_STACK[1],)
        return f"The stack{task} overflowed.", _STACK
    if kind == "heap-corruption":
        return "The heap's own bookkeeping was overwritten, some time before it was noticed here.", _HEAP
    if kind == "cache-error" and "MMU entry fault" in message:
        return "An address was used at which neither flash nor PSRAM is mapped: a wild pointer into their address range.", _ACCESS
    if kind == "cache-error":
        return "Code or data in flash was used while the flash cache was switched off, during a flash write or erase.", _CACHE
    if kind == "lua-panic":
        return "A Lua error was not caught by any pcall(), so the firmware restarted.", (
            "Look at the Lua line in the message; wrap callbacks in pcall() to see the error without a restart.",
        )
    if kind == "unhandled-exception":
        name = f" ({message})" if message else ""
        return f"A C++ exception was thrown and nothing caught it{name}.", (
            "Catch the exception, or look for what throws: std::string from NULL, vector::at(), new without memory.",
        )
    if kind == "assert":
        if re.search(r"pxTCB|tlsf|heap|block_|pxList|xTaskRemove", message):
            return f"An assertion failed{where}: the heap or the scheduler's own data was overwritten.", _HEAP
        if re.search(r"xQueue|pxQueue|xSemaphore|mutex|queue\.c", message, re.IGNORECASE):
            return f"An assertion failed{where}: a queue, semaphore or mutex was used that doesn't exist (yet).", (
                "Create the queue or mutex before the code that uses it, and check that creating it worked.",
                "Don't take a mutex or call blocking functions from an interrupt handler.",
            )
        return f"An assertion failed{where}: the program found its own state to be wrong.", (
            "Read the condition in the message and find out why it doesn't hold.",
        )
    if kind == "abort" and "ISR not in IRAM" in message:
        return "attachInterrupt() was given a handler that isn't in IRAM, so the core stopped the program.", (
            "Mark the interrupt handler and all that it calls with IRAM_ATTR.",
        )
    if kind == "abort":
        if crash.last_failed_alloc is not None:
            size = f" of {crash.last_failed_alloc.size} bytes" if crash.last_failed_alloc.size else ""
            return f"The program gave up by itself (abort), probably for lack of memory: an allocation{size} failed before.", _OOM
        return "The program gave up by itself: abort() was called, often by a failed new, assert() or ESP_ERROR_CHECK().", (
            "Look at the frames below abort(): the first one of your own code asked for something that failed.",
            "Look at the last lines before the crash for an error message.",
            "Print the free heap: a failed new ends here as well.",
        )
    if kind == "panic" and where:
        if crash.location is not None and (crash.location.function or "") == "__yield":
            return f"delay() or yield() was called where waiting is impossible (a callback or interrupt){where}.", (
                "In callbacks, set a flag and do the work in loop().",
            )
        return f"The core stopped the program by a check of its own{where}.", (
            "Read the function and condition in the message.",
        )
    if kind == "panic" and crash.framework == "micropython":
        return "MicroPython couldn't handle an error any more, so it stopped.", (
            "Look at the traceback before it. Erase the flash and write the firmware again if it stops at every start: the file system is damaged.",
            "Save memory: gc.collect(), smaller modules, code compiled with mpy-cross.",
        )
    if (number is not None and 32 <= number < 40) or "oprocessor exception" in message:
        return "The floating-point unit was used where it can't be: in an interrupt handler.", (
            "Don't calculate with float in interrupt handlers: use integers, or do it in a task.",
        )
    if "Panic handler entered multiple times" in message and not crash.registers:
        return "The board crashed, and its crash handler crashed as well: what happened first isn't in the text.", (*_SUPPLY[:1], *_STACK)
    if number is not None:
        riscv = "mepc" in crash.registers or ((crash.exception is not None and crash.exception.name) or "").lower() in RISCV_REASONS
        return _riscv(number, crash) if riscv else _xtensa(number, crash)
    if "xcvaddr" in "".join(crash.registers) and kind == "exception":
        where, remedies = _fault_address(int(crash.registers["excvaddr"]), "used")
        return f"The CPU raised an exception; {where}.", remedies
    if crash.exception is not None and crash.exception.name:
        name = crash.exception.name
        if "debug exception" in name:
            if "BREAK" in message:
                return "The CPU ran into a breakpoint instruction.", ("Look for __builtin_trap(), a failed check or a breakpoint that a debugger left behind.",)
            return "A watchpoint or breakpoint was hit while no debugger was there.", ("Look for what sets watchpoints (FreeRTOS's end-of-stack check, a debugger), and at the function that ran.", *_STACK)
        if "emory protection" in name:
            return "Memory was used in a forbidden way: code was written to, or data was run as code.", (
                "Look for wild pointers and for functions or trampolines that are built in data memory.", *_OVERRUN[:1],
            )
        if "ouble exception" in name:
            return "A second exception happened while the first was being handled: usually the stack is destroyed.", _STACK
        return f"The CPU stopped the program: {name}.", _ACCESS
    if any(s.lines for s in crash.stacks) and not crash.registers:
        return "The board crashed; only its stack is in the text, the cause isn't.", (
            "Look further up in the log for the cause, or let espmon run while it happens.",
        )
    return "The board crashed; the text doesn't say why.", ("Look at the lines before it.",)


# --- what is no crash but stops a board ----------------------------------------------------------------------------

FLASH_SUPPLY = ("Check 3.3 V under load (2 A supply, 470 uF at the module).",)
FLASH: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        r"invalid header: ?0xffffff(?:ff)?$",
        "Nothing is in flash where the ROM looks for the boot loader: the flash is erased, or the image was written elsewhere.",
        (
            "Flash boot loader, partition table and application at the chip's offsets (boot loader: ESP32/S2 0x1000, P4/C5 0x2000, others 0x0).",
            "Write a merged image to 0x0.",
        ),
    ),
    (
        r"invalid header: ?0x000000(?:00)?$",
        "The flash returned only zeros: no data comes from it.",
        ("Check the flash's supply and pins (GPIO6 to 11 must be free; GPIO12 low at reset on the ESP32).", *FLASH_SUPPLY),
    ),
    (
        r"invalid header",
        "What is in flash is no image: something else was written there, it is encrypted, or it is read in the wrong mode.",
        (
            "Flash the right binary for this chip; a text or web page saved as .bin looks like this too.",
            "Try flash mode dio.",
            "Check whether flash encryption is on while the image is plain, or the other way round.",
        ),
    ),
    (
        r"csum err|[Cc]hecksum fail|Image hash failed|Invalid image block",
        "The image in flash fails its checksum: it is incomplete, damaged, or read in the wrong flash mode.",
        ("Erase the flash and write the image again with flash mode dio (dout on ESP8285).", "Check the flash size setting.", *FLASH_SUPPLY),
    ),
    (
        r"flash read err",
        "The ROM can't read the flash chip.",
        (
            "Free the flash pins (ESP32: GPIO6 to 11) and keep GPIO12 low at reset.",
            *FLASH_SUPPLY,
            "Check the flash voltage fuse; a dead flash chip looks the same.",
        ),
    ),
    (
        r"RECOVERY",
        "The boot loader in its usual place doesn't start, so the ROM tries the spare one.",
        ("Flash the boot loader again, for this chip and its revision.",),
    ),
    (
        r"(?i:secure boot)|[Ss]ignature|Sig block",
        "Secure boot refused the image: it isn't signed with the key in this chip's fuses.",
        ("Sign the boot loader and application with the right key and flash them again.",),
    ),
    (
        r"SHA-256",
        "The image's hash doesn't fit its contents: it was changed or damaged after it was built; the loader tries it anyway.",
        ("Write the image again; if a tool patched its header (flash mode, size), the warning is harmless.",),
    ),
    (
        r"rf_cal|init_data",
        "The radio's calibration data in flash is missing or wrong.",
        ("Write esp_init_data_default.bin to its place for this flash size and erase the system parameter area.",),
    ),
    (
        r"built-in command interpreter",
        "The ROM found nothing to start and fell back to its BASIC interpreter.",
        ("Flash an image; check the strapping pins.",),
    ),
    (
        r"waiting for host",
        "The strapping pins select SDIO boot, so the ROM waits for a host for ever: GPIO15 is high.",
        ("Pull GPIO15 to GND (10 kOhm).",),
    ),
    (
        r"partition|bootable|app|slot|[Rr]om",
        "The boot loader found no application that it may start.",
        ("Flash partition table and application again, at the offsets of this project.", "Erase the OTA data partition."),
    ),
    (
        r"load",
        "The addresses or lengths in the image are impossible: flash holds something else, or is read wrongly.",
        ("Erase the flash and write the image again, with flash mode dio.", *FLASH_SUPPLY),
    ),
    (
        r"revision",
        "The image doesn't fit this revision of the chip.",
        ("Build for this chip revision (minimum and maximum revision in the project's settings).",),
    ),
    (
        r"",
        "The ROM stopped instead of starting the firmware: wrong boot mode, or empty or unreadable flash.",
        ("Check GPIO0, GPIO2 and GPIO15 at reset.", "Flash the firmware again with flash mode dio."),
    ),
)


def flash_error(message: str) -> tuple[str, tuple[str, ...]]:
    """(meaning, remedies) for what the ROM or a boot loader said about flash."""
    for pattern, meaning, remedies in FLASH:
        if re.search(pattern, message):
            return meaning, remedies
    return "", ()


BROWNOUT = (
    "The supply voltage fell below the chip's limit, so it was reset.",
    (*_SUPPLY, "Start WiFi, camera and motors one after the other, not all at once."),
)
DOWNLOAD = (
    "The board waits for a download instead of running its firmware: a strapping pin (GPIO0, or the boot button) was low at reset.",
    (
        "Release GPIO0 and the DTR and RTS lines, then reset the board.",
        "Look for what pulls the boot pin low: a button, a sensor, an LED, a relay board.",
        "After flashing over serial, one manual reset or power cycle may be needed.",
    ),
)

_PORT = "Another program may own the port: close other monitors, IDEs and slicers."
HOST: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    (
        r"No module named|esptool directories not found",
        ("The Python that the tool runs in lacks pyserial or esptool.",),
        ("Install it there: python -m pip install esptool.", "Install the board package of the IDE again."),
    ),
    (
        r"busy or doesn't exist",
        ("Another program holds the port.", "The port doesn't exist: board unplugged, other name, or no driver."),
        (_PORT, "Unplug and plug in the board and see which port appears."),
    ),
    (
        r"REPL|raw repl|[Dd]evice is busy or does not|find the device|Pyboard",
        ("The board doesn't answer with a prompt: a program runs on it, or it holds no MicroPython.", "Another program reads from the port."),
        ("Press Ctrl-C, or reset the board, and try again.", "Flash MicroPython for this board (ESP8266 with flash mode dio or dout).", _PORT),
    ),
    (
        r"semaphore|does not recogni[sz]e the command|no funciona|Errno 71|configure port|ClearCommError|GetOverlapped|has been lost|Input/output|not functioning|is not configured|Device not configured|Lost connection|onnection lost|returned no data",
        ("The USB adapter or its driver stopped answering, or the board was unplugged.",),
        ("Unplug the board and plug it in again, at another USB port and with another cable.", "Install the driver of the USB chip (CP210x, CH340), an older one for copies of it.", _PORT),
    ),
    (
        r"MD5|not match data",
        ("What was read back isn't what was written: the flash, its mode or the supply.",),
        ("Write again with flash mode dio (dout on ESP8285) and the right flash size.", *_SUPPLY),
    ),
    (
        r"This chip is|Wrong --chip",
        ("Another chip is connected than the one that was chosen.",),
        ("Choose the board or --chip that the message names.",),
    ),
    (
        r"PermissionError|(?i:access (?:is )?denied)|Permission denied|Errno 13|denegado|verweigert|refusé|negato|negado|geweigerd|Отказано|отказано|拒绝|拒否",
        ("Another program holds the port.", "The user may not open it (Linux: group dialout or uucp)."),
        (_PORT, "On Linux: sudo usermod -aG dialout $USER, then log in again."),
    ),
    (
        r"FileNotFound|Errno 2\b|could not find|cannot find|No such file|[Nn]ot (?:available|found)|doesn't exist|upload_port|automatically find|no device found|Error\(2,|no (?:está disponible|se encuentra|existe)|encontrad|nicht (?:gefunden|verfügbar|vorhanden)|introuvable|pas disponible|non (?:trovat|disponibile)|não (?:está|existe)|niet (?:gevonden|beschikbaar)|не найден|не существует|недоступ|未找到|找不到|不可用|不存在",
        ("The port doesn't exist: board unplugged, other name, or no driver.",),
        ("Unplug and plug in the board and see which port appears.", "Use a USB cable with data wires.", "Install the driver of the USB chip (CP210x, CH340)."),
    ),
    (
        r"busy|Errno 1[16]|in use|ocupad|belegt|occup|bezet|занят|占用",
        ("Another program holds the port.",),
        (_PORT, "On Linux, ModemManager and brltty open new ports: stop or remove them."),
    ),
    (
        r"Wrong boot mode",
        ("The chip is running its firmware; it isn't in download mode.",),
        ("Hold BOOT/FLASH (GPIO0 to GND) while it resets.", "Fit a 1 to 10 uF capacitor from EN to GND if automatic reset is unreliable."),
    ),
    (
        r"Invalid head of packet|noise or corruption",
        ("The chip sends application text instead of loader packets.", "Noise on RX, or too high a rate."),
        ("Hold BOOT/FLASH while it resets.", "Use a lower rate (115200).", "Check the ground connection and the supply."),
    ),
    (
        r"Timed out|No serial data|sync|connect to ESP|connect to Esp|mem failed|espcomm_|[Tt]imeout",
        (
            "GPIO0 wasn't low at reset, so the chip didn't enter its boot loader.",
            "TX and RX are swapped, or not connected.",
            "Another program reads from the port.",
        ),
        (
            "Hold BOOT/FLASH (GPIO0 to GND) while the board resets.",
            "Check TX, RX and GND; use a USB cable with data wires.",
            _PORT,
            "Use a lower rate (115200).",
        ),
    ),
    (
        r"open|access|abrir|ouvrir|öffnen|открыти|lock",
        ("Another program holds the port.", "The port doesn't exist: board unplugged, other name, or no driver."),
        (_PORT, "Unplug and plug in the board and see which port appears.", "Install the driver of the USB chip (CP210x, CH340)."),
    ),
    (
        r"uploading|\[upload|transfert du croquis|Hochladen|enviaba|enquanto|caricamento|uploaden|загрузк|上传|\[erase|\[program",
        ("The upload failed; the lines before it say why.",),
        ("Hold BOOT/FLASH (GPIO0 to GND) while the board resets.", _PORT, "Use a lower rate (115200)."),
    ),
    (
        r"",
        ("The connection to the board failed or broke off.",),
        ("Check cable and supply.", _PORT, "Use a lower rate (115200)."),
    ),
)  # fmt: skip


def host_error(message: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(causes, remedies) for a flashing tool's failure text."""
    for pattern, why, remedies in HOST:
        if re.search(pattern, message):
            return why, remedies
    return (), ()
