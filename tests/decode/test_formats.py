"""Every form of ``docs/log-formats.md`` that the corpus has no sample of, and texts that only look like crashes."""

from __future__ import annotations

from typing import Any

import pytest

from espmon.decode import Decoder
from espmon.events import (
    Boot,
    BootLoop,
    Brownout,
    CoreDump,
    Crash,
    DownloadMode,
    Event,
    FlashError,
    HostError,
    Reset,
    Text,
)


def said(text: str) -> list[Event]:
    decoder = Decoder()
    return [e for e in decoder.feed(text.encode()) + decoder.close() if not isinstance(e, Text)]


def brief(e: Event) -> dict[str, Any]:
    """The facts that a form is about."""
    d: dict[str, Any] = {}
    if isinstance(e, Crash):
        d["kind"] = e.kind
        if e.exception:
            d["number"] = e.exception.number
        if e.core is not None:
            d["core"] = e.core
        if e.task:
            d["task"] = e.task
        if e.backtraces:
            d["frames"] = [len(b) for b in e.backtraces]
        if e.stacks:
            d["words"] = [len(s.code_words) for s in e.stacks]
        if e.location:
            d["place"] = f"{e.location.file}:{e.location.line}:{e.location.function}"
        d["registers"] = len(e.registers)
        d["complete"] = e.complete
        d["framework"] = e.framework
    elif isinstance(e, Reset):
        d["source"] = e.source
        if e.reset:
            d["code"] = e.reset.code
        if e.exception:
            d["number"] = e.exception.number
        d["registers"] = len(e.registers)
        if e.backtraces:
            d["frames"] = [len(b) for b in e.backtraces]
    elif isinstance(e, Boot):
        d["chip"] = e.chip
        d["code"] = e.reset.code if e.reset else None
        d["raw"] = e.boot_mode.raw if e.boot_mode else None
        if e.saved_pc:
            d["saved_pc"] = len(e.saved_pc)
    elif isinstance(e, (FlashError, DownloadMode, Brownout, HostError)):
        d["message"] = e.message
    elif isinstance(e, BootLoop):
        d["boots"] = e.boots
    elif isinstance(e, CoreDump):
        d["format"] = e.format
        d["complete"] = e.complete
    return {"type": e.type, **d}


REGISTERS = "epc1=0x402016a2 epc2=0x00000000 epc3=0x00000000 excvaddr=0x00000000 depc=0x00000000"
COMMAS = REGISTERS.replace(" ", ", ")
STACK = """
>>>stack>>>

ctx: cont
sp: 3ffffca0 end: 3fffffc0 offset: 01a0
3ffffe40:  3fff34cc 3ffeed38 000000ff 4021c238
3ffffe50:  3fff340a 00000000 3fff30e4 40206856 <
<<<stack<<<
"""

