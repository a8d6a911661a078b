"""Forms found in the field that neither the corpus nor the description of the formats shows: other systems' fatal
reports on these chips, and what filters and terminals add to the usual ones. All text here is made up."""

from __future__ import annotations

import pytest

from espmon.decode import Decoder
from espmon.events import Boot, Crash, Event, FlashError, HostError, Reset, Text


def said(text: str, *, step: int | None = None) -> list[Event]:
    decoder, raw, out = Decoder(), text.encode(), []
    for i in range(0, len(raw), step or max(1, len(raw))):
        out += decoder.feed(raw[i : i + (step or len(raw))])
    return [e for e in out + decoder.close() if not isinstance(e, Text)]


def crash(text: str) -> Crash:
    """The only event of `text`, which doesn't depend on how it was cut."""
    events = said(text)
    assert events == said(text, step=1)
    assert len(events) == 1, events
    assert isinstance(events[0], Crash)
    return events[0]


SMING = """\
***** Fatal exception 28 (LOAD_PROHIBITED)
pc=0x4021c016 sp=0x3ffffa70 excvaddr=0x00000004
ps=0x00000030 sar=0x00000020 vpri=0x00000000
r00: 0x4021c013=1075953683 r01: 0x3ffffa70=1073740400 r02: 0x00000000=         0
r03: 0x0000010f=       271 r04: 0x00000001=         1 r05: 0xffffffff=        -1

To decode the stack dump call from command line:
   python tools/decode-stacktrace.py app.out
and copy & paste the text enclosed in '===='.
================================================================
3ffffa70:  3fff1ea8 00000000 3ffed7d4 4021c013
3ffffa80:  3fff1468 00000000 3ffed7d4 40211fee
================================================================
"""

ZEPHYR = """\
<err> os:  ** FATAL EXCEPTION
<err> os:  ** CPU 1 EXCCAUSE 28 (load prohibited)
<err> os:  **  PC 0x40050c54 VADDR 0x4
<err> os:  **  PS 0x60120
<err> os:  **    (INTLEVEL:0 EXCM: 0 UM:1 RING:0 WOE:1 OWB:1 CALLINC:2)
<err> os:  **  A0 0x8003316e  SP 0x3fca28b0  A2 0x40  A3 0
<err> os:  ** A12 0x14 A13 0xf6a A14 0x7fff A15 0x1057
<err> os:  ** LBEG 0x40056fc5 LEND 0x40056fe7 LCOUNT 0
<err> os:  **  THREADPTR 0

Backtrace:0x40050c51:0x3fca28b0 0x4003316b:0x3fca28d0

<err> os: >>> ZEPHYR FATAL ERROR 0: CPU exception on CPU 1
<err> os: Current thread: 0x3fcbfc20 (wifi)
<err> os: Halting system
"""

NUTTX = """\
[CPU0] xtensa_user_panic: User Exception: EXCCAUSE=001d task: nsh_main
[CPU0] dump_assert_info: Current Version: NuttX  10.4.0 14062e8e38-dirty Feb  7 2025 16:05:13 xtensa
[CPU0] dump_assert_info: Assertion failed user panic: at file: common/xtensa_assert.c:190 task(CPU0): nsh_main
[CPU0] up_dump_register:    PC: 40378c96    PS: 00060830
[CPU0] up_dump_register:    A0: 8004cbf5    A1: 3fcb2210    A2: 00000000    A3: 00000064
[CPU0] up_dump_register:   SAR: 00000020 CAUSE: 0000001d VADDR: 00000000
"""

TASK_STACK = """\
Task stack [tiT] stack from [0x3fff2bfc] to [0x3fff3bf8], total [4096] size

                   0          4          8          c         10         14         18         1c

3fff3ac0  0x3ffefa5c 0x401003e1 0x00000030 0x4010042c 0x3fff3b20 0x00000000 0x3ffefa5c 0x40234649
0x401003e1: vPortExitCritical at /lab/port.c:368

3fff3b00  0xffffffff 0x00000000 0x3fff3bd0 0x00000000 0x00000000 0x3ffef834 0x3ffefa5c 0x4023a461


      PC: 0x40106666        PS: 0x00000031        A0: 0x4023a461        A1: 0x3fff3ac0
      A2: 0x00000000        A3: 0x00000000        A4: 0x3ffe7fc0        A5: 0x00000000
"""


def test_sming() -> None:
    c = crash(SMING)
    assert (c.kind, c.framework, c.chip) == ("exception", "sming", "esp8266")
    assert c.exception is not None
    assert c.exception.number == 28
    assert (str(c.registers["pc"]), str(c.registers["excvaddr"]), str(c.registers["r05"])) == ("0x4021c016", "0x00000004", "0xffffffff")
    assert [str(w) for s in c.stacks for w in s.code_words] == ["0x4021c013", "0x40211fee"]


def test_sming_without_a_name() -> None:
    c = crash("> ***** Fatal exception 9\n> pc=0x40240b92 sp=0x3ffffc10 excvaddr=0x00000069\n")
    assert c.exception is not None
    assert c.exception.number == 9
    assert len(c.registers) == 3


def test_zephyr_on_xtensa() -> None:
    c = crash(ZEPHYR)
    assert (c.kind, c.framework, c.core, c.task, c.complete) == ("exception", "zephyr", 1, "wifi", True)
    assert c.exception is not None
    assert c.exception.number == 28
    assert {str(c.registers[k]) for k in ("pc", "vaddr", "sp", "a3", "a15")} == {"0x40050c54", "0x00000004", "0x3fca28b0", "0x00000000", "0x00001057"}
    assert [str(f.pc) for b in c.backtraces for f in b] == ["0x40050c51", "0x4003316b"]


