"""Forms of the ESP32 family found in the field: what ROMs, ESP-IDF versions, Rust, Zephyr and NuttX print besides the usual,
and sources and sentences that quote it. All text here is made up."""

from __future__ import annotations

import pytest

from espmon.decode import Decoder
from espmon.events import Boot, Brownout, CoreDump, Crash, DownloadMode, Event, FlashError, Reset, Text


def said(text: str, *, step: int | None = None) -> list[Event]:
    decoder, raw, out = Decoder(), text.encode(), []
    for i in range(0, len(raw), step or max(1, len(raw))):
        out += decoder.feed(raw[i : i + (step or len(raw))])
    return [e for e in out + decoder.close() if not isinstance(e, Text)]


def crash(text: str) -> Crash:
    """The only event of `text`, which doesn't depend on how it was cut nor on what follows."""
    events = said(text)
    assert events == said(text, step=1)
    assert len(events) == 1, events
    (event,) = events
    assert isinstance(event, Crash)
    (longer,) = said(text + "\n\nI (5) wifi: mode : sta\nhello\n")
    assert isinstance(longer, Crash)
    assert (longer.kind, longer.exception, longer.registers, longer.backtraces) == (event.kind, event.exception, event.registers, event.backtraces)
    return event


def boots(text: str) -> list[tuple[str | None, int | None, str | None]]:
    events = said(text)
    assert events == said(text, step=1)
    return [(e.chip, e.reset.code if e.reset else None, e.boot_mode.raw if e.boot_mode else None) for e in events if isinstance(e, Boot)]


XTENSA = """\
Core  0 register dump:
PC      : 0x4008d680  PS      : 0x00060d33  A0      : 0x8008fde0  A1      : 0x3ffbd090
A14     : 0xc2cf1314  A15     : 0x00ffffff  SAR     : 0x0000001f  EXCCAUSE: 0x0000001d
EXCVADDR: 0xffcf1314  LBEG    : 0x400570e8  LEND    : 0x400570f3  LCOUNT  : 0xffffffff

Backtrace: 0x4008d67d:0x3ffbd090 0x4008fddd:0x3ffbd0d0
"""
RISCV = """\
Core  0 register dump:
MEPC    : 0x4200ee12  RA      : 0x42010694  SP      : 0x40815c40  GP      : 0x4080c240
MSTATUS : 0x00001881  MTVEC   : 0x40800001  MCAUSE  : 0x00000007  MTVAL   : 0x0000002c
MHARTID : 0x00000000
"""

# --- the ROM ----------------------------------------------------------------------------------------------------------


def test_c61_has_the_reset_names_of_the_c5() -> None:
    text = "ESP-ROM:esp32c61-20240910\nBuild:Sep 10 2024\nrst:0x%s (%s),boot:0x7f (SPI_FAST_FLASH_BOOT)\n"
    assert boots(text % ("3", "RTC_SW_HPSYS")) == [("esp32c61", 3, "0x7f")]
    assert boots(text % ("l2", "RTC_SWDT_SYS")) == [("esp32c61", 0x12, "0x7f")]
    assert any(isinstance(e, Brownout) for e in said(text % ("f", "RTC_BOD_SYS")))


@pytest.mark.parametrize("rom", ["esp32s31-20251218", "esp32h21-20240101"])
def test_other_chips_are_not_taken_for_those_with_a_shorter_name(rom: str) -> None:
    text = f"ESP-ROM:{rom}\nBuild:Dec 18 2025\nrst:0x1 (POWERON),boot:0x58 (SPI_FAST_FLASH_BOOT)\n"
    assert boots(text) == [(None, 1, "0x58")]


def test_reset_without_a_name() -> None:
    text = "ESP-ROM:esp32s2-rc4-20191025\nBuild:Oct 25 2019\nrst:0x0 (N/A),boot:0x12 (DOWNLOAD(USB/UART0/1/SPI))\n"
    assert boots(text) == [("esp32s2", 0, "0x12")]


def test_esp32_after_an_esp8266() -> None:
    text = " ets Jan  8 2013,rst cause:2, boot mode:(3,6)\n\nrst:0x10 (RTCWDT_RTC_RESET),boot:0x1b (SPI_FAST_FLASH_BOOT)\n"
    assert [chip for chip, _, _ in boots(text)] == ["esp8266", "esp32"]