FORMS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "brownout log": ("E BOD: Brownout detector was triggered\n", [{"type": "brownout", "message": "Brownout detector was triggered"}]),
    "url-encoded": (
        "GET /crash?d=Exception%20%2828%29%3A%0Aepc1%3D0x402016a2%20epc2%3D0x00000000%20epc3%3D0x00000000%20excvaddr%3D0x00000000%20depc%3D0x00000000%0A HTTP/1.1\n",
        [{"type": "crash", "kind": "exception", "number": 28, "registers": 5, "complete": True, "framework": "arduino"}],
    ),
    "names that lost letters": (
        "Excepton (28):\nepc1=0x402016a2 epc=0x00000000 epc3=0x00000000 excvddr=0x00000000 depc=0x00000000\n",
        [{"type": "crash", "kind": "exception", "number": 28, "registers": 5, "complete": True, "framework": "arduino"}],
    ),
    "banner that lost letters": (
        "ts Jan  8 2013,rst cuse:2, bot mode:(3,6)\n",
        [{"type": "boot", "chip": "esp8266", "code": 2, "raw": "3,6"}],
    ),
    "@atal": (
        "@atal exception (0): \n" + COMMAS,
        [{"type": "crash", "kind": "exception", "number": 0, "registers": 5, "complete": True, "framework": "nonos-sdk"}],
    ),
    "fatal name": (
        "Fatal exception 28(LoadProhibitedCause):\n" + COMMAS,
        [{"type": "crash", "kind": "exception", "number": 28, "registers": 5, "complete": True, "framework": "nonos-sdk"}],
    ),
    "fatal perline": (
        "Fatal exception (9):\nepc1=0x402016a2\nepc2=0x00000000\nepc3=0x00000000\nexcvaddr=0x00000001\ndepc=0x00000000\n",
        [{"type": "crash", "kind": "exception", "number": 9, "registers": 5, "complete": True, "framework": "nonos-sdk"}],
    ),
    "exc perline": (
        "Exception (9):\nepc1=0x402016a2\nepc2=0x00000000\nepc3=0x00000000\nexcvaddr=0x00000001\ndepc=0x00000000\n" + STACK,
        [{"type": "crash", "kind": "exception", "number": 9, "words": [2], "registers": 5, "complete": True, "framework": "arduino"}],
    ),
    "epc before": (
        REGISTERS + "\nException (28):\n" + STACK,
        [{"type": "crash", "kind": "exception", "number": 28, "words": [2], "registers": 5, "complete": True, "framework": "arduino"}],
    ),
    "epc lost": (
        "Exception (28):\n" + STACK,
        [{"type": "crash", "kind": "exception", "number": 28, "words": [2], "registers": 0, "complete": True, "framework": "arduino"}],
    ),
    "xception glued": (
        "foo bar xception (28):\n" + REGISTERS + "\n" + STACK,
        [{"type": "crash", "kind": "exception", "number": 28, "words": [2], "registers": 5, "complete": True, "framework": "arduino"}],
    ),
    "softwdt3.1": (
        "Soft WDT reset\n\nException (4):\n" + REGISTERS + "\n" + STACK,
        [{"type": "crash", "kind": "watchdog", "number": 4, "words": [2], "registers": 5, "complete": True, "framework": "arduino"}],
    ),
    "softwdt delib": (
        "Soft WDT reset - deliberate infinite loop detected\n" + STACK,
        [{"type": "crash", "kind": "watchdog", "words": [2], "registers": 0, "complete": True, "framework": "arduino"}],
    ),
    "panic yield": (
        "\nUser exception (panic/abort/assert)\n--------------- CUT HERE FOR EXCEPTION DECODER ---------------\n\nPanic core_esp8266_main.cpp:191 __yield\n"
        + STACK
        + "\n--------------- CUT HERE FOR EXCEPTION DECODER ---------------\n ets Jan  8 2013,rst cause:2, boot mode:(3,6)\n",
        [
            {
                "type": "crash",
                "kind": "panic",
                "words": [2],
                "place": "core_esp8266_main.cpp:191:__yield",
                "registers": 0,
                "complete": True,
                "framework": "arduino",
            },
            {"type": "boot", "chip": "esp8266", "code": 2, "raw": "3,6"},
        ],
    ),
    "panic assert": (
        "Panic /home/x/umm_malloc.cpp:283 umm_free: Assertion '(ptr != 0)' failed.\n" + STACK,
        [
            {
                "type": "crash",
                "kind": "assert",
                "words": [2],
                "place": "/home/x/umm_malloc.cpp:283:umm_free",
                "registers": 0,
                "complete": True,
                "framework": "arduino",
            }
        ],
    ),
    "panic file only": (
        "Panic foo.cpp\n" + STACK,
        [{"type": "crash", "kind": "panic", "words": [2], "place": "foo.cpp:None:None", "registers": 0, "complete": True, "framework": "arduino"}],
    ),
    "smash": (
        "Stack smashing detected.\n\nException (5):\n" + REGISTERS + STACK,
        [{"type": "crash", "kind": "stack-smashing", "number": 5, "words": [2], "registers": 5, "complete": True, "framework": "arduino"}],
    ),
    "smash at": (
        "Stack smashing detected at 0x40201234\n" + STACK,
        [{"type": "crash", "kind": "stack-smashing", "words": [2], "registers": 0, "complete": True, "framework": "arduino"}],
    ),
    "generic": (
        "Generic Reset\n" + STACK,
        [{"type": "crash", "kind": "panic", "words": [2], "registers": 0, "complete": True, "framework": "arduino"}],
    ),
    "overflow": (
        "Stack overflow detected\n" + STACK,
        [{"type": "crash", "kind": "stack-overflow", "words": [2], "registers": 0, "complete": True, "framework": "arduino"}],
    ),
    "alloc": (
        "Unhandled C++ exception: OOM\n" + STACK + "last failed alloc call: 40212345(1460)@tls.cpp:77\nlast failed alloc caller: 0x40212345\n",
        [{"type": "crash", "kind": "out-of-memory", "words": [2], "registers": 0, "complete": True, "framework": "arduino"}],
    ),
    "alloc old": (
        "Abort called\n" + STACK + "\nlast failed alloc call: 402063D3(2048)\n",
        [{"type": "crash", "kind": "abort", "words": [2], "registers": 0, "complete": True, "framework": "arduino"}],
    ),
    "isr": (
        "ISR not in IRAM!\n\nUser exception (panic/abort/assert)\n--------------- CUT HERE FOR EXCEPTION DECODER ---------------\n\nAbort called\n" + STACK,
        [{"type": "crash", "kind": "abort", "words": [2], "registers": 0, "complete": True, "framework": "arduino"}],
    ),
    "hwdt": (
        " ets Jan  8 2013,rst cause:4, boot mode:(3,6)\n\nwdt reset\n\n\nHardware WDT reset\n\n>>>stack>>>\n\nctx: sys\nsp: 3ffffa50 end: 3ffffc00 offset: 0000\n3ffffa50:  4020abcd 00000000 00000000 00000000  \n<<<stack<<<\n\n>>>stack>>>\n\nctx: cont\nsp: 3ffffa50 end: 3ffffff0 offset: 0000\n3ffffa50:  4020abcd 00000000 00000000 00000000  \n<<<stack<<<\nCont stack is yielding. Active stack starts at 0x3ffffa50.\n",
        [
            {"type": "boot", "chip": "esp8266", "code": 4, "raw": "3,6"},
            {"type": "crash", "kind": "watchdog", "words": [1, 1], "registers": 0, "complete": True, "framework": "arduino"},
        ],
    ),
    "resetinfo exc": (
        "Fatal exception:28 flag:2 (Exception) epc1:0x402016a2 epc2:0x00000000 epc3:0x00000000 excvaddr:0x00000000 depc:0x00000000",
        [{"type": "reset", "source": "arduino", "code": 2, "number": 28, "registers": 5}],
    ),
    "resetinfo ext": (
        "Fatal exception:0 flag:6 (External System) epc1:0x402016a2 epc2:0x00000000 epc3:0x00000000 excvaddr:0x00000000 depc:0x00000000",
        [{"type": "reset", "source": "arduino", "code": 6, "registers": 5}],
    ),
    "resetinfo wdt": (
        "Reset info: Fatal exception:4 flag:1 (Hardware Watchdog) epc1:0x402016a2 epc2:0x00000000 epc3:0x00000000 excvaddr:0x00000000 depc:0x00000000",
        [{"type": "reset", "source": "arduino", "code": 1, "number": 4, "registers": 5}],
    ),
    "espurna": (
        "[000123] [DEBUG] Latest crash was at 21373 ms after boot\n[000124] [DEBUG] Reason of restart: 2\n[000125] [DEBUG] Exception cause: 28\n[000126] [DEBUG] epc1=0x4020abcd epc2=0x00000000 epc3=0x00000000\n[000127] [DEBUG] excvaddr=0x00000000 depc=0x00000000\n[000128] [DEBUG] sp=0x3fffff00 end=0x3fffffc0 saved=0x00c0\n[000129] [DEBUG] >>>stack>>>\n[000130] [DEBUG] 3fffff00: 4020abcd 00000000 00000000 00000000 \n[000131] [DEBUG] <<<stack<<<\n",
        [{"type": "reset", "source": "espurna", "code": 2, "number": 28, "registers": 5}],
    ),
    "esphome report": (
        "[12:00:01][E][esp8266:123]: *** CRASH DETECTED ON PREVIOUS BOOT ***\n[12:00:01][E][esp8266:124]:   Reason: Soft WDT - Level1Int (exccause=4)\n[12:00:01][E][esp8266:125]:   PC: 0x40101234\nWARNING Decoded 0x40101234: pm_send_nullfunc at ??:?\n[12:00:01][E][esp8266:126]:   BT0: 0x4020ABCD\nWARNING Decoded 0x4020abcd: loop at x.cpp:3\n[12:00:01][E][esp8266:126]:   BT1: 0x4020ABCE\n",
        [{"type": "reset", "source": "esphome", "code": 3, "number": 4, "registers": 1, "frames": [2]}],
    ),
    "esphome report32": (
        "[E][esp32.crash:123]: *** CRASH DETECTED ON PREVIOUS BOOT ***\n[E][esp32.crash:124]:   Reason: Fault - StoreProhibited\n[E][esp32.crash:124]:   Crashed core: 1\n[E][esp32.crash:125]:   PC:  0x400D1234  (fault location)\n[E][esp32.crash:126]:   BT0: 0x400D1234  (backtrace)\n[E][esp32.crash:126]:   BT1: 0x400D5678  (backtrace)\n",
        [{"type": "reset", "source": "esphome", "code": None, "number": 29, "registers": 1, "frames": [2]}],
    ),
    "tasmota obj": (
        '00:00:00.001 RSL: INFO3 = {"Info3":{"RestartReason":{"Exception":28,"Reason":"Exception","EPC":["4000bf64","00000000","00000000"],"EXCVADDR":"00000007","DEPC":"00000000","CallChain":["4023ce61","40000f49"]}}}',
        [{"type": "reset", "source": "tasmota", "code": 2, "number": 28, "registers": 5, "frames": [2]}],
    ),
    "tasmota text": (
        '12:00:00 RSL: INFO3 = {"Info3":{"RestartReason":"Software/System restart"}}',
        [{"type": "reset", "source": "tasmota", "code": 4, "registers": 0}],
    ),
    "esphome resetreason": (
        "[12:00:00][D][debug:123]: Reset Reason: Software Watchdog",
        [{"type": "reset", "source": "esphome", "code": 3, "registers": 0}],
    ),
    "esplink": (
        "Reset cause: 4=restart\nexccause=0 epc1=0x0 epc2=0x0 epc3=0x0 excvaddr=0x0 depc=0x0\n",
        [{"type": "reset", "source": "esp-link", "code": 4, "registers": 0}],
    ),
    "mongoose": (
        "Trap 28: pc=0x40211d5a va=0x00000003\n",
        [{"type": "crash", "kind": "exception", "number": 28, "registers": 2, "complete": False, "framework": "mongoose-os"}],
    ),
    "nlr": (
        "NLR jump failed, val=3fff0000\n",
        [{"type": "crash", "kind": "panic", "registers": 0, "complete": True, "framework": "micropython"}],
    ),
    "pytrace": (
        'Traceback (most recent call last):\n  File "main.py", line 3, in <module>\nOSError: [Errno 12] ENOMEM\n',
        [],
    ),
    "rtos": (
        "Guru Meditation Error: Core  0 panic'ed (StoreProhibited). Exception was unhandled.\nCore 0 register dump:\nPC      : 0x40210123  PS      : 0x00000033  A0      : 0x40210456  A1      : 0x3ffe1234\nA14     : 0x00000003  A15     : 0x3ffedb48  SAR     : 0x0000001d  EXCCAUSE: 0x0000001d\n\nBacktrace: 0x40210123:0x3ffe1234 0x40210456:0x3ffe1250\n",
        [{"type": "crash", "kind": "exception", "number": 29, "core": 0, "frames": [2], "registers": 8, "complete": False, "framework": "rtos-sdk"}],
    ),
    "rom s3": (
        "ESP-ROM:esp32s3-20210327\nBuild:Mar 27 2021\nrst:0x15 (USB_UART_CHIP_RESET),boot:0x28 (SPI_FAST_FLASH_BOOT)\nSaved PC:0x40378e4d\nSPIWP:0xee\nmode:DIO, clock div:1\nload:0x3fce3808,len:0x44c\nentry 0x403c98c0\n",
        [{"type": "boot", "chip": "esp32s3", "code": 21, "raw": "0x28", "saved_pc": 1}],
    ),
    "rst damaged": (
        "rst:1x10 (RTCWDT_RTC_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\n",
        [{"type": "boot", "chip": "esp32", "code": 16, "raw": "0x13"}],
    ),
    "md boot": (
        "rst:0x1 (POWERON_RESET),**boot:0x13** (SPI_FAST_FLASH_BOOT)\n",
        [{"type": "boot", "chip": "esp32", "code": 1, "raw": "0x13"}],
    ),
    "csum32": (
        "rst:0x10 (RTCWDT_RTC_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\ncsum err:0x9d!=0xff\nets_main.c 384\n",
        [{"type": "boot", "chip": "esp32", "code": 16, "raw": "0x13"}, {"type": "flash-error", "message": "csum err:0x9d!=0xff"}],
    ),
    "basic": (
        "Falling back to built-in command interpreter.\nets_main.c 371\n",
        [{"type": "flash-error", "message": "Falling back to built-in command interpreter"}],
    ),
    "c5": (
        'assertion "result == ETS_OK" failed: file "ets_main.c", line 369, function: ets_flash_boot\n',
        [{"type": "flash-error", "message": 'assertion "result == ETS_OK" failed: file "ets_main.c", line 369, function: ets_flash_boot'}],
    ),
    "old guru": (
        "Guru Meditation Error of type LoadProhibited occurred on core  0. Exception was unhandled.\nRegister dump:\nPC      : 400d1234  PS      : 00060830  A0      : 800d1234  A1      : 3ffb1234\nA2      : 3ffb1234  A3      : 00000001  A4      : 3ffb1234  A5      : 3ffb1234\nEXCVADDR: 00000001  LBEG    : 00000000  LEND    : 00000000  LCOUNT  : 00000000\nRebooting...\n",
        [{"type": "crash", "kind": "exception", "number": 28, "core": 0, "registers": 12, "complete": True, "framework": "esp-idf"}],
    ),
    "noreason": (
        "Guru Meditation Error: Core  0 panic'ed.\nRegister dump:\nPC      : 0x400d1234\n",
        [{"type": "crash", "kind": "panic", "core": 0, "registers": 1, "complete": False, "framework": "esp-idf"}],
    ),
    "double": (
        "Guru Meditation Error: Core  1 panic'ed (Double exception)\nCore 1 register dump:\nPC      : 0x400d1234  PS      : 0x00060830\n",
        [{"type": "crash", "kind": "panic", "number": None, "core": 1, "registers": 2, "complete": False, "framework": "esp-idf"}],
    ),
    "illegal mem": (
        "Guru Meditation Error: Core  1 panic'ed (IllegalInstruction). Exception was unhandled.\nMemory dump at 0x400d1234: bad00bad bad00bad bad00bad\nCore 1 register dump:\nPC      : 0x400d1236  PS      : 0x00060830  A0      : 0x800d1234  A1      : 0x3ffb1234\n\nBacktrace:0x400d1236:0x3ffb12340x400d1234:0x3ffb1250\n",
        [{"type": "crash", "kind": "exception", "number": 0, "core": 1, "frames": [2], "registers": 4, "complete": False, "framework": "esp-idf"}],
    ),
    "stackprot": (
        'Guru Meditation Error: Core  0 panic\'ed (Stack protection fault). \n\nDetected in task "main" at 0x42008a7e\nStack pointer: 0x3fc8f7c0\nStack bounds: 0x3fc8f7e0 - 0x3fc907d0\n\n\nCore  0 register dump:\nMEPC    : 0x42008a7e  RA      : 0x42008a7e  SP      : 0x3fc8f7c0  GP      : 0x3fc8b400\n\nStack memory:\n3fc8f7c0: 0x00000000 0x00000000 0x00000000 0x00000000 0x00000000 0x00000000 0x00000000 0x42008a7e\n\nELF file SHA256: 1234567890abcdef\n\nRebooting...\n',
        [{"type": "crash", "kind": "stack-overflow", "core": 0, "task": "main", "words": [1], "registers": 4, "complete": True, "framework": "esp-idf"}],
    ),
    "intwdt2": (
        "Guru Meditation Error: Core  0 panic'ed (Interrupt wdt timeout on CPU0). \n\nCore  0 register dump:\nPC      : 0x400d1234  PS      : 0x00060830  A0      : 0x800d1234  A1      : 0x3ffb1234\nCore  0 was running in ISR context:\nEPC1    : 0x400d1111  EPC2    : 0x00000000  EPC3    : 0x00000000  EPC4    : 0x00000000\n\nBacktrace: 0x400d1234:0x3ffb1234 0x400d1235:0x3ffb1254\n\n\nCore  1 register dump:\nPC      : 0x400d9999  PS      : 0x00060830  A0      : 0x800d1234  A1      : 0x3ffb1234\n\nBacktrace: 0x400d9999:0x3ffb1234 0x400d1235:0x3ffb1254\n\nELF file SHA256: 12345678\n\nRebooting...\n",
        [{"type": "crash", "kind": "watchdog", "core": 0, "frames": [2, 2], "registers": 8, "complete": True, "framework": "esp-idf"}],
    ),
    "assert new": (
        "\nassert failed: xQueueSemaphoreTake queue.c:1545 (( pxQueue ))\n\n\nBacktrace: 0x400d1234:0x3ffb1234 0x400d1235:0x3ffb1254\n",
        [
            {
                "type": "crash",
                "kind": "assert",
                "frames": [2],
                "place": "queue.c:1545:xQueueSemaphoreTake",
                "registers": 0,
                "complete": False,
                "framework": "esp-idf",
            }
        ],
    ),
    "assert newlib": (
        'assertion "heap != NULL && \\"free() target pointer is outside heap areas\\"" failed: file "/home/x/heap_caps.c", line 268, function: heap_caps_free\nabort() was called at PC 0x400d1234 on core 1\n\nBacktrace: 0x400d1234:0x3ffb1234 0x400d1235:0x3ffb1254\n',
        [
            {
                "type": "crash",
                "kind": "assert",
                "core": 1,
                "frames": [2],
                "place": "/home/x/heap_caps.c:268:heap_caps_free",
                "registers": 1,
                "complete": False,
                "framework": "esp-idf",
            }
        ],
    ),
    "freertos": (
        "/home/x/freertos/queue.c:1442 (xQueueGenericReceive)- assert failed!\nabort() was called at PC 0x400d1234 on core 1\nBacktrace: 0x400d1234:0x3ffb1234\n",
        [
            {
                "type": "crash",
                "kind": "assert",
                "core": 1,
                "frames": [1],
                "place": "/home/x/freertos/queue.c:1442:xQueueGenericReceive",
                "registers": 1,
                "complete": False,
                "framework": "esp-idf",
            }
        ],
    ),
    "ovf": (
        "***ERROR*** A stack overflow in task loopTask has been detected.\nabort() was called at PC 0x400d1234 on core 1\nBacktrace: 0x400d1234:0x3ffb1234\n",
        [{"type": "crash", "kind": "stack-overflow", "core": 1, "task": "loopTask", "frames": [1], "registers": 1, "complete": False, "framework": "esp-idf"}],
    ),
    "twdt abort": (
        "E (10278) task_wdt: Task watchdog got triggered. The following tasks/users did not reset the watchdog in time:\nE (10278) task_wdt:  - IDLE0 (CPU 0)\nE (10278) task_wdt: Tasks currently running:\nE (10278) task_wdt: CPU 0: main\nE (10278) task_wdt: CPU 1: IDLE1\nE (10278) task_wdt: Aborting.\nE (10278) task_wdt: Print CPU 0 (current core) backtrace\nBacktrace: 0x400d1234:0x3ffb1234 0x400d1235:0x3ffb1254\n",
        [{"type": "crash", "kind": "watchdog", "task": "IDLE0", "frames": [2], "registers": 0, "complete": False, "framework": "esp-idf"}],
    ),
    "smash32": (
        "\nStack smashing protect failure!\n\nabort() was called at PC 0x400d1234 on core 0\n\nBacktrace: 0x400d1234:0x3ffb1234\n",
        [{"type": "crash", "kind": "stack-smashing", "core": 0, "frames": [1], "registers": 1, "complete": False, "framework": "esp-idf"}],
    ),
    "errcheck": (
        'ESP_ERROR_CHECK failed: esp_err_t 0x105 (ESP_ERR_NOT_FOUND) at 0x400d1234\nfile: "./main/app.c" line 42\nfunc: app_main\nexpression: nvs_open()\n\nabort() was called at PC 0x400d1237 on core 0\n\nBacktrace: 0x400d1234:0x3ffb1234\n',
        [
            {
                "type": "crash",
                "kind": "abort",
                "core": 0,
                "frames": [1],
                "place": "./main/app.c:42:app_main",
                "registers": 1,
                "complete": False,
                "framework": "esp-idf",
            }
        ],
    ),
    "terminate": (
        "terminate called after throwing an instance of 'std::out_of_range'\n  what():  vector::_M_range_check\n\nabort() was called at PC 0x400d1234 on core 1\nBacktrace: 0x400d1234:0x3ffb1234\n",
        [{"type": "crash", "kind": "unhandled-exception", "core": 1, "frames": [1], "registers": 1, "complete": False, "framework": "esp-idf"}],
    ),
    "coredump": (
        "================= CORE DUMP START =================\npOwdjRzoK1/xFTvY\nJUDzu93D99nZHbIs\n================= CORE DUMP END ===================\nRebooting...\n",
        [{"type": "core-dump", "format": "base64", "complete": True}],
    ),
    "ccore": (
        "I (1) esp_core_dump_flash: Save core dump to flash...\n",
        [{"type": "core-dump", "format": "flash", "complete": True}],
    ),
    "hosts": (
        "A fatal error occurred: Failed to connect to ESP32: Wrong boot mode detected (0x13)! The chip needs to be in download mode.\n",
        [{"type": "host-error", "message": "Failed to connect to ESP32: Wrong boot mode detected (0x13)! The chip needs to be in download mode."}],
    ),
    "host2": (
        "serial.serialutil.SerialException: [Errno 16] could not open port /dev/ttyUSB0: [Errno 16] Device or resource busy: '/dev/ttyUSB0'\n",
        [{"type": "host-error", "message": "SerialException: [Errno 16] could not open port /dev/ttyUSB0: [Errno 16] Device or resource busy: '/dev/ttyUSB0"}],
    ),
    "thonny": (
        "Unable to connect to COM3: could not open port 'COM3': PermissionError(13, 'Access is denied.', None, 5)\n",
        [{"type": "host-error", "message": "Unable to connect to COM3: could not open port 'COM3': PermissionError(13, 'Access is denied.', None, 5)"}],
    ),
    "rfcal": (
        "rf_cal[0] !=0x05,is 0xFF\n",
        [{"type": "flash-error", "message": "rf_cal[0] !=0x05,is 0xFF"}],
    ),
    "nobootable": (
        "E (88) boot: No bootable app partitions in the partition table\n",
        [{"type": "flash-error", "message": "No bootable app partitions in the partition table"}],
    ),
    "loop": (
        " ets Jan  8 2013,rst cause:4, boot mode:(3,6)\n\nwdt reset\nload 0x40100000, len 1, room 1\n ets Jan  8 2013,rst cause:4, boot mode:(3,6)\n\nwdt reset\nload 0x40100000, len 1, room 1\n ets Jan  8 2013,rst cause:4, boot mode:(3,6)\n\nwdt reset\nload 0x40100000, len 1, room 1\n",
        [
            {"type": "boot", "chip": "esp8266", "code": 4, "raw": "3,6"},
            {"type": "boot", "chip": "esp8266", "code": 4, "raw": "3,6"},
            {"type": "boot-loop", "boots": 2},
            {"type": "boot", "chip": "esp8266", "code": 4, "raw": "3,6"},
            {"type": "boot-loop", "boots": 3},
        ],
    ),
    "at": (
        "AT+GMR\r\n0018000902\r\nOK\r\n+CIPUPDATE:1\r\n",
        [{"type": "firmware"}, {"type": "progress"}],
    ),
    "phGuru": (
        "phGuru Meditation Error: Core  1 panic'ed (LoadProhibited). Exception was unhandled.\n",
        [{"type": "crash", "kind": "exception", "number": 28, "core": 1, "registers": 0, "complete": False, "framework": "esp-idf"}],
    ),
    "uruonly": (
        "uru Meditation Error: Core  1 panic'ed (LoadProhibited). Exception was unhandled.\n",
        [{"type": "crash", "kind": "exception", "number": 28, "core": 1, "registers": 0, "complete": False, "framework": "esp-idf"}],
    ),
    "GGuru": (
        "GGuru Meditation Error: Core 1 panic'ed (Cache disabled but cached memory region accessed)\n",
        [{"type": "crash", "kind": "cache-error", "core": 1, "registers": 0, "complete": False, "framework": "esp-idf"}],
    ),
    "quoted ’": (
        "Guru Meditation Error: Core  1 panic’ed (LoadProhibited). Exception was unhandled.\n",
        [{"type": "crash", "kind": "exception", "number": 28, "core": 1, "registers": 0, "complete": False, "framework": "esp-idf"}],
    ),
}