def test_nuttx_on_xtensa() -> None:
    c = crash(NUTTX)
    assert (c.kind, c.framework, c.task) == ("exception", "nuttx", "nsh_main")
    assert c.exception is not None
    assert c.exception.number == 29
    assert str(c.registers["pc"]) == "0x40378c96"
    assert len(c.registers) == 9


def test_nuttx_on_riscv() -> None:
    c = crash("riscv_exception: EXCEPTION: Load access fault. MCAUSE: 00000005, EPC: 420082ae, MTVAL: 00000010\nriscv_exception: PANIC!!! Exception = 00000005\nup_dump_register: EPC: 420082ae\nup_dump_register: A0: 00000000 A1: 0000000a\n")
    assert c.exception is not None
    assert (c.exception.number, c.exception.name) == (5, "Load access fault")
    assert {k: str(v) for k, v in c.registers.items()} == {"epc": "0x420082ae", "mtval": "0x00000010", "a0": "0x00000000", "a1": "0x0000000a"}


def test_rtos_sdk_of_the_esp8266_prints_a_whole_task_stack() -> None:
    c = crash(TASK_STACK)
    assert (c.framework, c.chip, c.task) == ("rtos-sdk", "esp8266", "tiT")
    assert str(c.registers["pc"]) == "0x40106666"
    assert [str(w) for s in c.stacks for w in s.code_words] == ["0x401003e1", "0x4010042c", "0x40234649", "0x4023a461"]


def test_esp_open_rtos_prints_one_register_per_line() -> None:
    c = crash("Fatal exception (9):.\nepc1=0x40226a5c\nepc2=0x00000000\nepc3=0x40101367\nexcvaddr=0x00000017\ndepc=0x00000000\nexcsave1=0x40226ad4\n")
    assert len(c.registers) == 6
    assert c.complete


def test_frames_that_a_filter_repeats_are_no_frames_of_the_backtrace() -> None:
    c = crash("abort() was called at PC 0x400f63d4 on core 1\n\nBacktrace:0x40083e1d:0x3ffb25500x4008edc5:0x3ffb2570 0x40094521:0x3ffb2590\n  #0  0x40083e1d:0x3ffb25500 in panic_abort at /lab/panic.c:402\n  #1  0x4008edc5:0x3ffb2570 in esp_system_abort at /lab/esp_system.c:128\n")
    assert [str(f.pc) for b in c.backtraces for f in b] == ["0x40083e1d", "0x4008edc5", "0x40094521"]
    c = crash("Exception (0):\nepc1=0x402150d0 epc2=0x00000000 epc3=0x00000000 excvaddr=0x00000000 depc=0x00000000\n\nIllegal instruction\n  epc1=0x402150d0 in Queue::available() const at ??:?\n\n>>>stack>>>\n\nctx: sys\nsp: 3ffffbc0 end: 3fffffb0 offset: 0190\n3ffffd50:  401030b3 3ffecfe0 3ffecfb8 056e5a89\n<<<stack<<<\n")
    assert len(c.registers) == 5
    assert c.complete


def test_windows_paths_hold_spaces() -> None:
    c = crash("Panic C:\\Program Files (x86)\\Arduino\\hardware\\esp8266com\\esp8266\\cores\\esp8266\\core_esp8266_main.cpp:103 __yield\n\nctx: sys \nsp: 3fffeca0 end: 3fffffb0 offset: 01b0\n\n>>>stack>>>\n3fffee50:  40235926 00000008 3fff26f0 4021ff6c  \n<<<stack<<<\n")
    assert c.location is not None
    assert (c.location.line, c.location.function) == (103, "__yield")
    assert str(c.location.file).endswith("esp8266com\\esp8266\\cores\\esp8266\\core_esp8266_main.cpp")
    assert c.stacks[0].context == "sys"
    c = crash("assert failed: xQueueSemaphoreTake C:/Users/Ann Lab/idf/queue.c:1545 (( pxQueue ))\n\nBacktrace:0x40083e1d:0x3ffb2550 0x4008edc5:0x3ffb2570\n")
    assert c.location is not None
    assert (c.location.file, c.location.function) == ("C:/Users/Ann Lab/idf/queue.c", "xQueueSemaphoreTake")


def test_lua_error_over_two_lines() -> None:
    c = crash("E:M 520\nPANIC: unprotected error in call to Lua API (error loading module 'app' from file 'app.lua':\n\tnot enough memory)\n\nok\n")
    assert c.message == "error loading module 'app' from file 'app.lua': not enough memory"


def test_tasmota_gives_the_reset_report_as_its_reason() -> None:
    for quote in ('"', "\u201c"):
        (e,) = said(f"00:00:03 RSL: INFO3 = {{{quote}RestartReason{quote}:{quote}Fatal exception:28 flag:2 (EXCEPTION) epc1:0x40204513 epc2:0x00000000 epc3:0x00000000 excvaddr:0x00000298 depc:0x00000000{quote}}}\n")
        assert isinstance(e, Reset)
        assert e.source == "tasmota"
        assert e.exception is not None
        assert e.exception.number == 28
        assert str(e.registers["epc1"]) == "0x40204513"
        assert len(e.registers) == 5