def test_rom_line_torn_by_a_terminal_with_marks_of_its_own() -> None:
    text = (
        "[11:17:08.766]\u6536\u2190\u25c6ESP-ROM:esp32c5-eco\n[11:17:08.971]\u6536\u2190\u25c62-20250121\nBuild:Jan 21 2025\n"
        "rst:0x1a (CPU_LOCKUP),boot:0x18 (SPI_FAST_FLASH_BOOT)\nCore0 Saved PC:0x4001d0a6\n"
    )
    assert boots(text) == [("esp32c5", 0x1A, "0x18")]


def test_question_marks_for_unreadable_bytes() -> None:
    text = "[RX] - ??ets Jun  8 2016 00:22:57\n\nrst:0x10 (RTCWD??T_RTC_RESET),bo??ot:0x17 (SP??I_FAST_FLASH_BOOT)\n"
    assert boots(text) == [("esp32", 0x10, "0x17")]


@pytest.mark.parametrize(
    "text",
    [
        "invalid header: 0xffffff\ninvalid header: 0xffffff\n",
        "Valid secure boot key blocks: 0\nSig block 0 signature verification failed\n",
        "Sig block 1 invalid: Image digest does not match\n",
        "secure boot check fail\nets_main.c 371 \n",
        "SHA-256 simple hash comparison failed.\n",
        "Checksum failure. Calculated 0x12 stored 0x34\n",
        "PRIMARY - FAIL\nLoading RECOVERY Bootloader...\n",
        "E (759) secure_boot: Secure Boot V2 verification failed.\n",
        "E (100) esp_image: Image hash failed - image is corrupt\n",
        "E (102) boot: load partition table error!\n",
    ],
)
def test_the_rom_refuses_an_image(text: str) -> None:
    banner = "ESP-ROM:esp32s3-20210327\nBuild:Mar 27 2021\nrst:0x1 (POWERON),boot:0x8 (SPI_FAST_FLASH_BOOT)\n"
    assert [type(e) for e in said(banner + text)] == [Boot, FlashError]


@pytest.mark.parametrize("text", ["wait uart download(secure mode)", "wait usb download", "waiting for sdio host"])
def test_other_download_modes(text: str) -> None:
    assert [type(e) for e in said(text + "\n")] == [DownloadMode]


def test_the_roms_handler_of_the_esp32_prints_what_the_esp8266_does() -> None:
    events = said(
        "ets Jun  8 2016 00:22:57\n\nrst:0x1 (POWERON_RESET),boot:0x33 (SPI_FAST_FLASH_BOOT)\n"
        "Fatal exception (0): IllegalInstruction\nepc1=0x40080000, epc2=0x00000000, epc3=0x00000000, excvaddr=0x00000000, depc=0x00000000\n"
    )
    c = events[1]
    assert isinstance(c, Crash)
    assert (c.chip, c.framework, len(c.registers)) == ("esp32", None, 5)


# --- ESP-IDF ----------------------------------------------------------------------------------------------------------


def test_what_a_cache_error_was() -> None:
    c = crash(f"Guru Meditation Error: Core  0 panic'ed (Cache error). \nMMU entry fault error occurred while accessing the address 0x3c800000\n\n{XTENSA}")
    assert c.kind == "cache-error"
    assert "MMU entry fault" in (c.message or "")
    c = crash(f"Guru Meditation Error: Core  0 panic'ed (Memory protection fault). \n  memory type: IRAM0_SRAM\n  faulting address: 0x4038e6c4\n  operation type: Write\n{RISCV}")
    assert "0x4038e6c4" in (c.message or "")
    assert len(c.registers) == 9


@pytest.mark.parametrize(("name", "number"), [("InstrPDAddrError", 12), ("Cp0Dis", 32), ("Load page fault", 13)])
def test_rare_reasons(name: str, number: int) -> None:
    c = crash(f"Guru Meditation Error: Core  0 panic'ed ({name}). Exception was unhandled.\n\n{XTENSA}")
    assert c.exception is not None
    assert c.exception.number == number


def test_heap_block_too_large() -> None:
    c = crash("CORRUPT HEAP: Size at 0x3ffd0c14 expected <=0x0000f000 got 0xdeadbeef\n\nassert failed: multi_heap_free multi_heap_poisoning.c:259 (head != NULL)\n\nBacktrace: 0x4008d67d:0x3ffbd090 0x4008fddd:0x3ffbd0d0\n")
    assert (c.kind, c.line) == ("heap-corruption", 1)


def test_assertion_of_the_boot_loader() -> None:
    c = crash("Assert failed in unpack_load_app, bootloader_utility.c:763 (rom_index < 2)\nabort() was called at PC 0x4007b3e9\n")
    assert c.kind == "assert"
    assert c.location is not None
    assert (c.location.file, c.location.line, c.location.function) == ("bootloader_utility.c", 763, "unpack_load_app")


