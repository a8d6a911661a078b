"""How far the stack pointer has moved at an instruction, and where the return address is: read from the code.

Most of an ESP8266 firmware has no call frame information (vendor libraries, the Arduino core as PlatformIO builds it), so
this is the main way to unwind it; RISC-V uses it where an FDE is missing. A function is read once from its start, its
branches followed forward, with the state at each instruction kept.

Instruction encodings: Xtensa ISA reference (core, density option), RISC-V unprivileged specification (RV32IC).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Reader = Callable[[int, int], bytes]

# No function that a person compiled is larger; bounds the work on a wrong symbol.
MAX_FUNCTION = 0x8000


@dataclass(frozen=True, slots=True)
class FrameRow:
    """The state before an instruction. `size`: bytes between the stack pointer and the caller's (the CFA).

    `return_at`: distance from the CFA (negative) to the saved return address; None: still in its register.
    `frame_register`: the CFA is this register plus `size` (RISC-V ``s0``), not the stack pointer; `frame_saved`: distance
    from the CFA to the caller's value of it.
    """

    size: int
    return_at: int | None
    frame_register: int | None = None
    frame_saved: int | None = None


def row_at(arch: str, read: Reader, start: int, end: int, address: int) -> FrameRow | None:
    """The state before the instruction at `address` of the function [start, end); None when the code does not tell."""
    if not start <= address < end or end - start > MAX_FUNCTION:
        return None
    walk = _xtensa if arch == "xtensa" else _riscv
    return walk(read, start, end, address)


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) & 1 else value


def literal_registers(read: Reader, start: int, address: int) -> dict[int, int]:
    """Which registers hold a literal loaded by L32R (and not overwritten since) before `address`: Xtensa long calls."""
    known: dict[int, int] = {}
    at = start
    while at < address:
        code = read(at, 3)
        if len(code) < 2:
            break
        size = 2 if code[0] & 8 else 3
        op0 = code[0] & 15
        if op0 == 1 and len(code) == 3:
            target = ((at + 3) & ~3) + ((int.from_bytes(code[1:3], "little") << 2) - 0x40000)
            word = read(target & 0xFFFFFFFF, 4)
            if len(word) == 4:
                known[code[0] >> 4] = int.from_bytes(word, "little")
            else:
                known.pop(code[0] >> 4, None)
        elif op0 == 2 and len(code) == 3 and code[1] >> 4 in (0, 1, 2, 9, 10, 11, 12, 13):
            known.pop(code[0] >> 4, None)
        elif op0 in (8, 11, 13):  # l32i.n writes t; addi.n r; mov.n t
            known.pop(code[1] >> 4 if op0 == 11 else code[0] >> 4, None)
        elif op0 == 10 or (op0 == 0 and len(code) == 3 and code[2] & 15 == 0):
            known.pop(code[1] >> 4, None)
        at += size
    return known


def _xtensa(read: Reader, start: int, end: int, address: int) -> FrameRow | None:
    # state: (bytes that a1 has been lowered by, where a0 was saved relative to the CFA)
    state: tuple[int, int | None] | None = (0, None)
    established: tuple[int, int | None] = (0, None)
    later: dict[int, tuple[int, int | None]] = {}
    constants: dict[int, int] = {}
    code = read(start, end - start)
    at = start
    while at <= address:
        if state is None:
            # nothing seen so far jumps here (a jump table?): the frame that the function set up is the best knowledge
            state = later.get(at, established)
        elif at in later and later[at][0] > state[0]:
            state = later[at]
        if at == address:
            return FrameRow(state[0], state[1])
        i = at - start
        if i + 2 > len(code):
            return None
        b0 = code[i]
        b1 = code[i + 1]
        op0 = b0 & 15
        t = b0 >> 4
        size, saved = state
        if op0 >= 8:
            length = 2
            if op0 == 9 and t == 0 and b1 & 15 == 1:  # s32i.n a0, a1
                saved = (b1 >> 4) * 4 - size
            elif op0 == 8 and t == 0 and b1 & 15 == 1 and (b1 >> 4) * 4 - size == saved:  # l32i.n a0, a1: it is back
                saved = None
            elif op0 == 11 and b1 == 0x11:  # addi.n a1, a1
                size -= t or -1
            elif op0 == 10 and b1 == 0x11 and t in constants:  # add.n a1, a1, at
                size -= constants[t]
            elif op0 == 12 and t < 8:  # movi.n
                value = (t & 7) << 4 | b1 >> 4
                constants[b1 & 15] = value - 128 if value >= 96 else value
            elif op0 == 12:  # beqz.n, bnez.n
                later.setdefault(at + 4 + ((t & 3) << 4 | b1 >> 4), state)
            elif op0 == 13 and b1 >> 4 == 15 and t == 0:  # ret.n
                at += 2
                state = None
                continue
        else:
            length = 3
            if i + 3 > len(code):
                return None
            b2 = code[i + 2]
            r = b1 >> 4
            s = b1 & 15
            if op0 == 2:
                if r == 12 and t == 1 and s == 1:  # addi a1, a1
                    size -= _signed(b2, 8)
                elif r == 13 and t == 1 and s == 1:  # addmi a1, a1
                    size -= _signed(b2, 8) << 8
                elif r == 6 and t == 0 and s == 1:  # s32i a0, a1
                    saved = b2 * 4 - size
                elif r == 2 and t == 0 and s == 1 and b2 * 4 - size == saved:  # l32i a0, a1
                    saved = None
                elif r == 10:  # movi
                    constants[t] = _signed(s << 8 | b2, 12)
            elif op0 == 1:  # l32r
                target = ((at + 3) & ~3) + ((b1 << 2 | b2 << 10) - 0x40000)
                word = read(target & 0xFFFFFFFF, 4)
                if len(word) == 4:
                    constants[t] = _signed(int.from_bytes(word, "little"), 32)
            elif op0 == 0:
                if b2 in (0x80, 0xC0) and r == 1 and s == 1 and t in constants:  # add, sub a1, a1, at
                    size += constants[t] if b2 == 0xC0 else -constants[t]
                elif (b0 == 0x80 and b1 == 0 and b2 == 0) or (b0 == 0xA0 and b1 & 0xF0 == 0 and b2 == 0):  # ret, jx
                    at += 3
                    state = None
                    continue
            elif op0 == 6:
                n = t & 3
                if n == 0:  # j
                    offset = _signed((b0 | b1 << 8 | b2 << 16) >> 6, 18)
                    later.setdefault(at + 4 + offset, state)
                    at += 3
                    state = None
                    continue
                offset = _signed(b1 >> 4 | b2 << 4, 12) if n == 1 else _signed(b2, 8)
                later.setdefault(at + 4 + offset, state)
            elif op0 == 7:  # compare and branch
                later.setdefault(at + 4 + _signed(b2, 8), state)
        if not 0 <= size <= 0x10000:
            return None
        if size > established[0] or (size == established[0] and saved is not None):
            established = (size, saved)
        state = (size, saved)
        at += length
    return None  # `address` is not the start of an instruction


def _riscv(read: Reader, start: int, end: int, address: int) -> FrameRow | None:
    # (bytes that sp was lowered by, saved ra, s0 + this is the CFA or None, saved s0), distances from the CFA
    State = tuple[int, int | None, int | None, int | None]
    state: State | None = (0, None, None, None)
    established: State = (0, None, None, None)
    later: dict[int, State] = {}
    code = read(start, end - start)
    upper: dict[int, int] = {}
    at = start
    while at <= address:
        if state is None:
            state = later.get(at, established)
        elif at in later and later[at][0] > state[0]:
            state = later[at]
        if at == address:
            size, saved, frame, frame_saved = state
            return FrameRow(size if frame is None else frame, saved, None if frame is None else 8, frame_saved)
        i = at - start
        if i + 2 > len(code):
            return None
        half = code[i] | code[i + 1] << 8
        size, saved, frame, frame_saved = state
        stop = False
        if half & 3 != 3:
            length = 2
            if half & 0xEF83 == 0x6101:  # c.addi16sp
                offset = _signed((half >> 12 & 1) << 9 | (half >> 3 & 3) << 7 | (half >> 5 & 1) << 6 | (half >> 2 & 1) << 5 | (half >> 6 & 1) << 4, 10)
                size -= offset
            elif half & 0xEF83 == 0x0101:  # c.addi sp
                size -= _signed((half >> 12 & 1) << 5 | half >> 2 & 31, 6)
            elif half & 0xE003 == 0xC002:  # c.swsp
                offset = (half >> 7 & 3) << 6 | (half >> 9 & 15) << 2
                if half >> 2 & 31 == 1:
                    saved = offset - size
                elif half >> 2 & 31 == 8:
                    frame_saved = offset - size
            elif half & 0xE003 == 0x4002:  # c.lwsp
                offset = (half >> 2 & 3) << 6 | (half >> 12 & 1) << 5 | (half >> 4 & 7) << 2
                if half >> 7 & 31 == 1 and offset - size == saved:
                    saved = None
                elif half >> 7 & 31 == 8 and offset - size == frame_saved:
                    frame_saved = None
                    frame = None
            elif half & 0xE003 == 0x0000 and half >> 2 & 7 == 0 and half & 0x1FE0:  # c.addi4spn s0
                offset = (half >> 7 & 15) << 6 | (half >> 11 & 3) << 4 | (half >> 5 & 1) << 3 | (half >> 6 & 1) << 2
                if offset == size:
                    frame = 0
            elif half & 0xE003 == 0x6001:  # c.lui
                upper[half >> 7 & 31] = _signed((half >> 12 & 1) << 17 | (half >> 2 & 31) << 12, 18)
            elif half & 0xE003 == 0xA001:  # c.j
                later.setdefault(at + _c_jump(half), state)
                stop = True
            elif half & 0xF07F == 0x8002 and half >> 7 & 31:  # c.jr, ret
                stop = True
            elif half & 0xC003 == 0xC001:  # c.beqz, c.bnez
                offset = _signed((half >> 12 & 1) << 8 | (half >> 5 & 3) << 6 | (half >> 2 & 1) << 5 | (half >> 10 & 3) << 3 | (half >> 3 & 3) << 1, 9)
                later.setdefault(at + offset, state)
        else:
            length = 4
            if i + 4 > len(code):
                return None
            word = half | code[i + 2] << 16 | code[i + 3] << 24
            opcode = word & 0x7F
            rd = word >> 7 & 31
            rs1 = word >> 15 & 31
            imm = _signed(word >> 20, 12)
            if word & 0x707F == 0x13 and rd == 2 and rs1 == 2:  # addi sp, sp
                size -= imm
            elif word & 0x707F == 0x13 and rd == 8 and rs1 == 2:  # addi s0, sp
                frame = 0 if imm == size else frame
            elif word & 0x707F == 0x13 and rd == rs1 and rd in upper:
                upper[rd] += imm
            elif opcode == 0x37:  # lui
                upper[rd] = _signed(word & 0xFFFFF000, 32)
            elif word & 0xFE00707F == 0x33 and rd == 2 and 2 in (rs1, word >> 20 & 31):  # add sp, sp, register
                other = word >> 20 & 31 if rs1 == 2 else rs1
                if other in upper:
                    size -= upper[other]
            elif word & 0x707F == 0x2023 and rs1 == 2:  # sw to the stack
                offset = _signed((word >> 25) << 5 | rd, 12)
                if word >> 20 & 31 == 1:
                    saved = offset - size
                elif word >> 20 & 31 == 8:
                    frame_saved = offset - size
            elif word & 0x707F == 0x2003 and rs1 == 2 and rd in (1, 8):  # lw from the stack
                if rd == 1 and imm - size == saved:
                    saved = None
                elif rd == 8 and imm - size == frame_saved:
                    frame_saved = None
                    frame = None
            elif opcode == 0x63:  # branches
                offset = _signed((word >> 31) << 12 | (word >> 7 & 1) << 11 | (word >> 25 & 63) << 5 | (word >> 8 & 15) << 1, 13)
                later.setdefault(at + offset, state)
            elif opcode == 0x6F and rd == 0:  # j
                offset = _signed((word >> 31) << 20 | (word >> 12 & 0xFF) << 12 | (word >> 20 & 1) << 11 | (word >> 21 & 0x3FF) << 1, 21)
                later.setdefault(at + offset, state)
                stop = True
            elif word & 0x707F == 0x67 and rd == 0:  # jr, ret
                stop = True
        if not 0 <= size <= 0x10000:
            return None
        at += length
        if stop:
            state = None
            continue
        state = (size, saved, frame, frame_saved)
        if size > established[0] or (size == established[0] and saved is not None):
            established = state
    return None


def _c_jump(half: int) -> int:
    return _signed(
        (half >> 12 & 1) << 11 | (half >> 11 & 1) << 4 | (half >> 9 & 3) << 8 | (half >> 8 & 1) << 10
        | (half >> 7 & 1) << 6 | (half >> 6 & 1) << 7 | (half >> 3 & 7) << 1 | (half >> 2 & 1) << 5,
        12,
    )  # fmt: skip