@pytest.mark.parametrize(
    "text",
    [
        "invalid header: Oxffffffff\n",
        "rst:0x10 (RTCWDT_RTC_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\nload:0x928b2121,len:-1725455839\n",
        "jump to run user2 @ 81000\n\nerror magic!\nbackup boot failed.\n",
        "E (143576) esp_image: Secure boot signature verification failed\n",
    ],
)
def test_flash_errors(text: str) -> None:
    assert [type(e) for e in said(text) if isinstance(e, FlashError)] == [FlashError]


def test_oldest_esptool() -> None:
    (e,) = said("Connecting...\nTraceback (most recent call last):\n    raise Exception('Failed to connect')\nException: Failed to connect\n")
    assert isinstance(e, HostError)


@pytest.mark.parametrize(
    "text",
    [
        # a hex dump whose rows look like those of a task's stack
        "heap blocks:\n3fff2a68  a5a5a5a5 a5a5a5a5 a5a5a5a5 40226a5c a5a5a5a5 a5a5a5a5 a5a5a5a5 40226a5c\n",
        # another CPU's fault report
        "++ MbedOS Fault Handler ++\nFaultType: HardFault\nContext:\nR0   : 00000001\nSP   : 20002F18\nLR   : 00001893\nPC   : 00001874\nxPSR : 61070000\n",
        # a debugger
        "Info : esp32.cpu1: Target halted, PC=0x40000400, debug_reason=00000000\n(0) pc (/32): 0x40000400\n(1) ar0 (/32): 0x00000000\n",
        "exccause       0x1d (StoreProhibitedCause)\nexcvaddr       0x0\nepc1           0x40084b1f\npc             0x400d4a6e          0x400d4a6e <app_main+30>\n#0  0x400d4a6e in app_main () at main.c:30\n",
        # a register line of something else
        "cpu: pc=0x40240b92 sp=0x3ffffc10 idle\nr00: 0x00000001=1\n",
    ],
)
def test_no_crash(text: str) -> None:
    assert said(text) == []


def test_esp_hal() -> None:
    c = crash("!! A panic occured in 'src/main.rs', at line 25, column 9\n\nPanicInfo {\n    message: Some(\n        none,\n    ),\n}\n\nBacktrace:\n\n0x420019aa\n0x420019aa - demo::main\n    at /lab/src/main.rs:25\n0x42001a1c\n")
    assert (c.kind, c.framework) == ("panic", "esp-hal")
    assert c.location is not None
    assert (c.location.file, c.location.line) == ("src/main.rs", 25)
    assert [str(f.pc) for b in c.backtraces for f in b] == ["0x420019aa", "0x42001a1c"]
    c = crash("5.9 [ERROR] panicked at 'Exception 'Load access fault' mepc=420ef8e0, mtval=ffd0000f\n5.9 [ERROR] ====================== PANIC ====================== (esp_backtrace esp-backtrace/src/lib.rs:70)\n5.9 [ERROR] panicked at src/main.rs:43:5 (esp_backtrace esp-backtrace/src/lib.rs:70)\n5.9 [ERROR] Backtrace: (esp_backtrace esp-backtrace/src/lib.rs:70)\n")
    assert c.exception is not None
    assert c.exception.number == 5
    assert {k: str(v) for k, v in c.registers.items()} == {"mepc": "0x420ef8e0", "mtval": "0xffd0000f"}


def test_panic_that_lost_its_core() -> None:
    c = crash("Guru Meditation Error: Core  panic'ed (Interrupt wdt timeout on CPU0)\nCore 0 register dump:\nPC       0x4013bf  PS       0x00060a4\nRebooting...\n")
    assert (c.kind, c.core, dict(c.registers)) == ("watchdog", 0, {})


def test_panic_of_2016() -> None:
    c = crash("Guru Meditation Error of type LoadProhibited occured on core   0. Exception was unhandled.\nRegister dump:\nPC      :  40083842  PS      :  00060033  A0      :  80083a65  A1      :  3ffe3a70  \n")
    assert c.exception is not None
    assert c.exception.number == 28
    assert str(c.registers["pc"]) == "0x40083842"


def test_task_name_of_two_words() -> None:
    c = crash("***ERROR*** A stack overflow in task BLE Scan has been detected.\nabort() was called at PC 0x4008f8fc on core 1\n")
    assert (c.kind, c.task) == ("stack-overflow", "BLE Scan")


def test_memory_protection_between_reason_and_registers() -> None:
    pmp = "".join(f"PMPCFG {i}: 8b808f8{i}\n" for i in range(4)) + "".join(f"PMPADDR{i:2}: 100e00{i:02}\n" for i in range(16))
    c = crash(f"Guru Meditation Error: Core  0 panic'ed (Instruction access fault). Exception was unhandled.\n\n{pmp}Core  0 register dump:\nMEPC    : 0x3fcbcf44  RA      : 0x420552ac  SP      : 0x3fcbb410  GP      : 0x3fcac2f8\n")
    assert str(c.registers["mepc"]) == "0x3fcbcf44"


def test_the_end_of_a_dump_alone() -> None:
    c = crash("<<<stack<<<\n\nlast failed alloc call: 40211AE3(320)\n\n--------------- CUT HERE FOR EXCEPTION DECODER ---------------\n\nlast failed alloc caller: 0x40211ae3\n")
    assert c.last_failed_alloc is not None
    assert (str(c.last_failed_alloc.caller), c.last_failed_alloc.size, c.complete) == ("0x40211ae3", 320, False)