def test_panic_handler_that_crashed() -> None:
    c = crash("Panic handler entered multiple times. Abort panic handling. Rebooting ...\n")
    assert (c.kind, c.complete) == ("panic", True)
    c = crash("Guru Meditation Error: Core  0 panic'ed (LoadProhibited). Exception was unhandled.\nPanic handler entered multiple times. Abort panic handling. Rebooting ...\n")
    assert c.exception is not None
    assert c.exception.number == 28


def test_a_header_cut_in_its_last_words() -> None:
    c = said("Guru Meditation Error: Core  0 panic'ed (Load access fault). Exception wa")
    assert [type(e) for e in c] == [Crash]


def test_the_same_core_again_is_the_next_crash() -> None:
    events = said(XTENSA + "\n\n" + XTENSA.replace("d680", "d690"))
    assert [str(e.registers["pc"]) for e in events if isinstance(e, Crash)] == ["0x4008d680", "0x4008d690"]


def test_register_behind_a_line_number_that_lost_its_newline() -> None:
    c = crash("Guru Meditation Error: Core  0 panic'ed (LoadProhibited). Exception was unhandled.Core  0 register dump:PC      : 0x400863cf  PS      : 0x00060034  A0      : 0x80085908  A1      : 0x3ffb05700x400863cf: vTask at /lab/./tasks.c:4216A2      : 0x3ffbc94c  A3      : 0x00060023\n")
    assert set(c.registers) == {"pc", "ps", "a0", "a1", "a2", "a3"}


# --- Rust without an operating system ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number", "registers"),
    [
        ("Exception occurred on ProCpu 'InstrProhibited'\nContext { PC: 32, PS: 393237, A0: 2181152054, A1: 1070176400, EXCCAUSE: 20, EXCVADDR: 32, F15: 0 }\n", 20, {"pc": "0x00000020", "a1": "0x3fc99890", "excvaddr": "0x00000020"}),
        ("Exception occured on AppCpu 'LoadProhibited'\nContext\nPC=0x400d1a30       PS=0x00060b30\nA0=0x800d1b4a       A1=0x3ffb7c00\nEXCCAUSE=0x0000001c EXCVADDR=0x00000000\n", 28, {"pc": "0x400d1a30", "excvaddr": "0x00000000"}),
        ("*** PanicInfo { message: Some(Exception: StoreProhibited, Context { PC: 400f4699, PS: 00060f30, EXCCAUSE: 0000001d, EXCVADDR: 00000001 }) }\n", 29, {"pc": "0x400f4699", "excvaddr": "0x00000001"}),
        ("[ERROR] panicked at '[AppCpu] Exception 'Load access fault (5)' mepc=0x4ff403a6, mtval=0x00000000\nTrapFrame { ra: 3221234688, t0: 255, a7: 0 }'\n", 5, {"mepc": "0x4ff403a6", "ra": "0xc0002400"}),
        ("[ERROR] panicked at 'Breakpoint exception at 0x4000e6c4, mtval=0x00000000\n", 3, {"mepc": "0x4000e6c4"}),
        ("Exception 'Illegal instruction' mepc=0x42000e6c, mtval=0x00000000\nTrapFrame\nPC=0x42000e6c         RA/x1=0x42000e60      SP/x2=0x3fccf3a0\n", 2, {"ra": "0x42000e60", "sp": "0x3fccf3a0"}),
    ],
)
def test_esp_hal_exceptions(text: str, number: int, registers: dict[str, str]) -> None:
    c = crash(text)
    assert (c.kind, c.framework) == ("exception", "esp-hal")
    assert c.exception is not None
    assert c.exception.number == number
    assert {k: str(c.registers[k]) for k in registers} == registers


def test_esp_hal_backtrace_behind_log_prefixes() -> None:
    c = crash("22.6 [ERROR] ====================== PANIC ====================== (esp_backtrace src/lib.rs:53)\n22.6 [ERROR] Backtrace: (esp_backtrace src/lib.rs:55)\n22.6 [ERROR] 0x420019aa (esp_backtrace src/lib.rs:70)\n22.6 [ERROR] 0x42001a1c (esp_backtrace src/lib.rs:70)\n")
    assert [str(f.pc) for b in c.backtraces for f in b] == ["0x420019aa", "0x42001a1c"]


# --- Zephyr, NuttX, CircuitPython ---------------------------------------------------------------------------------------