QUIET = {
    "boot mode in a sentence": "I often see boot mode:(1,7) there, and sometimes (3,6).\n",
    "linux oops": "[   12.345678] Unable to handle kernel NULL pointer dereference at virtual address 00000000\n[   12.345679] pgd = c0004000\n[   12.345680] Internal error: Oops: 5 [#1] PREEMPT SMP ARM\n[   12.345681] PC is at foo_probe+0x1c/0x100\n[   12.345682] LR is at bar+0x10/0x20\n[   12.345683] pc : [<c0301234>]    lr : [<c0304567>]    psr: 60000013\n[   12.345684] sp : ee0a1e50  ip : 00000000  fp : c0a05c6c\n[   12.345685] r10: 00000000  r9 : c0a05c6c  r8 : 00000000\n[   12.345686] Backtrace: \n[   12.345687] [<c0301234>] (foo_probe) from [<c0304567>] (bar+0x10/0x20)\n[   12.345688] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b\n[   12.345689] Rebooting in 5 seconds..\n",
    "kernel hung": "watchdog: BUG: soft lockup - CPU#0 stuck for 22s!\nCall Trace:\n",
    "mbed": "++ MbedOS Fault Handler ++\nFaultType: HardFault\nContext:\nR   0: 20000000\nR   1: 0\nPC   : 0x08001234\nSP   : 0x20001234\nPC       : 0x08001234  PSR     : 0x61000000  R0 : 0x00000000 LR : 0x08001234\n-- MbedOS Fault Handler --\n",
    "gdb": "pc             0x4009903f          0x4009903f <xPort+67>\na0             0x800d1234\nexccause       0x1c  28\nexcvaddr       0x0\n",
    "code": 'void crash() { Serial.println("Exception (28):"); printf("epc1=0x%08x epc2=0x%08x", 1, 2); }\nif (strstr(line, ">>>stack>>>")) inStack = true;\n// Guru Meditation Error: Core 0 panic\'ed (LoadProhibited) is printed here\nregex = r"Backtrace: ?((0x[0-9a-f]{8}:0x[0-9a-f]{8} ?)+)"\nabort() was called at PC 0x%08x on core %d\nassert(ptr != NULL);\n',
    "prose": 'When the ESP crashes it prints Exception (28) and then the stack. The line Fatal exception (9) means alignment.\nYou get a Guru Meditation Error: Core 1 panic\'ed (LoadProhibited) because the pointer is null.\nIt says abort() was called at PC and then Backtrace: with addresses, then Rebooting...\nSoft WDT reset happens when you block, see rst cause:4, boot mode: 3,6 in the manual.\nThe Brownout detector was triggered message means that the supply is weak.\ninvalid header usually means wrong offset. ets_main.c 371 follows.\nSometimes "waiting for download" shows up.\nCORRUPT HEAP is bad. Stack smashing detected too.\n',
    "wifi log": "I (1234) wifi:state: run -> init (8a0)\nreason: 201\nrst:0 reason=8 del if0\nI (500) app: restart reason 3, hex 0x40081234 0x3ffb1234\nbcn 0 del if1 mode : sta(02:00:00:00:00:00)\n",
    "heap": "Heap summary for capabilities 0x00001800:\n  At 0x3ffae6e0 len 6432 free 64 allocated 6268 min_free 64\n    largest_free_block 64 alloc_blocks 20 free_blocks 1 total_blocks 21\n",
    "usb saved pc": "rst:0x15 (USB_UART_CHIP_RESET),boot:0x8 (SPI_FAST_FLASH_BOOT)\nSaved PC:0x40380a3a\n--- 0x40380a3a: esp_cpu_wait_for_intr at /x/cpu.c:64\nSPIWP:0xee\n",
    "arm hardfault": "Hard fault detected\nR0 : 0x00000000  R1 : 0x20000000  R2 : 0x00000001 R3 : 0x0\nPC : 0x08001234  LR : 0x08001233\n",
    "riot": "*** RIOT kernel panic:\nFAILED ASSERTION.\n*** rebooting...\n",
    "py": 'Traceback (most recent call last):\n  File "x.py", line 1\nMemoryError: memory allocation failed, allocating 1024 bytes\n',
    "js": "panic mode: off; Panic button pressed; Exception in thread main; Unhandled exception: foo\nassertion failed: x > 3 at foo.rs:33\nthread 'main' panicked at 'boom', src/main.rs:3:5\n",
    "java": 'Exception in thread "main" java.lang.NullPointerException (1): foo\n',
    "hostassert": 'assertion "ptr" failed: file "/usr/src/foo.c", line 12, function: main\nAborted (core dumped)\n',
    "bt": "Backtrace: the last ten commits\n Backtrace:\n  #0 main () at foo.c:3\n",
    "cert": "30:82:03:5f:30:82\n3ffe1234: 00 11 22 33\n00000010:  45464748 45464748 45464748 45464748\n",
    "sdk": "load 0x40100000, len 1396, room 16\ntail 4\nchksum 0x89\ncsum 0x89\nready\n",
    "resetprose": "Reset reason: unknown to me\nlast reset was ok\n",
    "hexdump": "3fff0000: 40201234 40205678 00000000 00000000\n3fff0010: 40201234 40205678 00000000 00000000\n",
    "rust on a host": "thread 'main' panicked at 'src/main.rs:3:5'\nstack backtrace:\n   0: 0x42001234 - main\n",
    "rebooting": "OTA done.\nRebooting...\nrst:0xc (SW_CPU_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\n",
    "sha normal": "I (178) cpu_start: ELF file SHA256:  037961166...\nI (180) x: y\n",
    "sha bare": "ELF file SHA256:  037961166abcdef0\nproject hello\n",
    "panic word": "Panic button 3 pressed\nDon't Panic (yet)\nKernel panic'ed (maybe)\n",
}