def test_older_espurna() -> None:
    (e,) = said("crash\n[035801] [DEBUG] Crash at 305254 ms\n[035802] [DEBUG] Reason of restart: 2\n[035802] [DEBUG] Exception cause: 3\n[035802] [DEBUG] epc1=0x4022a926 epc2=0x00000000 epc3=0x00000000\n[035805] [DEBUG] excvaddr=0x40025d99 depc=0x00000000\n")
    assert isinstance(e, Reset)
    assert e.exception is not None
    assert (e.exception.number, len(e.registers)) == (3, 5)


@pytest.mark.parametrize(
    "text",
    [
        "error: Failed to open COM7\n",
        "Failed to initialize. Try resetting your device or holding the BOOT button while selecting your serial port.\n",
        "Connecting...Error: Failed to execute 'setSignals' on 'SerialPort': Failed to set control signals.\n",
    ],
)
def test_flashers(text: str) -> None:
    assert [type(e) for e in said(text)] == [HostError]


def test_loader_refuses_an_image() -> None:
    assert [type(e) for e in said("Invalid image block, can't boot.\nets_main.c 329 \n")] == [FlashError]


def test_names_of_causes_are_no_crash() -> None:
    assert said("Rst cause No.\nCause\n2\nExternal reset or wake-up from Deep-sleep\n4\nHardware WDT reset\n") == []


@pytest.mark.parametrize(
    "text",
    [
        'MQT: stat/lab/STATUS12 = {\n  "StatusSTK":{\n    "Exception":29,\n    "Reason":"Exception",\n    "EPC":["4025abbd","00000000","00000000"],\n    "EXCVADDR":"00000010",\n    "DEPC":"00000000",\n    "CallChain":["402485ed","40248929","402489ae"]\n  }\n}\n',
        '{\n  "Info3": {\n    "RestartReason": {\n      "Exception": 29,\n      "Reason": "Exception",\n      "EPC": [\n        "4025abbd",\n        "00000000",\n        "00000000"\n      ],\n      "EXCVADDR": "00000010",\n      "DEPC": "00000000",\n      "CallChain": [\n        "402485ed",\n        "40248929",\n        "402489ae"\n      ]\n    }\n  }\n}\n',
    ],
)
def test_tasmota_report_on_several_lines(text: str) -> None:
    (e,) = said(text)
    assert isinstance(e, Reset)
    assert e.exception is not None
    assert e.exception.number == 29
    assert {k: str(v) for k, v in e.registers.items()} == {"epc1": "0x4025abbd", "epc2": "0x00000000", "epc3": "0x00000000", "excvaddr": "0x00000010", "depc": "0x00000000"}
    assert [str(f.pc) for b in e.backtraces for f in b] == ["0x402485ed", "0x40248929", "0x402489ae"]


def test_failed_check_without_its_abort() -> None:
    c = crash("ESP_ERROR_CHECK failed: esp_err_t 0x101 (ESP_ERR_NO_MEM) at 0x4008de58\n")
    assert c.kind == "abort"
    assert said("ESP_ERROR_CHECK_WITHOUT_ABORT failed: esp_err_t 0x101 (ESP_ERR_NO_MEM) at 0x4008de58\n") == []


def test_sentences_that_quote() -> None:
    assert said("Exception (28) means LoadProhibited. If you see epc1=0x00000000 then a null function was called.\n") == []
    assert said("The rst cause:2, boot mode:(3,6) line is normal.\n") == []
    assert len(said("device says Exception (28): epc1=0x402016b2 epc2=0x00000000 epc3=0x00000000 excvaddr=0x00000000 depc=0x00000000\n")) == 1
    assert len(said("booting module rst cause:4, boot mode:(3,6) wdt reset load 0x4010f000\n")) == 1


def test_build_tools_say_that_an_upload_failed() -> None:
    assert [type(e) for e in said("StopIteration\n*** [upload] Error 1\n")] == [HostError]
    assert [type(e) for e in said("Failed uploading: uploading error: exit status 2\n")] == [HostError]
    assert said("make: *** [all] Error 2\n") == []


def only(text: str, kind: type[Event] = Reset) -> Event:
    """The only event of `text`, however it is cut."""
    events = said(text)
    assert events == said(text, step=1)
    assert [type(e) for e in events] == [kind], events
    return events[0]


def code_words(c: Crash | Reset) -> list[str]:
    return [str(w) for s in c.stacks for w in s.code_words]


def test_esp_open_rtos_registers_and_stack() -> None:
    c = crash(
        "Fatal exception (29): \nepc1=0x40208dd0\nepc2=0x00000000\nepc3=0x40227b3c\nexcvaddr=0x00000000\ndepc=0x00000000\nexcsave1=0x40208dd0\nRegisters:\n"
        "a0 40208dd0 a1 3fff5760 a2  3fffc820 a3  00000000\na12 3fffc820 a13 00000021 SAR 0000001e\n\nStack: SP=0x3fff5760\n"
        "0x3fff5760: 00ff0000 ff000000 3fff1514 40229b48\n0x3fff5770: 3fff58f0 3fff58f4 00000021 4020903f\n\nFree Heap: 1832\n_heap_start 0x3fff1470 brk 0x3ffff9b8\n"
    )
    assert (c.framework, c.complete, len(c.registers)) == ("esp-open-rtos", True, 13)
    assert (str(c.registers["a13"]), str(c.registers["sar"]), str(c.stacks[0].sp)) == ("0x00000021", "0x0000001e", "0x3fff5760")
    assert code_words(c) == ["0x40229b48", "0x4020903f"]
    c = crash("abort() invoked at 0x40212345.\n\nStack: SP=0x3fff5760\n0x3fff5760: 00ff0000 ff000000 3fff1514 40229b48\n\nFree Heap: 1832\n")
    assert (c.kind, str(c.registers["pc"]), code_words(c)) == ("abort", "0x40212345", ["0x40229b48"])