ZEPHYR_RISCV = """\
[00:00:00.002,000] <err> os:  mcause: 1, Instruction Access fault
[00:00:00.009,000] <err> os:   mtval: 0
[00:00:00.013,000] <err> os:      a0: 00000000    t0: 42017e74
[00:00:00.059,000] <err> os:      ra: 00000000
[00:00:00.069,000] <err> os:    mepc: 00000000
[00:00:00.074,000] <err> os: mstatus: 00001880
[00:00:00.085,000] <err> os: >>> ZEPHYR FATAL ERROR 35: Unknown error on CPU 0
[00:00:00.090,000] <err> os: Current thread: 0x3fc83f50 (main)
[00:00:00.100,000] <err> os: Halting system
"""


def test_zephyr_on_riscv() -> None:
    c = crash(ZEPHYR_RISCV)
    assert (c.kind, c.framework, c.task, c.complete) == ("exception", "zephyr", "main", True)
    assert c.exception is not None
    assert c.exception.number == 1
    assert set(c.registers) == {"mtval", "a0", "t0", "ra", "mepc", "mstatus"}
    assert said(ZEPHYR_RISCV.replace("42017e74", "80001234").replace("3fc83f50", "80004b50")) == []


def test_nuttx_assertion_before_its_exception() -> None:
    c = crash("up_assert: Assertion failed at file:common/riscv_exception.c line: 88 task: Idle Task\nriscv_exception: EXCEPTION: Store/AMO access fault. MCAUSE: 00000007\n[ EMERG] [BackTrace| 4|0]:  0x420082ae 0x4209c198\n")
    assert (c.kind, c.task) == ("exception", "Idle Task")
    assert [str(f.pc) for b in c.backtraces for f in b] == ["0x420082ae", "0x4209c198"]


def test_circuitpython_in_safe_mode() -> None:
    (e,) = said("You are in safe mode because:\nCircuitPython core code crashed hard. Whoops!\nHard fault: memory access or instruction error.\nPress reset to exit safe mode.\n")
    assert isinstance(e, Reset)
    assert e.reset is not None
    assert (e.source, e.reset.abnormal) == ("circuitpython", True)


# --- sources and sentences ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "// Guru Meditation Error: Core  1 panic'ed (Unhandled debug exception)\n// Debug exception reason: Stack canary watchpoint triggered (loopTask)\n//\n",
        "  /*\n      Calling connect() here gives a\n      Guru Meditation Error: Core  1 panic'ed (Unhandled debug exception)\n      Debug exception reason: Stack canary watchpoint triggered (net)\n  */\n  break;\n",
        " * Guru Meditation Error: Core <core> (<exception>). <description>\n",
        "Guru Meditation Error: Core 0 panic'ed (|ILLEGAL_INSTR_MSG|). Exception was unhandled.\n",
        '  if (x) return; // gives Guru Meditation Error: Core 1 panic\'ed (Coprocessor exception)\n',
        '  "Guru Meditation Error: Core  1 panic\'ed (LoadProhibited). Exception was unhandled.";\n',
        "dut.expect_exact('Stack smashing protect failure!')\ndut.expect_exact('Rebooting...')\n",
        'assert v.feed("rst:0xc (SW_CPU_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)")[0] is False\n',
        'ESP_LOGE(TAG, "Failed to verify partition table");\n',
        'print("================= CORE DUMP START =================")\n',
        "The line `rst:0x10 (RTCWDT_RTC_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)` is printed by the ROM.\n",
    ],
)
def test_quoted(text: str) -> None:
    assert [e for e in said(text) if isinstance(e, (Boot, Crash, FlashError, CoreDump))] == []


# --- reports ------------------------------------------------------------------------------------------------------------


def test_the_middle_of_a_core_dump_report() -> None:
    (e,) = said("#3  0x40381601 in vPortTaskWrapper ()\n\n==================== THREAD 12 (TCB: 0x3fcbc124, name: 'wifi') =====================\n#0  0x4037ea1d in xQueueReceive ()\n\n======================= ALL MEMORY REGIONS ========================\n.rtc 0x600fe010 0x0 RW\n===================== ESP32 CORE DUMP END =====================\n")
    assert isinstance(e, CoreDump)
    assert (e.format, e.complete) == ("espcoredump-report", False)


def test_esp_idf_counts_reset_reasons_differently() -> None:
    (e,) = said("I (320) main: Reset reason: 4 (panic)\n")
    assert isinstance(e, Reset)
    assert e.reset is not None
    assert (e.source, e.reset.code, e.reset.abnormal) == ("idf", None, True)