@pytest.mark.parametrize("name", FORMS)
def test_form(name: str) -> None:
    text, wanted = FORMS[name]
    assert [brief(e) for e in said(text)] == wanted


@pytest.mark.parametrize("name", FORMS)
def test_form_byte_by_byte_and_with_more_behind_it(name: str) -> None:
    text, _ = FORMS[name]
    decoder = Decoder()
    single = [e for byte in text.encode() for e in decoder.feed(bytes([byte]))] + decoder.close()
    assert [brief(e) for e in single if not isinstance(e, Text)] == [brief(e) for e in said(text)]
    more = [brief(e) for e in said(text + "\n" + "all is well\n" * 60)]
    for was, now in zip([brief(e) for e in said(text)], more, strict=True):
        assert {**was, "complete": None} == {**now, "complete": None}


WITH_BOOT = ("usb saved pc", "rebooting")


@pytest.mark.parametrize("name", QUIET)
def test_no_crash_in(name: str) -> None:
    assert [e for e in said(QUIET[name]) if isinstance(e, (Crash, Reset, FlashError, DownloadMode, Brownout, BootLoop))] == []
    assert name in WITH_BOOT or not [e for e in said(QUIET[name]) if isinstance(e, Boot)]


@pytest.mark.parametrize("name", FORMS)
def test_crashes_are_explained(name: str) -> None:
    for event in said(FORMS[name][0]):
        if isinstance(event, Crash):
            assert event.explanation
            assert event.explanation.endswith(".")
            assert event.remedies
            assert event.fingerprint