@pytest.mark.parametrize(
    ("head", "kind", "number"),
    [("Exception 28 @ 0x40228c88, vaddr 0x00000004", "exception", 28), ("SW WDT @ 0x40228c88", "watchdog", None), ("abort() @ 0x40228c88", "abort", None)],
)
def test_mongoose_os(head: str, kind: str, number: int | None) -> None:
    c = crash(f"{head}\n A0: 0x40228c80  A1: 0x3ffffd50  A2: 0x00000000  A3: 0x3fff0000\nA12: 0x00000000 A13: 0x3ffffd50 A14: 0x00000000 A15: 0x3fff0001\n\n(exc SP: 0x3ffffbe0)\n")
    assert (c.kind, c.exception.number if c.exception else None, c.complete) == (kind, number, True)
    assert {str(c.registers[k]) for k in ("pc", "a0", "a15")} == {"0x40228c88", "0x40228c80", "0x3fff0001"}


def test_start_up_reports_of_mongoose_os_and_esp_link() -> None:
    first, second = said("esp_exc.c:236  Reset cause: 2 (exception)\nesp_exc.c:240  Exc info: cause=28 epc1=0x40228c88 epc2=0x00000000 epc3=0x00000000 vaddr=0x00000004 depc=0x00000000\n")
    assert isinstance(first, Reset)
    assert isinstance(second, Reset)
    assert first.source == second.source == "mongoose-os"
    assert second.exception is not None
    assert (second.exception.number, str(second.registers["excvaddr"])) == (28, "0x00000004")
    assert len(said("Reset cause: 2=exception\nexccause=28 epc1=0x40228c88 epc2=0x0 epc3=0x0 excvaddr=0x4 depc=0x0\n")) == 2
    assert len(said("Reset cause: 0=normal\nexccause=0 epc1=0x0 epc2=0x0 epc3=0x0 excvaddr=0x0 depc=0x0\n")) == 1


def test_riot() -> None:
    c = crash("EXCEPTION!! exccause=28 (LoadProhibitedCause) @4020e6f5 excvaddr=00000000\nprocesses:\n 1 | sys_evt | bl mutex _ | 4 |\n\nregister set\npc      : 40281234\tps      : 00060430\na0      : 4020e6f5\ta1      : 3ffb0000\n")
    assert c.exception is not None
    assert (c.framework, c.exception.number, str(c.registers["pc"]), str(c.registers["a0"])) == ("riot", 28, "0x40281234", "0x4020e6f5")


SMING_BARS = "\nStack dump:\nTo decode the stack dump call from command line:\n   make decode-stacktrace\nand copy & paste the text enclosed in '===='.\n\n" + "=" * 64 + "\n3ffffe20:  40223456 3fff1098 00000000 40100123 <\n\n" + "=" * 64 + "\nTo decode the stack dump call from command line:\n"


def test_sming_restarts() -> None:
    c = crash("***** Exception Reset (28):\nepc1=0x40223456 epc2=0x00000000 epc3=0x00000000 excvaddr=0x00000004 depc=0x00000000\n" + SMING_BARS)
    assert c.exception is not None
    assert (c.framework, c.exception.number, len(c.registers), c.complete, code_words(c)) == ("sming", 28, 5, True, ["0x40223456", "0x40100123"])
    c = crash("***** Software Watchdog Reset\n" + SMING_BARS)
    assert (c.framework, c.kind, c.complete, len(code_words(c))) == ("sming", "watchdog", True, 2)
    c = crash("***** Fatal exception 28 (LoadProhibited) pc=0x4021c016 sp=0x3ffffa70 excvaddr=0x00000004 ps=0x00000030 r00: 0x4021c013=1075953683\n")
    assert len(c.registers) == 5


def test_stack_of_the_mesh_example() -> None:
    c = crash("Fatal exception 29(StoreProhibitedCause):\nepc1=0x4000e1c3, epc2=0x00000000, epc3=0x00000000, excvaddr=0x00000018, depc=0x00000000\nstack sp is 3ffffe20\n*** stack dump start ***\nPC = 0x4000e1c3\n3ffffe20: 4027ca60 3fff1098 \\0x053ffffe30: 70636920 4025a20b \\0x053ffffe40: 00000006 60000600 \\0x05\n")
    assert (str(c.stacks[0].sp), c.stacks[0].lines, code_words(c)) == ("0x3ffffe20", 3, ["0x4027ca60", "0x4025a20b"])


def test_rtos_sdk_says_canary_without_a_header() -> None:
    c = crash("Stack canary watchpoint triggered (main)\n\nBacktrace: 0x401013b4:0x3ffedf00 0x40227a43:0x3ffedf00 \n")
    assert (c.kind, c.task, len(c.backtraces[0])) == ("stack-overflow", "main", 2)


def test_micropython_stops() -> None:
    assert crash("OSError: 5\nNLR jump failed\n").framework == "micropython"
    c = crash("Assertion 'x > 0' failed, at file ../../py/gc.c:123\n")
    assert c.location is not None
    assert (c.kind, c.location.line) == ("assert", 123)
    assert said("prog: Assertion 'x > 0' failed, at file gc.c:123, aborting the build\n") == []