def test_chip_by_its_addresses() -> None:
    panic = "Guru Meditation Error: Core  0 panic'ed (LoadProhibited). Exception was unhandled.\n" + XTENSA
    assert crash(panic).chip is None
    assert crash(panic + "Backtrace: 0x4200d67d:0x3fcbd090 0x4200fddd:0x3fcbd0d0\n").chip == "esp32s3"
    assert crash(panic + "Backtrace: 0x400d67d0:0x3ffbd090 0x400efddd:0x3ffbd0d0\n").chip == "esp32"
    assert crash(panic + "Backtrace: 0x4002d67d:0x3ffbd090 0x400efddd:0x3ffbd0d0\n").chip is None


# --- letters lost or changed on the way ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "rst:0xc (RTC_SW_CPUyRST),boot:0x8 (SPI_FAST_FLASH_BOOT)",
        "rst:0xc (RTC_SW_CPU_RST),b?ot:0x8 (SPI_FAST_FLASH_BOOT)",
        "rst0xc (RTC_SW_CPU_RST),boot0x8 (SPI_FST_FLASH_BOOT)",
        "rsc:0xc (R\ufffdC_SW_CPU_RST),bootc0x8 (SPI_FAST_FLASH_BOOT)",
        "rst:0xc ?RTC_SW_CPU_RS),boot:0x8 (aPI_FAST_FLASH_BOOT)",
    ],
)
def test_damaged_reset_lines(line: str) -> None:
    assert boots(f"ESP-ROM:esp32s3-20210327\nBuild:Mar 27 2021\n{line}\n") == [("esp32s3", 0xC, "0x8")]


def test_a_line_of_the_same_shape_is_no_reset() -> None:
    assert boots("reg:0x12 (CONTROL_VALUE),bits:0x8 (SPI_CLOCK_SELECT)\n") == []


@pytest.mark.parametrize(
    ("header", "kind", "number"),
    [
        ("Guru Meditation Error: Core  0 panic'ed (LoadPrhibited). Exception was unhandled.", "exception", 28),
        ("Guru Meditation Error: Cor7  0 pa?ic'ed (LoadProhibited). Exception was unhandled.", "exception", 28),
        ("Guru Meditation Error: Core  0 panic'ed (Interrupt wdt tim?out on CPU0)", "watchdog", None),
        ("aort() was calle? at PC 0x400f62d4 on core 0", "abort", None),
        ("assert fai?ed: xQueueTake queue.c:1545 (( pxQueue ))", "assert", None),
    ],
)
@pytest.mark.parametrize("word", ["Backtrace:", "Bac?trace:", "Baktrace", "Backtracex"])
def test_damaged_headers(header: str, kind: str, number: int | None, word: str) -> None:
    c = crash(f"{header}\n\n{word} 0x4008d67d:0x3ffbd090 0x4008fddd:0x3ffbd0d0\n")
    assert c.kind == kind
    assert (c.exception.number if c.exception else None) == number
    assert [len(b) for b in c.backtraces] == [2]


def test_a_storm_is_one_panic_after_the_other() -> None:
    storm = "Guru Meditation Error: Core  1 panic'ed (IllegalInstruction). Exception was unhandled.\nMemory dump at 0x401613ec: bad00bad bad00bad bad00bad\n"
    events = said(storm * 3)
    assert events == said(storm * 3, step=1)
    assert [(type(e), e.line) for e in events] == [(Crash, 1), (Crash, 3), (Crash, 5)]


def test_esphome_names_the_task_that_spoke() -> None:
    text = "assert failed: xQueueTake queue.c:12 (pxQueue)\n\nBacktrace: 0x4008d67d:0x3ffbd090 0x4008fddd:0x3ffbd0d0\nRebooting...\n"
    c = crash("".join(f"[12:00:00.123][D][esp-idf:000][sdio_write]: {line}\n" for line in text.splitlines()))
    assert (c.kind, c.complete) == ("assert", True)


def test_registers_whose_first_rows_are_lost() -> None:
    c = crash("A6      : 0x3f40990f  A7      : 0x3f409918  A8      : 0x00000000  A9      : 0x00000000\nA10     : 0x00000000  A11     : 0x00000000  A12     : 0x70b0bcba  A13     : 0x3ffbd0e0\n\nBacktrace:0x40089415:0x3ffbcf200x400fd0fb:0x3ffbcf30\n")
    assert len(c.registers) == 8


def test_dump_of_2016_whose_right_column_is_cut() -> None:
    c = crash("Guru Meditation Error of type InstrFetchProhibited occurred on core   0. Except.\nRegister dump:\nPC              :  00000000  PS        :  00060e30  A0           :  80059391  A1            :  3ffb3 \n")
    assert set(c.registers) == {"pc", "ps", "a0"}
