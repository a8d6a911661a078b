"""Is there a call instruction right before this address? What makes a word of a stack a return address.

Encodings from the Xtensa ISA summary (CALL0/4/8/12: op0 = 5; CALLX0/4/8/12: op0 = 0, op1 = op2 = r = 0, m = 3) and the
RISC-V unprivileged specification (JAL, JALR, C.JAL, C.JALR).
"""

from __future__ import annotations

from collections.abc import Callable

Reader = Callable[[int, int], bytes]
"""``read(address, count)``: that many bytes of code, or fewer where there is none."""


def signed(value: int, bits: int) -> int:
    """The two's complement number in the low `bits` of `value`."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def c_jump(half: int) -> int:
    """The offset of a C.J or C.JAL: imm[11|4|9:8|10|6|7|3:1|5]."""
    return signed(
        (half >> 12 & 1) << 11 | (half >> 11 & 1) << 4 | (half >> 9 & 3) << 8 | (half >> 8 & 1) << 10
        | (half >> 7 & 1) << 6 | (half >> 6 & 1) << 7 | (half >> 3 & 7) << 1 | (half >> 2 & 1) << 5,
        12,
    )  # fmt: skip


def call_before(arch: str, read: Reader, address: int) -> int | None:
    """The address of the call instruction that returns to `address`, or None when none precedes it."""
    if arch == "xtensa":
        return address - 3 if _xtensa_call(read(address - 3, 3)) else None
    if address & 1:
        return None
    code = read(address - 4, 4)
    if len(code) == 4:
        word = int.from_bytes(code, "little")
        # JAL rd, JALR rd: rd = ra (x1) or t0 (x5, millicode calls of -msave-restore)
        if word & 0x7F == 0x6F and word >> 7 & 31 in (1, 5):
            return address - 4
        if word & 0x707F == 0x67 and word >> 7 & 31 in (1, 5):
            return address - 4
    half = int.from_bytes(code[2:] if len(code) == 4 else read(address - 2, 2), "little")
    if half & 0xE003 == 0x2001:  # C.JAL (RV32)
        return address - 2
    if half & 0xF07F == 0x9002 and half >> 7 & 31:  # C.JALR
        return address - 2
    return None


def _xtensa_call(code: bytes) -> bool:
    if len(code) < 3:
        return False
    if code[0] & 0x0F == 5:  # CALL0, CALL4, CALL8, CALL12: the window size stands in bits 4 and 5
        return True
    # CALLX0/4/8/12: op0 = 0, m = 3, n = window size, and op1, op2, r = 0
    return code[0] & 0xCF == 0xC0 and code[1] & 0xF0 == 0 and code[2] == 0


def call_target(arch: str, read: Reader, call: int) -> int | None:
    """Where the direct call at `call` goes, or None when it goes through a register."""
    if arch == "xtensa":
        code = read(call, 3)
        if len(code) < 3 or code[0] & 0x0F != 5:
            return None
        offset = signed(int.from_bytes(code, "little") >> 6, 18)
        return ((call & ~3) + (offset << 2) + 4) & 0xFFFFFFFF
    code = read(call, 4)
    if len(code) >= 2:
        half = int.from_bytes(code[:2], "little")
        if half & 0xE003 == 0x2001:  # C.JAL
            return (call + c_jump(half)) & 0xFFFFFFFF
    if len(code) == 4:
        word = int.from_bytes(code, "little")
        if word & 0x7F == 0x6F:  # JAL: imm[20|10:1|11|19:12]
            offset = (word >> 31) << 20 | (word >> 21 & 0x3FF) << 1 | (word >> 20 & 1) << 11 | (word >> 12 & 0xFF) << 12
            return (call + signed(offset, 21)) & 0xFFFFFFFF
        if word & 0x707F == 0x67:  # JALR after AUIPC on the same register
            before = read(call - 4, 4)
            if len(before) == 4:
                upper = int.from_bytes(before, "little")
                if upper & 0x7F == 0x17 and upper >> 7 & 31 == word >> 15 & 31:
                    return (call - 4 + (upper & 0xFFFFF000) + signed(word >> 20, 12)) & 0xFFFFFFFF
    return None