SAVED = "epc1=0x40107001 epc2=0x00000000 epc3=0x00000000 excvaddr=0x00000004 depc=0x00000000\n>>>stack>>>\n3ffefbf0: 00000000 00000000 3ffeebd0 40201f60 \n<<<stack<<<\n"


def test_crashes_that_a_program_saved() -> None:
    events = said("Crash information recovered from EEPROM\nCrash # 1 at 3792 ms\nReason of restart: 2\nException cause: 28\n" + SAVED + "Crash # 2 at 122449 ms\nReason of restart: 3\nException cause: 4\n" + SAVED)
    assert [type(e) for e in events] == [Reset, Reset]
    for e, number, code in zip(events, (28, 4), (2, 3), strict=True):
        assert isinstance(e, Reset)
        assert e.exception is not None
        assert e.reset is not None
        assert (e.exception.number, e.reset.code, len(e.registers), code_words(e)) == (number, code, 5, ["0x40201f60"])
    e = only("--- BEGIN of crash file ---\nCrashed at 33535 ms\nRestart reason: 2\nException cause: 28\n" + SAVED)
    assert isinstance(e, Reset)
    assert len(e.registers) == 5
    assert said("It is documented as `Crash # 1 at 65772 ms`, with its number and time.\n") == []


def test_saved_crash_that_was_sent_in_a_url() -> None:
    e = only("2016-05-25 19:38:00 Fatal exception:4 flag:3 (SOFT_WDT) epc1:0x4000bf80 epc2:0x00000000 epc3:0x00000000 excvaddr:0x00000000 depc:0x00000000ctx%3A+sys+%0A+sp%3A+3fff3d20+end%3A+3fffffb0+offset%3A+01b0%0A+++%0A+3fff3d20%3A++3ffe92a4+000004d5+000004d5+4020e6fd++%0A3fff3d30%3A++3ffe8ca4+00000001+3fff1618+4020e7e8++%0A\n")
    assert isinstance(e, Reset)
    assert e.exception is not None
    assert (e.exception.number, len(e.registers), code_words(e)) == (4, 5, ["0x4020e6fd", "0x4020e7e8"])


def test_espruino_restart_info() -> None:
    for reason, number in (("2=exception", 28), ("6=reset pin", None)):
        e = only(f"   290> *** Espruino esp8266 booting\n   291> Restart info:\n   291>   reason:   {reason}\n   291>   exccause: 28\n   292>   epc1:     4020a5d4\n   294>   epc2:     0\n   296>   epc3:     0\n   298>   excvaddr: 1bb\n   300>   depc: 0\n")
        assert isinstance(e, Reset)
        assert e.reset is not None
        assert (e.source, e.reset.code, e.exception.number if e.exception else None) == ("espruino", int(reason[0]), number)
        assert str(e.registers["excvaddr"]) == "0x000001bb"


def test_first_call_chain_of_tasmota() -> None:
    e = only('15:34:36 MQT: stat/STATUS12 = {"StatusSTK":{"call_chain":["40101440","401016cb"]}}\n')
    assert isinstance(e, Reset)
    assert [str(f.pc) for b in e.backtraces for f in b] == ["0x40101440", "0x401016cb"]
    assert said('RSL: RESULT = {"ZbState":{"Status":1,"Message":"CC2530 booted","RestartReason":"Watchdog","MajorRel":2}}\n') == []


def test_rows_wrapped_as_a_paragraph() -> None:
    c = crash(">>>stack>>> 3ffefd20: 3fffdad0 0000000c 3ffeed48 3ffeed6c 3ffefd30:\n3fffdad0 3ffe83d5 3fff06fc 402023c0 3ffefd40: 3ffe8300 feefeffe 3ffeed48\n402035d4 3ffefd50: feefeffe feefeffe 3ffeed48 402023e2 <<<stack<<<\n")
    assert (c.stacks[0].lines, code_words(c), c.complete) == (4, ["0x402023c0", "0x402035d4", "0x402023e2"], True)


def test_stack_that_lost_its_mark() -> None:
    c = crash("ctx: cont\nsp: 3ffffe00 end: 3fffffc0 offset: 0190\n3fffff90:  3fffdad0 00000000 3ffee304 40201049\n<<<stack<<<\n")
    assert (c.stacks[0].context, c.stacks[0].offset, code_words(c)) == ("cont", 0x190, ["0x40201049"])
    assert said("ctx: cont\nsp: 3ffffe00 end: 3fffffc0 offset: 0190\nand that is all\n") == []


def test_banner_without_its_boot_mode() -> None:
    (e,) = said("ets Jan  8 2013,rst cause:2, load 0x40100000, len 28348, roomtail 12\nchksum 0xa3\n")
    assert isinstance(e, Boot)
    assert e.reset is not None
    assert (e.reset.code, e.boot_mode) == (2, None)


def test_arrow_of_forums() -> None:
    events = said("18:03:14.255 \u2192 ets Jan 8 2013,rst cause:1, boot mode:(3,6)\n18:03:14.288 \u2192 Exception (28):\n18:03:14.288 \u2192 epc1=0x402100f4 epc2=0x00000000 epc3=0x00000000 excvaddr=0x00000004 depc=0x00000000\n")
    assert [type(e) for e in events] == [Boot, Crash]


@pytest.mark.parametrize(
    "text",
    [
        # source code
        "  return [\n    'User exception (panic/abort/assert)',\n    'Soft WDT reset',\n    'wdt reset',\n  ].some(m => line.includes(m));\n",
        '    ets_printf("\\r\\nStack smashing protect failure!\\r\\n\\r\\n");\n',
        '            ESP_LOGE(TAG, "Failed to verify partition table signature.");\n',
        "        print('\\nA fatal error occurred: %s' % e)\n",
        "            except serial.SerialException:\n                pass  # the port closed\n",
        "        except (OSError, serial.SerialException):\n            tries += 1\n",
        'print(OSError(1, "msg").errno)\n',
        "        # epc1=0xfffefefe epc2=0xfefefefe epc3=0xefefefef excvaddr=0xfefefefe depc=0xfefefefe\n",
        # sentences and tables about banners
        'When I look at the log I see "ets Jan  8 2013,rst cause:4, boot mode:(3,6)" all the time.\n',
        "erfolgt ueber 'machine.reset()'. Die CPU startet neu mit der meldung  'ets Jan  8 2013, rst cause:4, boot mode:(3,0) wdt reset '.\n",
        '// un error que me daba del reseteo del watchdog "rst cause:4, boot mode:(1,6)   wdt reset"\n',
        "ets Jan  8 2013,rst cause:2, boot mode:(1,6) or (1,7)\n",
        # ports that work
        "esptool.py v3.0\nSerial port COM3\nConnecting....\n--- Miniterm on /dev/ttyUSB0 115200,8,N,1 ---\n",
    ],
)
def test_said_by_no_board(text: str) -> None:
    assert said(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "Board at COM5 is not available",
        "Placa en COM3 no está disponible",
        "Serieller Port 'COM3' nicht gefunden.",
        "Impossible d'ouvrir le port série \"COM3\"",
        "Ошибка открытия последовательного порта 'COM3'",
        "could not open port 'COM3': WindowsError(5, 'Toegang geweigerd.')",
        "minicom: cannot open /dev/ttyUSB0: Permission denied",
        "mpremote: failed to access /dev/ttyUSB0 (it may be in use by another program)",
        "mpremote.transport.TransportError: could not enter raw repl",
        "[Errno 16] Device or resource busy: '/dev/ttyUSB0'",
        "Device is busy or does not respond. Your options:",
        "Lost connection to the device \u2014 EOF",
        "PROBLEM IN THONNY'S BACK-END: Exception while handling 'Run' (ConnectionError: EOF).",
        "Error: Please specify `upload_port` for environment or use global `--upload-port` option.",
        "Error during Upload: Property 'upload.tool.serial' is undefined",
        "Une erreur est survenue lors du transfert du croquis",
        "Beim Hochladen des Sketches ist ein Fehler aufgetreten",
        "При загрузке скетча произошла ошибка",
        "上传项目出错",
        "NetworkError: Failed to open serial port.",
        "Error: Couldn't sync to ESP. Try resetting.",
        "[ERROR]: No response from device",
        "Timed out waiting for packet header",
        "error: espcomm_send_command(FLASH_DOWNLOAD_BEGIN) failed",
        "ModuleNotFoundError: No module named 'serial'",
    ],
)
def test_host_tools_in_many_words(text: str) -> None:
    e = only(text + "\n", HostError)
    assert isinstance(e, HostError)
    assert e.causes


def test_the_core_says_again_what_the_sdk_said() -> None:
    again = "Exception (0):\nepc1=0x{} epc2=0x00000000 epc3=0x00000000 excvaddr=0x00000000 depc=0x00000000\n\n>>>stack>>>\n\nctx: sys\nsp: 3fffedb0 end: 3fffffb0 offset: 01a0\n3fffef50:  40000f49 3fffdab0 3fffdab0 40000f49  \n<<<stack<<<\n"
    head = "Fatal exception 0(IllegalInstructionCause):\nepc1=0x4022ce74, epc2=0x00000000, epc3=0x00000000, excvaddr=0x00000000, depc=0x00000000\n\n"
    c = crash(head + again.format("4022ce74"))
    assert (c.framework, len(c.registers), len(code_words(c))) == ("arduino", 5, 2)
    first, second = said(head + again.format("4022aaaa"))
    assert isinstance(first, Crash)
    assert isinstance(second, Crash)
    assert (str(first.registers["epc1"]), str(second.registers["epc1"])) == ("0x4022ce74", "0x4022aaaa")


def test_quotes_and_spaces_read_in_the_wrong_encoding() -> None:
    c = crash("12:34:56.789 \u00e2\u2020\u2019 Panic main.cpp:12 setup: Assertion \u00e2\u20ac\u02dcx > 0\u00e2\u20ac\u2122 failed.\n")
    assert (c.kind, c.location.function if c.location else None) == ("assert", "setup")
    c = crash("Exception (28):\nepc1=0x40238030\u00c2\u00a0epc2=0x00000000\u00c2\u00a0epc3=0x00000000\u00c2\u00a0excvaddr=0x00000000\u00c2\u00a0depc=0x00000000\n")
    assert len(c.registers) == 5


def test_first_rtos_sdk() -> None:
    c = crash("Fatal exception (28):\nepc1=0x401000e3\nepc2=0x00000000\nepc3=0x00000000\nepcvaddr=0x00011bb0\ndepc=0x00000000\nrtn_add=0x401003d4\n")
    assert (str(c.registers["excvaddr"]), str(c.registers["rtn_add"]), c.complete) == ("0x00011bb0", "0x401003d4", True)


def test_full_width_punctuation() -> None:
    events = said("Fatal exception (28)\uff1a\nepc1=0x4025bfa6\uff0cepc2=0x00000000\uff0cepc3=0x00000000\uff0cexcvaddr=0x0000000f\uff0cdepc=0x00000000\nets Jan 8 2013\uff0crst cause\uff1a2\uff0cboot mode\uff1a\uff083\uff0c6\uff09\n")
    assert [type(e) for e in events] == [Crash, Boot]
    assert isinstance(events[0], Crash)
    assert len(events[0].registers) == 5


def test_crash_report_of_esphome() -> None:
    e = only("[E][esp8266]: *** CRASH DETECTED ON PREVIOUS BOOT ***\n[E][esp8266]:   Reason: Exception - StoreProhibit (exccause=29)\n[E][esp8266]:   PC: 0x40212EC5\n[E][esp8266]:   EXCVADDR: 0x00000000\n[E][esp8266]:   BT0: 0x40212F5A\n[E][esp8266]:   BT1: 0x40203B10\n")
    assert isinstance(e, Reset)
    assert e.exception is not None
    assert e.reset is not None
    assert (e.exception.number, e.reset.code, str(e.registers["excvaddr"]), len(e.backtraces[0])) == (29, 2, "0x00000000", 2)
    e = only("*** CRASH DETECTED ON PREVIOUS BOOT ***\nReason: Fault - IllegalInstruction   Crashed core: 0\nPC: 0x403858C4\nBacktrace: 0x403858C1 0x40385889 0x40389CFA\n")
    assert isinstance(e, Reset)
    assert e.exception is not None
    assert (e.exception.name, len(e.backtraces[0])) == ("IllegalInstruction", 3)
    assert said("The satellite emitted `*** CRASH DETECTED ON PREVIOUS BOOT *** Fault - IllegalInstruction` after the update.\n") == []
    assert said('  ESP_LOGE(TAG, "*** CRASH DETECTED ON PREVIOUS BOOT ***");\n') == []


def test_two_stacks_in_one_dump_are_whole_together() -> None:
    text = "Abort called\n\n>>>stack>>>\n\nctx: bearssl\nsp: 3fff4760 end: 3fff4770 offset: 0000\n3fff4760:  3fff3374 00000000 3fffb864 4020f8b3  \n\nctx: cont\nsp: 3ffffd40 end: 3ffffd50 offset: 0000\n3ffffd40:  7473203a 00000005 000001bd 40100a2d  \n"
    c = crash(text + "<<<stack<<<\n")
    assert ([s.context for s in c.stacks], c.complete) == (["bearssl", "cont"], True)
    assert not crash(text).complete


def test_one_json_object_per_line() -> None:
    c = crash('{"t":1,"m":"Exception (28):"}\n{"t":1,"m":"epc1=0x40228c88 epc2=0x00000000 epc3=0x00000000 excvaddr=0x00000000 depc=0x00000000"}\n')
    assert len(c.registers) == 5
    c = crash('["","Soft WDT reset","",">>>stack>>>","","ctx: cont","sp: 3ffffd40 end: 3ffffd60 offset: 0160","3ffffd40:  7473203a 00000005 000001bd 40100a2d  ","<<<stack<<<"]\n')
    assert (c.kind, c.complete, code_words(c)) == ("watchdog", True, ["0x40100a2d"])


def test_marks_around_one_line() -> None:
    assert crash("NLR jump failed`\n").framework == "micropython"
    assert crash("\"Assertion 'x > 0' failed, at file ../../py/gc.c:123\\r\\n\"\n").kind == "assert"
    assert crash("> ready > PANIC: unprotected error in call to Lua API (init.lua:3: attempt to index a nil value)\n").kind == "lua-panic"
    assert said("It says 'PANIC: unprotected error in call to Lua API (attempt to call a nil value)' and restarts.\n") == []


def wrapped(text: str, *, indent: str = "") -> str:
    """As a terminal of 80 columns breaks it."""
    return "\n".join(indent + text[i : i + 80] for i in range(0, len(text), 80)) + "\n"


@pytest.mark.parametrize("indent", ["", "    "])
def test_reports_that_a_terminal_wrapped(indent: str) -> None:
    line = 'MQT: tele/lab/INFO3 = {"Info3":{"RestartReason":{"Exception":29,"Reason":"Exception","EPC":["40255ef0","00000000","00000000"],"EXCVADDR":"00000010","DEPC":"00000000","CallChain":["402485ed","40248929","402489ae"]}}}'
    for text in (line, line[:-12]):
        e = only(wrapped(text, indent=indent) + "00:00:05.000 MQT: stat/lab/POWER = ON\n")
        assert isinstance(e, Reset)
        assert e.exception is not None
        assert (e.exception.number, len(e.registers)) == (29, 5)
        assert [str(f.pc) for b in e.backtraces for f in b][:1] == ["0x402485ed"]
    e = only(wrapped("Reset Info: Fatal exception:29 flag:2 (EXCEPTION) epc1:0x4000df64 epc2:0x00000000 epc3:0x00000000 excvaddr:0x00000018 depc:0x00000000", indent=indent) + "next\n")
    assert isinstance(e, Reset)
    assert (len(e.registers), str(e.registers["excvaddr"])) == (5, "0x00000018")


def test_report_that_breaks_off() -> None:
    e = only("Fatal exception:29 flag:2 (EXCEPTION) epc1:0x4000df64 epc2:0x000\nWiFi connected\n")
    assert isinstance(e, Reset)
    assert e.exception is not None
    assert (e.exception.number, len(e.registers)) == (29, 1)
